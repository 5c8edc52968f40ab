package keyring

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ntsagent/ntske/cookie"
)

// fakeDaemon is an NTP daemon as seen from the keyring, with its ailments.
type fakeDaemon struct {
	mu       sync.Mutex
	ring     *cookie.Ring // what it opens
	silent   bool         // to everything
	noNTS    bool         // silent to NTS only
	deaf     bool         // says OK to a hand-over and does nothing
	handErr  error
	late     time.Duration // between a hand-over and its effect
	limit    time.Duration // drops what comes sooner after the last query
	slow     time.Duration // until it answers
	asked    []time.Time
	answers  []Answer
	handed   [][]byte
	unsaved  bool // a hand-over of something not on disk was seen
	disk     []byte
	file     []byte // its key file; nil = missing
	noFile   bool   // nothing can be written in its place
	saveErr  error
	saves    int
	onEvent  func(what string)
	plainGot int
	calls    int
}

// tooMany is several times the calls that the longest test here makes.
const tooMany = 50_000

// count ends the test of a keyring that never pauses: it would never let the
// bubble's time pass, and fill the memory.
func (d *fakeDaemon) count() {
	if d.calls++; d.calls > tooMany {
		panic("the keyring runs in a loop without a pause")
	}
}

func (d *fakeDaemon) event(what string) {
	if d.onEvent != nil {
		d.onEvent(what)
	}
}

func (d *fakeDaemon) load() ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.disk == nil {
		return nil, os.ErrNotExist
	}
	return d.disk, nil
}

func (d *fakeDaemon) save(b []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.count()
	if d.saveErr != nil {
		return d.saveErr
	}
	d.disk = bytes.Clone(b)
	d.saves++
	d.event("save")
	return nil
}

func (d *fakeDaemon) handOver(_ context.Context, b []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.count()
	d.handed = append(d.handed, bytes.Clone(b))
	if !bytes.HasSuffix(d.disk, b) {
		d.unsaved = true
	}
	if !d.noFile {
		d.file = bytes.Clone(b) // which a daemon that is down does not mind
	}
	if d.handErr != nil {
		return d.handErr
	}
	if d.deaf {
		return nil
	}
	ring, err := chrony.ParseKeys(b)
	if err != nil {
		return err
	}
	if d.late > 0 {
		time.AfterFunc(d.late, func() {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.ring = ring
		})
		return nil
	}
	d.ring = ring
	d.event("hand-over")
	return nil
}

func (d *fakeDaemon) held() ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.file == nil {
		return nil, os.ErrNotExist
	}
	return d.file, nil
}

// dropped notes a query and tells whether the rate limit drops it.
func (d *fakeDaemon) dropped() bool {
	d.count()
	now := time.Now()
	early := len(d.asked) > 0 && now.Sub(d.asked[len(d.asked)-1]) < d.limit
	d.asked = append(d.asked, now)
	return early
}

func (d *fakeDaemon) prove(ctx context.Context, c []byte, s *cookie.Session) Answer {
	d.mu.Lock()
	a := Silent
	if !d.dropped() && !d.silent && !d.noNTS {
		a = Refused
		if d.ring != nil {
			var b [64]byte
			got, err := chrony.Open(b[:0], d.ring, c)
			if err == nil && bytes.Equal(got.C2S, s.C2S) && bytes.Equal(got.S2C, s.S2C) {
				a = Answered
			}
		}
	}
	d.answers = append(d.answers, a)
	d.event("prove")
	slow := d.slow
	d.mu.Unlock()
	time.Sleep(slow)
	if a == Silent {
		<-ctx.Done()
	}
	return a
}

func (d *fakeDaemon) plain(ctx context.Context) bool {
	d.mu.Lock()
	d.plainGot++
	ok := !d.dropped() && !d.silent
	d.mu.Unlock()
	if !ok {
		<-ctx.Done()
	}
	return ok
}

// set changes the daemon while the keyring runs.
func (d *fakeDaemon) set(change func(*fakeDaemon)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(d)
}

func (d *fakeDaemon) config(change ...func(*Config)) Config {
	cfg := Config{
		RotateEvery: 24 * time.Hour, CheckEvery: time.Minute, Spacing: 200 * time.Millisecond,
		Load: d.load, Save: d.save, HandOver: d.handOver, Prove: d.prove, Plain: d.plain, Rand: rand.Reader,
	}
	for _, f := range change {
		f(&cfg)
	}
	return cfg
}

// forget gives the daemon random keys, as after a start without its key file.
func forget(t *testing.T) func(*fakeDaemon) {
	ring, err := chrony.NewRing(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return func(d *fakeDaemon) { d.ring = ring }
}

// running starts a keyring in the bubble; it ends with stop or the test.
func running(t *testing.T, cfg Config) (k *Keyring, stop func()) {
	t.Helper()
	k = made(t, cfg)
	return k, start(t, k)
}

func made(t *testing.T, cfg Config) *Keyring {
	t.Helper()
	k, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func start(t *testing.T, k *Keyring) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

// after lets that much of the bubble's time pass and everything settle.
func after(d time.Duration) {
	time.Sleep(d) // in a bubble: no real time passes
	synctest.Wait()
}

func wantState(t *testing.T, k *Keyring, standing Standing, minting bool) State {
	t.Helper()
	s := k.State()
	if s.Standing != standing || s.Minting != minting || (k.Current() != nil) != minting {
		t.Fatalf("state %+v, ring %v; want %s, minting %t", s, k.Current(), standing, minting)
	}
	return s
}

var errHand = errors.New("no permission")
