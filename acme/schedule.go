package acme

import (
	"crypto/x509"
	"maps"
	"time"

	"ntsagent/acme/store"
)

const (
	// maxLateWait is what lateWait is at most.
	maxLateWait = 6 * time.Hour

	// What a server may make us wait: less would let it drive us in a circle, more would let it switch us off.
	minRetryAfter, maxRetryAfter = time.Minute, 24 * time.Hour

	// maxWait is longer than any wait that is ever chosen. A stored time farther off was written under a wrong clock.
	maxWait = 30 * time.Hour

	// interrupted is how soon to try again when the agent was stopped during an attempt.
	interrupted = time.Minute
)

// shortLife is below what a certificate counts as short-lived.
const shortLife = 10 * 24 * time.Hour

// RenewAt is when a certificate should be renewed at the latest: when a third of its life is left, or half if it lives for less
// than ten days. A CA's renewal information can bring an order forward, never put it off beyond this.
func RenewAt(leaf *x509.Certificate) time.Time {
	life := lifetime(leaf)
	if life < shortLife {
		return leaf.NotAfter.Add(-life / 2)
	}
	return leaf.NotAfter.Add(-life / 3)
}

// lifetime is for how long a certificate is made.
func lifetime(leaf *x509.Certificate) time.Duration { return leaf.NotAfter.Sub(leaf.NotBefore) }

// renewAt is RenewAt, or the point in the CA's window if that comes first.
func renewAt(leaf *x509.Certificate, r store.Renewal) time.Time {
	at := RenewAt(leaf)
	if w := r.Window; w.Certificate == certificateID(leaf) && !w.At.IsZero() && w.At.Before(at) {
		return w.At
	}
	return at
}

// renewWhy says why renewAt is when it is.
func renewWhy(leaf *x509.Certificate, r store.Renewal) string {
	w := r.Window
	asked := w.Certificate == certificateID(leaf) && !w.At.IsZero()
	switch {
	case asked && w.At.Before(RenewAt(leaf)):
		why := "in the CA's window, " + minute(w.Start) + " to " + minute(w.End)
		if w.Why != "" {
			why += ", see " + w.Why
		}
		return why
	case asked:
		return "no later, whatever the CA's window, " + minute(w.Start) + " to " + minute(w.End)
	case leaf.NotAfter.Sub(leaf.NotBefore) < shortLife:
		return "when half of its life is left"
	}
	return "when a third of its life is left"
}

// notDue is when leaf is to be renewed if that is yet to come, else zero.
func notDue(now time.Time, leaf *x509.Certificate, r store.Renewal) time.Time {
	if leaf = inForce(leaf, r); leaf == nil || !renewAt(leaf, r).After(now) {
		return time.Time{}
	}
	return renewAt(leaf, r)
}

// due tells when the next order may go out, given the certificate that is served (nil = none) and what the last attempts came
// to. A time that is not after now means: at once.
func due(now time.Time, leaf *x509.Certificate, r store.Renewal) time.Time {
	leaf = inForce(leaf, r)
	wait := r.NextAttempt
	if !r.LastFailure.IsZero() {
		// A wait that was chosen while there was plenty of time must not eat up what is left.
		if limit := later(lateFrom(leaf), r.LastFailure.Add(lateWait(leaf))); wait.After(limit) {
			wait = limit
		}
	}
	wait = later(wait, r.RetryAfter)
	if wait.Sub(now) > maxWait {
		wait = time.Time{}
	}
	if at, _ := allowed(now, leaf, r, false); at.After(wait) {
		wait = at
	}
	if leaf != nil && renewAt(leaf, r).After(wait) {
		return renewAt(leaf, r)
	}
	return wait
}

// step is what a Manager does next.
type step int

const (
	stepWait step = iota
	stepAsk       // for renewal information
	stepOrder
)

// next is the whole policy: what to do now and, of an order, whether it goes to the fallback CA; and if that is to wait, until
// when at most.
func next(now time.Time, leaf *x509.Certificate, r store.Renewal, p places) (do step, fallback bool, at time.Time) {
	at = due(now, leaf, r)
	if at.After(now) {
		at, fallback = afterTurning(now, at, leaf, r, p)
	}
	if !at.After(now) {
		return stepOrder, fallback, now
	}
	if p.know(now, leaf, r) {
		ask := askAt(now, leaf, r)
		if !ask.After(now) {
			return stepAsk, false, now
		}
		if ask.Before(at) {
			at = ask
		}
	}
	return stepWait, false, at
}

// lateFrom is when no more than a fifth of the certificate's life is left. No certificate is as late as can be.
func lateFrom(leaf *x509.Certificate) time.Time {
	if leaf == nil {
		return time.Time{}
	}
	return leaf.NotAfter.Add(-lifetime(leaf) / 5)
}

func late(now time.Time, leaf *x509.Certificate) bool { return !now.Before(lateFrom(leaf)) }

// lateWait bounds the wait between attempts from then on: some are left before a certificate that lives for a day is over.
func lateWait(leaf *x509.Certificate) time.Duration {
	if leaf == nil {
		return maxLateWait
	}
	return max(min(lifetime(leaf)/20, maxLateWait), validationGap)
}

// A curve is the wait after the first, second, third and any later failure in a row, before jitter.
type curve [4]time.Duration

var (
	// refused is for what the CA counts, and for what is unknown.
	refused = curve{time.Minute, 10 * time.Minute, 100 * time.Minute, 24 * time.Hour}
	// unreached is for a server that costs nothing to ask again.
	unreached = curve{time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour}
	// hopeless is for what the next order will not mend, a passing fault of the CA apart.
	hopeless = curve{time.Hour, 24 * time.Hour, 24 * time.Hour, 24 * time.Hour}
)

// curves has the classes that do not follow refused.
var curves = map[Class]curve{
	ClassNetwork: unreached, ClassClock: unreached,
	ClassMalformed: hopeless, ClassAccount: hopeless, ClassRejected: hopeless,
}

// backoff is the wait after the n-th failure of its class in a row (n from 1), before jitter.
func backoff(class Class, n int) time.Duration {
	steps, ok := curves[class]
	if !ok {
		steps = refused
	}
	return steps[min(max(n, 1), len(steps))-1]
}

// counts tells whether an error is a failure of this agent or its name. That others have used up a limit is none, nor that this
// machine does not know the time yet.
func counts(class Class) bool { return class != ClassLimit && class != ClassClock }

// afterFailure is the state after one more attempt at now came to e. roll, from [0,1), is the jitter; it is used up here and
// what it gave is kept in the state, so that a restart does not roll again.
func afterFailure(now time.Time, leaf *x509.Certificate, r store.Renewal, e *Error, roll float64) store.Renewal {
	n := r.Row[string(e.Class)] + 1
	if len(r.Row) == 0 {
		n = r.Failures + 1 // a state of the first version
	}
	r.Row = maps.Clone(r.Row)
	if r.Row == nil {
		r.Row = make(map[string]int)
	}
	r.Row[string(e.Class)] = n
	for _, challenge := range e.InVain {
		r.Row[inVain+challenge]++
	}
	r.Limit = store.Limit{}
	r.LastError, r.LastHint = e.Error(), hintLine(e.Hint)
	r.LastFailure = now
	if counts(e.Class) {
		r.Failures++
		if r.Failures == 1 {
			r.FirstFailure = now
		}
	}
	wait := scale(backoff(e.Class, n), 0.8+0.4*roll)
	if leaf := inForce(leaf, r); late(now, leaf) {
		wait = min(wait, scale(lateWait(leaf), 0.7+0.3*roll))
	}
	r.RetryAfter = time.Time{}
	if e.RetryAfter > 0 {
		asked := scale(min(max(e.RetryAfter, minRetryAfter), maxRetryAfter), 1+0.1*roll)
		r.RetryAfter = now.Add(asked)
		if e.Class == ClassRateLimited || e.Class == ClassLimit {
			wait = asked
		}
	}
	r.NextAttempt = now.Add(wait)
	if e.Class == ClassLimit {
		r.LastError, r.LastHint = "", ""
		r.Limit = store.Limit{Domain: oneLine(e.Domain), Until: later(e.Until, r.NextAttempt)}
	}
	return spent(now, r, e.Validations)
}

// afterSuccess is the state after a certificate was obtained from directory. NextAttempt keeps a CA whose certificates are born
// old, or to be renewed at once, from being asked in a circle.
func afterSuccess(now time.Time, leaf *x509.Certificate, r store.Renewal, directory string) store.Renewal {
	pause := min(max(leaf.NotAfter.Sub(now)/10, time.Minute), 24*time.Hour)
	return store.Renewal{Directory: r.Directory, LastSuccess: now, NextAttempt: now.Add(pause), LastGood: r.LastGood, Issued: r.Issued, Validations: r.Validations,
		Origin: store.Origin{Certificate: certificateID(leaf), Directory: directory, Life: lifetime(leaf)}, Ordered: directory,
		Revoked: r.Revoked, Left: r.Left}
}

func scale(d time.Duration, by float64) time.Duration { return time.Duration(float64(d) * by) }
