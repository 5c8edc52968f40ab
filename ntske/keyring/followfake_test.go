package keyring

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ntsagent/ntske/cookie"
)

// ownKeys are the keys of a daemon that makes them itself, oldest first; the
// last one mints.
type ownKeys struct {
	first uint32
	keys  [][]byte
}

func (o ownKeys) rotated() ownKeys {
	octets := make([]byte, 64)
	rand.Read(octets)
	o.keys = append(o.keys[:len(o.keys):len(o.keys)], octets)
	if len(o.keys) > 3 {
		o.first, o.keys = o.first+1, o.keys[1:]
	}
	return o
}

func (o ownKeys) minting() uint32 { return o.first + uint32(len(o.keys)) - 1 }

// file writes the key file in the way of the daemon.
func (o ownKeys) file(f cookie.Format) []byte {
	if f == (cookie.NTPsec{}) {
		b := []byte("T: 1\nL: 64\n")
		for i := len(o.keys) - 1; i >= 0; i-- {
			b = fmt.Appendf(b, "I: %d\nK: %x\n", o.first+uint32(i), o.keys[i])
		}
		return b
	}
	b := binary.BigEndian.AppendUint32(make([]byte, 8), o.first)
	b = binary.BigEndian.AppendUint32(b, uint32(len(o.keys)-1))
	b = binary.BigEndian.AppendUint32(b, uint32(len(o.keys)))
	return append(b, bytes.Join(o.keys, nil)...)
}

// owner is a daemon that owns its keys, as seen from the keyring. That of NTPsec
// is silent to a cookie it cannot open, that of ntpd-rs sends a NAK.
type owner struct {
	mu      sync.Mutex
	format  cookie.Format
	keys    ownKeys
	holds   *cookie.Ring // what it opens; nil = nothing
	file    []byte       // its key file; nil = missing
	fileErr error
	down    bool // nothing is answered, at once
	silent  bool
	noNTS   bool
	answers []Answer
	onProve func()
	calls   int
}

func newOwner(f cookie.Format) *owner {
	d := &owner{format: f, keys: ownKeys{first: 7}.rotated()}
	d.file = d.keys.file(f)
	d.load()
	return d
}

// load makes it hold what its key file says, as at a start.
func (d *owner) load() {
	ring, err := d.format.ParseKeys(d.file)
	if err != nil {
		panic(err)
	}
	d.holds = ring
}

// rotate makes a new key, in memory and in the file.
func (d *owner) rotate() {
	d.keys = d.keys.rotated()
	d.file = d.keys.file(d.format)
	d.load()
}

// renew makes keys that have nothing in common with those before.
func (d *owner) renew() {
	d.keys = ownKeys{first: d.keys.first + 100}.rotated()
	d.file = d.keys.file(d.format)
	d.load()
}

func (d *owner) set(change func(*owner)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(d)
}

func (d *owner) read() ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fileErr != nil {
		return nil, d.fileErr
	}
	if d.file == nil {
		return nil, os.ErrNotExist
	}
	return d.file, nil
}

func (d *owner) prove(ctx context.Context, c []byte, s *cookie.Session) Answer {
	d.mu.Lock()
	if d.calls++; d.calls > tooMany {
		panic("the keyring runs in a loop without a pause")
	}
	a := Silent
	if !d.down && !d.silent && !d.noNTS {
		got, err := d.format.Open(nil, d.holds, c)
		switch {
		case err == nil && bytes.Equal(got.C2S, s.C2S) && bytes.Equal(got.S2C, s.S2C):
			a = Answered
		case d.format != cookie.Format(cookie.NTPsec{}):
			a = Refused
		}
	}
	d.answers = append(d.answers, a)
	if d.onProve != nil {
		d.onProve()
	}
	down := d.down
	d.mu.Unlock()
	if a == Silent && !down {
		<-ctx.Done()
	}
	return a
}

func (d *owner) plain(ctx context.Context) bool {
	d.mu.Lock()
	down, ok := d.down, !d.down && !d.silent
	d.mu.Unlock()
	if !ok && !down {
		<-ctx.Done()
	}
	return ok
}

func (d *owner) config(change ...func(*FollowConfig)) FollowConfig {
	cfg := FollowConfig{
		Format: d.format, Read: d.read, Prove: d.prove, Plain: d.plain, Rand: rand.Reader,
		CheckEvery: time.Minute, Spacing: 200 * time.Millisecond,
	}
	if d.format == (cookie.NTPDRS{}) {
		cfg.Behind = time.Second
	}
	for _, f := range change {
		f(&cfg)
	}
	return cfg
}

// forBoth runs a test in a bubble for each way to own keys.
func forBoth(t *testing.T, test func(t *testing.T, d *owner)) {
	for name, f := range map[string]cookie.Format{"NTPsec": cookie.NTPsec{}, "ntpd-rs": cookie.NTPDRS{}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, newOwner(f)) })
		})
	}
}

// following starts a follower in the bubble; it ends with stop or the test.
func following(t *testing.T, cfg FollowConfig) (f *Follower, stop func()) {
	t.Helper()
	f = madeFollower(t, cfg)
	return f, startFollower(t, f)
}

func madeFollower(t *testing.T, cfg FollowConfig) *Follower {
	t.Helper()
	f, err := NewFollower(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func startFollower(t *testing.T, f *Follower) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
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

func wantFollowed(t *testing.T, f *Follower, standing Standing, minting uint32) State {
	t.Helper()
	s := f.State()
	ring := f.Current()
	if s.Standing != standing || s.Minting != (minting != 0) || s.Current != minting ||
		(ring != nil) != (minting != 0) || ring != nil && ring.Current().ID() != minting {
		t.Fatalf("state %+v, ring %v; want %s, minting under %08x", s, ring, standing, minting)
	}
	return s
}
