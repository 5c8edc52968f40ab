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
