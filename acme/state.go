package acme

import (
	"crypto/x509"
	"strconv"
	"strings"
	"time"
)

// State is what a Manager knows of its certificate, for status pages. All of it may be shown to anybody.
type State struct {
	Name          string
	Issuer        string    // common name of the issuing certificate, "" while nothing is served
	Serial        string    // hexadecimal
	NotBefore     time.Time // zero while nothing is served
	NotAfter      time.Time
	RenewAt       time.Time // when a third of the life is left
	OrderingSince time.Time // when the order under way began; zero while none is
	LastSuccess   time.Time
	LastError     string    // of the last attempt that has ended: one line, "" after a success
	LastHint      string    // one line: what to do
	Failures      int       // since the last success
	NextAttempt   time.Time // zero or past = as soon as may be
}

// Kind is what an Event tells of.
type Kind string

const (
	Installed Kind = "installed" // a stored certificate was put into service at start
	Ordered   Kind = "ordered"   // an order goes out
	Obtained  Kind = "obtained"  // a new certificate was put into service
	Failed    Kind = "failed"    // an attempt failed
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
	s := State{Name: m.cfg.Name.String(), OrderingSince: m.ordering, LastSuccess: r.LastSuccess, LastError: r.LastError,
		LastHint: r.LastHint, Failures: r.Failures, NextAttempt: due(time.Now(), leaf, r)}
	if leaf != nil {
		s.Issuer, s.Serial = issuerName(leaf), leaf.SerialNumber.Text(16)
		s.NotBefore, s.NotAfter, s.RenewAt = leaf.NotBefore, leaf.NotAfter, RenewAt(leaf)
	}
	m.state.Store(&s)
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
