package agent

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"ntsagent/agent/config"
	"ntsagent/agent/setup"
)

// choice is what daemon.kind: auto has turned out to be.
type choice struct {
	addr  netip.AddrPort // daemon.address, for which it was made
	kind  string
	why   string
	found bool // a server runs; else the kind is a guess, to be made again at a reload
}

// detectWithin bounds looking for the daemon.
const detectWithin = 10 * time.Second

// resolve replaces daemon.kind: auto by what is found on the host. What was found
// before stays: the daemon may be down at the moment. The choice is nil when the
// configuration names a kind.
func (a *agent) resolve(ctx context.Context, cfg *config.Config, before *choice) (*config.Config, *choice, error) {
	if cfg.Daemon.Kind != config.KindAuto {
		return cfg, nil, nil
	}
	c := before
	if c == nil || !c.found || c.addr != cfg.Daemon.Address {
		h := a.Host
		if h.Root == "" {
			h.Root, h.Proc = "/", "/proc"
		}
		c = choose(ctx, h, cfg.Daemon.Address)
		c.addr = cfg.Daemon.Address
		if c.found {
			a.Log.Info("daemon found", "daemon.kind", c.kind, "why", c.why)
		} else {
			a.Log.Warn("daemon not found", "taken_for", c.kind, "why", c.why, "hint", "write daemon.kind, or reload when the NTP server runs")
		}
	}
	next, err := cfg.WithKind(a.ConfigPath, c.kind)
	if err != nil {
		return nil, nil, fmt.Errorf("daemon.kind: auto is %s here: %w", c.kind, err) // why is in the log
	}
	return next, c, nil
}

// choose finds out which kind of daemon answers at addr. Without one it is chrony.
func choose(ctx context.Context, h setup.Host, addr netip.AddrPort) *choice {
	if !ours(addr.Addr()) {
		return &choice{kind: config.KindChrony, why: fmt.Sprintf("daemon.address %s is not of this host, so what runs here tells nothing", addr)}
	}
	ctx, cancel := context.WithTimeout(ctx, detectWithin)
	defer cancel()
	ports, o := setup.Ports{NTP: addr.Port(), KE: 4460}, setup.Options{Address: addr}
	d, err := setup.Detect(ctx, h, ports, o)
	if err == nil {
		return chosen(d, addr.Port())
	}
	// Others' processes are hidden from us: what is installed can be seen still.
	h.Proc = ""
	if d, blind := setup.Detect(ctx, h, ports, o); blind == nil {
		c := chosen(d, addr.Port())
		c.why += "; " + err.Error()
		return c
	}
	return &choice{kind: config.KindChrony, why: err.Error()}
}

// chosen is the kind for what was found.
func chosen(d setup.Daemon, port uint16) *choice {
	named := strings.TrimSpace(fmt.Sprintf("%s %s", d.Program, d.Version))
	var unseen []string // obstacles at the port tell what was found there
	for _, f := range d.InWay {
		if strings.HasPrefix(f.What, fmt.Sprintf("UDP port %d", port)) {
			unseen = append(unseen, f.What)
		}
	}
	because := ""
	if d.Mode == setup.Gateway { // which says what the daemon lacks; else the kind says all
		because = "; " + d.Why
	}
	switch {
	case d.Stranger != "":
		return &choice{kind: config.KindGateway, why: fmt.Sprintf("%s holds UDP port %d, which is no daemon with NTS that we know", d.Stranger, port), found: true}
	case d.Kind == setup.None:
		why := "no NTP server runs here, and none that we know is installed"
		return &choice{kind: config.KindChrony, why: strings.Join(append([]string{why}, unseen...), "; ")}
	case d.Kind == setup.Timesyncd:
		return &choice{kind: config.KindChrony, why: "there is only systemd-timesyncd, which serves no time"}
	case d.PID == 0:
		return &choice{kind: d.AgentKind(), why: strings.Join(append([]string{named + " is installed but does not run"}, unseen...), "; ")}
	case d.Assumed:
		return &choice{kind: d.AgentKind(), why: fmt.Sprintf("%s (pid %d) runs and somebody holds UDP port %d, who is not shown to this user%s", named, d.PID, port, because), found: true}
	case !d.Serves:
		return &choice{kind: d.AgentKind(), why: fmt.Sprintf("%s (pid %d) runs, though not at UDP port %d", named, d.PID, port)}
	}
	return &choice{kind: d.AgentKind(), why: fmt.Sprintf("%s (pid %d) holds UDP port %d%s", named, d.PID, port, because), found: true}
}

// ours tells whether an address is one of this host.
func ours(addr netip.Addr) bool {
	if addr.IsLoopback() {
		return true
	}
	all, err := net.InterfaceAddrs()
	if err != nil {
		return true // then /proc has to tell
	}
	return slices.ContainsFunc(all, func(a net.Addr) bool {
		p, err := netip.ParsePrefix(a.String())
		return err == nil && p.Addr() == addr.Unmap().WithZone("")
	})
}
