package setup

import (
	"fmt"
	"slices"
)

// mode says how the agent would work with the daemon as o has it, and why.
func (d Daemon) mode(o Options) (Mode, string) {
	m, why := d.suits(o)
	if o.Kind == string(Gateway) && m != Gateway && m != NoMode {
		return Gateway, fmt.Sprintf("daemon.kind: gateway: the agent speaks NTS in front of %s, at a UDP port of its own", d.Program)
	}
	return m, why
}

func (d Daemon) suits(o Options) (Mode, string) {
	v := d.Program
	if d.Version != "" {
		v += " " + d.Version
	}
	switch d.Kind {
	case Chrony:
		switch {
		case older(d.Version, 4, 0):
			return Gateway, v + " has no NTS; it came with 4.0"
		case d.noNTS:
			return Gateway, v + " was built without NTS"
		case o.Certificate:
			return Certificate, "chronyd exchanges keys itself, with a certificate that the agent renews (daemon.mode: certificate)"
		}
		return Lead, "chronyd takes cookie keys from outside (ntskeys and its rekey command)"
	case NTPsec:
		switch {
		case older(d.Version, 1, 2):
			return Gateway, v + " has no NTS of RFC 8915; it came with 1.2.0"
		case o.Certificate:
			return Certificate, "ntpd exchanges keys itself, with a certificate that the agent renews (daemon.mode: certificate)"
		}
		return Follow, "ntpd makes its keys itself and the agent reads them; it keeps TCP port 4460, so clients need an nftables redirect to the agent"
	case NTPDRS:
		if o.Certificate {
			return Certificate, "ntp-daemon exchanges keys itself, with a certificate that the agent renews (daemon.mode: certificate)"
		}
		if older(d.Version, 1, 1) {
			return Gateway, v + " keeps its keys in a way the agent does not read; 1.1 changed that"
		}
		return Follow, "ntp-daemon makes its keys itself and the agent reads them; it needs no key exchange of its own"
	case Other:
		return Gateway, fmt.Sprintf("the agent speaks NTS in front of %s, at a UDP port of its own", d.Program)
	case OpenNTPD, NTPD, Busybox:
		return Gateway, fmt.Sprintf("%s has no NTS: the agent speaks it in front, at a UDP port of its own", d.Kind.called())
	}
	return NoMode, fmt.Sprintf("%s is a client and serves nobody", d.Kind)
}

// obstacles are what keeps the agent from working with the daemon.
func (d Daemon) obstacles(t tree, ports Ports, o Options) []Finding {
	out := []Finding{}
	add := func(fix, format string, args ...any) { out = append(out, Finding{fmt.Sprintf(format, args...), fix}) }
	if d.Kind == Timesyncd {
		add("install chrony", "systemd-timesyncd serves no time")
		return out
	}
	if d.absent {
		add("install it, or write daemon.kind: auto", "daemon.kind is %s, and %s is neither running nor installed", o.Kind, d.Program)
	} else if d.PID == 0 {
		add("start it", "%s is installed but does not run", d.Program)
	}
	if d.PID != 0 && !d.Serves {
		add("see that its configuration lets it serve, then restart it", "%s runs, but nothing of it listens at UDP port %d", d.Program, ports.NTP)
	}
	if o.names() != None && d.AgentKind() != o.Kind && !slices.Contains([]Kind{NTPD, OpenNTPD}, d.Kind) {
		add("write daemon.kind: gateway, or auto", "daemon.kind is %s: %s", o.Kind, d.Why)
	}
	if d.Kind == NTPsec && d.Mode == Follow && t.first("/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft") == "" {
		add("install nftables and redirect TCP port 4460 to that of ke.listen, or write daemon: {kind: ntpsec, mode: certificate}",
			"ntpd of NTPsec keeps TCP port 4460, and there is no nftables to lead clients to the agent")
	}
	if h := d.holds; h.pid != 0 {
		out = append(out, d.keTaken(h, ports.KE)...)
	}
	switch d.Kind {
	case Chrony, NTPsec, NTPDRS, OpenNTPD, NTPD:
		p, err := PlanFor(Host{Root: t.root}, d, o)
		if err != nil {
			add("put that right, then look again", "%v", err)
			break
		}
		if len(p.Changes) > 0 {
			add("ntsagent daemon apply   (shows the diff first)", "%s is not set up for the agent yet: %s", d.Program, p.Summary())
		}
		out = append(out, p.Warnings...)
	}
	return out
}

// keTaken is about who answers where the agent should.
func (d Daemon) keTaken(h process, port uint16) []Finding {
	prog, known := h.program()
	known = known && h.own
	switch {
	case h.comm == "ntsagent":
		return nil
	case known && prog.name == "chronyd" && d.Mode == Lead:
		return []Finding{{fmt.Sprintf("TCP port %d: %s exchanges keys there itself", port, h), "ntsagent daemon apply moves it, then restart chronyd"}}
	case known && d.Mode == Certificate:
		return nil
	case known && d.Kind == NTPsec && d.Mode != Gateway:
		return nil // what the agent makes of that is up to ke.listen and daemon.mode
	}
	return []Finding{{fmt.Sprintf("TCP port %d: %s answers there", port, h), "stop it, or set ke.listen to another port"}}
}
