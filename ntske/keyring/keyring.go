// Package keyring keeps the agent and the NTP daemon on the same cookie keys
// (RFC 8915 section 6). A Keyring leads, as with chrony; a Follower goes after a
// daemon that makes its keys itself, as NTPsec and ntpd-rs do; and an Own keeps
// keys that are for a server of ours alone, in front of a daemon without NTS.
//
// Leading is one straight line: timer → a new Ring with one more future key →
// our own file → hand-over to the daemon → proof → publish. The daemon's word
// proves nothing (chronyd says OK to a broken file), so a key is minted under
// only after an NTS query with a cookie sealed under it has been answered and
// authenticated. Following is the shorter one: the daemon's key file → a whole
// parse, or nothing → proof → publish.
//
// What the answers mean is decided by pure functions: judge (what do these
// observations say of the daemon?) and plan (what is to be done now?). One
// goroutine, Run, acts on them; everybody else reads immutable snapshots.
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

// Answer is what became of one NTS query to the daemon.
type Answer uint8

const (
	Silent   Answer = iota // no reply that authenticates, in time
	Answered               // a reply that authenticates: the daemon opened the cookie
	Refused                // an NTS NAK: the daemon cannot open the cookie
)

// String names the answer.
func (a Answer) String() string {
	switch a {
	case Answered:
		return "answered"
	case Refused:
		return "refused"
	}
	return "silent"
}

// Defaults and bounds of a Config.
const (
	DefaultRotateEvery = 7 * 24 * time.Hour // chrony holds four keys: a cookie lives two to three weeks
	DefaultCheckEvery  = time.Minute
	answerWithin       = 2 * time.Second  // for one query on the same host
	handOverWithin     = 30 * time.Second // for one hand-over
)

// Config is what a Keyring needs of the world. All funcs are called from Run's
// goroutine, one at a time.
type Config struct {
	Format      cookie.Chrony
	RotateEvery time.Duration // 0 = DefaultRotateEvery
	CheckEvery  time.Duration // 0 = DefaultCheckEvery

	// Load reads our own key file; an error that is os.ErrNotExist means there
	// is none yet. Save replaces it and is durable when it returns.
	Load func() ([]byte, error)
	Save func([]byte) error

	// HandOver asks the daemon to take the key file, in the daemon's format. A
	// nil error proves nothing: the daemon may take it later, or never.
	HandOver func(ctx context.Context, keyFile []byte) error
	// Prove sends one NTS query with that cookie to the daemon.
	Prove func(ctx context.Context, cookie []byte, s *cookie.Session) Answer
	// Plain sends one NTP query without NTS: was it answered?
	Plain func(ctx context.Context) bool
	// Held reads the key file that the daemon would load at a start. nil, and an
	// error that is os.ErrPermission, mean that this cannot be told; any other
	// error that the daemon could not load it either. New calls it too, and Look,
	// from its caller's goroutine.
	Held func() ([]byte, error)
	// Spacing is the least time between two queries to the daemon. It must stay
	// below the daemon's rate limit.
	Spacing time.Duration

	// Help tells what an operator is to do. It is called when there is trouble,
	// so that it can tell of the daemon's configuration as it is then; nil =
	// general sentences.
	Help    func() Help
	Rand    io.Reader // a cryptographic random source
	Log     hclog.Logger
	Changed func() // called after each change of State; must not block

	// After is the Keyring on the same file and daemon that this one takes over
	// from, its Run ended; nil = none.
	After *Keyring
}

// Help holds one sentence per trouble: what is wrong and what to do. An empty
// one is replaced by a general sentence.
type Help struct {
	Unseen  string // the daemon answers nothing
	Refused string // the daemon refuses our cookies
	NoNTS   string // the daemon answers plain queries, but none with NTS
}

// Keyring keeps the current Ring. Current and State are safe for concurrent use.
type Keyring struct {
	service
	cfg    Config
	state  atomic.Pointer[State]
	rotate chan chan<- error
	over   chan struct{} // closed when another has taken over

	running sync.Mutex // held by Run; guards lead and asker
	lead    lead
	asker   asker
}

// New loads the key file. When there is none it takes over the keys of a daemon
// that has some, or makes the first four, and saves them. It asks the daemon nothing, and publishes nothing but what the
// Keyring before published. While that one runs New fails: a rotation of it
// would leave us with old keys.
func New(cfg Config) (*Keyring, error) {
	cfg, err := withDefaults(cfg)
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
		if before.isOver() {
			return nil, errors.New("keyring: another has taken over already")
		}
	}
	k := &Keyring{cfg: cfg, rotate: make(chan chan<- error), over: make(chan struct{})}
	k.wake = make(chan struct{}, 1)
	k.asker = asker{prove: cfg.Prove, plain: cfg.Plain, format: cfg.Format, rand: cfg.Rand, spacing: cfg.Spacing, log: cfg.Log}
	k.lead.started = time.Now()
	if err := k.load(); err != nil {
		return nil, err
	}
	if before != nil {
		k.takeOver(before)
		close(before.over)
	}
	s := k.snapshot()
	k.state.Store(&s)
	return k, nil
}

func (k *Keyring) load() error {
	b, err := k.cfg.Load()
	switch {
	case err == nil:
		k.lead.file, err = parseFile(k.cfg.Format, b)
		if err != nil {
			err = k.replaceKeys(err, time.Now())
		}
	case errors.Is(err, os.ErrNotExist):
		if ring, _ := k.daemonsKeys(); ring != nil {
			k.cfg.Log.Info("taking over the daemon's keys", "current", hexID(ring.Current().ID()), "aead", ring.Current().AEAD().String())
			k.lead.file = file{ring: ring, rotated: wall(time.Now())}
			err = k.save(k.lead.file)
			break
		}
		err = k.firstKeys(time.Now())
	default:
		err = fmt.Errorf("load own key file: %w", err)
	}
	if err != nil {
		return err
	}
	if k.lead.file.rotated.IsZero() { // adopted keys of unknown age
		k.lead.file.rotated = wall(time.Now())
	}
	k.lead.provenAt = k.lead.file.provenAt
	k.lead.resume = k.lead.file.mintingKey() != nil
	return nil
}

// takeOver goes on where before ended. Clients are served without a gap when
// our file still holds, as proven, the very key it minted under; the daemon is
// asked about it at once all the same.
func (k *Keyring) takeOver(before *Keyring) {
	l, old := &k.lead, &before.lead
	l.started = old.started
	k.asker.asked = before.asker.asked // the daemon's rate limit knows no keyrings
	l.lastError = old.lastError
	ring, key := before.ring.Load(), l.file.mintingKey()
	if ring == nil || key == nil || !sameKey(ring.Current(), key) {
		return
	}
	l.standing, l.why = old.standing, old.why
	k.publish(l.file.published())
}

func withDefaults(cfg Config) (Config, error) {
	if cfg.Load == nil || cfg.Save == nil || cfg.HandOver == nil || cfg.Prove == nil || cfg.Plain == nil || cfg.Rand == nil {
		return cfg, errors.New("keyring: Load, Save, HandOver, Prove, Plain and Rand are needed")
	}
	if cfg.RotateEvery < 0 || cfg.CheckEvery < 0 || cfg.Spacing < 0 {
		return cfg, errors.New("keyring: RotateEvery, CheckEvery and Spacing cannot be negative")
	}
	if cfg.RotateEvery == 0 {
		cfg.RotateEvery = DefaultRotateEvery
	}
	if cfg.CheckEvery == 0 {
		cfg.CheckEvery = DefaultCheckEvery
	}
	orSilent(&cfg.Log, &cfg.Changed, &cfg.Help)
	return cfg, nil
}

func (h Help) orGeneral() Help {
	if h.Unseen == "" {
		h.Unseen = "the NTP daemon does not answer queries from this host: allow them, or correct the daemon's address"
	}
	if h.Refused == "" {
		h.Refused = "the NTP daemon cannot open our cookies: it has not loaded our key file"
	}
	if h.NoNTS == "" {
		h.NoNTS = "the NTP daemon answers plain queries but none with NTS: switch NTS on in its configuration"
	}
	return h
}

func (k *Keyring) firstKeys(now time.Time) error {
	ring, err := k.cfg.Format.NewRing(k.cfg.Rand)
	if err != nil {
		return fmt.Errorf("make the first cookie keys: %w", err)
	}
	f := file{ring: ring, rotated: wall(now)}
	if err := k.save(f); err != nil {
		return err
	}
	k.lead.file = f
	return nil
}

// replaceKeys makes up for an own key file that is damaged. The daemon's may have
// what ours had, and clients keep their cookies. Fresh keys cost each client one
// key exchange; staying down would cost new clients everything.
func (k *Keyring) replaceKeys(damage error, now time.Time) error {
	if ring, _ := k.daemonsKeys(); ring != nil {
		k.cfg.Log.Error("own key file is damaged, taking the daemon's", "error", damage)
		k.lead.file = file{ring: ring, rotated: wall(now)}
		return k.save(k.lead.file)
	}
	k.cfg.Log.Error("own key file is damaged, making new keys", "error", damage)
	return k.firstKeys(now)
}

func (k *Keyring) save(f file) error {
	b, err := f.append(nil, k.cfg.Format)
	if err != nil {
		return err
	}
	if err := k.cfg.Save(b); err != nil {
		return fmt.Errorf("save own key file: %w", err)
	}
	return nil
}

// State returns a snapshot for status and health.
func (k *Keyring) State() State { return *k.state.Load() }

func (k *Keyring) isOver() bool {
	select {
	case <-k.over:
		return true
	default:
		return false
	}
}

// Rotate makes the next key current now and returns when the daemon has proven
// it (nil), or with the reason why it has not yet; Run keeps trying then. It
// needs Run to be running, and the last rotation and the daemon proven.
func (k *Keyring) Rotate(ctx context.Context) error {
	done := make(chan error, 1)
	select {
	case k.rotate <- done:
	case <-k.over:
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
