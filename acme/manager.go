package acme

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
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

	Directory string      // directory URL of the Issuer's CA; "" = not known, then no renewal information is asked for
	Built     time.Time   // the clock cannot be before this; zero = not known
	Synced    func() bool // whether the clock is known to be synchronized; nil = not known
}

// Manager keeps one certificate valid.
type Manager struct {
	cfg   Config
	log   hclog.Logger
	kick  chan struct{}
	state atomic.Pointer[State]

	// Owned by Run:
	renewal  store.Renewal
	newest   *x509.Certificate // the stored certificate, whether its dates let it serve or not
	ordering time.Time         // when the order under way began; zero = none is
	started  time.Time
	looked   time.Time // when the clock was last looked at
	doubt    string    // why the clock is not believed, "" = it is
	spoils   string    // why the directory must not be ordered from, "" = it may
}

// NewManager makes a Manager; Run sets it to work. There must be one only for each name.
func NewManager(cfg Config) *Manager {
	if cfg.Event == nil {
		cfg.Event = func(Event) {}
	}
	if cfg.Synced == nil {
		cfg.Synced = func() bool { return false }
	}
	m := &Manager{cfg: cfg, log: cfg.Log.With("name", cfg.Name.String()), kick: make(chan struct{}, 1)}
	m.state.Store(&State{Name: cfg.Name.String()})
	return m
}

// Run puts what the store has into service, then orders whenever it is time, until ctx is done. It returns nil: no failure of
// a CA, a disk or a peer ends it.
func (m *Manager) Run(ctx context.Context) error {
	m.started = time.Now()
	m.looked = m.started
	m.restore()
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for kicked := false; ; {
		m.lookAtClock()
		m.publish()
		if m.doubt == "" {
			m.act(ctx, kicked)
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

// act does what it is time for; wished = an operator wants an order now.
func (m *Manager) act(ctx context.Context, wished bool) {
	now, leaf := time.Now(), m.leaf()
	do, _ := next(now, leaf, m.renewal, m.cfg.Directory)
	if !wished && do == stepAsk {
		m.ask(ctx)
	}
	if !wished && do != stepOrder {
		return
	}
	if why := spoils(now, leaf, m.renewal, m.cfg.Directory); why != "" {
		if wished || why != m.spoils {
			m.log.Error("certificate not ordered", "cause", why, "hint", "set acme.directory back, or use another name for rehearsals")
		}
		m.spoils = why
		return
	}
	m.spoils = ""
	if at, why := allowed(now, leaf, m.renewal, wished); wished && at.After(now) {
		m.log.Warn("certificate not ordered", "cause", why, "until", minute(at))
		return
	}
	m.attempt(ctx)
}

// lookAtClock decides whether the clock can be believed. Nothing is ordered by a clock that is wrong.
func (m *Manager) lookAtClock() {
	now, synced := time.Now(), m.cfg.Synced()
	if d := stepped(m.looked, now); d.Abs() > bigStep {
		m.log.Warn("clock stepped, or the machine slept: renewal computed anew", "by", d.Round(time.Second))
		if d < 0 {
			m.renewal = afterStepBack(now, m.renewal, -d)
		}
	}
	m.looked = now
	why := doubt(now, m.cfg.Built, synced, now.Sub(m.started), m.newest, m.renewal)
	switch {
	case why != "" && m.doubt == "":
		m.log.Warn("clock not believed: nothing is ordered until it is set", "now", minute(now), "cause", why)
	case why == "" && m.doubt != "":
		m.log.Info("clock believed again", "now", minute(now))
		if m.leaf() == nil {
			m.restore() // what looked not yet valid
		}
	}
	m.doubt = why
	if good := m.renewal.LastGood; why == "" && synced && (now.Sub(good) >= goodEvery || good.After(now)) {
		r := m.renewal
		r.LastGood = now
		if err := m.save(r); err != nil {
			m.log.Debug("time not noted", "error", err)
		}
	}
}

// ask learns from the CA when the certificate in use is best renewed.
func (m *Manager) ask(ctx context.Context) {
	leaf, before, roll := m.leaf(), m.renewal.Window, rand.Float64()
	within, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	info, err := m.cfg.Issuer.RenewalInfo(within, leaf)
	if ctx.Err() != nil {
		return
	}
	now, r := time.Now(), m.renewal
	switch {
	case errors.Is(err, ErrNoRenewalInfo):
		r = afterNoRenewalInfo(now, leaf, r, maxRetryAfter, roll)
	case err != nil:
		m.log.Debug("no renewal information", "cause", asError(err).Error())
		r = afterNoRenewalInfo(now, leaf, r, asError(err).RetryAfter, roll)
	default:
		r = afterRenewalInfo(now, leaf, r, info, roll)
	}
	if err := m.save(r); err != nil {
		m.log.Warn("renewal state not saved", "error", err)
	}
	if w := r.Window; !w.At.IsZero() && !(w.Certificate == before.Certificate && w.At.Equal(before.At)) {
		m.log.Info("renewal time from the CA", "from", minute(w.Start), "to", minute(w.End), "renews", minute(renewAt(leaf, r)), "why", w.Why)
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
	m.newest = nil
	for _, p := range pairs {
		if leaf := leafOf(p.Chain); leaf != nil && m.newest == nil {
			m.newest = leaf
		}
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
	start, leaf, roll := time.Now(), m.leaf(), rand.Float64()
	before := noted(leaf, m.renewal)
	// The failure goes on disk, and only there, before the order goes out: an agent that dies during an order must not order
	// again at once when it comes back. While it lives, nothing has failed yet.
	dead := beforeOrder(start, leaf, before, m.cfg.Directory, roll)
	if err := m.cfg.Store.SaveRenewal(m.cfg.Name, dead); err != nil {
		m.fail(leaf, before, &Error{Class: ClassInternal, Err: err,
			Hint: "make room on the disk of state_dir and see that the agent may write there"}, roll)
		return
	}
	before.Ordered = m.cfg.Directory
	why := "renewal"
	if leaf == nil {
		why = "first certificate"
	}
	m.log.Info("certificate ordered", "reason", why, "try", before.Failures+1)
	m.ordering = start
	m.event(Ordered, why)
	asked := &signature{save: func() error { return m.cfg.Store.SaveRenewal(m.cfg.Name, signed(start, dead)) }}
	err := m.obtain(ctx, leaf, asked)
	m.ordering = time.Time{}
	select { // a wish that came meanwhile has just been granted; one that follows the event below has not
	case <-m.kick:
	default:
	}
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
	default:
		m.fail(leaf, before, asError(err), roll)
	}
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
	o := Order{Name: name, CSR: csr, Profile: m.cfg.Profile, MayFail: mayFail(now, m.renewal), Finalizing: asked.note}
	if mayAsk(now, leaf, m.renewal, m.cfg.Directory) {
		o.Replaces = leaf
	}
	chainPEM, err := m.cfg.Issuer.Issue(ctx, o)
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
		m.log.Warn("certificate renewal put off", "next", wait, "class", string(e.Class), "cause", text, "hint", oneLine(e.Hint))
		m.event(PutOff, text)
		return
	}
	m.log.Error("certificate renewal failed", "try", m.renewal.Failures, "next", wait,
		"class", string(e.Class), "cause", m.renewal.LastError, "hint", m.renewal.LastHint)
	m.event(Failed, m.renewal.LastError)
}

// save takes r as the state from now on, in memory even when the disk refuses.
func (m *Manager) save(r store.Renewal) error {
	m.renewal = r
	return m.cfg.Store.SaveRenewal(m.cfg.Name, r)
}

func (m *Manager) leaf() *x509.Certificate { return m.cfg.Live.Leaf(m.cfg.Name) }

// leafOf reads the first certificate of a chain, nil when there is none.
func leafOf(chainPEM []byte) *x509.Certificate {
	block, _ := pem.Decode(chainPEM)
	if block == nil {
		return nil
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil
	}
	return leaf
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
