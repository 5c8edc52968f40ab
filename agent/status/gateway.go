package status

import (
	"fmt"
	"math"
	"strings"
	"sync"
	"time"
)

// Gateway is our own NTP server in front of a daemon without NTS.
type Gateway struct {
	Mode      string `json:"mode"`      // mirror, relay
	Condition string `json:"condition"` // good, relay wanted, unsynchronised; uncertain and stale: it is silent
	// OffsetUS is how far the time the daemon serves is ahead of this host's clock,
	// in µs, and UncertaintyUS the bound on the error of that.
	OffsetUS      float64           `json:"offset_us"`
	UncertaintyUS float64           `json:"uncertainty_us"`
	Served        uint64            `json:"served"`       // with time, under NTS, since the start
	ServedPlain   uint64            `json:"served_plain"` // with time, without NTS
	NAK           uint64            `json:"nak"`          // NTS NAKs: the client needs a new key exchange
	Silent        map[string]uint64 `json:"silent"`       // requests without an answer, by reason
	Asked         uint64            `json:"asked"`        // queries to the daemon for the sake of requests
	RequestsDay   uint64            `json:"requests_24h"`
	SilentDay     uint64            `json:"silent_24h"`
	// FarSince is since when the time served is more than a second off this host's clock; zero = it is not.
	FarSince time.Time `json:"far_since,omitzero"`
	// JumpUS is by how much, in µs and more than a second, the time served has jumped against this host's
	// clock, at JumpedAt; left out an hour after the last time.
	JumpUS   float64   `json:"jump_us,omitempty"`
	JumpedAt time.Time `json:"jumped_at,omitzero"`
}

// mute says that the gateway answers nobody for want of a time to give.
func (g *Gateway) mute() bool {
	return g != nil && (g.Condition == "uncertain" || g.Condition == "stale")
}

// judge says why someone should look at the time of the daemon at that address,
// "" when nobody needs to.
func (g *Gateway) judge(address string, now time.Time) string {
	switch {
	case g == nil:
	case !g.FarSince.IsZero():
		side := "ahead of"
		if g.OffsetUS < 0 {
			side = "behind"
		}
		return fmt.Sprintf("the NTP server at %s has been %s %s this host's clock for %s, and the gateway serves that: see that no other program "+
			"has taken the port (`ss -lunp` names who holds it) and look at the server's sources; if this host's clock is the wrong one, "+
			"nobody sets it (chronyd -x does not)", address, micros(math.Abs(g.OffsetUS), "%.*f"), side, Span(now.Sub(g.FarSince)))
	case !g.JumpedAt.IsZero():
		return fmt.Sprintf("the NTP server at %s jumped by %s against this host's clock %s ago: look at its log, whether another program had taken "+
			"the port, and whether somebody set this host's clock; said for an hour", address, micros(g.JumpUS, "%+.*f"), Span(now.Sub(g.JumpedAt)))
	}
	return ""
}

// text is what follows the daemon's address on its line.
func (g *Gateway) text(d Document) string {
	where := "closed"
	if at := open(d.Listeners, ServiceNTP); len(at) > 0 {
		where = "on " + strings.Join(at, " ")
	}
	text := fmt.Sprintf("gateway for %s %s", d.Daemon.Address, where)
	if !d.Daemon.Known {
		return text + "   no answer yet"
	}
	text += fmt.Sprintf("   stratum %d, offset %s ± %s, %s", d.Daemon.Stratum,
		micros(g.OffsetUS, "%+.*f"), micros(g.UncertaintyUS, "%.*f"), g.Condition)
	if g.Mode == "relay" {
		text += ", asked for each request"
	}
	return text
}

// micros prints microseconds in the unit that fits.
func micros(us float64, format string) string {
	for _, u := range []struct {
		size float64
		name string
	}{{1e6, "s"}, {1e3, "ms"}} {
		if math.Abs(us) >= u.size {
			return fmt.Sprintf(format+" "+u.name, 2, us/u.size)
		}
	}
	return fmt.Sprintf(format+" µs", 0, us)
}

// traffic tells of the requests of the last day.
func (g *Gateway) traffic(d Document) string {
	text := fmt.Sprintf("%s requests/%s", grouped(g.RequestsDay), window(d))
	if g.SilentDay > 0 {
		text += fmt.Sprintf("   %.1f%% without an answer", 100*float64(g.SilentDay)/float64(g.RequestsDay))
	}
	if g.NAK > 0 {
		text += fmt.Sprintf("   %s NAK in all", grouped(g.NAK))
	}
	return text
}

// window is how long the counters of a day have counted.
func window(d Document) string {
	if up := d.Time.Sub(d.Agent.Started); up < 24*time.Hour {
		return Span(up)
	}
	return "24h"
}

// open lists where a service listens.
func open(ls []Listener, service string) (out []string) {
	for _, l := range ls {
		if l.Service == service && l.Open {
			out = append(out, l.Address)
		}
	}
	return out
}

// Daily tells how much a total that only grows has grown over the last day. The
// zero value is ready, for a total that begins at 0. It is safe for concurrent use.
type Daily struct {
	mu    sync.Mutex
	marks []mark // oldest first
}

// mark is the total when an hour was first seen.
type mark struct {
	hour  int64 // since the epoch
	total uint64
}

// Day takes in the total now and tells what of it came within the last day. It
// wants to be called once an hour at least.
func (d *Daily) Day(now time.Time, total uint64) uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	hour := now.Unix() / 3600
	if len(d.marks) == 0 {
		d.marks = []mark{{hour: hour}}
	}
	if last := d.marks[len(d.marks)-1]; hour != last.hour {
		d.marks = append(d.marks, mark{hour, total})
	}
	for len(d.marks) > hours {
		d.marks = d.marks[1:]
	}
	for len(d.marks) > 1 && hour-d.marks[0].hour >= hours {
		d.marks = d.marks[1:]
	}
	return total - d.marks[0].total
}
