package acme

import (
	"context"
	"errors"
	"time"

	"ntsagent/acme/dnscheck"
)

// Conditions that the DNS puts a name in. The certificate in use serves on until it expires, and orders resume by themselves.
const (
	NameMissing   Condition = Condition(dnscheck.Missing)   // the name is gone from the DNS, which is yet to be confirmed
	NameWithdrawn Condition = Condition(dnscheck.Withdrawn) // the name was taken out of the DNS
	NameElsewhere Condition = Condition(dnscheck.Elsewhere) // the name leads to another host
	NameDenied    Condition = Condition(dnscheck.Forbidden) // CAA records keep our CA or account from issuing
)

// cleared looks at the DNS before an order and tells whether it may go out: a CA may reuse an authorization for weeks after
// a name was taken from us. While a name is held back the DNS is looked at by its own schedule, or when an operator wishes.
// That the fallback CA alone may not issue is a failure there, and holds nothing back.
func (m *Manager) cleared(ctx context.Context, wished, fallback bool) (failed *Error, ok bool) {
	look := m.authority(fallback).Look
	if look == nil {
		return nil, true
	}
	if m.standing.Held() && !wished && !m.standing.Due(time.Now(), !m.seen) {
		return nil, false
	}
	verdict := look(ctx, m.cfg.Name)
	if ctx.Err() != nil {
		return nil, false
	}
	if fallback && verdict.Finding == dnscheck.Denied {
		failed = &Error{Class: ClassCAA, Err: errors.New(verdict.Text), Hint: verdict.Hint}
		m.fail(m.leaf(), of(m.renewal, fallback), failed, m.cfg.Roll(), fallback)
		return failed, false
	}
	m.heed(verdict, dnscheck.Next)
	if m.standing.Standing == dnscheck.Unclear && !m.standing.MayOrder {
		failed = &Error{Class: ClassDNS, Err: errors.New(verdict.Text), Hint: verdict.Hint}
		m.fail(m.leaf(), of(m.renewal, fallback), failed, m.cfg.Roll(), fallback)
	}
	return failed, m.standing.MayOrder
}

// refusal tells who wished for an order why cleared did not let it out.
func (m *Manager) refusal() *Refused {
	r := &Refused{Why: oneLine(m.standing.Text), Hint: hintLine(m.standing.Hint)}
	if m.standing.Held() {
		r.Until = m.standing.Next
		r.Mend = m.standing.Standing != dnscheck.Missing // which is yet to be confirmed
	}
	return r
}

// watch looks at the DNS now and then while there is nothing to order: a removal should be known of before the next renewal,
// and end with the name's return.
func (m *Manager) watch(ctx context.Context) {
	if m.doubt == "" && m.cfg.Look != nil && m.standing.Due(time.Now(), !m.seen) {
		if verdict := m.cfg.Look(ctx, m.cfg.Name); ctx.Err() == nil {
			m.heed(verdict, dnscheck.Between)
		}
	}
}

// heed holds a verdict against what was known, and tells of what is new.
func (m *Manager) heed(verdict dnscheck.Verdict, next func(time.Time, dnscheck.Verdict, dnscheck.State, float64) dnscheck.State) {
	before := m.standing
	m.standing, m.seen = next(time.Now(), verdict, before, m.cfg.Roll()), true
	if err := m.cfg.Store.SaveStanding(m.cfg.Name, m.standing); err != nil {
		m.log.Warn("DNS state not saved", "error", err)
	}
	m.tellStanding(before)
}

// tellStanding tells of a standing, or of a note, that is new.
func (m *Manager) tellStanding(before dnscheck.State) {
	after := m.standing
	if note := m.dnsNote(); note != "" && (before.Held() || after.Text != before.Text) {
		m.log.Info("the DNS deserves a look", "cause", note)
	}
	switch {
	case after.Standing == before.Standing:
		m.log.Debug("DNS looked at again", "standing", string(after.Standing), "cause", oneLine(after.Text))
	case after.Standing == dnscheck.Missing:
		m.log.Warn("name missing in the DNS: no certificate is ordered meanwhile", "cause", oneLine(after.Text), "hint", hintLine(after.Hint))
		m.event(PutOff, oneLine(after.Text))
	case after.Held():
		m.log.Error("no certificate is ordered any more", "class", string(after.Standing), "since", minute(after.Since),
			"cause", oneLine(after.Text), "hint", hintLine(after.Hint))
		m.event(Barred, oneLine(after.Text))
	case after.Standing == dnscheck.Unclear && before.Held():
		m.log.Warn("name was missing in the DNS, which says nothing any more: one order a day goes out if any is due", "since", minute(before.Since),
			"cause", oneLine(after.Text), "hint", hintLine(after.Hint))
	case before.Held():
		m.log.Info("DNS in order again: certificates are ordered", "was", string(before.Standing), "since", minute(before.Since))
	}
}

// dnsNote is what the last look found that keeps no order back, "" for nothing.
func (m *Manager) dnsNote() string {
	if m.cfg.Look == nil || m.standing.Standing != dnscheck.Allowed {
		return ""
	}
	return oneLine(m.standing.Text)
}
