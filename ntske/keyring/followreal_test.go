package keyring_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"ntsagent/agent/daemon"
	"ntsagent/agent/daemon/daemontest"
	"ntsagent/agent/daemon/ntpdrstest"
	"ntsagent/agent/daemon/ntpsectest"
	"ntsagent/agent/watch"
	"ntsagent/ntske/client"
	"ntsagent/ntske/cookie"
	"ntsagent/ntske/keyring"
	"ntsagent/packaging/parts"
)

// followed is a real daemon, and the follower of its keys.
type followed struct {
	t        *testing.T
	follower *keyring.Follower
	query    func(cookie.Session, []byte) error // with NTS
	format   cookie.Format
}

// follow starts the follower, with its key file watched, until the test ends.
// inside calls a func where the daemon can be reached.
func follow(t *testing.T, cfg keyring.FollowConfig, file string, inside func(func())) *followed {
	t.Helper()
	d := &followed{t: t, format: cfg.Format}
	prove, plain := cfg.Prove, cfg.Plain
	cfg.Prove = func(ctx context.Context, c []byte, s *cookie.Session) (a keyring.Answer) {
		ctx, cancel := context.WithTimeout(ctx, time.Second) // on the same host, whose silences count when they are so far apart
		defer cancel()
		inside(func() { a = prove(ctx, c, s) })
		return a
	}
	cfg.Plain = func(ctx context.Context) (ok bool) {
		inside(func() { ok = plain(ctx) })
		return ok
	}
	cfg.CheckEvery, cfg.Spacing, cfg.Rand = time.Second, 20*time.Millisecond, rand.Reader
	f, err := keyring.NewFollower(cfg)
	if err != nil {
		t.Fatal(err)
	}
	d.follower = f
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, 2)
	go func() { f.Run(ctx); done <- struct{}{} }()
	go func() {
		watch.Files(ctx, []string{file}, 20*time.Millisecond, time.Second, hclog.NewNullLogger(), func() { f.Look(false, false) })
		done <- struct{}{}
	}()
	t.Cleanup(func() { cancel(); <-done; <-done })
	return d
}

func followNTPsec(t *testing.T, s *ntpsectest.Server, file string) *followed {
	d := follow(t, keyring.FollowConfig{
		Format: cookie.NTPsec{}, Read: s.ReadKeys,
		Prove: daemon.Prove(ntpsectest.Addr, nil), Plain: daemon.Plain(ntpsectest.Addr, nil),
	}, file, s.Do)
	d.query = func(session cookie.Session, sealed []byte) (err error) {
		s.Do(func() { err = open(t, ntpsectest.Addr, session, sealed) })
		return err
	}
	return d
}

func followNTPDRS(t *testing.T, s *ntpdrstest.Server) *followed {
	d := follow(t, keyring.FollowConfig{
		Format: cookie.NTPDRS{}, Read: s.ReadKeys, Behind: time.Second,
		Prove: daemon.Prove(s.Addr, nil), Plain: daemon.Plain(s.Addr, nil),
	}, s.KeysFile, func(f func()) { f() })
	d.query = func(session cookie.Session, sealed []byte) error { return open(t, s.Addr, session, sealed) }
	return d
}

// open has the daemon open a cookie, which it is asked once and may take its time for.
func open(t *testing.T, at netip.AddrPort, s cookie.Session, sealed []byte) error {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	_, err := client.Query(ctx, at, client.Keys{AEAD: s.AEAD, C2S: s.C2S, S2C: s.S2C}, sealed, 0)
	return err
}

// minting waits until cookies are minted as ok wants, and proves that the daemon
// opens one for each algorithm it knows.
func (d *followed) minting(sentence string, ok func(keyring.State) bool) keyring.State {
	d.t.Helper()
	var key *cookie.Key
	s := d.wait(sentence, func(s keyring.State) bool {
		ring := d.follower.Current() // a State is a moment older
		if ring == nil || !s.Minting || ring.Current().ID() != s.Current || !ok(s) {
			return false
		}
		key = ring.Current()
		return true
	})
	for _, alg := range d.format.AEADs() {
		session, sealed := daemontest.Mint(d.t, d.format, key, alg)
		if err := d.query(session, sealed); err != nil {
			d.t.Errorf("%s: a cookie for %v under %v: %v", sentence, alg, key, err)
		}
	}
	return s
}

func (d *followed) wait(sentence string, ok func(keyring.State) bool) keyring.State {
	d.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(60 * time.Second)
	for {
		s := d.follower.State()
		if ok(s) {
			return s
		}
		select {
		case <-tick.C:
		case <-timeout:
			d.t.Fatalf("%s: waited 60 s in vain: %+v", sentence, s)
		}
	}
}

func proven(s keyring.State) bool { return s.Standing == keyring.Proven && !s.Pending }

// not is a State that mints under another key than that.
func not(id uint32) func(keyring.State) bool {
	return func(s keyring.State) bool { return proven(s) && s.Current != id }
}

func still(id uint32, why string) func(keyring.State) bool {
	return func(s keyring.State) bool {
		return s.Standing == keyring.Proven && s.Current == id && strings.Contains(s.Why, why)
	}
}

func oldKeys(length int) []byte {
	return fmt.Appendf(nil, "T: 1700000000\nL: %d\nI: 17\nK: %s\n", length, strings.Repeat("5c", length))
}

func TestARealNtpdIsFollowed(t *testing.T) {
	for _, release := range []parts.Release{parts.Debian12, parts.Debian13} {
		t.Run("NTPsec "+release.NTPsec, func(t *testing.T) {
			t.Parallel()
			s := ntpsectest.Start(t, ntpsectest.Options{Release: release, KeyFile: oldKeys(32)})
			d := followNTPsec(t, s, s.KeysFile)
			d.minting("at the start", func(s keyring.State) bool { return proven(s) && s.Current == 17 })
			s.Rotate()
			before := d.minting("after a rotation", not(17)).Current

			whole, err := s.ReadKeys()
			if err != nil {
				t.Fatal(err)
			}
			s.WriteKeys(whole[:len(whole)-70])
			d.minting("with a file half written", still(before, "waiting for a whole key file"))
			s.Stop()
			d.follower.Look(false, true)
			if d.follower.Current() != nil {
				t.Error("minting under a key that an ntpd that is down will not find")
			}
			s.Restart() // it makes a new key and writes the file anew
			d.follower.Look(true, false)
			before = d.minting("after a start with half a file", not(before)).Current

			s.Remove()
			d.minting("with the file lost", still(before, "waiting for a whole key file"))
			s.Restart()
			d.follower.Look(true, false)
			before = d.minting("after a start without a file", not(before)).Current
			s.Restart()
			d.follower.Look(true, false)
			d.minting("after a start with the same file", func(s keyring.State) bool { return proven(s) && s.Current == before })

			s.WriteKeys(oldKeys(64))
			d.minting("with a file that ntpd has not read", still(before, "newest one"))
			s.Restart()
			d.follower.Look(true, false)
			d.minting("after a start with keys of another length", func(s keyring.State) bool { return proven(s) && s.Current == 17 })
		})
	}
}

// NTPsec up to 1.2.1 writes a shorter file over a longer one and leaves its end.
// T: 0 is of an ntpd that never rotates.
func TestARealNtpdWhoseFileIsWrittenInPlaceIsFollowed(t *testing.T) {
	t.Parallel()
	pair := func(id, fill string) string { return "I: " + id + "\nK: " + strings.Repeat(fill, 32) + "\n" }
	const head = "T: 0\nL: 32\n"
	before := head + pair("4000000001", "bb") + pair("4000000000", "aa")
	after := head + pair("17", "cc") + pair("4000000001", "bb")
	s := ntpsectest.Start(t, ntpsectest.Options{KeyFile: []byte(before)})
	d := followNTPsec(t, s, s.KeysFile)
	d.minting("at the start", func(s keyring.State) bool { return proven(s) && s.Current == 4000000001 })

	f, err := os.OpenFile(s.KeysFile, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, step := range []struct {
		sentence, part string
		state          func(keyring.State) bool
	}{
		{"in the middle of the first key", after[:60], still(4000000001, "waiting for a whole key file")},
		{"in the middle of the second key", after[60:140], still(4000000001, "waiting for a whole key file")},
		{"when it is whole, with a rest behind it", after[140:], still(4000000001, "newest one")},
	} {
		if _, err := f.WriteString(step.part); err != nil {
			t.Fatal(err)
		}
		d.minting(step.sentence, step.state)
	}
	if b, err := s.ReadKeys(); err != nil || string(b) != after+"aaaaaaa\n" {
		t.Fatalf("the file is %q, %v", b, err)
	}
	s.Restart()
	d.follower.Look(true, false)
	d.minting("after a start with that file", func(s keyring.State) bool { return proven(s) && s.Current == 17 })
}

// ntpd has no NAK: silence beside answered plain queries is its refusal.
func TestARealNtpdThatOpensNoCookiesIsFoundOut(t *testing.T) {
	for sentence, o := range map[string]ntpsectest.Options{
		"its NTS is switched off":          {NoNTS: true, KeyFile: oldKeys(32)},
		"its key file is not the one read": {},
	} {
		t.Run(sentence, func(t *testing.T) {
			t.Parallel()
			s := ntpsectest.Start(t, o)
			s.WriteKeys(oldKeys(32))
			d := followNTPsec(t, s, s.KeysFile)
			state := d.wait("refusal", func(s keyring.State) bool { return s.Standing == keyring.Refuses })
			if state.Minting || !strings.Contains(state.Why, "none with NTS") || d.follower.Current() != nil {
				t.Errorf("state %+v", state)
			}
		})
	}
}

func TestARealNtpdRsIsFollowed(t *testing.T) {
	t.Parallel()
	s := ntpdrstest.Start(t, ntpdrstest.Options{})
	d := followNTPDRS(t, s)
	d.minting("at the start", proven)
	first, err := s.ReadKeys()
	if err != nil {
		t.Fatal(err)
	}

	s.WriteKeys(first[:50])
	print := d.follower.Current().Current().Fingerprint()
	d.minting("with a file half written", still(0, "waiting for a whole key file"))
	s.Restart() // it makes new keys
	d.follower.Look(true, false)
	d.minting("after a start with half a file", func(keyring.State) bool { return d.has(otherThan(print)) })

	print = d.follower.Current().Current().Fingerprint()
	s.Remove()
	d.minting("with the file lost", still(0, "waiting for a whole key file"))
	s.Restart()
	d.follower.Look(true, false)
	d.minting("after a start without a file", func(keyring.State) bool { return d.has(otherThan(print)) })

	print = d.follower.Current().Current().Fingerprint()
	s.Restart()
	d.follower.Look(true, false)
	d.minting("after a start with the same file", func(keyring.State) bool { return d.has(func(p string) bool { return p == print }) })

	s.WriteKeys([]byte(`{"version": 2, "keys": []}`))
	d.minting("with a file of another format", still(0, "ntpd-rs key file"))
	s.WriteKeys(first)
	d.minting("with a file that the daemon has not read", still(0, "newest one"))
}

// has tells whether what mints has a fingerprint as ok wants, the state being settled.
func (d *followed) has(ok func(string) bool) bool {
	ring := d.follower.Current()
	return ring != nil && proven(d.follower.State()) && ok(ring.Current().Fingerprint())
}

func otherThan(print string) func(string) bool { return func(p string) bool { return p != print } }

// Whoever does a key exchange at any moment of it gets cookies that are opened.
func TestNoCookieIsRefusedWhileARealNtpdRsRotates(t *testing.T) {
	t.Parallel()
	s := ntpdrstest.Start(t, ntpdrstest.Options{RotateEvery: 2 * time.Second, StaleKeys: 8}) // so many outlive our standing still
	d := followNTPDRS(t, s)
	first := d.minting("at the start", proven).Current
	tick := time.NewTicker(3 * time.Millisecond)
	defer tick.Stop()
	seen := map[uint32]bool{}
	for n := 0; len(seen) < 4; n++ {
		<-tick.C
		ring := d.follower.Current()
		if ring == nil {
			t.Fatalf("nothing is minted: %+v", d.follower.State())
		}
		key := ring.Current()
		seen[key.ID()] = true
		session, sealed := daemontest.Mint(t, d.format, key, 15)
		if err := d.query(session, sealed); err != nil {
			t.Fatalf("cookie %d, under %v: %v", n, key, err)
		}
		if n > 10_000 {
			t.Fatalf("only the keys %v in a long time, from %08x on", seen, first)
		}
	}
}
