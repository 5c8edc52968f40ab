package keyring

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ntsagent/ntske/cookie"
)

// fakeServer is our own server as an Own sees it, and the file of its keys.
type fakeServer struct {
	mu      sync.Mutex
	own     *Own // whose Held it opens cookies with
	answer  Answer
	asked   int
	disk    []byte
	aside   []byte
	saves   int
	saveErr error
	t       *testing.T
}

func (s *fakeServer) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

func (s *fakeServer) prove(_ context.Context, c []byte, _ *cookie.Session) Answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked++; s.asked > tooMany {
		panic("the keyring runs in a loop without a pause")
	}
	if s.answer != Answered {
		return s.answer
	}
	f, err := parseOwn(s.disk)
	if err != nil {
		s.t.Errorf("asked with a broken file: %v", err)
		return Silent
	}
	if _, err := (cookie.Own{}).Open(nil, f.ring, c); err != nil {
		s.t.Error("asked with a cookie under a key that is not on disk")
	}
	if _, err := (cookie.Own{}).Open(nil, s.own.Held(), c); err != nil {
		return Refused
	}
	return Answered
}

func (s *fakeServer) config(change ...func(*OwnConfig)) OwnConfig {
	c := OwnConfig{
		Load: func() ([]byte, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.disk == nil {
				return nil, os.ErrNotExist
			}
			return s.disk, nil
		},
		Save: func(b []byte) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.saveErr != nil {
				return s.saveErr
			}
			s.disk, s.saves = bytes.Clone(b), s.saves+1
			return nil
		},
		Aside: func() (string, error) { s.aside, s.disk = s.disk, nil; return "kept", nil },
		Prove: s.prove, Rand: rand.Reader,
	}
	for _, f := range change {
		f(&c)
	}
	return c
}

// runOwn makes an Own of s, Answered from now on, and runs it.
func runOwn(t *testing.T, s *fakeServer, change ...func(*OwnConfig)) (o *Own, stop func()) {
	t.Helper()
	s.t, s.answer = t, Answered
	var err error
	if o, err = NewOwn(s.config(change...)); err != nil {
		t.Fatal(err)
	}
	s.set(func() { s.own = o })
	return o, startOwn(t, o)
}

func startOwn(t *testing.T, o *Own) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- o.Run(ctx) }()
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

func ownState(t *testing.T, o *Own, standing Standing, minting bool, held int) State {
	t.Helper()
	s := o.State()
	if s.Mode != "own" || s.Standing != standing || s.Minting != minting || (o.Current() != nil) != minting || len(s.Held) != held {
		t.Fatalf("state %+v; want %s, minting %t, %d held", s, standing, minting, held)
	}
	return s
}

// ownCookie is one under the newest key that is held.
func ownCookie(t *testing.T, r *cookie.Ring) []byte {
	t.Helper()
	random := make([]byte, 80)
	rand.Read(random)
	s := &cookie.Session{AEAD: cookie.Own{}.AEADs()[0], C2S: random[:32], S2C: random[32:64]}
	c, err := cookie.Own{}.Seal(nil, r.Current(), random[64:], s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestTenKeysOfOursAreKeptAndOneIsMadeEachDay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &fakeServer{}
		o, _ := runOwn(t, s)
		after(time.Second)
		ownState(t, o, Proven, true, 1)
		var minted [][]byte
		for day := 1; day <= 14; day++ {
			minted = append(minted, ownCookie(t, o.Current()))
			after(DefaultOwnRotation)
			state := ownState(t, o, Proven, true, min(day+1, 10))
			if state.Pending || state.Current != state.Held[len(state.Held)-1].ID || o.Current() != o.Held() {
				t.Fatalf("day %d: %+v", day, state)
			}
			if left := time.Until(state.NextRotation); left < 23*time.Hour || left > DefaultOwnRotation {
				t.Errorf("day %d: the next rotation is in %s", day, left)
			}
		}
		for day, c := range minted { // those of the nine days before today
			_, err := cookie.Own{}.Open(nil, o.Held(), c)
			if old := day < len(minted)-9; old != errors.Is(err, cookie.ErrUnknownKey) {
				t.Errorf("cookie of day %d of %d: %v", day, len(minted), err)
			}
		}
		if s.saves != 15 {
			t.Errorf("%d saves", s.saves)
		}
	})
}

func TestARestartLosesNoKeyOfOursAndMakesUpForOneRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &fakeServer{}
		o, stop := runOwn(t, s)
		after(50 * time.Hour)
		stop()
		before, c := ownState(t, o, Proven, true, 3), ownCookie(t, o.Current())
		o, stop = runOwn(t, s)
		if o.Current() != nil {
			t.Error("minting before our server was asked")
		}
		after(time.Second)
		if now := ownState(t, o, Proven, true, 3); now.Current != before.Current || !now.NextRotation.Equal(before.NextRotation) {
			t.Errorf("%+v became %+v", before, now)
		}
		stop()
		after(100 * 24 * time.Hour)
		o, _ = runOwn(t, s)
		after(time.Second)
		ownState(t, o, Proven, true, 4)
		if _, err := (cookie.Own{}).Open(nil, o.Held(), c); err != nil {
			t.Errorf("a cookie from before: %v", err)
		}
		after(DefaultOwnRotation)
		ownState(t, o, Proven, true, 5)
	})
}

func TestADamagedFileOfOurKeysIsPutAsideForNewOnes(t *testing.T) {
	for _, c := range []struct{ name, disk, says string }{
		{"a file that is cut", ownHead + "2026-11-23T10:00:00Z\nkeys 10\n", "cut off"},
		{"a file of another program", "no keys of ours", "does not begin as one"},
		{"a file of a newer version", "ntsagent own keys 2\nrotated", "of format 2, which a newer ntsagent writes"},
		{"no version at all", "ntsagent own keys x\n", "does not begin as one"},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &fakeServer{disk: []byte(c.disk)}
			o, _ := runOwn(t, s)
			after(time.Second)
			state := ownState(t, o, Proven, true, 1)
			if string(s.aside) != c.disk || !strings.Contains(state.LastError, c.says) {
				t.Errorf("%s: kept %q, state %+v", c.name, s.aside, state)
			}
		})
	}
}

func TestWhatCanBeNoFileOfOurKeysIsPutAsideAndWhatCannotBeReadIsNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &fakeServer{disk: []byte("a folder")}
		load := func(err error) func(*OwnConfig) {
			return func(c *OwnConfig) { c.Load = func() ([]byte, error) { return nil, err } }
		}
		if _, err := NewOwn(s.config(load(errors.New("no right")))); err == nil || s.aside != nil {
			t.Errorf("a file that cannot be read: %v, put aside %q", err, s.aside)
		}
		o, _ := runOwn(t, s, load(fmt.Errorf("%w: a folder", ErrDamaged)))
		after(time.Second)
		if state := ownState(t, o, Proven, true, 1); s.aside == nil || !strings.Contains(state.LastError, "a folder") {
			t.Errorf("put aside %q, %+v", s.aside, state)
		}
	})
}

func TestAFileOfOurKeysThatCannotBeReadEndsTheStart(t *testing.T) {
	s := &fakeServer{t: t}
	if _, err := NewOwn(s.config(func(c *OwnConfig) { c.Load = func() ([]byte, error) { return nil, os.ErrPermission } })); !errors.Is(err, os.ErrPermission) {
		t.Errorf("%v", err)
	}
	if s.saves != 0 {
		t.Error("it was written over")
	}
}

func TestNothingIsMintedUnderAKeyThatIsNotSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &fakeServer{}
		o, _ := runOwn(t, s)
		after(time.Second)
		before := ownState(t, o, Proven, true, 1)
		s.set(func() { s.saveErr = errors.New("disk full") })
		after(25 * time.Hour)
		now := ownState(t, o, Proven, true, 1)
		if now.Current != before.Current || len(o.Held().Keys()) != 1 || !strings.Contains(now.LastError, "disk full") {
			t.Errorf("state %+v", now)
		}
		if err := o.Rotate(t.Context()); err == nil || !strings.Contains(err.Error(), "disk full") {
			t.Errorf("rotate: %v", err)
		}
		s.set(func() { s.saveErr = nil })
		after(6 * time.Minute)
		if now := ownState(t, o, Proven, true, 2); now.LastError != "" {
			t.Errorf("state %+v", now)
		}
	})
}

func TestSilenceOfOurServerEndsNoMintingAndARefusalDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &fakeServer{}
		o, _ := runOwn(t, s, func(c *OwnConfig) { c.Help = func() Help { return Help{Unseen: "the daemon is down"} } })
		after(time.Second)
		s.set(func() { s.answer = Silent })
		after(5 * 24 * time.Hour)
		if state := ownState(t, o, Unseen, true, 1); state.Why != "the daemon is down" { // and none rotated out that is minted under
			t.Errorf("state %+v", state)
		}
		if err := o.Rotate(t.Context()); err == nil || !strings.Contains(err.Error(), "the daemon is down") {
			t.Errorf("rotate: %v", err)
		}
		s.set(func() { s.answer = Refused })
		after(2 * time.Minute)
		ownState(t, o, Refuses, false, 1)
		s.set(func() { s.answer = Answered })
		o.Look(false, false)
		after(time.Second)
		ownState(t, o, Proven, true, 2) // the rotation that was due
	})
}

func TestALostQueryOfOursMeansNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &fakeServer{}
		lost := 0
		o, _ := runOwn(t, s, func(c *OwnConfig) {
			c.Prove = func(ctx context.Context, b []byte, session *cookie.Session) Answer {
				if lost++; lost%3 != 0 {
					return Silent
				}
				return s.prove(ctx, b, session)
			}
		})
		for range 100 {
			after(DefaultCheckEvery)
			ownState(t, o, Proven, true, 1)
		}
	})
}

func TestAKeyOfOursIsRotatedOnDemand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &fakeServer{}
		o, _ := runOwn(t, s, func(c *OwnConfig) { c.Keep = 4 })
		after(time.Second)
		for n := 2; n < 9; n++ {
			before := o.Current()
			if err := o.Rotate(t.Context()); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			ownState(t, o, Proven, true, min(n, 4))
			if o.Current() == before {
				t.Error("the same ring")
			}
		}
	})
}

func TestAnOwnThatTakesOverServesWithoutAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &fakeServer{}
		o, stop := runOwn(t, s)
		after(time.Second)
		if _, err := NewOwn(s.config(func(c *OwnConfig) { c.After = o })); err == nil {
			t.Error("took over from one that runs")
		}
		stop()
		next, err := NewOwn(s.config(func(c *OwnConfig) { c.After, c.Keep = o, 2 }))
		if err != nil {
			t.Fatal(err)
		}
		ownState(t, next, Proven, true, 1)
		if next.Current() == nil || !sameKey(next.Current().Current(), o.Current().Current()) {
			t.Error("another key")
		}
		if err := o.Rotate(t.Context()); err == nil || !strings.Contains(err.Error(), "try again") {
			t.Errorf("rotate of the one before: %v", err)
		}
		if _, err := NewOwn(s.config(func(c *OwnConfig) { c.After = o })); err == nil {
			t.Error("took over twice")
		}
		s.set(func() { s.own = next })
		startOwn(t, next)
		after(4 * DefaultOwnRotation)
		ownState(t, next, Proven, true, 2)
	})
}

func TestARotationIsDueByTheWallClockAndNeverTwiceInAnInterval(t *testing.T) {
	start := time.Now()
	const every = 24 * time.Hour
	wallAt := func(d time.Duration) time.Time { return wall(start.Add(d)) }
	for _, c := range []struct {
		name    string
		rotated time.Time
		ran     time.Duration // since our start or our last rotation, by the monotonic clock
		fresh   bool          // since our last rotation
		due     bool
	}{
		{"a rotation yesterday, before our start", wallAt(-every - time.Second), 0, false, true},
		{"a rotation a year ago, before our start", wallAt(-365 * every), 0, false, true},
		{"a rotation an hour ago, before our start", wallAt(-time.Hour), 0, false, false},
		{"one in the future, of a clock that was wrong, at our start", wallAt(100 * every), 0, false, false},
		{"and after we ran for a day", wallAt(100 * every), every, false, true},
		{"our own a day ago", wallAt(0), every + time.Second, true, true},
		{"our own an hour ago, and the clock was stepped ahead by a year", wallAt(-365 * every), time.Hour, true, false},
		{"our own an hour ago, and the clock was stepped back by a year", wallAt(365 * every), time.Hour, true, false},
		{"our own a day ago, and the clock was stepped back by a year", wallAt(365 * every), every + time.Second, true, true},
	} {
		now := start.Add(c.ran)
		if got := dueIn(now, c.rotated, start, c.fresh, every) <= 0; got != c.due {
			t.Errorf("%s: due %t, want %t", c.name, got, c.due)
		}
	}
}

func FuzzParseOwnFile(f *testing.F) {
	const row = "0a0b0c0d 15 5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c\n"
	f.Add([]byte(ownHead + "2026-11-23T10:00:00Z\nkeys 1\n" + row))
	f.Add([]byte(ownHead + "-\nkeys 1\n" + row))
	f.Fuzz(func(t *testing.T, b []byte) {
		first, err := parseOwn(b)
		if err != nil {
			return
		}
		if got := first.append(nil); !bytes.Equal(got, b) {
			t.Fatalf("%q became %q", b, got)
		}
	})
}
