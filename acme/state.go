package acme

import (
	"crypto/x509"
	"strconv"
	"strings"
	"time"

	"ntsagent/acme/store"
)

// State is what a Manager knows of its certificate, for status pages. All of it may be shown to anybody.
type State struct {
	Name          string
	Issuer        string    // common name of the issuing certificate, "" while nothing is served
	Serial        string    // hexadecimal
	Fingerprint   string    // SHA-256 of the certificate, hexadecimal
	NotBefore     time.Time // zero while nothing is served
	NotAfter      time.Time
	RenewAt       time.Time // when a third of the life is left, or half of a short one; sooner if the CA wishes; later, even than NotAfter, if no CA gives one by then
	RenewWhy      string    // why then: one line
	OrderingSince time.Time // when the order under way began; zero while none is
	LastSuccess   time.Time
	LastError     string    // of the last attempt that has ended: one line, "" after a success
	LastHint      string    // one line: what to do
	Failures      int       // since the last success
	NextAttempt   time.Time // or, while the DNS holds orders back, the next look at it; zero or past = as soon as may be
	Revoked       string    // the reason it was revoked for, and that it serves until another is there; "" = it was not
	Fallback      bool      // the certificate is from the fallback CA
	Imported      bool      // it was made elsewhere, and LastSuccess is when it was brought
	Condition     Condition // why nothing is ordered though nothing has failed, "" = for no such reason
	Why           string    // of Condition, one line
	Since         time.Time // of Condition, if it is the DNS's
	Faults        []Fault   // what strangers are shown by whoever has port 80 or 443, and should not be, or the other way round
	Note          string    // what the DNS says that deserves a look, one line; "" = nothing
}

// Condition is a reason not to order that is no failure.
type Condition string

const (
	ClockUnsane    Condition = "clock unsane"    // the clock is wrong: nothing can be said of certificates, that they expire included
	LimitReached   Condition = "limit reached"   // the CA's limit for the whole domain is used up
	BudgetSpent    Condition = "budget spent"    // this name has used up what CAs allow it
	StateUnread    Condition = "state unread"    // what is noted of the last orders cannot be read
	WrongAuthority Condition = "wrong authority" // the configured CA would spoil the certificate in use
)

// usedUp tells of a limit that others have used up.
func usedUp(l store.Limit) string {
	domain := l.Domain
	if domain == "" {
		domain = "this domain"
	}
	return "the CA's limit for " + domain + " is used up until " + minute(l.Until)
}

// condition is the State's, with its reason.
func (m *Manager) condition(now time.Time) (Condition, string) {
	leaf, r := m.leaf(), m.renewal
	switch {
	case m.doubt != "":
		return ClockUnsane, m.doubt
	case m.unread != "":
		return StateUnread, unread(m.unread) + "; " + hintUnread
	case !r.Ceased.IsZero():
		return NameCeased, ceased(r) + "; " + hintCeased
	case m.spoils != "":
		return WrongAuthority, m.spoils
	case r.Limit.Until.After(now):
		return LimitReached, usedUp(r.Limit)
	case m.cfg.Look != nil && m.standing.Held():
		return Condition(m.standing.Standing), oneLine("since " + minute(m.standing.Since) + ": " + m.standing.Text)
	}
	if at, why := allowed(now, leaf, r, false); r.Failures == 0 && at.After(now) && !due(now, leaf, r).After(at) {
		return BudgetSpent, why + " until " + minute(at)
	}
	return "", ""
}

// Kind is what an Event tells of.
type Kind string

const (
	Installed Kind = "installed" // a stored certificate was put into service at start
	Ordered   Kind = "ordered"   // an order goes out
	Obtained  Kind = "obtained"  // a new certificate was put into service
	Failed    Kind = "failed"    // an attempt failed
	PutOff    Kind = "put off"   // an attempt came to nothing, and nobody here is at fault
	Revoked   Kind = "revoked"   // the certificate in use was revoked
	Imported  Kind = "imported"  // one that was made elsewhere was put into service
	Barred    Kind = "barred"    // the DNS keeps the name from certificates from now on
	Exposed   Kind = "exposed"   // a fault in what strangers are shown, which has come up
)

// Event is one thing that happened to a certificate.
type Event struct {
	Time time.Time
	Name string
	Kind Kind
	Text string // one line
}

// State returns a snapshot. It never blocks.
func (m *Manager) State() State { return *m.state.Load() }

func (m *Manager) publish() {
	leaf, r := m.leaf(), m.renewal
	now := time.Now()
	s := State{Name: m.cfg.Name.String(), OrderingSince: m.ordering, LastSuccess: r.LastSuccess, LastError: r.LastError,
		LastHint: r.LastHint, Failures: r.Failures, NextAttempt: later(soonest(now, leaf, r, m.places()), m.patience(now)), Note: m.dnsNote(), Faults: m.faults}
	if second := of(r, true); m.cfg.Fallback.Directory != "" && second.LastError != "" {
		s.LastError, s.LastHint = both(r.LastError, second.LastError), both(r.LastHint, second.LastHint)
		s.Failures += second.Failures
	}
	if m.cfg.Look != nil && m.standing.Held() {
		s.NextAttempt, s.LastHint = m.standing.Next, hintLine(m.standing.Hint)
		s.Since = m.standing.Since
	}
	s.Condition, s.Why = m.condition(now)
	if leaf != nil {
		s.Issuer, s.Serial = issuerName(leaf), leaf.SerialNumber.Text(16)
		s.Fingerprint = fingerprint(leaf.Raw)
		s.NotBefore, s.NotAfter, s.RenewAt, s.RenewWhy = leaf.NotBefore, leaf.NotAfter, renewAt(leaf, r), renewWhy(leaf, r)
		if v := revokedAs(leaf, r); v != nil {
			s.RenewAt, s.RenewWhy, s.Revoked = time.Time{}, "", revocationText(v)
		} else if at := hope(now, leaf, r, m.places()); m.doubt == "" && at.After(s.RenewAt) &&
			(s.Condition == LimitReached || s.Condition == BudgetSpent || at.After(leaf.NotAfter)) {
			s.RenewAt, s.RenewWhy = at, "no CA gives one sooner"
		}
		s.Imported = imported(leaf, r)
		s.Fallback = m.cfg.Fallback.Directory != "" && m.maker(leaf).Directory == m.cfg.Fallback.Directory
	}
	m.state.Store(&s)
}

// both is what two CAs have to say, in one line.
func both(first, second string) string {
	switch {
	case second == "":
		return first
	case first == "":
		return "fallback CA: " + second
	}
	return first + "; fallback CA: " + second
}

// event tells of something that State already shows.
func (m *Manager) event(k Kind, text string) {
	m.publish()
	m.cfg.Event(Event{Time: time.Now(), Name: m.cfg.Name.String(), Kind: k, Text: text})
}

// issuerName is how an operator knows a CA: the common name of the issuing certificate, else its organization.
func issuerName(leaf *x509.Certificate) string {
	if cn := oneLine(leaf.Issuer.CommonName); cn != "" {
		return cn
	}
	return oneLine(strings.Join(leaf.Issuer.Organization, " "))
}

func minute(t time.Time) string { return t.UTC().Format("2006-01-02T15:04Z") }

// short writes a wait as an operator reads it: 40s, 9m, 2h, 1h40m, 60d.
func short(d time.Duration) string {
	if d >= 48*time.Hour {
		return strconv.Itoa(int(d/(24*time.Hour))) + "d"
	}
	if d = max(d, 0).Round(time.Second); d < time.Minute {
		return d.String()
	}
	s := strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
