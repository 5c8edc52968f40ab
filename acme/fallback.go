package acme

import (
	"context"
	"crypto/x509"
	"slices"
	"time"

	"ntsagent/acme/dnscheck"
	"ntsagent/acme/store"
	"ntsagent/hostcheck"
)

// Authority is a CA that certificates can be ordered from.
type Authority struct {
	Directory string // directory URL
	Issuer    Issuer
	Look      func(context.Context, hostcheck.Name) dnscheck.Verdict // what the DNS says before an order there; nil = it is not asked
}

// places are the directory URLs of the CAs: that of choice, and the one that is turned to when that lets us down ("" = none).
type places struct{ primary, fallback string }

func (p places) of(fallback bool) string {
	if fallback {
		return p.fallback
	}
	return p.primary
}

// know tells whether one of the CAs made leaf and can be asked about it.
func (p places) know(now time.Time, leaf *x509.Certificate, r store.Renewal) bool {
	return mayAsk(now, leaf, r, p.primary) || mayAsk(now, leaf, r, p.fallback)
}

// of is what r says of one CA, as if there were no other.
func of(r store.Renewal, fallback bool) store.Renewal {
	if !fallback {
		return r
	}
	var own store.Renewal
	if r.Other != nil {
		own = *r.Other
	}
	return shared(own, r)
}

// put is r with own in the place of what of gives.
func put(r, own store.Renewal, fallback bool) store.Renewal {
	if !fallback {
		own.Other = r.Other
		return own
	}
	r = shared(r, own)
	own = shared(own, store.Renewal{})
	r.Other = &own
	return r
}

// shared is r with what from says of the certificate, the clock and CAs of the past, which does not belong to a CA.
func shared(r, from store.Renewal) store.Renewal {
	r.LastSuccess, r.LastGood, r.Window, r.Origin, r.Ordered = from.LastSuccess, from.LastGood, from.Window, from.Origin, from.Ordered
	r.Revoked, r.Ceased, r.Left = from.Revoked, from.Ceased, from.Left
	return r
}

// seated is r with each CA's counts in its place, after a change of the configuration: what one CA has counted or asked for is
// nothing to another. A CA that was left counts on, and is remembered in case that it comes back.
func seated(r store.Renewal, p places) store.Renewal {
	if r.Directory == "" { // written before there were two
		if r.Directory = r.Ordered; r.Directory == "" {
			r.Directory = p.primary
		}
	}
	known := []store.Renewal{r}
	if r.Other != nil {
		known = append(known, *r.Other)
	}
	known = append(known, r.Left...)
	take := func(directory string) store.Renewal {
		n := slices.IndexFunc(known, func(k store.Renewal) bool { return k.Directory == directory })
		if n < 0 {
			return store.Renewal{Directory: directory}
		}
		k := shared(known[n], store.Renewal{})
		k.Other = nil
		known = slices.Delete(known, n, n+1)
		return k
	}
	now := shared(take(p.primary), r)
	if p.fallback != "" {
		other := take(p.fallback)
		now.Other = &other
	}
	now.Left = nil
	for _, k := range known {
		now.Left = append(now.Left, relieved(k, k.NextAttempt))
	}
	return now
}

const (
	enough     = 3         // failures that another CA may not have
	enoughSeen = 6         // failures to validate a name that has been validated before, or of dates
	tooLong    = time.Hour // a wait that a CA has asked for
)

// cures has the failures that another CA may well not have. Those to validate are not among them: most often it is the name's own
// set-up, which no CA will like better. Nor is the clock, which is ours; but where nobody knows whether it is right, dates that stay
// wrong for hours may be those of the CA's own certificate, and another CA's will show.
var cures = map[Class]bool{
	ClassNetwork: true, ClassRateLimited: true, ClassLimit: true, ClassMalformed: true, ClassAccount: true, ClassRejected: true, ClassInternal: true,
}

// looks has the failures to validate. The CA may look from where we cannot be reached, so they count in the end.
var looks = map[Class]bool{ClassConnection: true, ClassUnauth: true, ClassDNS: true, ClassCAA: true, ClassTLS: true}

// turn is from when on the fallback may be ordered from, as the primary has failed so far; false = not for that.
//
// The primary has had a quarter of the time that was left at the backstop by then. Who has no certificate has no time to lose.
func turn(now time.Time, leaf *x509.Certificate, r store.Renewal) (time.Time, bool) {
	leaf = inForce(leaf, r)
	cured, seen, dates := 0, 0, r.Row[string(ClassClock)]
	for class, n := range r.Row {
		switch c := Class(class); {
		case cures[c]:
			cured += n
		case looks[c]:
			seen += n
		}
	}
	wait := r.Limit.Until.Sub(now)
	if asked := r.RetryAfter.Sub(now); asked < maxWait {
		wait = max(wait, asked)
	}
	// The week's certificates of a CA may be used up though nothing has failed. For validations that have, nobody waits that long.
	free, _ := allowed(now, leaf, r, true)
	refused := cured > 0 && wait > tooLong || free.Sub(now) > tooLong+budgetSlack
	over := leaf == nil || !now.Before(leaf.NotAfter)
	if cured < enough && !refused && dates < enoughSeen && (leaf == nil || seen < enoughSeen) {
		return time.Time{}, false
	}
	if over {
		return now, true
	}
	backstop := RenewAt(leaf)
	return backstop.Add(leaf.NotAfter.Sub(backstop) / 4), true
}

// afterTurning is when to order next, and from which CA, given that it is not time for the primary before at.
func afterTurning(now, at time.Time, leaf *x509.Certificate, r store.Renewal, p places) (time.Time, bool) {
	if p.fallback == "" {
		return at, false
	}
	from, ok := turn(now, leaf, r)
	if !ok {
		return at, false
	}
	then := later(from, due(now, leaf, of(r, true)))
	if !then.Before(at) {
		return at, false
	}
	// The primary is tried first each time, unless it has failed just now or must not be asked.
	if barredUntil, _ := barred(now, leaf, r, false); !then.After(now) && !barredUntil.After(now) && now.Sub(r.LastFailure).Abs() >= validationGap {
		return now, false
	}
	return then, true
}

// relieved is what is kept of a CA when another has made the certificate: not its failures, but what it counts and has asked for.
func relieved(r store.Renewal, pause time.Time) store.Renewal {
	return store.Renewal{Directory: r.Directory, NextAttempt: pause, RetryAfter: r.RetryAfter, Issued: r.Issued, Validations: r.Validations}
}

// obtained is the whole state after a certificate from one of the CAs; own is what r says of that CA, the order counted.
func obtained(now time.Time, leaf *x509.Certificate, r, own store.Renewal, p places, fallback bool) store.Renewal {
	own = afterSuccess(now, leaf, own, p.of(fallback))
	switch {
	case fallback:
		return put(relieved(r, own.NextAttempt), own, true)
	case r.Other != nil:
		other := relieved(*r.Other, own.NextAttempt)
		r.Other = &other
	}
	return put(r, own, false)
}

// soonest is when the next order may go out, to whichever CA.
func soonest(now time.Time, leaf *x509.Certificate, r store.Renewal, p places) time.Time {
	at := due(now, leaf, r)
	if at.After(now) {
		at, _ = afterTurning(now, at, leaf, r, p)
	}
	return at
}

// hope is when an order may bring the next certificate, from whichever CA. One whose limit is used up refuses until then.
func hope(now time.Time, leaf *x509.Certificate, r store.Renewal, p places) time.Time {
	at := later(due(now, leaf, r), r.Limit.Until)
	from, ok := turn(now, leaf, r)
	if p.fallback == "" || !ok {
		return at
	}
	other := of(r, true)
	if then := later(from, later(due(now, leaf, other), other.Limit.Until)); then.Before(at) {
		return then
	}
	return at
}
