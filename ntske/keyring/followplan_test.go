package keyring

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ntsagent/ntske/cookie"
)

func TestAFollowerPrintsNoKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newOwner(cookie.NTPsec{})
		f, stop := following(t, d.config())
		after(time.Second)
		stop()
		key := fmt.Sprintf("%x", d.keys.keys[0])
		for _, v := range []any{f.State(), f.Current(), f.follow} {
			for _, verb := range []string{"%v", "%+v", "%#v", "%x"} {
				if got := fmt.Sprintf(verb, v); strings.Contains(strings.ToLower(got), key[:16]) {
					t.Errorf("%s shows a key: %s", verb, got)
				}
			}
		}
	})
}

func TestAFollowerNeedsItsWorld(t *testing.T) {
	d := newOwner(cookie.NTPDRS{})
	for sentence, change := range map[string]func(*FollowConfig){
		"no format":         func(c *FollowConfig) { c.Format = nil },
		"nothing to read":   func(c *FollowConfig) { c.Read = nil },
		"no proof":          func(c *FollowConfig) { c.Prove = nil },
		"no plain query":    func(c *FollowConfig) { c.Plain = nil },
		"no randomness":     func(c *FollowConfig) { c.Rand = nil },
		"a negative time":   func(c *FollowConfig) { c.Behind = -1 },
		"a negative check":  func(c *FollowConfig) { c.CheckEvery = -1 },
		"a negative pacing": func(c *FollowConfig) { c.Spacing = -1 },
	} {
		if f, err := NewFollower(d.config(change)); err == nil {
			t.Errorf("%s: made %v", sentence, f.State())
		}
	}
	d.fileErr = errors.New("disk on fire")
	if f := madeFollower(t, d.config()); !strings.Contains(f.State().Why, "disk on fire") {
		t.Errorf("state %+v", f.State())
	}
}

func TestFollowPlan(t *testing.T) {
	const far, late = time.Hour, -time.Second
	for _, c := range []struct {
		sentence string
		s        followed
		todo     action
		pause    time.Duration
	}{
		{"without a key file it waits for a check's time", followed{tryIn: late, checkIn: late, checkEvery: time.Minute}, wait, time.Minute},
		{"a new key file is asked about at once", followed{pending: true, tryIn: late, checkEvery: time.Minute}, proveNew, 0},
		{"before what is proven", followed{pending: true, ask: true, tryIn: late, checkIn: late, checkEvery: time.Minute}, proveNew, 0},
		{"one that was refused waits its turn", followed{pending: true, tryIn: time.Second, checkIn: late, checkEvery: time.Minute}, wait, time.Second},
		{"meanwhile what is proven is checked", followed{pending: true, ask: true, tryIn: time.Second, checkIn: late, checkEvery: time.Minute}, check, 0},
		{"it never sleeps past a check", followed{pending: true, ask: true, tryIn: far, checkIn: time.Second, checkEvery: time.Minute}, wait, time.Second},
		{"nor longer than between checks", followed{pending: true, tryIn: far, checkEvery: time.Minute}, wait, time.Minute},
	} {
		if todo, pause := c.s.plan(); todo != c.todo || pause != c.pause {
			t.Errorf("%s: %d after %s", c.sentence, todo, pause)
		}
	}
}
