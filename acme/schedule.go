package acme

import (
	"crypto/x509"
	"time"

	"ntsagent/acme/store"
)

const (
	// lateCap bounds the wait between attempts in the last fifth of a certificate's life, and while there is none.
	lateCap = 6 * time.Hour

	// What a server may make us wait: less would let it drive us in a circle, more would let it switch us off.
	minRetryAfter, maxRetryAfter = time.Minute, 24 * time.Hour

	// maxWait is longer than any wait that is ever chosen. A stored time farther off was written under a wrong clock.
	maxWait = 30 * time.Hour

	// interrupted is how soon to try again when the agent was stopped during an attempt.
	interrupted = time.Minute
)

// RenewAt is when a certificate should be renewed: when a third of its life is left.
func RenewAt(leaf *x509.Certificate) time.Time {
	return leaf.NotAfter.Add(-leaf.NotAfter.Sub(leaf.NotBefore) / 3)
}

// due tells when the next order may go out, given the certificate that is served (nil = none) and what the last attempts came
// to. A time that is not after now means: at once.
func due(now time.Time, leaf *x509.Certificate, r store.Renewal) time.Time {
	wait := r.NextAttempt
	if late(now, leaf) {
		// A wait that was chosen while there was plenty of time must not eat up what is left.
		if limit := r.LastFailure.Add(lateCap); r.Failures > 0 && wait.After(limit) {
			wait = limit
		}
	}
	if r.RetryAfter.After(wait) {
		wait = r.RetryAfter
	}
	if wait.Sub(now) > maxWait {
		wait = time.Time{}
	}
	if leaf != nil && RenewAt(leaf).After(wait) {
		return RenewAt(leaf)
	}
	return wait
}

// late tells whether less than a fifth of the certificate's life is left. No certificate is as late as can be.
func late(now time.Time, leaf *x509.Certificate) bool {
	return leaf == nil || leaf.NotAfter.Sub(now) < leaf.NotAfter.Sub(leaf.NotBefore)/5
}

// backoff is the wait after the n-th failure in a row (n from 1), before jitter. A server that cannot be reached costs nothing
// to ask again; one that has refused counts our failures (for Let's Encrypt five failed validations an hour are the limit).
func backoff(class Class, n int) time.Duration {
	steps := [...]time.Duration{time.Minute, 10 * time.Minute, 100 * time.Minute, 24 * time.Hour}
	if class == ClassNetwork || class == ClassClock {
		steps = [...]time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour}
	}
	return steps[min(max(n, 1), len(steps))-1]
}

// afterFailure is the state after one more failure at now. roll, from [0,1), is the jitter; it is used up here and what it
// gave is kept in the state, so that a restart does not roll again.
func afterFailure(now time.Time, leaf *x509.Certificate, r store.Renewal, e *Error, roll float64) store.Renewal {
	r.Failures++
	if r.Failures == 1 {
		r.FirstFailure = now
	}
	r.LastFailure = now
	r.LastError, r.LastHint = e.Error(), oneLine(e.Hint)
	wait := scale(backoff(e.Class, r.Failures), 0.8+0.4*roll)
	if late(now, leaf) {
		wait = min(wait, scale(lateCap, 0.7+0.3*roll))
	}
	r.RetryAfter = time.Time{}
	if e.RetryAfter > 0 {
		asked := scale(min(max(e.RetryAfter, minRetryAfter), maxRetryAfter), 1+0.1*roll)
		r.RetryAfter = now.Add(asked)
		if e.Class == ClassRateLimited {
			wait = asked
		}
	}
	r.NextAttempt = now.Add(wait)
	return r
}

// afterSuccess is the state after a certificate was obtained. NextAttempt keeps a CA whose certificates are born old from
// being asked in a circle.
func afterSuccess(now time.Time, leaf *x509.Certificate) store.Renewal {
	pause := min(max(leaf.NotAfter.Sub(now)/10, time.Minute), 24*time.Hour)
	return store.Renewal{LastSuccess: now, NextAttempt: now.Add(pause)}
}

func scale(d time.Duration, by float64) time.Duration { return time.Duration(float64(d) * by) }
