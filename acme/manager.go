package acme

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"ntsagent/acme/dnscheck"
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
	KeyType store.KeyType  // "" = P-256
	Profile string         // wanted certificate profile, "" = the CA's default
	Roots   *x509.CertPool // that may sign an imported certificate without an intermediate; nil = the system's
	Log     hclog.Logger
	Event   func(Event) // called from Run's goroutine, must not block; may be nil

	Directory string      // directory URL of the Issuer's CA; "" = not known, then no renewal information is asked for
	Built     time.Time   // the clock cannot be before this; zero = not known
	Synced    func() bool // whether the clock is known to be synchronized; nil = not known

	Look       func(context.Context, hostcheck.Name) dnscheck.Verdict // what the DNS says of a name; nil = it is not asked
	LookAround func(context.Context, hostcheck.Name) []Fault          // what a stranger is shown; nil = the agent alone answers strangers
	Roll       func() float64                                         // gives from [0,1) what spreads times; nil = at random

	Fallback Authority // ordered from when the Issuer's CA lets us down; the zero value = none
}

// Manager keeps one certificate valid.
type Manager struct {
	cfg     Config
	log     hclog.Logger
	wishes  chan wish
	errands chan errand
	over    chan struct{} // closed when Run has ended
	state   atomic.Pointer[State]

	// Owned by Run:
	renewal    store.Renewal
	newest     *x509.Certificate // the stored certificate, whether its dates let it serve or not
	longest    *x509.Certificate // the last in service that was about to end when no stored one held longer
	ordering   time.Time         // when the order under way began; zero = none is
	started    time.Time
	looked     reading        // of the clock when it was last looked at
	read       func() reading // the clock
	synced     bool           // the clock is known to be right
	waits      bool           // that a renewal waits for the clock was told
	doubt      string         // why the clock is not believed, "" = it is
	askAgain   time.Time      // when to ask again to revoke what no CA has answered
	unanswered int            // how often none has, in a row
	unread     string         // why the renewal state cannot be read, "" = it is known
	spoils     string         // why the directory must not be ordered from, "" = it may
	wished     []wish         // that have no answer yet
	standing   dnscheck.State
	faults     []Fault   // that were seen twice
	before     []Fault   // all that the last look around saw
	around     time.Time // when to look around again
	seen       bool      // the DNS was looked at since the start
}

// NewManager makes a Manager; Run sets it to work. There must be one only for each name.
func NewManager(cfg Config) *Manager {
	if cfg.Event == nil {
		cfg.Event = func(Event) {}
	}
	if cfg.Roll == nil {
		cfg.Roll = rand.Float64
	}
	m := &Manager{cfg: cfg, log: cfg.Log.With("name", cfg.Name.String()), wishes: make(chan wish), errands: make(chan errand), over: make(chan struct{})}
	if d := cfg.Fallback.Directory; staging(d) && !staging(cfg.Directory) {
		m.log.Error("fallback CA not used", "directory", d, "cause", "it is a staging CA: no client would trust its certificates",
			"hint", "set acme.fallback_directory to another CA, or remove it")
		m.cfg.Fallback = Authority{}
	}
	m.state.Store(&State{Name: cfg.Name.String()})
	return m
}

// Run puts what the store has into service, then orders whenever it is time, until ctx is done. It returns nil: no failure of
// a CA, a disk or a peer ends it. It runs once.
func (m *Manager) Run(ctx context.Context) error {
	defer close(m.over)
	m.started = time.Now()
	if m.read == nil {
		m.read = func() reading { return readFrom(m.started) }
	}
	m.looked = m.read()
	m.restore()
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		m.readAgain()
		m.lookAtClock()
		m.outlive()
		m.publish()
		m.revokeAgain(ctx)
		m.answer(m.act(ctx))
		m.watch(ctx)
		m.watchAround(ctx)
		m.publish()
		select {
		case <-ctx.Done():
			return nil
		case w := <-m.wishes:
			m.wished = append(m.wished, w)
			m.hear()
		case e := <-m.errands:
			e.answer <- e.do(ctx)
		case <-ticker.C:
		}
	}
}

// act does what it is time for, or wished for. Its error is for those who wished.
func (m *Manager) act(ctx context.Context) error {
	now, leaf, wished, forced := time.Now(), m.leaf(), len(m.wished) > 0, m.forced()
	if m.doubt != "" {
		refused := m.refuse("the clock is not believed: "+m.doubt, "set this machine's clock", time.Time{})
		refused.Clock = true
		return refused
	}
	if m.unread != "" {
		return m.refuse(unread(m.unread), hintUnread, time.Time{})
	}
	if !m.begun(forced) {
		return &Refused{Why: ceased(m.renewal), Hint: hintCeased}
	}
	do, fallback, _ := next(now, leaf, m.renewal, m.places())
	if do == stepAsk || wished && !forced && do == stepWait && m.places().know(now, leaf, m.renewal) {
		m.ask(ctx)
	}
	if !wished && do != stepOrder {
		return nil
	}
	if until := m.patience(now); !wished && until.After(now) {
		if !m.waits {
			m.log.Info("renewal waits for a synchronized clock", "until", minute(until))
		}
		m.waits = true
		return nil
	}
	if at := notDue(time.Now(), leaf, m.renewal); !forced && !at.IsZero() {
		early := &Refused{Why: "it is not due", Hint: "--force orders now", Until: at, Early: true}
		if kept, why := barred(now, leaf, of(m.renewal, m.instead(now, leaf)), true); kept.After(now) {
			early.Hint = "--force orders none before " + minute(kept) + ": " + why
		}
		return early
	}
	if do != stepOrder {
		fallback = m.instead(now, leaf)
	}
	err := m.order(ctx, wished, forced, fallback)
	if err == nil || fallback || ctx.Err() != nil {
		return err
	}
	if do, fallback, _ := next(time.Now(), m.leaf(), m.renewal, m.places()); do == stepOrder && fallback {
		return m.order(ctx, wished, forced, true)
	}
	return err
}

// order orders from one of the CAs, if nothing forbids it.
func (m *Manager) order(ctx context.Context, wished, forced, fallback bool) error {
	now, leaf := time.Now(), m.leaf()
	if why := spoils(now, leaf, m.renewal, m.places().of(fallback)); why != "" && !forced {
		if wished || why != m.spoils {
			m.log.Error("certificate not ordered", "cause", why, "hint", hintSpoils)
		}
		m.spoils = why
		return &Refused{Why: why, Hint: hintSpoils}
	}
	m.spoils = ""
	if at, why := barred(now, leaf, of(m.renewal, fallback), wished); at.After(now) {
		return m.refuse(why, hintBudget, at)
	}
	if failed, ok := m.cleared(ctx, wished, fallback); !ok {
		if ctx.Err() != nil {
			return ErrStopped
		}
		if failed != nil {
			return failed
		}
		return m.refusal()
	}
	m.lookAround(ctx)
	return m.attempt(ctx, fallback)
}

// places are the CAs of the configuration.
func (m *Manager) places() places { return places{m.cfg.Directory, m.cfg.Fallback.Directory} }

// authority is one of them.
func (m *Manager) authority(fallback bool) Authority {
	if fallback {
		return m.cfg.Fallback
	}
	return Authority{Directory: m.cfg.Directory, Issuer: m.cfg.Issuer, Look: m.cfg.Look}
}

// maker is the CA that leaf was ordered from; the primary where that is not known.
func (m *Manager) maker(leaf *x509.Certificate) Authority {
	return m.authority(m.cfg.Fallback.Directory != "" && origin(leaf, m.renewal) == m.cfg.Fallback.Directory)
}

// instead tells whether a wish goes to the fallback: it is its turn, and the primary must not be asked.
func (m *Manager) instead(now time.Time, leaf *x509.Certificate) bool {
	if m.cfg.Fallback.Directory == "" {
		return false
	}
	from, ok := turn(now, leaf, m.renewal)
	kept, _ := barred(now, leaf, m.renewal, true)
	return ok && !from.After(now) && kept.After(now)
}

// lookAtClock decides whether the clock can be believed. Nothing is ordered by a clock that is wrong.
func (m *Manager) lookAtClock() {
	now, both := time.Now(), m.read()
	m.synced = m.cfg.Synced != nil && m.cfg.Synced()
	if d := stepped(m.looked, both); d.Abs() > bigStep {
		m.log.Warn("clock stepped, or the machine slept: renewal computed anew", "by", d.Round(time.Second))
		if d < 0 {
			m.renewal = afterStepBack(now, m.renewal, -d)
		}
	}
	m.looked = both
	why := doubt(now, m.cfg.Built, m.synced, now.Sub(m.started), m.newest, m.renewal)
	switch {
	case why != "" && m.doubt == "":
		m.log.Warn("clock not believed: nothing is ordered until it is set", "now", minute(now), "cause", why)
	case why == "" && m.doubt != "":
		m.log.Info("clock believed again", "now", minute(now))
		if m.leaf() == nil {
			m.serveStored() // what looked not yet valid
		}
	}
	m.doubt = why
	if good := m.renewal.LastGood; why == "" && m.synced && (now.Sub(good) >= goodEvery || good.After(now)) {
		r := m.renewal
		r.LastGood = now
		if err := m.save(r); err != nil {
			m.log.Debug("time not noted", "error", err)
		}
	}
}

// patience is that of the package, where anything is known of the clock.
func (m *Manager) patience(now time.Time) time.Time {
	return patience(now, m.started, m.synced || m.cfg.Synced == nil, m.leaf(), m.renewal)
}

// ask learns from the CA when the certificate in use is best renewed.
func (m *Manager) ask(ctx context.Context) {
	leaf, before, roll := m.leaf(), m.renewal.Window, m.cfg.Roll()
	within, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	info, err := m.maker(leaf).Issuer.RenewalInfo(within, leaf)
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
		if !sound(info) {
			m.log.Debug("no renewal information", "cause", "no window", "from", minute(info.Start), "to", minute(info.End))
		}
		r = afterRenewalInfo(now, leaf, r, info, roll)
	}
	if err := m.save(r); err != nil {
		m.log.Warn("renewal state not saved", "error", err)
	}
	if w := r.Window; !w.At.IsZero() && !(w.Certificate == before.Certificate && w.At.Equal(before.At)) {
		m.log.Info("renewal time from the CA", "from", minute(w.Start), "to", minute(w.End), "renews", minute(renewAt(leaf, r)), "why", w.Why)
	}
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
