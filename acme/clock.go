package acme

import (
	"crypto/x509"
	"slices"
	"syscall"
	"time"

	"ntsagent/acme/store"
)

const (
	clockSlack = 5 * time.Minute
	bootDoubt  = 10 * time.Minute // how long after its start the agent rather doubts a clock that nobody has set than believe a certificate is over or renew it
	bigStep    = time.Hour
	goodEvery  = time.Hour // how often the time is noted while it is known to be right
)

// Synchronized tells whether the kernel believes that something keeps its clock right. It is false where nobody tells the kernel
// (chronyd does with rtcsync only) and where the agent may not ask, so that false means nothing.
func Synchronized() bool {
	const unsynchronized = 0x40 // STA_UNSYNC of adjtimex(2)
	var t syscall.Timex
	state, err := syscall.Adjtimex(&t)
	return err == nil && state != 5 && t.Status&unsynchronized == 0 // 5 = TIME_ERROR
}

// doubt says why the clock cannot be believed, "" when nothing speaks against it. A time server must not trust its own clock at
// boot: before it is set, every certificate looks wrong. newest is the stored certificate, in service or not; up is for how long
// the agent has run. That the clock is not synchronized is no reason by itself.
func doubt(now, built time.Time, synchronized bool, up time.Duration, newest *x509.Certificate, r store.Renewal) string {
	before := func(t time.Time) bool { return now.Before(t.Add(-clockSlack)) }
	switch {
	case before(built):
		return "it is before " + minute(built) + ", when this agent was built"
	case newest != nil && before(newest.NotBefore):
		return "it is before " + minute(newest.NotBefore) + ", when the stored certificate begins"
	case !synchronized && before(r.LastGood):
		return "it is before " + minute(r.LastGood) + ", when the clock was last known to be right"
	case !synchronized && newest != nil && now.After(newest.NotAfter) && up < bootDoubt:
		return "the stored certificate seems over, and nothing has set the clock since the start"
	}
	return ""
}

// patience is until when a renewal waits for somebody to set the clock, zero when it need not: CAs and certificates are judged by
// it. Where nobody tells the kernel that it is right it goes on by itself. What has little time does not wait, nor does a first
// certificate: without one nobody is served.
func patience(now, started time.Time, synchronized bool, leaf *x509.Certificate, r store.Renewal) time.Time {
	until := started.Add(bootDoubt)
	if synchronized || !until.After(now) || late(until, inForce(leaf, r)) {
		return time.Time{}
	}
	return until
}

// A reading is what both clocks of the machine say at one moment.
type reading struct {
	wall time.Time     // without what package time knows of the other one
	run  time.Duration // of the monotonic clock, from any beginning; it stands still while the machine sleeps
}

// readFrom is a reading with the run from began on, which is of this process.
func readFrom(began time.Time) reading {
	now := time.Now()
	return reading{now.Round(0), now.Sub(began)}
}

// stepped is by how much the wall clock went on more than the monotonic clock did between two readings: it was set, or the
// machine slept.
func stepped(before, after reading) time.Duration {
	return after.wall.Sub(before.wall) - (after.run - before.run)
}

// afterStepBack is r when the clock went back by d to now: what lies ahead was written by a clock that was as far ahead.
func afterStepBack(now time.Time, r store.Renewal, d time.Duration) store.Renewal {
	move := func(t time.Time) time.Time {
		if t.After(now) {
			return t.Add(-d)
		}
		return t
	}
	list := func(times []time.Time) []time.Time {
		var out []time.Time
		for _, t := range times {
			out = append(out, move(t))
		}
		return out
	}
	for _, t := range []*time.Time{&r.FirstFailure, &r.LastFailure, &r.NextAttempt, &r.RetryAfter, &r.LastSuccess, &r.Window.AskAt, &r.LastGood} {
		*t = move(*t)
	}
	r.Issued, r.Validations = list(r.Issued), list(r.Validations)
	if r.Other != nil {
		other := afterStepBack(now, *r.Other, d)
		r.Other = &other
	}
	r.Left = slices.Clone(r.Left)
	for i := range r.Left {
		r.Left[i] = afterStepBack(now, r.Left[i], d)
	}
	return r
}
