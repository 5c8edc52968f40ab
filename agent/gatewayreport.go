package agent

import (
	"fmt"
	"time"

	"ntsagent/agent/status"
	"ntsagent/ntske/gateway"
	"ntsagent/ntske/keyring"
)

// help says why the gateway does not answer its own agent.
func (g *gatewayPart) help() keyring.Help {
	port, daemon, r := g.port(), g.behind.addr, g.behind.Report()
	fault := r.Fault
	if fault == "" {
		fault = "no answer for a while"
	}
	var unseen string
	switch {
	case g.shut.Load() != nil:
		unseen = fmt.Sprintf("it does not listen at UDP port %d, see the listeners", port)
	case !r.Known:
		unseen = fmt.Sprintf("the NTP server at %s gives no time: %s; see that it runs, that it lets this host in, and that daemon.address is right", daemon, fault)
	case r.Condition == gateway.Stale || r.Fault != "":
		unseen = fmt.Sprintf("the NTP server at %s gives no time any more, so the gateway is silent: %s", daemon, fault)
	case r.Condition == gateway.Uncertain:
		unseen = fmt.Sprintf("the time of the NTP server at %s is not known to %s, so the gateway is silent: see that it answers without delay",
			daemon, gateway.MaxUncertainty)
	default:
		at := fmt.Sprintf("UDP port %d", port)
		if mute := g.mute.Load(); mute != nil {
			at = mute.String()
		}
		unseen = fmt.Sprintf("the gateway cannot be asked at %s from this host: see that no firewall drops that, and that the NTP server at %s does not limit our rate", at, daemon)
	}
	return keyring.Help{
		Unseen:  unseen,
		Refused: fmt.Sprintf("another program answers at UDP port %d of this host and cannot open our cookies: `ss -lunp` names it", port),
	}
}

// report fills in what is known of the daemon and of the requests.
func (g *gatewayPart) report(d *status.Daemon) {
	r := g.behind.Report()
	d.Known, d.Stratum, d.Synchronised = r.Known, int(r.Header.Stratum), r.Synchronised
	d.Seen, d.OffsetMS = time.Time{}, float64(r.Offset.Microseconds())/1000
	if r.Known {
		d.Seen = time.Now().Add(-r.Age)
	}
	d.Gateway = &status.Gateway{
		Mode: g.conf.Mode, Condition: r.Condition.String(), Silent: map[string]uint64{},
		OffsetUS: float64(r.Offset.Nanoseconds()) / 1000, UncertaintyUS: float64(r.Uncertainty.Nanoseconds()) / 1000,
	}
	if w := g.behind.drift.Load(); w != nil {
		d.Gateway.FarSince, d.Gateway.JumpedAt, d.Gateway.JumpUS = w.farSince, w.jumpedAt, float64(w.jump.Nanoseconds())/1000
	}
	for o, n := range g.counts() {
		switch {
		case o == gateway.Served:
			d.Gateway.Served += n
		case o == gateway.ServedPlain:
			d.Gateway.ServedPlain += n
		case o == gateway.Asked:
			d.Gateway.Asked += n
		case o.Silent():
			d.Gateway.Silent[o.String()] += n
		default:
			d.Gateway.NAK += n
		}
	}
}

// traffic24 is what came within a day.
type traffic24 struct{ all, silent status.Daily }

// day tells how many requests came and how many of them got no answer.
func (t *traffic24) day(g *gatewayPart, now time.Time) (requests, silent uint64) {
	var all, mute uint64
	for o, n := range g.counts() {
		if o == gateway.Unsent || o == gateway.Asked { // counted besides
			continue
		}
		all += n
		if o.Silent() {
			mute += n
		}
	}
	return t.all.Day(now, all), t.silent.Day(now, mute)
}

// listeners are the addresses of g, which may be nil.
func (g *gatewayPart) listeners() (out []status.Listener) {
	if g == nil {
		return nil
	}
	for _, at := range g.socks.Load().addresses() {
		out = append(out, status.Listener{Service: status.ServiceNTP, Address: at.String(), Open: true})
	}
	if why := g.shut.Load(); len(out) == 0 && why != nil {
		for _, at := range g.conf.Listen {
			out = append(out, status.Listener{Service: status.ServiceNTP, Address: at.String(), Reason: why.reasonAt(at)})
		}
	}
	return out
}
