package keyring

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"ntsagent/ntske/cookie"
)

// Defaults of an OwnConfig.
const (
	DefaultOwnRotation = 24 * time.Hour
	DefaultKeep        = 10 // with a rotation a day a cookie lives nine to ten days
)

// OwnConfig is what an Own needs of the world. Prove and Help are called from
// Run's goroutine, one at a time.
type OwnConfig struct {
	RotateEvery time.Duration // 0 = DefaultOwnRotation
	Keep        int           // keys held, the one that mints among them; 0 = DefaultKeep
	CheckEvery  time.Duration // 0 = DefaultCheckEvery

	// Load and Save are as in Config, but that Load may return ErrDamaged. Aside
	// puts a file that is damaged where it is out of the way and tells where that is.
	Load  func() ([]byte, error)
	Save  func([]byte) error
	Aside func() (string, error)

	// Prove sends one NTS query with that cookie to each address where our server
	// answers: Answered says that all have.
	Prove func(ctx context.Context, cookie []byte, s *cookie.Session) Answer

	Help    func() Help // see Config; its NoNTS is not used
	Rand    io.Reader   // a cryptographic random source
	Log     hclog.Logger
	Changed func() // called after each change of State; must not block

	// After is the Own of the same file that this one takes over from, its Run
	// ended; nil = none.
	After *Own
}

// Own keeps the current Ring where the keys are ours alone, for a server of ours
// that opens the cookies:
//
//	timer → a new Ring with one more key → our file → our server → proof → publish
//
// Current, Await, Held and State are safe for concurrent use.
type Own struct {
	service
	cfg    OwnConfig
	held   atomic.Pointer[cookie.Ring]
	state  atomic.Pointer[State]
	rotate chan chan<- error
	over   chan struct{} // closed when another has taken over

	running sync.Mutex // held by Run; guards own and asker
	own     own
	asker   asker
}

// own is what Run knows, and goes on from when it is called again.
type own struct {
	file     ownFile
	since    time.Time // of the last rotation, or of our start; with its monotonic reading
	fresh    bool      // since is that of a rotation
	standing Standing  // "" before the first verdict
	provenAt time.Time
	why      string

	checkAt, tryAt time.Time
	failures       int // checks in a row that did not end well, or rotations that were not saved
	lastError      string
}

// NewOwn loads our key file, or makes the first key and saves it. What is in a
// damaged file is lost: it is put aside and there are new keys, for a client's
// new key exchange costs less than no key exchange. Nothing is published but
// what the Own before published.
func NewOwn(cfg OwnConfig) (*Own, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	before := cfg.After
	cfg.After = nil // not kept: each would hold all before it
	if before != nil {
		if !before.running.TryLock() {
			return nil, errors.New("keyring: the one to take over from still runs")
		}
		defer before.running.Unlock()
		select {
		case <-before.over:
			return nil, errors.New("keyring: another has taken over already")
		default:
		}
	}
	o := &Own{cfg: cfg, rotate: make(chan chan<- error), over: make(chan struct{})}
	o.wake = make(chan struct{}, 1)
	o.asker = asker{prove: cfg.Prove, format: cookie.Own{}, rand: cfg.Rand, log: cfg.Log}
	o.own.since = time.Now()
	if err := o.load(); err != nil {
		return nil, err
	}
	if before != nil {
		o.takeOver(before)
		close(before.over)
	}
	o.state.Store(o.snapshot())
	return o, nil
}

func (cfg OwnConfig) withDefaults() (OwnConfig, error) {
	if cfg.Load == nil || cfg.Save == nil || cfg.Aside == nil || cfg.Prove == nil || cfg.Rand == nil {
		return cfg, errors.New("keyring: Load, Save, Aside, Prove and Rand are needed")
	}
	if cfg.Keep == 0 {
		cfg.Keep = DefaultKeep
	}
	if cfg.RotateEvery < 0 || cfg.CheckEvery < 0 || cfg.Keep < cookie.LeastKeys || cfg.Keep > cookie.MostKeys {
		return cfg, fmt.Errorf("keyring: RotateEvery and CheckEvery cannot be negative, and Keep is from %d to %d", cookie.LeastKeys, cookie.MostKeys)
	}
	if cfg.RotateEvery == 0 {
		cfg.RotateEvery = DefaultOwnRotation
	}
	if cfg.CheckEvery == 0 {
		cfg.CheckEvery = DefaultCheckEvery
	}
	orSilent(&cfg.Log, &cfg.Changed, &cfg.Help)
	return cfg, nil
}

func (o *Own) load() error {
	var f ownFile
	b, err := o.cfg.Load()
	if err == nil {
		f, err = parseOwn(b)
	}
	switch {
	case err == nil:
		o.own.file = f
		o.held.Store(f.ring)
		return nil
	case errors.Is(err, ErrDamaged):
		kept, failed := o.cfg.Aside()
		if failed != nil {
			return fmt.Errorf("put the damaged file of our cookie keys aside: %w", failed)
		}
		o.own.lastError = err.Error()
		o.cfg.Log.Error("own cookie keys are damaged, making new ones: each client needs a new key exchange", "error", err, "kept", kept)
	case !errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("load our cookie keys: %w", err)
	}
	ring, err := cookie.Own{}.NewRing(o.cfg.Rand)
	if err != nil {
		return err
	}
	return o.keep(ring, time.Now())
}

// keep saves ring and then holds it: our server opens its cookies, and mints
// under its last key. On an error all stays as it was.
func (o *Own) keep(ring *cookie.Ring, now time.Time) error {
	f := ownFile{ring, wall(now)}
	if err := o.cfg.Save(f.append(nil)); err != nil {
		return fmt.Errorf("save our cookie keys: %w", err)
	}
	o.own.file = f
	o.held.Store(ring)
	return nil
}

// takeOver goes on where before ended, so that clients are served without a gap.
func (o *Own) takeOver(before *Own) {
	l, old := &o.own, &before.own
	l.since, l.fresh, l.provenAt = old.since, old.fresh, old.provenAt
	if l.lastError == "" {
		l.lastError = old.lastError
	}
	ring := before.Current()
	if ring == nil || !holds(l.file.ring, ring.Current()) {
		return
	}
	l.standing, l.why = old.standing, old.why
	o.publish(ring)
}

// Held returns the Ring for the server that opens our cookies; never nil.
func (o *Own) Held() *cookie.Ring { return o.held.Load() }

// Look says that our server may answer in another way than before: it is asked
// at once. What the arguments say of a daemon's process means nothing here.
func (o *Own) Look(_, _ bool) { o.stir(false) }

// State returns a snapshot for status and health.
func (o *Own) State() State { return *o.state.Load() }

// note publishes a new State and says so.
func (o *Own) note() {
	o.state.Store(o.snapshot())
	o.cfg.Changed()
}

func (o *Own) snapshot() *State {
	l := &o.own
	s := &State{
		Mode: "own", Standing: l.standing, NextRotation: l.file.rotated.Add(o.cfg.RotateEvery),
		ProvenAt: l.provenAt, Why: l.why, LastError: l.lastError, Pending: o.pending(),
	}
	if s.Standing == "" {
		s.Standing = Starting
	}
	if ring := o.Current(); ring != nil {
		s.Minting, s.Current = true, ring.Current().ID()
	}
	for _, key := range l.file.ring.Keys() {
		s.Held = append(s.Held, KeyState{ID: key.ID(), Fingerprint: key.Fingerprint()})
	}
	return s
}

// pending tells that the newest key waits for its proof.
func (o *Own) pending() bool { return o.Current() != o.own.file.ring }

// Rotate makes a new key now and returns when our server has shown to open it
// (nil), or with the reason why not yet; Run keeps trying then. It needs Run to
// be running.
func (o *Own) Rotate(ctx context.Context) error {
	done := make(chan error, 1)
	select {
	case o.rotate <- done:
	case <-o.over:
		return errors.New("rotate cookie keys: not now, the configuration has just changed; try again")
	case <-ctx.Done():
		return fmt.Errorf("rotate cookie keys: %w", ctx.Err())
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("rotate cookie keys: %w", ctx.Err())
	}
}
