//go:build slow

package acme

import (
	"fmt"
	"testing"
	"time"
)

// TestLifetimesUnderOtherCalendars lives as TestThousandLifetimes does with a CA alone, many times over. No certificate for weeks
// expires. One for 160 hours does now and then, since half of its life is 80: a CA that is away twice for two days with an hour
// in between outlasts that, and so do lost certificates that use up the week's.
func TestLifetimesUnderOtherCalendars(t *testing.T) {
	const lifetimes = 1000
	fmt.Fprintln(t.Output(), "| life | renewals | expired | least life left at a renewal | most certificates in a week | most failed validations in an hour |")
	fmt.Fprintln(t.Output(), "|---|---|---|---|---|---|")
	for _, tt := range []struct {
		name  string
		life  time.Duration
		seeds uint64
		oneIn int64 // lifetimes at most may one expire; 0: none
	}{
		{"90 days", 90 * day, 10, 0}, {"45 days", 45 * day, 10, 0}, {"160 hours", 160 * time.Hour, 100, 5000},
	} {
		var expired, renewals int64
		worst, inWeek, inHour := 1.0, 0, 0
		for seed := range tt.seeds {
			w := newSimulation(t, seed, tt.life, simulated)
			w.live(lifetimes)
			expired, renewals = expired+int64(w.expired), renewals+w.serial-1
			worst, inWeek, inHour = min(worst, w.worst), max(inWeek, w.cas[0].mostInWeek), max(inHour, w.cas[0].mostInHour)
		}
		fmt.Fprintf(t.Output(), "| %s | %d | %d | %.0f %% | %d | %d |\n", tt.name, renewals, expired, 100*worst, inWeek, inHour)
		if expired > 0 && (tt.oneIn == 0 || expired*tt.oneIn > renewals) {
			t.Errorf("%s: %d of %d expired, more than one in %d", tt.name, expired, renewals, tt.oneIn)
		}
		if inWeek > weekBudget || inHour > hourBudget {
			t.Errorf("%s: %d certificates in a week, %d failed validations in an hour; want %d and %d at most", tt.name, inWeek, inHour, weekBudget, hourBudget)
		}
	}
}
