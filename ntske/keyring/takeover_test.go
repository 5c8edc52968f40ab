package keyring

import (
	"bytes"
	"crypto/rand"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ntsagent/ntske/aead"
	"ntsagent/ntske/cookie"
)

// A new configuration means a new Keyring beside clients that go on coming.
func TestATakeOverServesOn(t *testing.T) {
	for _, c := range []struct {
		sentence        string
		ailment         func(*fakeDaemon)
		before, at, end Standing
	}{
		{"beside a daemon that answers", func(*fakeDaemon) {}, Proven, Proven, Proven},
		{"beside one that does not", func(d *fakeDaemon) { d.silent = true }, Unseen, Unseen, Unseen},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &fakeDaemon{}
				old, stop := running(t, d.config())
				after(10 * time.Second)
				d.set(c.ailment)
				after(2 * time.Minute)
				current := wantState(t, old, c.before, true).Current
				stop()
				d.set(func(d *fakeDaemon) { d.asked = nil })
				k := made(t, d.config(func(c *Config) { c.After, c.RotateEvery = old, 9*time.Hour }))
				if s := wantState(t, k, c.at, true); s.Current != current || s.Why != old.State().Why {
					t.Errorf("took over %+v as %+v", old.State(), s)
				}
				start(t, k)
				after(time.Second)
				d.set(func(d *fakeDaemon) {
					if len(d.asked) == 0 {
						t.Error("took the word of the one before for it: the daemon was not asked")
					}
				})
				for range 40 {
					after(100 * time.Millisecond)
					wantState(t, k, c.at, true)
				}
				after(time.Hour)
				if s := wantState(t, k, c.end, true); s.Current != current {
					t.Errorf("minting under %08x, not %08x", s.Current, current)
				}
			})
		})
	}
}

func TestATakeOverPublishesOnlyTheVeryKeyThatServed(t *testing.T) {
	for _, c := range []struct {
		sentence string
		change   func(t *testing.T, f file) file
	}{
		{"not another key of that number", func(t *testing.T, f file) file {
			keys := f.ring.Keys()
			for i, key := range keys {
				secret := make([]byte, aead.SIVCMAC256.KeyLen())
				rand.Read(secret)
				other, err := cookie.NewKey(key.ID(), key.AEAD(), secret)
				if err != nil {
					t.Fatal(err)
				}
				keys[i] = other
			}
			ring, err := cookie.NewRing(keys, 2)
			if err != nil {
				t.Fatal(err)
			}
			f.ring = ring
			return f
		}},
		{"not that key under another number", func(t *testing.T, f file) file {
			text := string(encode(t, f))
			for _, key := range f.ring.Keys() {
				text = strings.ReplaceAll(text, hexID(key.ID()), hexID(key.ID()+64))
				text = strings.ReplaceAll(text, strings.ToUpper(hexID(key.ID())), strings.ToUpper(hexID(key.ID()+64)))
			}
			other, err := parseFile(chrony, []byte(text))
			if err != nil || other.mintingKey() == nil {
				t.Fatal("the file makes no sense: ", err)
			}
			return other
		}},
		{"not another key of the ring", func(t *testing.T, f file) file {
			f.minting = f.ring.Keys()[1].ID()
			return f
		}},
		{"not one that is no longer proven", func(t *testing.T, f file) file { return f.withRefused() }},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &fakeDaemon{}
				old, stop := running(t, d.config())
				after(10 * time.Second)
				stop()
				f, err := parseFile(chrony, d.disk)
				if err != nil {
					t.Fatal(err)
				}
				d.disk = encode(t, c.change(t, f))
				wantState(t, made(t, d.config(func(c *Config) { c.After = old })), Starting, false)
			})
		})
	}
}

func TestWhatWasRefusedBeforeIsNotTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDaemon{deaf: true}
		old, stop := running(t, d.config())
		after(10 * time.Second)
		wantState(t, old, Refuses, false)
		stop()
		k := made(t, d.config(func(c *Config) { c.After = old }))
		if s := wantState(t, k, Starting, false); s.Why != "" {
			t.Errorf("the old reason may be mended by the new configuration: %+v", s)
		}
	})
}

// Two on one file would each make a key of their own under the next number.
func TestATakeOverFromOneThatRunsIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDaemon{}
		old, stop := running(t, d.config())
		after(10 * time.Second)
		saves := d.saves
		if _, err := New(d.config(func(c *Config) { c.After = old })); err == nil {
			t.Error("took over from one that runs")
		}
		if d.saves != saves {
			t.Error("and wrote its file")
		}
		stop()
		made(t, d.config(func(c *Config) { c.After = old }))
		if _, err := New(d.config(func(c *Config) { c.After = old })); err == nil {
			t.Error("two took over from one")
		}
	})
}

func TestARotationAskedOfOneThatIsOverDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDaemon{}
		old, stop := running(t, d.config())
		after(10 * time.Second)
		stop()
		asked := make(chan error, 1)
		go func() { asked <- old.Rotate(t.Context()) }()
		after(time.Second)
		made(t, d.config(func(c *Config) { c.After = old }))
		after(time.Second)
		select {
		case err := <-asked:
			if err == nil {
				t.Error("it says it has rotated")
			}
		default:
			t.Error("it still waits")
		}
	})
}

func TestATakeOverKeepsTheSpacing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 8 * time.Second
		d := &fakeDaemon{limit: limit}
		cfg := d.config(func(c *Config) { c.Spacing, c.CheckEvery = limit, limit })
		k, stop := running(t, cfg)
		for range 20 {
			after(11 * time.Second)
			stop()
			cfg.After = k
			k, stop = running(t, cfg)
		}
		d.set(func(d *fakeDaemon) {
			for i := 1; i < len(d.asked); i++ {
				if gap := d.asked[i].Sub(d.asked[i-1]); gap < limit {
					t.Fatalf("query %d of %d came %s after the one before", i, len(d.asked), gap)
				}
			}
			if len(d.asked) < 15 {
				t.Errorf("only %d queries", len(d.asked))
			}
		})
	})
}

// What a take-over that fails needs: the one before goes on.
func TestAKeyringRunsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDaemon{}
		k, stop := running(t, d.config())
		after(10 * time.Second)
		before := wantState(t, k, Proven, true)
		stop()
		disk := bytes.Clone(d.disk)
		wantState(t, k, Proven, true)
		after(time.Hour)
		if !bytes.Equal(disk, d.disk) {
			t.Error("it wrote while it was stopped")
		}
		start(t, k)
		if err := k.Rotate(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s := wantState(t, k, Proven, true); s.Current != before.Next {
			t.Errorf("rotated from %+v to %+v", before, s)
		}
	})
}

// An operator who looks at once must not wait for the daemon's silence.
func TestAHandOverThatFailsIsToldAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDaemon{handErr: errHand, silent: true}
		told := 0
		k, _ := running(t, d.config(func(c *Config) { c.Changed = func() { told++ } }))
		after(time.Millisecond)
		if s := wantState(t, k, Starting, false); s.LastError == "" || told == 0 {
			t.Errorf("state %+v, told %d times", s, told)
		}
	})
}
