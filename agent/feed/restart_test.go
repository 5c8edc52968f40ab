package feed

import (
	"fmt"
	"testing"
	"time"
)

func TestWhenADaemonMayBeRestarted(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	in := func(d time.Duration) time.Time { return now.Add(d) }
	const hour, day = time.Hour, 24 * time.Hour
	before := func(d time.Duration) restarted { return restarted{Leaf: "old", At: in(-d), Done: true} }
	thrice := func(earlier ...time.Duration) restarted {
		r := before(hour)
		for _, d := range earlier {
			r.Before = append(r.Before, in(-d))
		}
		return r
	}
	for sentence, c := range map[string]struct {
		last restarted
		ends time.Time // of what is served
		want time.Time
	}{
		"it never was":                                       {restarted{}, in(30 * day), now},
		"it was an hour ago":                                 {before(hour), in(30 * day), in(23 * hour)},
		"it was just now":                                    {before(0), in(30 * day), in(day)},
		"a day is over":                                      {before(day), in(30 * day), now},
		"two are":                                            {before(2 * day), in(-day), now},
		"nobody knows what is served":                        {before(hour), time.Time{}, in(23 * hour)},
		"what is served ends just after the day":             {before(hour), in(24*hour + 1), in(23 * hour)},
		"what is served ends before":                         {before(hour), in(10 * hour), in(9 * hour)},
		"what is served is over":                             {before(hour), in(-hour), now},
		"what is served is over, it was just now":            {before(0), in(-hour), in(hour)},
		"what is served ends at once, it was just so":        {before(10 * time.Minute), in(20 * time.Minute), in(50 * time.Minute)},
		"it was for this one, which did not help":            {restarted{Leaf: "new", At: in(-hour), Done: true}, in(-hour), in(23 * hour)},
		"it failed":                                          {restarted{Leaf: "old", At: in(-hour / 2)}, in(30 * day), in(hour / 2)},
		"it failed for this one":                             {restarted{Leaf: "new", At: in(-hour / 2)}, time.Time{}, in(hour / 2)},
		"it is the third on a day, what is served ends":      {thrice(2*hour, 3*hour), in(hour), in(21 * hour)},
		"the third of which is nearly a day ago":             {thrice(2*hour, 22*hour), in(hour), in(2 * hour)},
		"the third of which is as good as a day ago":         {thrice(2*hour, 24*hour), in(hour), now},
		"the third of which is of a clock that was set back": {thrice(-hour, -2*hour), in(hour), in(23 * hour)},
		"it is the second on a day":                          {thrice(2 * hour), in(hour), now},
		"the clock was set back":                             {restarted{Leaf: "old", At: in(hour), Done: true}, in(30 * day), now},
	} {
		got := c.last.next("new", c.ends, now)
		if got.Before(now) { // it may be at once, too
			got = now
		}
		if !got.Equal(c.want) {
			t.Errorf("%s: at %s, want %s", sentence, got, c.want)
		}
		if got.After(now) && c.last.At.Add(restartAgain).After(got) {
			t.Errorf("%s: less than an hour after the last", sentence)
		}
	}
}

// The agent's user makes the certificates, and must not have root restart the daemon
// all day long by having them end soon.
func TestWhateverIsServedADaemonIsRestartedThreeTimesADayAtMost(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	begin := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for life, want := range map[time.Duration]int{ // of what is served each time → restarts in a week
		-time.Hour: 21, time.Minute: 21, 90 * time.Minute: 21, 12 * time.Hour: 16, day: 8, 30 * day: 7,
	} {
		var r restarted
		var all []time.Time
		for now, ends := begin, begin; now.Before(begin.Add(7 * day)); now = now.Add(time.Minute) {
			leaf := fmt.Sprint(len(all))
			if r.next(leaf, ends, now).After(now) {
				continue
			}
			all, ends = append(all, now), now.Add(life)
			r = r.again("chrony.service", leaf, now)
			r.Done = true
		}
		for i := range max(0, len(all)-restartsADay) {
			if d := all[i+restartsADay].Sub(all[i]); d < day {
				t.Errorf("certificates of %v: four restarts in %v", life, d)
			}
		}
		if len(all) != want {
			t.Errorf("certificates of %v: %d restarts in a week, want %d", life, len(all), want)
		}
	}
	r := restarted{At: begin, Done: false, Before: []time.Time{begin.Add(-time.Hour)}}
	if again := r.again("chrony.service", "x", begin.Add(time.Hour)); len(again.Before) != 1 {
		t.Errorf("one that failed counts: %v", again.Before)
	}
}
