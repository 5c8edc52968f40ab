package config

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"ntsagent/hostcheck"
)

// Host is what Warnings needs of the machine.
type Host struct {
	Unprivileged int          // the lowest port that any user may take
	Addrs        []netip.Addr // its own, those of loopback need not be among them
}

// portStart is what Linux has unless it is told otherwise.
const portStart = 1024

// ThisHost looks at the machine. What cannot be seen is taken for the usual.
func ThisHost() Host {
	h := Host{Unprivileged: portStart}
	if b, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start"); err == nil { // for IPv6, too
		if n, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
			h.Unprivileged = n
		}
	}
	all, _ := net.InterfaceAddrs()
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			h.Addrs = append(h.Addrs, p.Addr())
		}
	}
	return h
}

func (h Host) owns(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	return addr.IsLoopback() || slices.Contains(h.Addrs, addr)
}

// Warnings are what may be meant as it is but lets others in or keeps clients out,
// one line each, with what to do.
func (c *Config) Warnings(h Host) []string {
	if c.Daemon.Kind != KindGateway {
		return c.leftOut()
	}
	return append(c.openDoor(h), c.ledAstray(h)...)
}

// leftOut: chronyd and ntp-daemon read their certificate only when they start, so that one that is renewed never serves. ntpd
// looks at its file by itself.
func (c *Config) leftOut() (out []string) {
	if !c.Daemon.ServesKE() || c.Daemon.Kind == KindNTPsec {
		return nil
	}
	for i, e := range c.Certificate.Export {
		if e.Then == ThenNone {
			out = append(out, fmt.Sprintf("certificate.export[%d].then: %s reads its certificate only when it starts, and nobody restarts it for a new one; "+
				"write then: restart, unit: %s, or see to it yourself", i, servers[c.Daemon.Kind], units[c.Daemon.Kind]))
		}
	}
	return out
}

// openDoor: of daemons with NTS a stranger at the port proves nothing, for he cannot
// open the cookies. The gateway has plain NTP to go by.
func (c *Config) openDoor(h Host) []string {
	d := c.Daemon
	if int(d.Address.Port()) < h.Unprivileged || !h.owns(d.Address.Addr()) {
		return nil
	}
	return []string{fmt.Sprintf("daemon.address: any user of this host may answer at %s, for ports from %d on are free to all "+
		"(net.ipv4.ip_unprivileged_port_start), and the gateway serves the time it is told there; have the NTP server answer at port 123",
		d.Address, h.Unprivileged)}
}

// ledAstray: nobody but the gateway opens its cookies, and what is announced may
// lead clients elsewhere. That a firewall leads them back cannot be seen.
func (c *Config) ledAstray(h Host) (out []string) {
	ntp := c.KE.NTP
	addr, notAddr := netip.ParseAddr(ntp.Host)
	ours := ntp.Host == "" || notAddr == nil && h.owns(addr) ||
		slices.ContainsFunc(c.Names, func(n hostcheck.Name) bool { return strings.EqualFold(n.String(), ntp.Host) })
	if !ours {
		out = append(out, fmt.Sprintf("ke.ntp.host: clients are led to %s for the time, and nobody but the gateway here opens their cookies; "+
			"see that this is the same host, or remove the key", ntp.Host))
	}
	if g := c.Daemon.Gateway.Listen; ours && len(g) > 0 && ntp.Port != 0 && g[0].Port() != 0 && ntp.Port != g[0].Port() {
		out = append(out, fmt.Sprintf("ke.ntp.port: clients are led to UDP port %d, and the gateway listens at %d; see that a firewall leads them from "+
			"one to the other, or remove the key", ntp.Port, g[0].Port()))
	}
	return out
}
