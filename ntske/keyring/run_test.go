package keyring

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestTheFirstRingIsPublishedOnlyWhenAllFourKeysAreProven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDaemon{deaf: true}
		k, _ := running(t, d.config())
		after(10 * time.Second)
		wantState(t, k, Refuses, false)
		d.set(func(d *fakeDaemon) { d.deaf, d.answers = false, nil })
		after(20 * time.Second)
		s := wantState(t, k, Proven, true)
		if len(d.answers) < 4 || slices.Contains(d.answers[len(d.answers)-4:], Refused) {
			t.Errorf("published after the answers %v", d.answers)
		}
		for _, h := range s.Held {
			if !slices.Contains(k.lead.file.proven, h.ID) {
				t.Errorf("key %08x is not proven", h.ID)
			}
		}
		if s.Current != s.Held[2].ID || s.Next != s.Held[3].ID || s.Pending || s.Why != "" {
			t.Errorf("state %+v", s)
		}
		if d.unsaved {
			t.Error("handed over what was not on disk")
		}
	})
}

func TestNothingIsMintedBeforeTheFirstProof(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDaemon{}
		k, err := New(d.config())
		if err != nil {
			t.Fatal(err)
		}
		d.onEvent = func(what string) {
			if k.Current() != nil && len(d.answers) < 4 {
				t.Errorf("minting at %s after %d answers", what, len(d.answers))
			}
		}
		wantState(t, k, Starting, false)
		start(t, k)
		after(5 * time.Second)
		wantState(t, k, Proven, true)
	})
}

func TestARateLimitedDaemonIsProvenWithoutADrop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDaemon{limit: 8 * time.Second}
		k, _ := running(t, d.config(func(c *Config) { c.Spacing = 8500 * time.Millisecond }))
		after(time.Hour)
		wantState(t, k, Proven, true)
		if slices.Contains(d.answers, Silent) {
			t.Errorf("%d queries, some dropped", len(d.answers))
		}
	})
}

// Others on the same host use the limit up now and then: no refusal, no stop.
func TestLostQueriesNeverStopMinting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDaemon{}
		k, _ := running(t, d.config())
		after(5 * time.Second)
		n := 0
		d.set(func(d *fakeDaemon) {
			d.onEvent = func(what string) { n++; d.noNTS = n%3 != 0 } // two of three NTS queries are lost
		})
		for range 600 {
			after(time.Second)
			if k.Current() == nil {
				t.Fatalf("minting stopped: %+v", k.State())
			}
		}
	})
}

func TestARotationIsSavedHandedOverProvenThenPublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDaemon{}
		k, _ := running(t, d.config())
		after(time.Hour)
		before := wantState(t, k, Proven, true)
		var events []string
		d.set(func(d *fakeDaemon) {
			d.onEvent = func(what string) {
				events = append(events, fmt.Sprint(what, k.Current().Current().ID() == before.Current))
			}
		})
		after(23*time.Hour - 30*time.Second)
		d.set(func(*fakeDaemon) { events = nil })
		after(2 * time.Minute)
		got := strings.Join(events, " ")
		if !strings.Contains(got, "savetrue hand-overtrue provetrue provetrue savefalse") {
			t.Errorf("events and whether the old key was still minting: %s", got)
		}
		s := wantState(t, k, Proven, true)
		if s.Current != before.Next || s.Pending || d.unsaved {
			t.Errorf("from %+v to %+v", before, s)
		}
		if at := s.NextRotation.Add(-24 * time.Hour); at.Before(before.NextRotation) || at.After(before.NextRotation.Add(time.Minute)) {
			t.Errorf("rotated at %s, due at %s", at, before.NextRotation)
		}
	})
}

func TestARotationTheDaemonDoesNotTakeLeavesTheOldKeyServing(t *testing.T) {
	for _, c := range []struct {
		sentence string
		ailment  func(*fakeDaemon)
		standing Standing
	}{
		{"it says OK and does nothing", func(d *fakeDaemon) { d.deaf = true }, Proven},
		{"the hand-over fails", func(d *fakeDaemon) { d.handErr = errHand }, Proven},
		{"it cannot be seen", func(d *fakeDaemon) { d.deaf, d.silent = true, true }, Unseen},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &fakeDaemon{}
				k, _ := running(t, d.config())
				after(time.Hour)
				before := k.State()
				d.set(c.ailment)
				if err := k.Rotate(t.Context()); err == nil && c.standing == Proven {
					t.Error("Rotate says it is done")
				}
				for range 100 {
					after(time.Hour)
					if s := wantState(t, k, c.standing, true); s.Current != before.Current {
						t.Fatalf("minting under %08x, which the daemon does not hold", s.Current)
					}
				}
				s := k.State()
				if !s.Pending || s.Why == "" || s.Held[1].ID != before.Current {
					t.Errorf("state %+v: one rotation pending, with a reason, and no further one", s)
				}
				if err := k.Rotate(t.Context()); err == nil {
					t.Error("a second rotation began while one is pending")
				}
				d.set(func(d *fakeDaemon) { d.deaf, d.silent, d.handErr = false, false, nil })
				after(10 * time.Minute)
				if s := wantState(t, k, Proven, true); s.Current != before.Next {
					t.Errorf("after it took the keys: %+v", s)
				}
			})
		})
	}
}

// With systemd the hand-over is a request to a helper, which takes a moment.
func TestADaemonThatTakesTheKeysAMomentLaterIsNotRefusing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDaemon{late: time.Second}
		var k *Keyring
		seen := map[Standing]bool{}
		k, err := New(d.config(func(c *Config) { c.Changed = func() { seen[k.State().Standing] = true } }))
		if err != nil {
			t.Fatal(err)
		}
		stop := start(t, k)
		after(10 * time.Second)
		before := wantState(t, k, Proven, true)
		if err := k.Rotate(t.Context()); err != nil {
			t.Error(err)
		}
		if s := wantState(t, k, Proven, true); s.Current != before.Next {
			t.Errorf("rotated from %+v to %+v", before, s)
		}
		stop()
		if seen[Refuses] || len(d.handed) != 2 {
			t.Errorf("went through %v with %d hand-overs", seen, len(d.handed))
		}
	})
}

func TestADaemonThatTakesTheKeysLateIsProvenLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDaemon{late: 30 * time.Second}
		k, _ := running(t, d.config())
		after(2 * time.Minute)
		before := wantState(t, k, Proven, true)
		if err := k.Rotate(t.Context()); err == nil {
			t.Error("Rotate says it is done")
		}
		wantState(t, k, Proven, true)
		after(2 * time.Minute)
		if s := wantState(t, k, Proven, true); s.Current != before.Next {
			t.Errorf("rotated from %+v to %+v", before, s)
		}
	})
}

// A daemon may lose all its keys at the very hand-over of a rotation.
func TestARotationThatBreaksTheDaemonStopsMintingAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDaemon{}
		k, _ := running(t, d.config(func(c *Config) { c.CheckEvery = time.Hour }))
		after(10 * time.Second)
		d.set(forget(t))
		d.set(func(d *fakeDaemon) { d.deaf = true })
		if err := k.Rotate(t.Context()); err == nil {
			t.Error("Rotate says it is done")
		}
		wantState(t, k, Refuses, false)
	})
}

func TestADaemonThatLostTheKeysStopsMintingAndGetsThemAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDaemon{}
		k, _ := running(t, d.config())
		after(10 * time.Second)
		current := k.State().Current
		d.set(forget(t))
		d.set(func(d *fakeDaemon) { d.deaf = true })
		after(time.Minute)
		s := wantState(t, k, Refuses, false)
		if s.Why == "" || s.Current != 0 {
			t.Errorf("state %+v", s)
		}
		after(time.Hour)
		wantState(t, k, Refuses, false)
		if n := len(d.handed); n < 8 || n > 30 {
			t.Errorf("%d hand-overs in an hour: no back-off, or too much", n)
		}
		d.set(func(d *fakeDaemon) { d.deaf = false })
		after(6 * time.Minute)
		if s := wantState(t, k, Proven, true); s.Current != current {
			t.Errorf("minting under %08x, not %08x again", s.Current, current)
		}
	})
}

func TestADaemonThatWentAwayIsUnseenAndServingGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDaemon{}
		k, _ := running(t, d.config(func(c *Config) { c.Help = func() Help { return Help{Unseen: "add `allow 127.0.0.1`"} } }))
		after(10 * time.Second)
		d.set(func(d *fakeDaemon) { d.silent = true })
		for range 48 {
			after(time.Hour)
			if s := wantState(t, k, Unseen, true); s.Why != "add `allow 127.0.0.1`" || s.Pending {
				t.Fatalf("state %+v", s)
			}
		}
		if err := k.Rotate(t.Context()); err == nil {
			t.Error("rotated without sight of the daemon")
		}
		d.set(func(d *fakeDaemon) { d.silent = false })
		after(2 * time.Minute)
		wantState(t, k, Proven, true) // the rotation overdue is made then
	})
}

func TestNTSSwitchedOffIsRefusalAfterSeveralSilences(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDaemon{}
		k, _ := running(t, d.config(func(c *Config) { c.Help = func() Help { return Help{NoNTS: "switch NTS on"} } }))
		after(10 * time.Second)
		n := len(d.answers)
		d.set(func(d *fakeDaemon) { d.noNTS, d.plainGot = true, 0 })
		after(55 * time.Second)
		if k.Current() == nil && len(d.answers)-n < silences {
			t.Errorf("refusal after %d silences", len(d.answers)-n)
		}
		after(time.Minute)
		if s := wantState(t, k, Refuses, false); s.Why != "switch NTS on" || d.plainGot < silences {
			t.Errorf("state %+v after %d plain queries", s, d.plainGot)
		}
		d.set(func(d *fakeDaemon) { d.noNTS = false })
		after(6 * time.Minute)
		wantState(t, k, Proven, true)
	})
}

func TestRotateWithoutRunEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, err := New((&fakeDaemon{}).config())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := k.Rotate(ctx); err == nil {
			t.Error("Rotate without Run says it is done")
		}
	})
}

func TestQueriesAreNeverCloserThanTheSpacing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDaemon{}
		const spacing = 8 * time.Second
		k, _ := running(t, d.config(func(c *Config) { c.Spacing = spacing; c.CheckEvery = time.Second }))
		for i := range 40 {
			d.set(func(d *fakeDaemon) { d.silent, d.noNTS, d.deaf = i%4 == 1, i%4 == 2, i%4 == 3 })
			if i%5 == 0 {
				d.set(forget(t))
			}
			after(time.Minute)
		}
		_ = k.State()
		d.set(func(d *fakeDaemon) {
			for i := 1; i < len(d.asked); i++ {
				if gap := d.asked[i].Sub(d.asked[i-1]); gap < spacing {
					t.Fatalf("query %d of %d came %s after the one before", i, len(d.asked), gap)
				}
			}
			if len(d.asked) < 50 {
				t.Errorf("only %d queries in 40 minutes", len(d.asked))
			}
		})
	})
}
