package acme

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	"ntsagent/acme/store"
)

// attempt orders one certificate and accounts for how it went, which it returns.
func (m *Manager) attempt(ctx context.Context) error {
	start, leaf, roll := time.Now(), m.leaf(), m.cfg.Roll()
	before := noted(leaf, m.renewal)
	// The failure goes on disk, and only there, before the order goes out: an agent that dies during an order must not order
	// again at once when it comes back. While it lives, nothing has failed yet.
	dead := beforeOrder(start, leaf, before, m.cfg.Directory, roll)
	if err := m.cfg.Store.SaveRenewal(m.cfg.Name, dead); err != nil {
		failure := &Error{Class: ClassInternal, Err: err, Hint: "make room on the disk of state_dir and see that the agent may write there"}
		m.fail(leaf, before, failure, roll)
		return failure
	}
	before.Ordered = m.cfg.Directory
	why := "renewal"
	switch {
	case leaf == nil:
		why = "first certificate"
	case inForce(leaf, before) == nil:
		why = "the certificate in use was revoked"
	}
	m.log.Info("certificate ordered", "reason", why, "try", before.Failures+1)
	m.ordering = start
	m.event(Ordered, why)
	asked := &signature{save: func() error { return m.cfg.Store.SaveRenewal(m.cfg.Name, signed(start, dead)) }}
	err := m.obtain(ctx, leaf, asked)
	m.ordering = time.Time{}
	m.hear() // a wish that came meanwhile has just been granted; one that follows the event below has not
	if toSign := asked.end(); err == nil || toSign && !asError(err).Declined || asError(err).Class == ClassRejected {
		before = signed(start, before)
	}
	switch {
	case err == nil:
		m.succeed(start, spent(start, before, mayFail(start, before)-1)) // the first challenge may have failed
	case ctx.Err() != nil:
		// Stopped on purpose: not a failure, but no reason either to order in a circle while the agent is restarted. The CA may
		// have come to look, and found nobody.
		before.NextAttempt = later(before.NextAttempt, start.Add(interrupted))
		if err := m.save(spent(start, before, 1)); err != nil {
			m.log.Warn("renewal state not saved", "error", err)
		}
		return ErrStopped
	default:
		m.fail(leaf, before, asError(err), roll)
		return asError(err)
	}
	return nil
}

// signature notes on disk that the CA is asked to sign, before it is. The Issuer may have been left behind by then.
type signature struct {
	mu    sync.Mutex
	save  func() error
	asked bool
	over  bool
}

func (s *signature) note() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return errors.New("the order has been abandoned")
	}
	if err := s.save(); err != nil {
		return &Error{Class: ClassInternal, Err: err, Hint: "make room on the disk of state_dir and see that the agent may write there"}
	}
	s.asked = true
	return nil
}

// end lets nothing be noted any more and tells whether something was.
func (s *signature) end() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	return s.asked
}

// obtain is the straight line of a certificate: key on disk, order, verify, store, serve.
func (m *Manager) obtain(ctx context.Context, leaf *x509.Certificate, asked *signature) error {
	name, now := m.cfg.Name, time.Now()
	key, err := m.cfg.Store.PendingKey(name, m.cfg.KeyType)
	if err != nil {
		return err
	}
	keyPEM, err := store.EncodeKey(key)
	if err != nil {
		return err
	}
	csr, err := newRequest(name, key)
	if err != nil {
		return err
	}
	o := Order{Name: name, CSR: csr, Profile: m.cfg.Profile, MayFail: mayFail(now, m.renewal), Insist: insist(m.renewal), Finalizing: asked.note}
	if mayAsk(now, leaf, m.renewal, m.cfg.Directory) {
		o.Replaces = leaf
	}
	chainPEM, err := m.cfg.Issuer.Issue(ctx, o)
	if err != nil {
		return err
	}
	if err := m.cfg.Live.Check(name, chainPEM, keyPEM, time.Now()); err != nil {
		return rejected(err)
	}
	if err := m.cfg.Store.Commit(name, chainPEM); err != nil {
		return err
	}
	if _, err := m.cfg.Live.Install(name, chainPEM, keyPEM, time.Now()); err != nil {
		return rejected(err)
	}
	m.newest = m.leaf()
	return nil
}

func rejected(err error) error {
	return &Error{Class: ClassRejected, Err: fmt.Errorf("certificate from the CA rejected: %w", err),
		Hint: "the certificate in use stays; if the dates are at fault, look at this machine's clock"}
}

func (m *Manager) succeed(start time.Time, before store.Renewal) {
	leaf, now := m.leaf(), time.Now()
	if err := m.save(afterSuccess(now, leaf, before, m.cfg.Directory)); err != nil {
		m.log.Warn("renewal state not saved", "error", err)
	}
	m.log.Info("certificate obtained", "issuer", issuerName(leaf), "not_after", minute(leaf.NotAfter),
		"took", now.Sub(start).Round(100*time.Millisecond))
	m.event(Obtained, "issued by "+issuerName(leaf)+", valid until "+minute(leaf.NotAfter))
}

func (m *Manager) fail(leaf *x509.Certificate, before store.Renewal, e *Error, roll float64) {
	now := time.Now()
	if e.Class == ClassClock && m.cfg.Synced() { // then it is not our clock that is wrong
		e = &Error{Class: ClassNetwork, RetryAfter: e.RetryAfter, Err: e.Err, Hint: "the ACME server's own certificate is over: nothing to do but wait"}
	}
	if err := m.save(afterFailure(now, leaf, before, e, roll)); err != nil {
		m.log.Warn("renewal state not saved", "error", err)
	}
	wait := short(due(now, leaf, m.renewal).Sub(now))
	if !counts(e.Class) {
		text := e.Error()
		if e.Class == ClassLimit {
			text = usedUp(m.renewal.Limit)
		}
		m.log.Warn("certificate renewal put off", "next", wait, "class", string(e.Class), "cause", text, "hint", hintLine(e.Hint))
		m.event(PutOff, text)
		return
	}
	m.log.Error("certificate renewal failed", "try", m.renewal.Failures, "next", wait,
		"class", string(e.Class), "cause", m.renewal.LastError, "hint", m.renewal.LastHint)
	m.event(Failed, m.renewal.LastError)
}
