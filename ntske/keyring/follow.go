package keyring

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"ntsagent/ntske/cookie"
)

// FollowConfig is what a Follower needs of the world. Prove, Plain and Help are
// called from Run's goroutine, one at a time.
type FollowConfig struct {
	Format cookie.Format
	// Read reads the daemon's key file, whole; an error that is os.ErrNotExist
	// says that it is not there. NewFollower and Look call it too, from their
	// callers' goroutines.
	Read func() ([]byte, error)
	// Behind is for how long after a rotation cookies are minted one key behind:
	// the time in which the daemon may refuse a key that is in its file already.
	Behind     time.Duration
	CheckEvery time.Duration // 0 = DefaultCheckEvery

	Prove   func(ctx context.Context, cookie []byte, s *cookie.Session) Answer // see Config
	Plain   func(ctx context.Context) bool                                     // see Config
	Spacing time.Duration                                                      // see Config

	Help    func() Help // see Config
	Rand    io.Reader   // a cryptographic random source
	Log     hclog.Logger
	Changed func() // called after each change of State; must not block

	// After is the Follower of the same daemon and key file that this one takes
	// over from, its Run ended; nil = none.
	After *Follower
}

// Follower keeps the current Ring when the daemon owns the keys, as NTPsec and
// ntpd-rs do:
//
//	key file changed → read → a whole parse, or nothing → proof → publish
//
// Nothing is ever written. What is proven is minted with until the daemon
// refuses it, whatever becomes of the key file meanwhile. Current, Await and
// State are safe for concurrent use.
type Follower struct {
	service
	cfg   FollowConfig
	state atomic.Pointer[State]

	running sync.Mutex // held by Run; guards all below
	follow  follow
	asker   asker
	over    bool // another has taken over
}

// follow is what Run knows, and goes on from when it is called again.
type follow struct {
	read   *cookie.Ring // the newest key file that was whole; nil = none yet
	proven *cookie.Ring // what the daemon has opened and not refused since; nil = none
	doubt  bool         // the daemon has started since proven was
	fault  error        // why the key file as it is now could not be read whole; nil = it could
	moot   uint64       // how often what was under way became moot; see heed

	standing  Standing // "" before the first verdict
	provenAt  time.Time
	why       string
	lastError string

	checkAt, tryAt time.Time
	failures       int // times in a row that the newest key file was not proven
}

// NewFollower reads the daemon's key file, if it can. It asks the daemon
// nothing, and publishes nothing but what the Follower before published.
func NewFollower(cfg FollowConfig) (*Follower, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	before := cfg.After
	cfg.After = nil // not kept: each would hold all before it
	f := &Follower{cfg: cfg}
	f.wake = make(chan struct{}, 1)
	f.asker = asker{prove: cfg.Prove, plain: cfg.Plain, format: cfg.Format, rand: cfg.Rand, spacing: cfg.Spacing, log: cfg.Log}
	if before != nil {
		if !before.running.TryLock() {
			return nil, errors.New("keyring: the one to take over from still runs")
		}
		defer before.running.Unlock()
		if before.over {
			return nil, errors.New("keyring: another has taken over already")
		}
		before.over = true
		f.takeOver(before)
	}
	f.look()
	f.state.Store(f.snapshot())
	return f, nil
}

// takeOver goes on where before ended, so that clients are served without a
// gap. The daemon is asked at once all the same.
func (f *Follower) takeOver(before *Follower) {
	old := &before.follow
	f.follow = follow{
		read: old.read, proven: old.proven, doubt: old.doubt, standing: old.standing, provenAt: old.provenAt,
		why: old.why, lastError: old.lastError,
	}
	f.asker.asked = before.asker.asked // the daemon's rate limit knows no keyrings
	if before.Current() != nil {
		f.publish(old.proven)
		return
	}
	f.follow.doubt = old.proven != nil
}

func (cfg FollowConfig) withDefaults() (FollowConfig, error) {
	if cfg.Format == nil || cfg.Read == nil || cfg.Prove == nil || cfg.Plain == nil || cfg.Rand == nil {
		return cfg, errors.New("keyring: Format, Read, Prove, Plain and Rand are needed")
	}
	if cfg.Behind < 0 || cfg.CheckEvery < 0 || cfg.Spacing < 0 {
		return cfg, errors.New("keyring: Behind, CheckEvery and Spacing cannot be negative")
	}
	if cfg.CheckEvery == 0 {
		cfg.CheckEvery = DefaultCheckEvery
	}
	orSilent(&cfg.Log, &cfg.Changed, &cfg.Help)
	return cfg, nil
}

// Look says that the daemon's process or key file may have changed: started, it
// is another process than before; down, there is none. It may be called at any
// time, from the one who watches both, and does not wait for Run.
//
// What the daemon may have lost is not minted under any more: all when it has
// started, until it was asked, which happens at once; and what it would not find
// in its key file when it is down.
func (f *Follower) Look(started, down bool) {
	f.stir(started || down && !wouldOpen(f.cfg.Read, f.cfg.Format, f.Current()))
}

// State returns a snapshot for status and health.
func (f *Follower) State() State { return *f.state.Load() }

// note publishes a new State and says so.
func (f *Follower) note() {
	f.state.Store(f.snapshot())
	f.cfg.Changed()
}

func (f *Follower) snapshot() *State {
	l := &f.follow
	s := &State{
		Mode: "follow", Standing: l.standing, Pending: l.pending(), ProvenAt: l.provenAt, Why: l.why, LastError: l.lastError,
	}
	if s.Standing == "" {
		s.Standing = Starting
	}
	ring := f.Current()
	if ring != nil {
		s.Minting, s.Current = true, ring.Current().ID()
	}
	if l.read != nil { // the daemon's own word, though we may still mint one key behind
		ring = l.read
	}
	if ring != nil {
		for _, key := range ring.Keys() {
			s.Held = append(s.Held, KeyState{ID: key.ID(), Fingerprint: key.Fingerprint()})
		}
	}
	switch waits := l.waits(s.Minting); {
	case s.Why == "":
		s.Why = waits
	case waits != "":
		s.Why += "; " + waits
	}
	return s
}

// pending tells that the newest key file waits for its proof.
func (l *follow) pending() bool { return l.read != nil && l.read != l.proven }

// waits says what we wait for of the key file; "" = nothing.
func (l *follow) waits(minting bool) string {
	switch {
	case l.fault != nil && minting:
		return "cookies go on under the last proven key, waiting for a whole key file of the daemon: " + l.fault.Error()
	case l.fault != nil:
		return "waiting for a whole key file of the daemon: " + l.fault.Error()
	case l.pending() && l.standing == Proven && !minting:
		return "the daemon may have started: waiting for it to show which keys it holds"
	case l.pending() && l.standing == Proven:
		return "cookies go on under the last proven key, waiting for the daemon to show that it holds the newest one of its key file"
	}
	return ""
}

// orFollowed completes h like orGeneral. Some daemons stay silent to a cookie
// they cannot open, so silence may mean either.
func (h Help) orFollowed() Help {
	if h.Refused == "" {
		h.Refused = "the NTP daemon cannot open cookies made with the key file we read: point us to the one it uses"
	}
	if h.NoNTS == "" {
		h.NoNTS = "the NTP daemon answers plain queries but none with NTS: switch NTS on in its configuration, or point us to the key file it uses"
	}
	return h.orGeneral()
}

// sameRing tells whether two rings hold the same keys and mint with the same one.
func sameRing(a, b *cookie.Ring) bool {
	return a == b || a != nil && b != nil && sameKey(a.Current(), b.Current()) && slices.EqualFunc(a.Keys(), b.Keys(), sameKey)
}
