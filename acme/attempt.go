package acme

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"ntsagent/acme/store"
)

// attempt orders one certificate and accounts for how it went, which it returns.
func (m *Manager) attempt(ctx context.Context, fallback bool) error {
	start, leaf, roll, ca, log := time.Now(), m.leaf(), m.cfg.Roll(), m.authority(fallback), m.logOf(fallback)
	whole := noted(leaf, m.renewal)
	before := of(whole, fallback)
	// The failure goes on disk, and only there, before the order goes out: an agent that dies during an order must not order
	// again at once when it comes back. While it lives, nothing has failed yet.
	dead := beforeOrder(start, leaf, before, ca.Directory, roll)
	if err := m.cfg.Store.SaveRenewal(m.cfg.Name, put(whole, dead, fallback)); err != nil {
		failure := &Error{Class: ClassInternal, Err: err, Hint: "make room on the disk of state_dir and see that the agent may write there"}
		m.fail(leaf, before, failure, roll, fallback)
		return failure
	}
	before.Ordered = ca.Directory
	why := "renewal"
	switch {
	case leaf == nil:
		why = "first certificate"
	case inForce(leaf, before) == nil:
		why = "the certificate in use was revoked"
	}
	log.Info("certificate ordered", "reason", why, "try", before.Failures+1)
	m.ordering = start
	m.event(Ordered, why)
	asked := &signature{save: func() error {
		return m.cfg.Store.SaveRenewal(m.cfg.Name, put(whole, signed(time.Now(), dead), fallback))
	}}
	err := m.obtain(ctx, leaf, before, ca, asked)
	m.ordering = time.Time{}
	m.hear() // a wish that came meanwhile has just been granted; one that follows the event below has not
	toSign, failed := asked.end()
	if err == nil || toSign && !asError(err).Declined || asError(err).Class == ClassRejected {
		before = signed(time.Now(), before) // not when the order began: minutes lie between, and a week is counted to the minute
	}
	switch {
	case err == nil:
		m.succeed(start, spent(time.Now(), before, failed), fallback)
	case ctx.Err() != nil:
		// Stopped on purpose: not a failure, but no reason either to order in a circle while the agent is restarted. The CA may
		// have come to look, and found nobody.
		before.NextAttempt = later(before.NextAttempt, start.Add(interrupted))
		if err := m.save(put(whole, spent(time.Now(), before, 1+failed), fallback)); err != nil {
			m.log.Warn("renewal state not saved", "error", err)
		}
		return ErrStopped
	default:
		e := *asError(err)
		e.Validations = max(e.Validations, failed) // the Issuer may have been left behind
		m.fail(leaf, before, &e, roll, fallback)
		return &e
	}
	return nil
}

// logOf is the log for what is about one of the CAs.
func (m *Manager) logOf(fallback bool) hclog.Logger {
	if fallback {
		return m.log.With("fallback", m.cfg.Fallback.Directory)
	}
	return m.log
}

// signature notes on disk that the CA is asked to sign, before it is, and counts the validations that failed until then. The
// Issuer may have been left behind by then.
type signature struct {
	mu     sync.Mutex
	save   func() error
	asked  bool
	over   bool
	failed int
}

func (s *signature) validationFailed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed++
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

// end lets nothing be noted any more and tells what was.
func (s *signature) end() (asked bool, failed int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	return s.asked, s.failed
}

// obtain is the straight line of a certificate: key on disk, order, verify, store, serve.
func (m *Manager) obtain(ctx context.Context, leaf *x509.Certificate, r store.Renewal, ca Authority, asked *signature) error {
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
	o := Order{Name: name, CSR: csr, Profile: m.cfg.Profile, MayFail: mayFail(now, r), Insist: insist(r), Failed: asked.validationFailed, Finalizing: asked.note}
	if mayAsk(now, leaf, r, ca.Directory) {
		o.Replaces = leaf
	}
	chainPEM, err := ca.Issuer.Issue(ctx, o)
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

func (m *Manager) succeed(start time.Time, own store.Renewal, fallback bool) {
	leaf, now := m.leaf(), time.Now()
	if err := m.save(obtained(now, leaf, m.renewal, own, m.places(), fallback)); err != nil {
		m.log.Warn("renewal state not saved", "error", err)
	}
	m.logOf(fallback).Info("certificate obtained", "issuer", issuerName(leaf), "not_after", minute(leaf.NotAfter),
		"took", now.Sub(start).Round(100*time.Millisecond))
	m.event(Obtained, "issued by "+issuerName(leaf)+", valid until "+minute(leaf.NotAfter))
}

// fail accounts for a failure at one of the CAs; own is what is known of it.
func (m *Manager) fail(leaf *x509.Certificate, own store.Renewal, e *Error, roll float64, fallback bool) {
	now, log := time.Now(), m.logOf(fallback)
	if e.Class == ClassClock && m.synced { // then it is not our clock that is wrong
		e = &Error{Class: ClassNetwork, RetryAfter: e.RetryAfter, Err: e.Err, Hint: "the ACME server's own certificate is over: nothing to do but wait"}
	}
	own = afterFailure(now, leaf, own, e, roll)
	if err := m.save(put(m.renewal, own, fallback)); err != nil {
		m.log.Warn("renewal state not saved", "error", err)
	}
	wait := short(soonest(now, leaf, m.renewal, m.places()).Sub(now))
	if !counts(e.Class) {
		text := e.Error()
		if e.Class == ClassLimit {
			text = usedUp(own.Limit)
		}
		log.Warn("certificate renewal put off", "next", wait, "class", string(e.Class), "cause", text, "hint", hintLine(e.Hint))
		m.event(PutOff, text)
		return
	}
	log.Error("certificate renewal failed", "try", own.Failures, "next", wait,
		"class", string(e.Class), "cause", own.LastError, "hint", own.LastHint)
	m.event(Failed, own.LastError)
}
