package feed

import (
	"testing"
	"time"
)

func TestWhenADaemonMayBeRestarted(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	in := func(d time.Duration) time.Time { return now.Add(d) }
	const hour, day = time.Hour, 24 * time.Hour
	before := func(d time.Duration) restarted { return restarted{Leaf: "old", At: in(-d), Done: true} }
	for sentence, c := range map[string]struct {
		last restarted
		ends time.Time // of what is served
		want time.Time
	}{
		"it never was":                                {restarted{}, in(30 * day), now},
		"it was an hour ago":                          {before(hour), in(30 * day), in(23 * hour)},
		"it was just now":                             {before(0), in(30 * day), in(day)},
		"a day is over":                               {before(day), in(30 * day), now},
		"two are":                                     {before(2 * day), in(-day), now},
		"nobody knows what is served":                 {before(hour), time.Time{}, in(23 * hour)},
		"what is served ends just after the day":      {before(hour), in(24*hour + 1), in(23 * hour)},
		"what is served ends before":                  {before(hour), in(10 * hour), in(9 * hour)},
		"what is served is over":                      {before(hour), in(-hour), now},
		"what is served is over, it was just now":     {before(0), in(-hour), in(hour)},
		"what is served ends at once, it was just so": {before(10 * time.Minute), in(20 * time.Minute), in(50 * time.Minute)},
		"it was for this one, which did not help":     {restarted{Leaf: "new", At: in(-hour), Done: true}, in(-hour), in(23 * hour)},
		"it failed":                                   {restarted{Leaf: "old", At: in(-hour / 2)}, in(30 * day), in(hour / 2)},
		"it failed for this one":                      {restarted{Leaf: "new", At: in(-hour / 2)}, time.Time{}, in(hour / 2)},
		"the clock was set back":                      {restarted{Leaf: "old", At: in(hour), Done: true}, in(30 * day), now},
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
