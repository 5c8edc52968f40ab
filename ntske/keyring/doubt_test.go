package keyring

import (
	"bytes"
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
)

// watched is a keyring that may read the daemon's key file, and minutes old.
func watched(t *testing.T, d *fakeDaemon, change ...func(*Config)) *Keyring {
	t.Helper()
	k, _ := running(t, d.config(append(change, func(c *Config) { c.Held = d.held })...))
	after(10 * time.Minute)
	wantState(t, k, Proven, true)
	d.set(func(d *fakeDaemon) { d.handed, d.answers = nil, nil })
	return k
}

// seen is what came to the daemon since it was watched.
func (d *fakeDaemon) seen() (handed int, answers []Answer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.handed), slices.Clone(d.answers)
}

// neverInVain fails when anything is minted that the daemon does not open.
func neverInVain(t *testing.T, k *Keyring, d *fakeDaemon) {
	d.set(func(d *fakeDaemon) {
		d.onEvent = func(what string) {
			if r := k.Current(); r != nil && (d.ring == nil || d.ring.Find(r.Current().ID()) == nil) {
				t.Errorf("at %s: minting under %s, the daemon holds %v", what, r.Current(), d.ring)
			}
		}
	})
}

func TestADaemonThatHasStartedIsAskedAtOnceWhateverTheSpacing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDaemon{}
		k := watched(t, d, func(c *Config) { c.Spacing = 8 * time.Second })
		before := k.State().Current
		after(50*time.Second + 100*time.Millisecond) // just asked
		for range 3 {
			d.set(func(d *fakeDaemon) { d.answers = nil })
			k.Look(true, false)
			if k.Current() != nil {
				t.Error("minting under what a daemon before this one has proven")
			}
			synctest.Wait()
			handed, answers := d.seen()
			if s := wantState(t, k, Proven, true); s.Current != before || len(answers) != 1 || handed != 0 {
				t.Errorf("minting under %08x after the answers %v and %d hand-overs", s.Current, answers, handed)
			}
		}
	})
}

func TestADaemonThatStartsWithoutItsKeysIsHandedThemFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDaemon{}
		k := watched(t, d)
		before := k.State().Current
		neverInVain(t, k, d)
		d.set(forget(t))
		k.Look(true, false)
		after(time.Second)
		handed, _ := d.seen()
		if s := wantState(t, k, Proven, true); s.Current != before || handed != 1 {
			t.Errorf("minting under %08x after %d hand-overs", s.Current, handed)
		}
	})
}

// The key minted under is enough to serve on; the next one can wait.
func TestADaemonThatStartsWithALostFileServesAfterOneProof(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDaemon{}
		k := watched(t, d, func(c *Config) { c.Spacing = 8 * time.Second })
		d.set(func(d *fakeDaemon) { d.file = nil })
		k.Look(true, false)
		synctest.Wait()
		if handed, answers := d.seen(); handed != 1 || len(answers) != 1 || k.Current() == nil {
			t.Errorf("%d hand-overs, answers %v, minting under %v", handed, answers, k.Current())
		}
		after(10 * time.Second)
		wantState(t, k, Proven, true)
	})
}

// It was handed the keys before it started, so waiting for it to take them is vain.
func TestADaemonThatStartsAfterItsHandOverIsHandedTheKeysAgainAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDaemon{}
		k := watched(t, d)
		d.set(forget(t))
		d.set(func(d *fakeDaemon) { d.deaf = true })
		k.Look(true, false)
		after(300 * time.Millisecond)
		d.set(func(d *fakeDaemon) { d.deaf, d.handed = false, nil })
		k.Look(true, false)
		after(500 * time.Millisecond)
		wantState(t, k, Proven, true)
		if handed, _ := d.seen(); handed != 1 {
			t.Errorf("%d hand-overs", handed)
		}
	})
}

func TestAProofThatCameIntoDoubtIsNotPublished(t *testing.T) {
	k := made(t, (&fakeDaemon{}).config())
	ring := k.lead.file.ring
	k.Look(true, false) // as between the proof and what follows from it
	if k.publish(ring); k.Current() != nil {
		t.Error("published what the daemon before has proven")
	}
	k.heed()
	if k.publish(ring); k.Current() != ring {
		t.Error("not published")
	}
}

// A query that the daemon before took with it holds nobody up.
func TestAQueryUnderWayEndsWhenTheDaemonStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDaemon{}
		k := watched(t, d)
		d.set(func(d *fakeDaemon) { d.silent = true })
		after(time.Minute + time.Second)
		d.set(func(d *fakeDaemon) { d.silent = false })
		k.Look(true, false)
		synctest.Wait()
		wantState(t, k, Proven, true)
	})
}

func TestADaemonThatHasStartedAndStaysSilentIsNotRefusing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDaemon{}
		k := watched(t, d)
		d.set(func(d *fakeDaemon) { d.silent = true })
		k.Look(true, false)
		after(2 * time.Second)
		if k.Current() == nil {
			t.Error("the first silence is not enough to serve on")
		}
		after(time.Minute)
		wantState(t, k, Unseen, true)
	})
}

func TestAKeyFileThatIsLostIsHandedOverAgainWhileServingGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDaemon{}
		k := watched(t, d)
		for name, file := range map[string][]byte{"removed": nil, "empty": {}, "another": []byte("NKS0\n15 0.0\n")} {
			d.set(func(d *fakeDaemon) { d.file, d.handed = file, nil })
			k.Look(false, false)
			if k.Current() == nil {
				t.Errorf("%s: minting stopped, though the daemon holds the keys", name)
			}
			after(time.Second)
			k.Look(false, false) // our own file
			after(time.Minute)
			handed, _ := d.seen()
			if s := wantState(t, k, Proven, true); handed != 1 || s.Pending {
				t.Errorf("%s: %d hand-overs, state %+v", name, handed, s)
			}
		}
	})
}

// What a daemon would not find when it starts now is not minted under.
func TestAKeyFileThatIsLostWhileTheDaemonIsDownStopsMintingUntilItIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDaemon{}
		k := watched(t, d)
		down := errors.New("chronyd is not there")
		d.set(func(d *fakeDaemon) { d.silent, d.handErr = true, down })
		k.Look(false, true)
		if k.Current() == nil {
			t.Error("a daemon that is down has refused nobody")
		}
		d.set(func(d *fakeDaemon) { d.file = nil })
		k.Look(false, true)
		if k.Current() != nil {
			t.Error("minting under keys that are nowhere")
		}
		synctest.Wait()
		if handed, _ := d.seen(); handed != 1 {
			t.Fatalf("%d hand-overs", handed)
		}
		after(10 * time.Second)
		wantState(t, k, Unseen, true)
		d.set(func(d *fakeDaemon) { d.silent, d.handErr = false, nil })
		k.Look(true, false)
		synctest.Wait()
		wantState(t, k, Proven, true)
		if _, answers := d.seen(); slices.Contains(answers, Refused) {
			t.Errorf("answers %v", answers)
		}
	})
}

// The daemon has read the file when it was not there, and is not seen yet.
func TestADaemonThatStartsWhileItsKeyFileIsMadeIsNotTakenForSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDaemon{}
		k := watched(t, d)
		neverInVain(t, k, d)
		d.set(forget(t))
		d.set(func(d *fakeDaemon) { d.silent, d.handErr, d.file = true, errHand, nil })
		k.Look(false, true)
		after(answerWithin + 500*time.Millisecond) // one query in vain
		d.set(func(d *fakeDaemon) { d.silent, d.handErr = false, nil })
		if k.Current() != nil {
			t.Error("minting under what the daemon may not have read")
		}
		k.Look(true, false)
		after(time.Second)
		wantState(t, k, Proven, true)
		if handed, _ := d.seen(); handed != 2 {
			t.Errorf("%d hand-overs", handed)
		}
	})
}

func TestAKeyFileThatIsLostAgainDuringItsHandOverIsHandedOverAgainAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDaemon{}
		k := watched(t, d)
		for range 3 {
			d.set(func(d *fakeDaemon) { d.file = nil })
			k.Look(false, false)
			synctest.Wait() // one key is proven, the other waits for the spacing
		}
		handed, _ := d.seen()
		if _, err := d.held(); err != nil || handed != 3 {
			t.Errorf("%d hand-overs; the file: %v", handed, err)
		}
		after(time.Second)
		if s := wantState(t, k, Proven, true); s.Pending {
			t.Errorf("state %+v", s)
		}
	})
}

func TestAKeyFileThatMayNotBeReadIsTakenForOurs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDaemon{}
		k, _ := running(t, d.config(func(c *Config) { c.Held = func() ([]byte, error) { return nil, os.ErrPermission } }))
		after(time.Minute)
		d.set(func(d *fakeDaemon) { d.handed = nil })
		k.Look(false, false)
		k.Look(false, true)
		after(time.Minute)
		wantState(t, k, Proven, true)
		if handed, _ := d.seen(); handed != 0 {
			t.Errorf("%d hand-overs", handed)
		}
	})
}

func TestARotationIsNotTakenForALostFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDaemon{}
		k := watched(t, d)
		d.set(func(d *fakeDaemon) { d.onEvent = func(string) { k.Look(false, false) } })
		for range 5 {
			if err := k.Rotate(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		after(time.Minute)
		handed, _ := d.seen()
		if s := wantState(t, k, Proven, true); handed != 5 || s.Pending {
			t.Errorf("%d hand-overs for 5 rotations, state %+v", handed, s)
		}
	})
}

func TestWhoAwaitsTheKeysHasThemWhenTheDoubtIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDaemon{}
		k := watched(t, d)
		before := k.State().Current
		awaited := func(most time.Duration) (id uint32, waited time.Duration) {
			ctx, cancel := context.WithTimeout(t.Context(), most)
			defer cancel()
			begin := time.Now()
			if ring := k.Await(ctx); ring != nil {
				id = ring.Current().ID()
			}
			return id, time.Since(begin)
		}
		if id, waited := awaited(time.Second); id != before || waited != 0 {
			t.Errorf("without a doubt: key %08x after %v", id, waited)
		}
		d.set(func(d *fakeDaemon) { d.slow = 100 * time.Millisecond })
		k.Look(true, false)
		if id, waited := awaited(50 * time.Millisecond); id != 0 || waited != 50*time.Millisecond {
			t.Errorf("while the daemon is asked: key %08x after %v", id, waited)
		}
		if id, waited := awaited(time.Second); id != before || waited != 50*time.Millisecond {
			t.Errorf("the daemon answered: key %08x after %v", id, waited)
		}
	})
}

func TestAKeyFileThatCannotBeReadIsLostUnlessWeLackTheRight(t *testing.T) {
	for name, tt := range map[string]struct {
		err  error
		lost bool
	}{
		"no right to read it":   {&os.PathError{Op: "open", Path: "ntskeys", Err: os.ErrPermission}, false},
		"a folder in its place": {errors.New("ntskeys is no regular file"), true},
		"a symlink to itself":   {syscall.ELOOP, true},
		"none at all":           {os.ErrNotExist, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &fakeDaemon{}
				var err error
				k, _ := running(t, d.config(func(c *Config) {
					c.Held = func() ([]byte, error) {
						if err != nil {
							return nil, err
						}
						return d.held()
					}
				}))
				after(10 * time.Minute)
				wantState(t, k, Proven, true)
				d.set(func(d *fakeDaemon) { d.handed = nil; d.handErr = errors.New("no way") })
				err = tt.err
				k.Look(false, false)
				after(time.Second)
				if handed, _ := d.seen(); (handed > 0) != tt.lost {
					t.Errorf("%d hand-overs", handed)
				}
				wantState(t, k, Proven, true) // the daemon that runs holds them
				d.set(func(d *fakeDaemon) { d.silent = true })
				k.Look(false, true)
				for range 600 { // often enough to see a key that is published for one query
					if minting := k.Current() != nil; minting == tt.lost {
						t.Fatalf("minting %v with the daemon down", minting)
					}
					after(100 * time.Millisecond)
				}
			})
		})
	}
}

func TestASilentDaemonWhoseKeyFileIsLostIsMintedForNoLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDaemon{}
		k := watched(t, d)
		before := k.State().Current
		var file []byte
		d.set(func(d *fakeDaemon) { file, d.file, d.silent, d.handErr = d.file, nil, true, errors.New("read-only") })
		d.set(func(d *fakeDaemon) { d.noFile = true })
		k.Look(false, false) // killed: its socket is still there
		after(5 * time.Minute)
		if k.Current() != nil {
			t.Error("minting for a daemon that will not find these keys")
		}
		d.set(func(d *fakeDaemon) { d.file, d.noFile, d.silent, d.handErr = file, false, false, nil })
		k.Look(false, false)
		after(10 * time.Minute)
		if s := wantState(t, k, Proven, true); s.Current != before {
			t.Errorf("minting under %08x", s.Current)
		}
	})
}

func TestAHandOverThatFailsForLongBacksOffAndIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		d := &fakeDaemon{}
		k := watched(t, d, func(c *Config) { c.Log = hclog.New(&hclog.LoggerOptions{Output: &log}) })
		log.Reset()
		d.set(func(d *fakeDaemon) { d.file, d.noFile, d.handErr = nil, true, errors.New("no such folder") })
		k.Look(false, false)
		after(10 * time.Minute)
		wantState(t, k, Proven, true)
		if handed, _ := d.seen(); handed < 3 || handed > 60 {
			t.Errorf("%d hand-overs in 10 minutes", handed)
		}
		if text := log.String(); strings.Count(text, "not handed on") != 1 || strings.Contains(text, "keys handed over") {
			t.Errorf("the log:\n%s", text)
		}
	})
}
