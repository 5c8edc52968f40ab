package acme

import (
	"errors"
	"time"

	"ntsagent/acme/store"
)

// restore recalls the last attempts, and puts the newest pair of the store that can be served into service.
func (m *Manager) restore() {
	m.recall()
	m.ordering = time.Time{}
	var err error
	if m.standing, err = m.cfg.Store.Standing(m.cfg.Name); err != nil {
		m.log.Warn("DNS state not read", "error", err)
	}
	m.serveStored()
}

const hintUnread = "see that the agent may read renewal.json below its state_dir, and look at the disk; it is read again all the time"

func unread(why string) string { return "it is not known what was ordered, used up or revoked: " + why }

// recall reads what is noted of the last attempts. Where that fails nothing is known of it: nothing must be ordered then, and
// nothing written over it.
func (m *Manager) recall() bool {
	r, err := m.cfg.Store.Renewal(m.cfg.Name)
	m.renewal = seated(r, m.places())
	if err == nil {
		m.unread = ""
		return true
	}
	if why := oneLine(err.Error()); why != m.unread {
		m.log.Error("nothing is ordered: renewal state not read", "error", why, "hint", hintUnread)
		m.unread = why
	}
	return false
}

// readAgain recalls what could not be read before.
func (m *Manager) readAgain() {
	if m.unread == "" || !m.recall() {
		return
	}
	m.log.Info("renewal state read: orders go on")
	if leaf := m.leaf(); leaf != nil && !mayServe(leaf, m.renewal) {
		m.cfg.Live.Withdraw(m.cfg.Name)
	}
	m.serveStored()
}

// serveStored puts the newest pair of the store that can be served into service. While it is not known what was revoked, that is
// the current one or none, and what serves stays: most likely it is good, and nobody would be served without it.
func (m *Manager) serveStored() {
	pairs, err := m.cfg.Store.Pairs(m.cfg.Name)
	if err != nil {
		m.log.Warn("certificate store not read", "error", err)
	}
	m.newest = nil
	for n, p := range pairs {
		leaf := leafOf(p.Chain)
		if leaf != nil && m.newest == nil {
			m.newest = leaf
		}
		if m.unread != "" && (n > 0 || m.leaf() != nil) || leaf != nil && !mayServe(leaf, m.renewal) {
			continue
		}
		changed, err := m.cfg.Live.Install(m.cfg.Name, p.Chain, p.Key, time.Now())
		if err != nil {
			m.log.Warn("stored certificate not used", "error", oneLine(err.Error()))
			continue
		}
		leaf = m.leaf()
		if !changed { // a reload has left it in service
			m.log.Debug("certificate kept", "issuer", issuerName(leaf), "not_after", minute(leaf.NotAfter))
			return
		}
		m.log.Info("certificate installed", "issuer", issuerName(leaf), "not_after", minute(leaf.NotAfter))
		m.event(Installed, "from the store, valid until "+minute(leaf.NotAfter))
		return
	}
}

// endsSoon is how long before the end of the certificate in service one that holds longer takes its place: longer than an order
// takes, during which nothing else is looked at.
const endsSoon = 10 * time.Minute

// outlive goes back to the newest stored certificate in force that holds longer than the one in service, when that is about to
// end: a CA has given a worse one than was there, and none since.
func (m *Manager) outlive() {
	now, leaf := time.Now(), m.leaf()
	if leaf == nil || leaf == m.longest || m.doubt != "" || m.unread != "" || now.Add(endsSoon).Before(leaf.NotAfter) {
		return
	}
	pairs, err := m.cfg.Store.Pairs(m.cfg.Name)
	if err != nil {
		m.log.Debug("certificate store not read", "error", err)
		return
	}
	for _, p := range pairs {
		other := leafOf(p.Chain)
		if other == nil || !other.NotAfter.After(leaf.NotAfter) || inForce(other, m.renewal) == nil {
			continue
		}
		if _, err := m.cfg.Live.Install(m.cfg.Name, p.Chain, p.Key, now); err != nil {
			m.log.Debug("stored certificate not used", "error", oneLine(err.Error()))
			continue
		}
		m.log.Warn("certificate ends: an older one that holds longer serves again", "ends", minute(leaf.NotAfter), "not_after", minute(other.NotAfter))
		m.event(Installed, "from the store, for it holds longer than the newest: valid until "+minute(other.NotAfter))
		return
	}
	m.longest = leaf
}

// save takes r as the state from now on, in memory even when the disk refuses. What could not be read is not written over.
func (m *Manager) save(r store.Renewal) error {
	if m.unread != "" {
		return errors.New(unread(m.unread))
	}
	m.renewal = r
	return m.cfg.Store.SaveRenewal(m.cfg.Name, r)
}
