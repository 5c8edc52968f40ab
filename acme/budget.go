package acme

import (
	"crypto/x509"
	"slices"
	"time"

	"ntsagent/acme/store"
)

// What public CAs allow one account and one name, as Let's Encrypt counts it. The agent keeps its own count, on disk, and stays
// below: a limit that is hit costs a week, and no error of the CA says how much is left.
const (
	weekBudget = 5 // certificates for exactly the same names
	week       = 7 * 24 * time.Hour
	hourBudget = 5 // failed validations
	hour       = time.Hour

	// validationGap is the wait after a failed validation: five in an hour are never reached.
	validationGap = 12 * time.Minute

	// budgetSlack keeps the agent off the very edge of a limit: the CA's clock is not ours.
	budgetSlack = 2 * time.Minute
)

// within gives those of times that still count at now, oldest first. One of the future was written under a wrong clock; it
// counts as made now, the longest it can.
func within(times []time.Time, now time.Time, span time.Duration) []time.Time {
	var out []time.Time
	for _, t := range times {
		if t.After(now) {
			t = now
		}
		if now.Sub(t) < span+budgetSlack {
			out = append(out, t)
		}
	}
	slices.SortFunc(out, time.Time.Compare)
	return out
}

// perWeek is how many certificates a CA makes for the same name in a week. One whose certificates live for a day or an hour,
// as those of private CAs do, must make more than a public one: as many as renewals take, and half as many again.
func perWeek(r store.Renewal) int {
	from := r.Origin
	if from.Life <= 0 || from.Directory == "" || from.Directory != r.Directory {
		return weekBudget
	}
	return max(weekBudget, int(3*week/from.Life))
}

// weekFree is when one more certificate keeps within most a week, issued being those of a week; zero = at once.
func weekFree(issued []time.Time, most int) time.Time {
	if len(issued) < most {
		return time.Time{}
	}
	return issued[len(issued)-most].Add(week + budgetSlack)
}

// allowed is the earliest time at which one more order keeps within what CAs allow, and why it is not now. The last certificate
// of a week is kept for a name that is late, or for an operator's wish (forced), which need not wait for the gap either.
func allowed(now time.Time, leaf *x509.Certificate, r store.Renewal, forced bool) (at time.Time, why string) {
	issued, most := within(r.Issued, now, week), perWeek(r)
	at = weekFree(issued, most)
	if from := lateFrom(inForce(leaf, r)); !forced && from.After(now) {
		at = later(at, from)
		if free := weekFree(issued, most-1); free.Before(at) {
			at = free
		}
	}
	if !at.IsZero() {
		why = "the certificates that a CA makes for the same name in a week are used up"
	}
	failed := within(r.Validations, now, hour)
	if len(failed) >= hourBudget {
		if free := failed[len(failed)-hourBudget].Add(hour + budgetSlack); free.After(at) {
			at, why = free, "the validations that may fail in an hour are used up"
		}
	}
	// A first order that was only interrupted need not be waited for, nor what failed on the way to a success.
	n := len(failed)
	if n > 0 && !failed[n-1].After(r.LastSuccess) {
		n = 0
	}
	if n > 1 && !forced || n == 1 && !forced && r.Failures > 0 {
		if free := failed[n-1].Add(validationGap); free.After(at) {
			at, why = free, "a validation has failed lately"
		}
	}
	return at, why
}

const hintBudget = "nothing to do but wait: a CA counts orders that it refuses, too"

// barred is what no wish lifts: until when the CA has asked us to wait, or allows no more orders, and why.
func barred(now time.Time, leaf *x509.Certificate, r store.Renewal, wished bool) (at time.Time, why string) {
	at, why = allowed(now, leaf, r, wished)
	if asked := r.RetryAfter; asked.After(at) && asked.Sub(now) < maxWait {
		at, why = asked, "the CA has asked to wait"
		if l := r.Limit; asked.After(now) && !l.Until.Before(asked) { // as the condition tells it
			at, why = l.Until, usedUp(l)
		}
	}
	return at, why
}

// mayFail is how many validations may fail in an order that goes out now: the second challenge is tried only while enough of
// the hour's are left for the next order.
func mayFail(now time.Time, r store.Renewal) int {
	return max(1, 3-len(within(r.Validations, now, hour)))
}

// spent is r with n validations failed at now.
func spent(now time.Time, r store.Renewal, n int) store.Renewal {
	r.Validations = counted(r.Validations, now, min(n, hourBudget))
	return r
}

// signed is r after the CA was asked to sign at now.
func signed(now time.Time, r store.Renewal) store.Renewal {
	r.Issued = counted(r.Issued, now, 1)
	return r
}

// counted is times with now n times more. What is forgotten goes by number, never by age: a clock that is ahead for one order
// would make all of them old.
func counted(times []time.Time, now time.Time, n int) []time.Time {
	times = slices.Clone(times)
	for range n {
		times = append(times, now)
	}
	return times[max(0, len(times)-store.MaxTimes):]
}
