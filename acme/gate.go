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
func (m *Manager) cleared(ctx context.Context, wished bool) bool {
	if m.cfg.Look == nil {
		return true
	}
	before := m.standing
	if before.Held() && !wished && !before.Due(time.Now()) {
		return false
	}
	verdict := m.cfg.Look(ctx, m.cfg.Name)
	if ctx.Err() != nil {
		return false
	}
	m.standing = dnscheck.Next(time.Now(), verdict, before, m.cfg.Roll())
	if after := m.standing; before.Standing != dnscheck.Allowed || after.Standing != dnscheck.Allowed {
		if err := m.cfg.Store.SaveStanding(m.cfg.Name, after); err != nil {
			m.log.Warn("DNS state not saved", "error", err)
		}
	}
	m.tellStanding(before)
	if m.standing.Standing == dnscheck.Unclear && !m.standing.MayOrder {
		m.fail(m.leaf(), m.renewal, &Error{Class: ClassDNS, Err: errors.New(verdict.Text), Hint: verdict.Hint}, m.cfg.Roll())
	}
	return m.standing.MayOrder
}

// tellStanding tells of a standing that is new.
func (m *Manager) tellStanding(before dnscheck.State) {
	after := m.standing
	switch {
	case after.Standing == before.Standing:
		m.log.Debug("DNS looked at again", "standing", string(after.Standing), "cause", oneLine(after.Text))
	case after.Standing == dnscheck.Missing:
		m.log.Warn("certificate not ordered", "class", string(after.Standing), "cause", oneLine(after.Text), "hint", oneLine(after.Hint))
		m.event(PutOff, oneLine(after.Text))
	case after.Held():
		m.log.Error("certificate not ordered", "class", string(after.Standing), "cause", oneLine(after.Text), "hint", oneLine(after.Hint))
		m.event(PutOff, oneLine(after.Text))
	case before.Held():
		m.log.Info("DNS in order again: certificates are ordered", "was", string(before.Standing), "since", minute(before.Since))
	}
}
