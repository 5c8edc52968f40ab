package acme

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestSteppedTellsASetClockAndASleepFromTimeThatPasses(t *testing.T) {
	const run = 30 * time.Second // between the readings
	for _, tt := range []struct {
		name       string
		wall, mono time.Duration // that went by
		want       time.Duration
	}{
		{"time passes", run, run, 0},
		{"the clock is set forward", run + 48*time.Hour, run, 48 * time.Hour},
		{"the clock is set back", run - 48*time.Hour, run, -48 * time.Hour},
		{"the machine slept", 9 * time.Hour, run, 9*time.Hour - run},
		{"the clock is slewed", run + 15*time.Millisecond, run, 15 * time.Millisecond},
		{"the look was late, on a busy machine", 10 * time.Minute, 10 * time.Minute, 0},
		{"from 1970", noon.Sub(time.Unix(0, 0)), run, noon.Sub(time.Unix(0, 0)) - run},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := reading{noon, time.Hour}
			if got := stepped(before, reading{noon.Add(tt.wall), time.Hour + tt.mono}); got != tt.want {
				t.Errorf("stepped by %v, want %v", got, tt.want)
			}
		})
	}
}

func TestReadFromTakesBothClocksApart(t *testing.T) {
	began := time.Now()
	first := readFrom(began)
	second := readFrom(began)
	// A time that still knows of the monotonic clock would be told apart by it, whatever the wall clock says.
	if first.wall != first.wall.Round(0) || first.run < 0 || second.run < first.run {
		t.Errorf("read %+v and then %+v", first, second)
	}
	if d := stepped(first, second); d.Abs() > bigStep {
		t.Errorf("a clock that nobody set stepped by %v", d)
	}
}

func TestAStepOfTheClockIsToldAndRenewalsComputedAnew(t *testing.T) {
	for _, tt := range []struct {
		name string
		step time.Duration
		told bool
		wait time.Duration // that is left of a wait of ten hours
	}{
		{"a little is nothing", 59 * time.Minute, false, 10 * time.Hour},
		{"forward, what was due stays due", 2 * time.Hour, true, 10 * time.Hour},
		{"back, what was written ahead comes back with it", -2 * time.Hour, true, 8 * time.Hour},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t, newFakeCA(t), "")
				h.ca.set(fails(&Error{Class: ClassRateLimited, RetryAfter: 10 * time.Hour, Err: errors.New("429")}))
				h.cfg.Roll = func() float64 { return 0 }
				var step atomic.Int64 // of the wall clock, which the bubble cannot set
				began := time.Now()
				h.read = func() reading { return reading{time.Now().Round(0).Add(time.Duration(step.Load())), time.Since(began)} }
				stop := h.run(t)
				sleep(tick / 2)
				step.Store(int64(tt.step))
				sleep(3 * tick) // it steps once
				stop()
				if got := strings.Count(h.log.String(), "clock stepped"); got > 1 || (got == 1) != tt.told {
					t.Errorf("told %d times: %s", got, h.log)
				}
				if got := h.renewal.NextAttempt.Sub(began); got != tt.wait {
					t.Errorf("waits for %v, want %v", got, tt.wait)
				}
			})
		})
	}
}

func TestARenewalThatCanWaitLetsTheClockBeSetFirst(t *testing.T) {
	for _, tt := range []struct {
		name  string
		life  time.Duration
		left  time.Duration // of it, at the start; 0: there is no certificate
		after time.Duration // the start somebody sets the clock; 0: it is set
		wait  time.Duration // of the order
	}{
		{"the clock is set", 90 * day, 29 * day, 0, 0},
		{"it is set soon", 90 * day, 29 * day, 4 * time.Minute, 4 * time.Minute},
		{"nobody tells the kernel", 90 * day, 29 * day, 1000 * time.Hour, 10 * time.Minute},
		{"a first certificate", 0, 0, 1000 * time.Hour, 0},
		{"a fifth of its life is left", 90 * day, 18 * day, 1000 * time.Hour, 0},
		{"a certificate for minutes", 10 * time.Minute, 4 * time.Minute, 1000 * time.Hour, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t, newFakeCA(t), "")
				if tt.left > 0 {
					h.put(t, time.Now().Add(tt.left-tt.life), time.Now().Add(tt.left))
				}
				began := time.Now()
				h.cfg.Synced = func() bool { return time.Since(began) >= tt.after }
				stop := h.run(t)
				synctest.Wait()
				next := h.State().NextAttempt
				sleep(time.Hour)
				stop()
				if h.ca.count() != 1 || h.ca.orders[0].Sub(began) != tt.wait {
					t.Fatalf("orders at %v, want one %v after %v: %s", h.ca.orders, tt.wait, began, h.log)
				}
				waits := strings.Count(h.log.String(), "waits for a synchronized clock")
				if (waits == 1) != (tt.wait > 0) || tt.wait > 0 && !next.Equal(began.Add(bootDoubt)) {
					t.Errorf("told %d times, next attempt %v: %s", waits, next, h.log)
				}
			})
		})
	}
}

func TestAWishDoesNotWaitForTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, newFakeCA(t), "")
		h.put(t, time.Now().Add(-61*day), time.Now().Add(29*day))
		h.cfg.Synced = func() bool { return false }
		stop := h.run(t)
		if err := h.Renew(t.Context(), false); err != nil || h.ca.count() != 1 {
			t.Errorf("%d orders, error %v; want the certificate that was wished for", h.ca.count(), err)
		}
		stop()
	})
}
