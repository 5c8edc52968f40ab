package setup

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
)

// names is the daemon that the configuration names; None = it names none.
func (o Options) names() Kind {
	if k := Kind(o.Kind); k != "auto" && o.Kind != string(Gateway) {
		return k
	}
	return None
}

// AgentKind is the value of daemon.kind for d; "" = there is none.
func (d Daemon) AgentKind() string {
	switch d.Mode {
	case Gateway:
		return string(Gateway)
	case Lead, Follow, Certificate:
		return string(d.Kind)
	}
	return ""
}

// asWritten replaces what was found by what the configuration names: the daemon of
// that kind, with what was found in its way, or behind a gateway whatever serves.
func (h Host) asWritten(ctx context.Context, found Daemon, all []process, ntp []uint64, o Options) Daemon {
	if found.Stranger != "" && o.Kind == string(Gateway) {
		p := holding(all, ntp)[0]
		return Daemon{Kind: Other, Program: p.comm, PID: p.pid, Unit: p.unit, Serves: true}
	}
	kind := o.names()
	if kind == None || found.Kind == kind {
		return found
	}
	d, ok := h.running(ctx, all, kind)
	if !ok {
		d = Named(h, kind)
		d.absent = h.files().first("/usr/sbin/"+d.Program, "/usr/bin/"+d.Program) == ""
	}
	if found.Serves {
		d.InWay = append(d.InWay, Finding{fmt.Sprintf("UDP port %d: %s (pid %d) answers at %s, and daemon.kind is %s", o.Address.Port(), found.Program, found.PID, o.Address.Addr(), kind),
			"set daemon.address to where that one answers, or write daemon.kind: auto"})
	} else {
		d.InWay = append(d.InWay, found.InWay...)
	}
	return d
}

// running is a daemon of that kind that runs, wherever it listens.
func (h Host) running(ctx context.Context, all []process, kind Kind) (Daemon, bool) {
	for _, p := range all {
		if prog, ok := p.program(); !ok || !slices.Contains(prog.kinds, kind) {
			continue
		}
		if d, ok := h.known(ctx, []process{p}, all); ok && d.Kind == kind {
			return d, true
		}
	}
	return Daemon{}, false
}

// reached are those of the sockets that get what is sent to addr, as Linux chooses:
// one at that very address before one at any. If none does it is all of them.
func reached(ntp []socket, addr netip.Addr) []uint64 {
	addr = addr.Unmap().WithZone("")
	tier := func(s socket) int {
		switch at := s.local.Addr().Unmap(); {
		case at == addr:
			return 0
		case at.IsUnspecified() && at.Is4() == addr.Is4():
			return 1
		case at.IsUnspecified() && addr.Is4(): // of both families, unless it says otherwise
			return 2
		}
		return 3
	}
	best := 3
	for _, s := range ntp {
		best = min(best, tier(s))
	}
	var inodes []uint64
	for _, s := range ntp {
		if tier(s) == best {
			inodes = append(inodes, s.inode)
		}
	}
	return inodes
}
