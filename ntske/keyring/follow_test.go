package keyring

import (
	"io/fs"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ntsagent/ntske/cookie"
)

func TestFollowedKeysAreMintedWithOnlyWhenProven(t *testing.T) {
	forBoth(t, func(t *testing.T, d *owner) {
		f := madeFollower(t, d.config())
		wantFollowed(t, f, Starting, 0)
		d.onProve = func() {
			if f.Current() != nil && len(d.answers) < 2 {
				t.Error("minting before the first proof")
			}
		}
		startFollower(t, f)
		synctest.Wait()
		s := wantFollowed(t, f, Proven, 7)
		if s.Mode != "follow" || s.Pending || s.Why != "" || s.LastError != "" || s.ProvenAt.IsZero() || len(s.Held) != 1 || s.Held[0].ID != 7 {
			t.Errorf("state %+v", s)
		}
		if f.Await(t.Context()) != f.Current() {
			t.Error("Await has another ring")
		}
	})
}

func TestARotationOfTheDaemonIsFollowed(t *testing.T) {
	forBoth(t, func(t *testing.T, d *owner) {
		f, _ := following(t, d.config())
		after(10 * time.Second)
		for range 5 {
			before := d.keys.minting()
			d.set((*owner).rotate)
			f.Look(false, false)
			after(900 * time.Millisecond)
			if d.format == (cookie.NTPDRS{}) { // its servers may not have the new key yet
				if s := wantFollowed(t, f, Proven, before); !s.Pending || s.Why == "" {
					t.Errorf("state %+v", s)
				}
				after(200 * time.Millisecond)
			}
			if s := wantFollowed(t, f, Proven, before+1); s.Pending || s.Why != "" || s.Held[len(s.Held)-1].ID != before+1 {
				t.Errorf("state %+v", s)
			}
		}
	})
}

func TestARotationThatNobodySawIsFoundAtTheNextCheck(t *testing.T) {
	forBoth(t, func(t *testing.T, d *owner) {
		f, _ := following(t, d.config())
		after(10 * time.Second)
		d.set((*owner).rotate)
		after(time.Minute + 2*time.Second)
		wantFollowed(t, f, Proven, 8)
	})
}

// Somebody wrote the key file of a daemon that runs, which reads it at a start only.
func TestAFileTheDaemonDoesNotHoldLeavesTheProvenKeysServing(t *testing.T) {
	forBoth(t, func(t *testing.T, d *owner) {
		f, _ := following(t, d.config())
		after(10 * time.Second)
		own := d.keys
		d.set(func(d *owner) {
			d.file = ownKeys{first: 500}.rotated().file(d.format)
			d.answers = nil
		})
		f.Look(false, false)
		after(time.Hour)
		s := wantFollowed(t, f, Proven, 7)
		if !s.Pending || !strings.Contains(s.Why, "newest one") || s.Held[0].ID != 500 {
			t.Errorf("state %+v", s)
		}
		refused := 0
		for _, a := range d.answers {
			if a != Answered {
				refused++
			}
		}
		if refused < 10 || refused > 40*silences {
			t.Errorf("%d of %d proofs failed in an hour: no back-off, or too much", refused, len(d.answers))
		}
		d.set(func(d *owner) { d.file = own.file(d.format) })
		f.Look(false, false)
		synctest.Wait()
		if s := wantFollowed(t, f, Proven, 7); s.Pending || s.Why != "" {
			t.Errorf("state %+v", s)
		}
	})
}

// The same, and who saw the file takes it for the daemon's start: see Look.
func TestAFileTheDaemonDoesNotHoldKeepsClientsOutForAMomentOnly(t *testing.T) {
	forBoth(t, func(t *testing.T, d *owner) {
		f, _ := following(t, d.config())
		after(10 * time.Second)
		d.set(func(d *owner) { d.file = ownKeys{first: 500}.rotated().file(d.format) })
		f.Look(true, false)
		if f.Current() != nil {
			t.Error("minting in doubt")
		}
		after(d.config().Spacing + 400*time.Millisecond)
		if s := wantFollowed(t, f, Proven, 7); !s.Pending || !strings.Contains(s.Why, "newest one") {
			t.Errorf("state %+v", s)
		}
		after(time.Hour)
		wantFollowed(t, f, Proven, 7)
	})
}

func TestADaemonThatTakesANewFileAtItsStartIsFollowed(t *testing.T) {
	forBoth(t, func(t *testing.T, d *owner) {
		f, _ := following(t, d.config())
		after(10 * time.Second)
		d.set(func(d *owner) {
			d.keys = ownKeys{first: 500}.rotated()
			d.file = d.keys.file(d.format)
		})
		f.Look(false, false)
		after(20 * time.Minute)
		wantFollowed(t, f, Proven, 7)
		d.set((*owner).load)
		f.Look(true, false)
		synctest.Wait()
		wantFollowed(t, f, Proven, 500)
	})
}

func TestWhateverBecomesOfTheFileTheProvenKeysServe(t *testing.T) {
	for _, c := range []struct {
		sentence string
		damage   func(*owner)
		why      string
	}{
		{"it is gone", func(d *owner) { d.file = nil }, "not exist"},
		{"it is empty", func(d *owner) { d.file = []byte{} }, "empty"},
		{"it is half written", func(d *owner) { d.file = d.file[:len(d.file)-40] }, "cut off"},
		{"it may not be read", func(d *owner) { d.fileErr = fs.ErrPermission }, "permission"},
		{"it is in another format", func(d *owner) { d.file = []byte("keys 2\n" + strings.Repeat("x", 99)) }, "key file"},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			forBoth(t, func(t *testing.T, d *owner) {
				f, _ := following(t, d.config())
				after(10 * time.Second)
				whole := d.file
				d.set(c.damage)
				f.Look(false, false)
				for range 48 {
					after(time.Hour)
					s := wantFollowed(t, f, Proven, 7)
					if s.Pending || !strings.Contains(s.Why, "cookies go on") || !strings.Contains(s.Why, c.why) || !strings.Contains(s.LastError, c.why) {
						t.Fatalf("state %+v", s)
					}
				}
				d.set(func(d *owner) { d.file, d.fileErr = whole, nil; d.rotate() })
				f.Look(false, false)
				after(2 * time.Second)
				if s := wantFollowed(t, f, Proven, 8); s.Why != "" {
					t.Errorf("state %+v", s)
				}
			})
		})
	}
}

func TestWithoutAKeyFileNothingIsMintedAndTheStateSaysWhy(t *testing.T) {
	forBoth(t, func(t *testing.T, d *owner) {
		whole := d.file
		d.file = nil
		f, _ := following(t, d.config())
		after(time.Hour)
		if s := wantFollowed(t, f, Starting, 0); !strings.Contains(s.Why, "waiting for a whole key file") || len(d.answers) != 0 {
			t.Errorf("state %+v after %d queries", s, len(d.answers))
		}
		d.set(func(d *owner) { d.file = whole })
		f.Look(false, false)
		synctest.Wait()
		wantFollowed(t, f, Proven, 7)
	})
}

func TestADaemonThatHasStartedIsAskedAtOnce(t *testing.T) {
	forBoth(t, func(t *testing.T, d *owner) {
		f, _ := following(t, d.config(func(c *FollowConfig) { c.Spacing = 8 * time.Second }))
		after(time.Minute + 100*time.Millisecond) // just asked
		for range 3 {
			d.set(func(d *owner) { d.answers = nil })
			f.Look(true, false)
			if f.Current() != nil {
				t.Error("minting under what a daemon before this one has proven")
			}
			synctest.Wait()
			wantFollowed(t, f, Proven, 7)
			if len(d.answers) != 1 {
				t.Errorf("answers %v", d.answers)
			}
		}
	})
}

func TestADaemonThatStartsWithKeysOfItsOwnIsFollowedAndNothingIsMintedInVain(t *testing.T) {
	forBoth(t, func(t *testing.T, d *owner) {
		f, _ := following(t, d.config())
		after(10 * time.Second)
		d.onProve = func() {
			if r := f.Current(); r != nil && d.holds.Find(r.Current().ID()) == nil {
				t.Errorf("minting under %v, the daemon holds %v", r, d.holds)
			}
		}
		// It lost its file, starts, and writes a new one a moment later.
		d.set(func(d *owner) { d.renew(); d.file = nil })
		f.Look(true, false)
		after(5 * time.Second)
		if f.Current() != nil {
			t.Errorf("minting under %v", f.Current())
		}
		d.set(func(d *owner) { d.file = d.keys.file(d.format) })
		f.Look(false, false)
		after(5 * time.Second) // a query to the daemon is under way
		wantFollowed(t, f, Proven, 107)
	})
}

// It restarted, and nobody saw but by its key file: the second for which a new
// key is not minted under would be one in which all cookies are refused.
func TestKeysThatHaveNothingInCommonAreAskedAboutAtOnce(t *testing.T) {
	forBoth(t, func(t *testing.T, d *owner) {
		f, _ := following(t, d.config())
		after(10 * time.Second)
		d.set((*owner).renew)
		f.Look(false, false)
		synctest.Wait()
		wantFollowed(t, f, Proven, 107)
	})
}

func TestAnAnswerOfTheDaemonBeforeProvesNothing(t *testing.T) {
	forBoth(t, func(t *testing.T, d *owner) {
		other := newOwner(d.format)
		f := madeFollower(t, d.config())
		d.onProve = func() { // it answers, and is gone
			d.holds, d.onProve = other.holds, nil
			f.Look(true, false)
		}
		startFollower(t, f)
		for range 100 {
			after(100 * time.Millisecond)
			if f.Current() != nil {
				t.Fatalf("minting under what a daemon before this one has proven: %+v", f.State())
			}
		}
	})
}

func TestADaemonThatIsDownIsWaitedForAsLongAsItsFileHoldsTheKey(t *testing.T) {
	forBoth(t, func(t *testing.T, d *owner) {
		f, _ := following(t, d.config())
		after(10 * time.Second)
		whole := d.file
		d.set(func(d *owner) { d.down = true })
		f.Look(false, true)
		after(time.Hour)
		wantFollowed(t, f, Unseen, 7)

		d.set(func(d *owner) { d.file = nil })
		f.Look(false, true)
		after(time.Hour)
		if s := wantFollowed(t, f, Unseen, 0); !strings.Contains(s.Why, "waiting for a whole key file") {
			t.Errorf("state %+v", s)
		}

		d.set(func(d *owner) { d.file = whole })
		f.Look(false, true)
		after(10 * time.Second)
		wantFollowed(t, f, Unseen, 7)
		d.set(func(d *owner) { d.down = false })
		f.Look(true, false)
		synctest.Wait()
		wantFollowed(t, f, Proven, 7)
	})
}

func TestAFollowedDaemonThatRefusesStopsMintingUntilItTakesCookiesAgain(t *testing.T) {
	forBoth(t, func(t *testing.T, d *owner) {
		f, _ := following(t, d.config())
		after(10 * time.Second)
		other := newOwner(d.format)
		d.set(func(d *owner) { d.holds = other.holds }) // restarted unseen, with a file we do not read
		after(2*time.Minute + 30*time.Second)
		if s := wantFollowed(t, f, Refuses, 0); !strings.Contains(s.Why, "key file") {
			t.Errorf("state %+v", s)
		}
		d.set((*owner).load)
		after(6 * time.Minute)
		wantFollowed(t, f, Proven, 7)
	})
}

func TestNTSSwitchedOffInAFollowedDaemonIsRefusalAfterSeveralSilences(t *testing.T) {
	forBoth(t, func(t *testing.T, d *owner) {
		f, _ := following(t, d.config(func(c *FollowConfig) { c.Help = func() Help { return Help{NoNTS: "add `nts enable`"} } }))
		after(10 * time.Second)
		n := len(d.answers)
		d.set(func(d *owner) { d.noNTS = true })
		after(55 * time.Second)
		if f.Current() == nil && len(d.answers)-n < silences {
			t.Errorf("refusal after %d silences", len(d.answers)-n)
		}
		after(time.Minute)
		if s := wantFollowed(t, f, Refuses, 0); s.Why != "add `nts enable`" {
			t.Errorf("state %+v", s)
		}
		d.set(func(d *owner) { d.noNTS = false })
		after(6 * time.Minute)
		wantFollowed(t, f, Proven, 7)
	})
}

func TestAFollowedDaemonThatCannotBeSeenIsServedOnButNeverBelievedUnseen(t *testing.T) {
	forBoth(t, func(t *testing.T, d *owner) {
		f, _ := following(t, d.config())
		after(10 * time.Second)
		d.set(func(d *owner) { d.silent = true })
		after(48 * time.Hour)
		wantFollowed(t, f, Unseen, 7)
		f.Look(true, false) // with the same file: nothing says that it lost its keys
		after(10 * time.Second)
		wantFollowed(t, f, Unseen, 7)

		blind, _ := following(t, d.config())
		after(48 * time.Hour)
		wantFollowed(t, blind, Unseen, 0)
		d.set(func(d *owner) { d.silent = false })
		after(6 * time.Minute)
		wantFollowed(t, blind, Proven, 7)
		wantFollowed(t, f, Proven, 7)
	})
}

func TestAFollowersQueryUnderWayEndsWhenTheDaemonStarts(t *testing.T) {
	forBoth(t, func(t *testing.T, d *owner) {
		f, _ := following(t, d.config())
		after(10 * time.Second)
		d.set(func(d *owner) { d.silent = true })
		after(51 * time.Second)
		d.set(func(d *owner) { d.silent = false })
		f.Look(true, false)
		synctest.Wait()
		wantFollowed(t, f, Proven, 7)
	})
}

func TestAFollowerTakesOverWithoutAGap(t *testing.T) {
	forBoth(t, func(t *testing.T, d *owner) {
		old, stop := following(t, d.config())
		after(10 * time.Second)
		if _, err := NewFollower(d.config(func(c *FollowConfig) { c.After = old })); err == nil {
			t.Error("took over from one that runs")
		}
		stop()
		ring := old.Current()
		d.set(func(d *owner) { d.answers = nil })
		f := madeFollower(t, d.config(func(c *FollowConfig) { c.After = old }))
		if wantFollowed(t, f, Proven, 7); f.Current() != ring {
			t.Error("another ring")
		}
		startFollower(t, f)
		after(time.Second)
		wantFollowed(t, f, Proven, 7)
		if len(d.answers) != 1 {
			t.Errorf("answers %v", d.answers)
		}
		if _, err := NewFollower(d.config(func(c *FollowConfig) { c.After = old })); err == nil {
			t.Error("a second one took over")
		}
	})
}

func TestWhatIsInDoubtIsNotTakenOver(t *testing.T) {
	forBoth(t, func(t *testing.T, d *owner) {
		old, stop := following(t, d.config())
		after(10 * time.Second)
		stop()
		old.Look(true, false)
		f := madeFollower(t, d.config(func(c *FollowConfig) { c.After = old }))
		if f.Current() != nil {
			t.Error("minting before the daemon that has started was asked")
		}
		startFollower(t, f)
		after(time.Second)
		wantFollowed(t, f, Proven, 7)
	})
}

func TestAFollowersQueriesKeepTheirDistance(t *testing.T) {
	forBoth(t, func(t *testing.T, d *owner) {
		const spacing = 8 * time.Second
		var asked []time.Time
		d.onProve = func() { asked = append(asked, time.Now()) }
		f, _ := following(t, d.config(func(c *FollowConfig) { c.Spacing, c.CheckEvery = spacing, time.Second }))
		for i := range 40 {
			d.set(func(d *owner) { d.silent, d.noNTS = i%4 == 1, i%4 == 2 })
			if i%5 == 0 {
				d.set((*owner).rotate)
				f.Look(false, false)
			}
			after(time.Minute)
		}
		for i := 1; i < len(asked); i++ {
			if gap := asked[i].Sub(asked[i-1]); gap < spacing {
				t.Fatalf("query %d of %d came %s after the one before", i, len(asked), gap)
			}
		}
		if len(asked) < 50 {
			t.Errorf("only %d queries in 40 minutes", len(asked))
		}
	})
}

// Whatever happens, and whoever tells, it ends well: with the daemon's newest key.
func TestAFollowerFindsBackFromAnything(t *testing.T) {
	forBoth(t, func(t *testing.T, d *owner) {
		f, _ := following(t, d.config())
		rnd := rand.New(rand.NewPCG(4, 2))
		for range 60 {
			for range rnd.IntN(6) {
				d.set(func(d *owner) {
					switch rnd.IntN(8) {
					case 0:
						d.rotate()
					case 1:
						d.renew()
					case 2:
						d.file = nil
					case 3:
						d.file = d.keys.file(d.format)[:rnd.IntN(20)]
					case 4:
						d.silent = !d.silent
					case 5:
						d.noNTS = !d.noNTS
					case 6:
						d.down = !d.down
					case 7:
						d.file = ownKeys{first: 900}.rotated().file(d.format)
					}
				})
				if rnd.IntN(2) == 0 {
					f.Look(rnd.IntN(3) == 0, rnd.IntN(3) == 0)
				}
				after(time.Duration(rnd.IntN(20_000)) * time.Millisecond)
			}
			d.set(func(d *owner) {
				d.down, d.silent, d.noNTS = false, false, false
				d.file = d.keys.file(d.format)
			})
			after(7 * time.Minute)
			if s := wantFollowed(t, f, Proven, d.keys.minting()); s.Pending || s.Why != "" {
				t.Fatalf("state %+v", s)
			}
		}
	})
}
