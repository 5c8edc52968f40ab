package keyring

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ntsagent/ntske/cookie"
)

func TestAfterARestartTheProvenRingIsAskedAboutAndServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDaemon{}
		k, stop := running(t, d.config())
		after(10 * time.Second)
		current := k.State().Current
		stop()
		d.set(func(d *fakeDaemon) { d.handed, d.answers = nil, nil })
		again, _ := running(t, d.config())
		if again.Current() != nil && len(d.answers) == 0 {
			t.Error("minting before the daemon was asked")
		}
		after(time.Second)
		if s := wantState(t, again, Proven, true); s.Current != current {
			t.Errorf("minting under %08x, not %08x", s.Current, current)
		}
		if len(d.handed) != 0 || len(d.answers) != 1 {
			t.Errorf("%d hand-overs and %d queries to go on as before", len(d.handed), len(d.answers))
		}
	})
}

func TestAfterARestartInSilence(t *testing.T) {
	for _, c := range []struct {
		sentence string
		before   func(*fakeDaemon) // while the first keyring runs
		lost     bool              // the daemon lost its keys before the restart, and the keyring saw it
		minting  bool
	}{
		{"a proven ring serves on", func(*fakeDaemon) {}, false, true},
		{"a ring never proven does not", func(d *fakeDaemon) { d.silent = true }, false, false},
		{"a ring refused since its proof does not", func(*fakeDaemon) {}, true, false},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &fakeDaemon{}
				d.set(c.before)
				_, stop := running(t, d.config())
				after(30 * time.Second)
				if c.lost {
					d.set(forget(t))
					d.set(func(d *fakeDaemon) { d.deaf = true })
					after(2 * time.Minute)
				}
				stop()
				d.set(func(d *fakeDaemon) { d.silent = true })
				k, _ := running(t, d.config())
				after(time.Hour)
				wantState(t, k, Unseen, c.minting)
			})
		})
	}
}

// The first silence is enough to go on serving what was proven: the verdict
// may take minutes where queries are rare.
func TestAfterARestartServingGoesOnWhileTheAnswerIsOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDaemon{}
		_, stop := running(t, d.config())
		after(10 * time.Second)
		stop()
		d.set(func(d *fakeDaemon) { d.noNTS = true })
		k, _ := running(t, d.config(func(c *Config) { c.Spacing = 8 * time.Second }))
		after(answerWithin + time.Second)
		wantState(t, k, Starting, true)
	})
}

// A crash may come at any point of the first start or of a rotation. Whatever
// was on disk and in the daemon then, the next start mints only under keys the
// daemon holds, and ends proven.
func TestACrashAtAnyPointConverges(t *testing.T) {
	type moment struct {
		what string
		disk []byte
		ring *cookie.Ring
	}
	var moments []moment
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDaemon{}
		d.onEvent = func(what string) {
			moments = append(moments, moment{what, bytes.Clone(d.disk), d.ring})
		}
		running(t, d.config(func(c *Config) { c.RotateEvery = 3 * time.Minute }))
		after(7 * time.Minute) // two rotations
	})
	if len(moments) < 15 {
		t.Fatalf("only %d moments", len(moments))
	}
	for i, m := range moments {
		for name, ailment := range map[string]func(*fakeDaemon){
			"well":             func(*fakeDaemon) {},
			"silent at first":  func(d *fakeDaemon) { d.silent = true },
			"deaf at first":    func(d *fakeDaemon) { d.deaf = true },
			"without its file": forget(t),
		} {
			t.Run(fmt.Sprintf("%d after %s, daemon %s", i, m.what, name), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					d := &fakeDaemon{disk: m.disk, ring: m.ring}
					ailment(d)
					k, err := New(d.config())
					if err != nil {
						t.Fatal(err)
					}
					held := func() {
						if k.Current() == nil {
							return
						}
						if d.ring == nil || d.ring.Find(k.Current().Current().ID()) == nil {
							t.Errorf("minting under %s, the daemon holds %v", k.Current().Current(), d.ring)
						}
					}
					d.onEvent = func(string) { held() }
					start(t, k)
					after(30 * time.Second)
					d.set(func(d *fakeDaemon) { held(); d.silent, d.deaf = false, false })
					after(2 * time.Minute)
					if s := wantState(t, k, Proven, true); s.Pending {
						t.Errorf("state %+v", s)
					}
				})
			})
		}
	}
}

func TestADiskThatFailsStopsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDaemon{}
		k, _ := running(t, d.config())
		after(10 * time.Second)
		before := k.State()
		d.set(func(d *fakeDaemon) { d.saveErr, d.handed = errors.New("no space left"), nil })
		if err := k.Rotate(t.Context()); err == nil || !strings.Contains(err.Error(), "no space left") {
			t.Errorf("Rotate: %v", err)
		}
		after(time.Minute)
		if s := wantState(t, k, Proven, true); s.Current != before.Current || len(d.handed) != 0 || s.LastError == "" {
			t.Errorf("after a rotation that could not be saved: %+v, %d hand-overs", s, len(d.handed))
		}
		d.set(func(d *fakeDaemon) { d.saveErr = nil })
		if err := k.Rotate(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestADamagedKeyFileIsReplacedAnUnreadableOneIsNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDaemon{disk: []byte("NKS0\n15 0.0\n")}
		k, _ := running(t, d.config())
		after(10 * time.Second)
		wantState(t, k, Proven, true)
	})
	d := &fakeDaemon{}
	denied := errors.New("permission denied")
	if _, err := New(d.config(func(c *Config) { c.Load = func() ([]byte, error) { return nil, denied } })); !errors.Is(err, denied) {
		t.Errorf("New: %v", err)
	}
	if d.saves != 0 {
		t.Error("a file that could not be read was overwritten")
	}
}

// Clients keep their cookies when only our own file is damaged.
func TestADamagedKeyFileIsMadeUpForByTheDaemons(t *testing.T) {
	for sentence, c := range map[string]struct {
		spoil func(*fakeDaemon)
		same  bool
	}{
		"the daemon's is whole":                    {func(d *fakeDaemon) { d.disk = d.disk[:40] }, true},
		"ours is empty":                            {func(d *fakeDaemon) { d.disk = []byte{} }, true},
		"the daemon's is damaged":                  {func(d *fakeDaemon) { d.disk, d.file = d.disk[:40], d.file[:40] }, false},
		"the daemon's is missing":                  {func(d *fakeDaemon) { d.disk, d.file = d.disk[:40], nil }, false},
		"ours is missing, as before a first start": {func(d *fakeDaemon) { d.disk = nil }, true},
	} {
		t.Run(sentence, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &fakeDaemon{}
				held := func(c *Config) { c.Held = d.held }
				k, stop := running(t, d.config(held))
				after(10 * time.Second)
				before := wantState(t, k, Proven, true).Current
				stop()
				d.set(c.spoil)
				k, _ = running(t, d.config(held))
				if k.Current() != nil {
					t.Error("minting before the daemon was asked")
				}
				after(10 * time.Second)
				if s := wantState(t, k, Proven, true); (s.Current == before) != c.same {
					t.Errorf("minting under %08x, before under %08x", s.Current, before)
				}
			})
		})
	}
}

func TestAnotherServersKeysAreAdopted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ring, err := chrony.NewRing(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		d := &fakeDaemon{disk: chrony.AppendKeys(nil, ring), ring: ring}
		k, _ := running(t, d.config())
		after(time.Hour)
		if s := wantState(t, k, Proven, true); s.Current != ring.Current().ID() {
			t.Errorf("minting under %08x, not %s", s.Current, ring.Current())
		}
	})
}

func TestNewRefusesWhatItCannotWorkWith(t *testing.T) {
	d := &fakeDaemon{}
	for sentence, change := range map[string]func(*Config){
		"no Load":            func(c *Config) { c.Load = nil },
		"no Prove":           func(c *Config) { c.Prove = nil },
		"no Rand":            func(c *Config) { c.Rand = nil },
		"a negative spacing": func(c *Config) { c.Spacing = -1 },
	} {
		if _, err := New(d.config(change)); err == nil {
			t.Errorf("%s: no error", sentence)
		}
	}
}

// What State, errors and a Keyring print must hold no key.
func TestNothingPrintedHoldsAKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDaemon{}
		k, _ := running(t, d.config())
		after(10 * time.Second)
		var secrets []string
		for line := range strings.Lines(string(d.handed[0])) {
			if words := strings.Fields(line); len(words) == 2 && len(words[1]) == 64 {
				secrets = append(secrets, words[1])
			}
		}
		if len(secrets) != 4 {
			t.Fatalf("%d keys in the file", len(secrets))
		}
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
			for _, v := range []any{k.State(), k.Current(), k.lead.file, k.lead} {
				out := strings.ToLower(fmt.Sprintf(verb, v))
				for _, secret := range secrets {
					if strings.Contains(out, strings.ToLower(secret)[:16]) {
						t.Errorf("%s of a %T shows a key", verb, v)
					}
				}
			}
		}
	})
}

func TestWhyKeysAreNotRotatedIsSaidInWords(t *testing.T) {
	for _, c := range []struct {
		standing  Standing
		why, want string
	}{
		{Refuses, "restart chronyd", "the daemon refuses the keys there are: restart chronyd"},
		{Unseen, "allow us", "the daemon cannot be seen from here: allow us"},
		{Proven, "", "the last rotation waits for the daemon to take its keys"},
		{Starting, "", "the keys there are have not been proven yet"},
	} {
		if got := notNow(c.standing, c.why); got != c.want {
			t.Errorf("%s: %q, want %q", c.standing, got, c.want)
		}
	}
}
