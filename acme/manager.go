package acme

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"ntsagent/acme/live"
	"ntsagent/acme/store"
	"ntsagent/hostcheck"
)

// tick is how often the wall clock is compared with the time of the next order. Go timers follow the monotonic clock: one long
// timer would sleep through a suspend or a clock that is set.
const tick = 30 * time.Second

// Config is what a Manager is made of.
type Config struct {
	Name    hostcheck.Name
	Issuer  Issuer
	Store   *store.Store
	Live    *live.Set
	KeyType store.KeyType // "" = P-256
	Profile string        // wanted certificate profile, "" = the CA's default
	Log     hclog.Logger
	Event   func(Event) // called from Run's goroutine, must not block; may be nil
}

// Manager keeps one certificate valid.
type Manager struct {
	cfg   Config
	log   hclog.Logger
	kick  chan struct{}
	state atomic.Pointer[State]

	renewal  store.Renewal // owned by Run, as is ordering
	ordering time.Time     // when the order under way began; zero = none is
}

// NewManager makes a Manager; Run sets it to work. There must be one only for each name.
func NewManager(cfg Config) *Manager {
	if cfg.Event == nil {
		cfg.Event = func(Event) {}
	}
	m := &Manager{cfg: cfg, log: cfg.Log.With("name", cfg.Name.String()), kick: make(chan struct{}, 1)}
	m.state.Store(&State{Name: cfg.Name.String()})
	return m
}

// Run puts what the store has into service, then orders whenever it is time, until ctx is done. It returns nil: no failure of
// a CA, a disk or a peer ends it.
func (m *Manager) Run(ctx context.Context) error {
	m.restore()
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for kicked := false; ; {
		m.publish()
		now := time.Now()
		if kicked || !due(now, m.leaf(), m.renewal).After(now) {
			m.attempt(ctx)
			m.publish()
			kicked = false
		}
		select {
		case <-ctx.Done():
			return nil
		case <-m.kick:
			kicked = true
		case <-ticker.C:
		}
	}
}

// Renew asks for an order now, whatever the schedule says. It returns at once.
func (m *Manager) Renew() {
	select {
	case m.kick <- struct{}{}:
	default:
	}
}

// restore puts the newest pair of the store that can be served into service, and recalls the last attempts.
func (m *Manager) restore() {
	r, err := m.cfg.Store.Renewal(m.cfg.Name)
	if err != nil {
		m.log.Warn("renewal state not read", "error", err)
	}
	m.renewal, m.ordering = r, time.Time{}
	pairs, err := m.cfg.Store.Pairs(m.cfg.Name)
	if err != nil {
		m.log.Warn("certificate store not read", "error", err)
	}
	for _, p := range pairs {
		changed, err := m.cfg.Live.Install(m.cfg.Name, p.Chain, p.Key, time.Now())
		if err != nil {
			m.log.Warn("stored certificate not used", "error", oneLine(err.Error()))
			continue
		}
		leaf := m.leaf()
		if !changed { // a reload has left it in service
			m.log.Debug("certificate kept", "issuer", issuerName(leaf), "not_after", minute(leaf.NotAfter))
			return
		}
		m.log.Info("certificate installed", "issuer", issuerName(leaf), "not_after", minute(leaf.NotAfter))
		m.event(Installed, "from the store, valid until "+minute(leaf.NotAfter))
		return
	}
}

// attempt orders one certificate and accounts for how it went.
func (m *Manager) attempt(ctx context.Context) {
	start, before, leaf, roll := time.Now(), m.renewal, m.leaf(), rand.Float64()
	// The failure goes on disk, and only there, before the order goes out: an agent that dies during an order must not order
	// again at once when it comes back. While it lives, nothing has failed yet.
	cut := &Error{Class: ClassInternal, Err: errors.New("the agent stopped during the attempt")}
	if err := m.cfg.Store.SaveRenewal(m.cfg.Name, afterFailure(start, leaf, before, cut, roll)); err != nil {
		m.fail(leaf, before, &Error{Class: ClassInternal, Err: err,
			Hint: "make room on the disk of state_dir and see that the agent may write there"}, roll)
		return
	}
	why := "renewal"
	if leaf == nil {
		why = "first certificate"
	}
	m.log.Info("certificate ordered", "reason", why, "try", before.Failures+1)
	m.ordering = start
	m.event(Ordered, why)
	err := m.obtain(ctx)
	m.ordering = time.Time{}
	select { // a wish that came meanwhile has just been granted; one that follows the event below has not
	case <-m.kick:
	default:
	}
	switch {
	case err == nil:
		m.succeed(start)
	case ctx.Err() != nil:
		// Stopped on purpose: not a failure, but no reason either to order in a circle while the agent is restarted.
		before.NextAttempt = later(before.NextAttempt, start.Add(interrupted))
		if err := m.save(before); err != nil {
			m.log.Warn("renewal state not saved", "error", err)
		}
	default:
		m.fail(leaf, before, asError(err), roll)
	}
}

// obtain is the straight line of a certificate: key on disk, order, verify, store, serve.
func (m *Manager) obtain(ctx context.Context) error {
	name := m.cfg.Name
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
	chainPEM, err := m.cfg.Issuer.Issue(ctx, Order{Name: name, CSR: csr, Profile: m.cfg.Profile})
	if err != nil {
		return err
	}
	if _, err := live.Verify(name, chainPEM, keyPEM, time.Now()); err != nil {
		return rejected(err)
	}
	if err := m.cfg.Store.Commit(name, chainPEM); err != nil {
		return err
	}
	if _, err := m.cfg.Live.Install(name, chainPEM, keyPEM, time.Now()); err != nil {
		return rejected(err)
	}
	return nil
}

func rejected(err error) error {
	return &Error{Class: ClassRejected, Err: fmt.Errorf("certificate from the CA rejected: %w", err),
		Hint: "the certificate in use stays; if the dates are at fault, look at this machine's clock"}
}

func (m *Manager) succeed(start time.Time) {
	leaf, now := m.leaf(), time.Now()
	if err := m.save(afterSuccess(now, leaf)); err != nil {
		m.log.Warn("renewal state not saved", "error", err)
	}
	m.log.Info("certificate obtained", "issuer", issuerName(leaf), "not_after", minute(leaf.NotAfter),
		"took", now.Sub(start).Round(100*time.Millisecond))
	m.event(Obtained, "issued by "+issuerName(leaf)+", valid until "+minute(leaf.NotAfter))
}

func (m *Manager) fail(leaf *x509.Certificate, before store.Renewal, e *Error, roll float64) {
	now := time.Now()
	if err := m.save(afterFailure(now, leaf, before, e, roll)); err != nil {
		m.log.Warn("renewal state not saved", "error", err)
	}
	m.log.Error("certificate renewal failed", "try", m.renewal.Failures, "next", short(due(now, leaf, m.renewal).Sub(now)),
		"class", string(e.Class), "cause", m.renewal.LastError, "hint", m.renewal.LastHint)
	m.event(Failed, m.renewal.LastError)
}

// save takes r as the state from now on, in memory even when the disk refuses.
func (m *Manager) save(r store.Renewal) error {
	m.renewal = r
	return m.cfg.Store.SaveRenewal(m.cfg.Name, r)
}

func (m *Manager) leaf() *x509.Certificate { return m.cfg.Live.Leaf(m.cfg.Name) }

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
