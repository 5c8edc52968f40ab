package agent

import (
	"context"
	"time"

	"ntsagent/ntske/gateway"
)

const (
	// farOff from the clock of this host, a time is told of: two clocks may be a leap second and a little
	// apart and both be kept well, what is more is somebody's mistake or somebody else's clock.
	farOff = 1100 * time.Millisecond
	// nearAgain is where that ends. It is less, so that a clock about there does not come and go.
	nearAgain = time.Second / 2
	// jumpTold is how long a jump is told of: false time that is over has still been served.
	jumpTold = time.Hour
)

// drift is what is remembered of the time that the daemon behind the gateway
// serves. Plain NTP proves nothing of who answers: whoever gets hold of the
// daemon's port can have any time served under NTS, and this is where it shows.
type drift struct {
	known    bool
	offset   time.Duration // to the clock of this host, when time was last given
	farSince time.Time     // zero: what is served is not far off
	jump     time.Duration // the last one
	jumpedAt time.Time     // of that; zero: there was none for a while
}

// look takes in what is known of the daemon now. Time that is not served leads
// nobody astray; while it is only uncertain, all stays as it was.
func (d drift) look(r gateway.Report, now time.Time) drift {
	if !d.jumpedAt.IsZero() && now.Sub(d.jumpedAt) > jumpTold {
		d.jump, d.jumpedAt = 0, time.Time{}
	}
	switch r.Condition {
	case gateway.Stale, gateway.Unsynchronised:
		d.farSince = time.Time{}
		return d
	case gateway.Uncertain:
		return d
	}
	if jump := r.Offset - d.offset; d.known && jump.Abs() > farOff {
		d.jump, d.jumpedAt = jump, now
	}
	switch off := r.Offset.Abs(); {
	case off > farOff:
		if d.farSince.IsZero() {
			d.farSince = now
		}
	case off < nearAgain:
		d.farSince = time.Time{}
	}
	d.known, d.offset = true, r.Offset
	return d
}

// watch looks at the time of the daemon, more often than it is polled, until ctx
// is done. Only changes are logged.
func (b *behind) watch(ctx context.Context) error {
	for {
		var was drift
		if last := b.drift.Load(); last != nil {
			was = *last
		}
		is := was.look(b.Report(), time.Now())
		b.drift.Store(&is)
		if is.jumpedAt.After(was.jumpedAt) {
			b.log.Warn("the NTP server's time has jumped against this host's clock", "daemon", b.addr, "by", is.jump, "offset", is.offset)
		}
		switch far, before := !is.farSince.IsZero(), !was.farSince.IsZero(); {
		case far && !before:
			b.log.Warn("the NTP server's time is far off this host's clock", "daemon", b.addr, "offset", is.offset)
		case before && !far:
			b.log.Info("the NTP server's time is not served far off this host's clock any more", "daemon", b.addr)
		}
		if !pause(ctx, 250*time.Millisecond) {
			return nil
		}
	}
}
