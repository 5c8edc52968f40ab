package keyring

import (
	"testing"
	"time"
)

func TestPlan(t *testing.T) {
	const every = time.Minute
	// A keyring at rest: proven, minting, nothing due.
	rest := situation{standing: Proven, minting: true, rotateIn: time.Hour, tryIn: -1, checkIn: 30 * time.Second, checkEvery: every}
	with := func(change func(*situation)) situation {
		s := rest
		change(&s)
		return s
	}
	for _, c := range []struct {
		sentence string
		s        situation
		do       action
		wait     time.Duration
	}{
		{"at rest it sleeps until the check", rest, wait, 30 * time.Second},
		{"a due check is made", with(func(s *situation) { s.checkIn = 0 }), check, 0},
		{"a due rotation is made", with(func(s *situation) { s.rotateIn = 0 }), rotate, 0},
		{"a rotation due before the check is waited for", with(func(s *situation) { s.rotateIn = time.Second }), wait, time.Second},
		{"no rotation while the daemon is unseen", with(func(s *situation) { s.rotateIn, s.standing = -1, Unseen }), wait, 30 * time.Second},
		{"no rotation while the last one is pending", with(func(s *situation) { s.rotateIn, s.pending, s.tryIn = -1, true, 5*time.Second }), wait, 5 * time.Second},
		{"a rotation that could not be saved waits for its turn", with(func(s *situation) { s.rotateIn, s.tryIn = -1, 2*time.Second }), wait, 2 * time.Second},
		{"pending keys are handed over", with(func(s *situation) { s.pending = true }), handOver, 0},
		{"pending keys are handed over before the check", with(func(s *situation) { s.pending, s.checkIn = true, -1 }), handOver, 0},
		{"while the hand-over backs off the check goes on", with(func(s *situation) { s.pending, s.tryIn, s.checkIn = true, time.Second, -1 }), check, 0},
		{"after a restart the daemon is asked first", with(func(s *situation) { s.resume, s.minting, s.pending = true, false, true }), check, 0},
		{"with nothing to mint nothing is checked", situation{pending: true, tryIn: time.Hour, checkIn: -1, checkEvery: every}, wait, every},
		{"fresh keys are handed over", situation{pending: true, checkEvery: every}, handOver, 0},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			if do, d := plan(c.s); do != c.do || d != c.wait {
				t.Errorf("plan = %d, %s; want %d, %s", do, d, c.do, c.wait)
			}
		})
	}
}

func TestUntilRotation(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	const day = 24 * time.Hour
	for _, c := range []struct {
		sentence string
		rotated  time.Time
		start    time.Time
		in       time.Duration
	}{
		{"half an interval ago leaves half", now.Add(-day / 2), now, day / 2},
		{"an interval ago is due", now.Add(-day), now, 0},
		{"years ago is due, once", now.Add(-1000 * day), now, -999 * day},
		{"in the future waits one interval from the start", now.Add(500 * day), now, day},
		{"in the future is due after one interval of running", now.Add(500 * day), now.Add(-day), 0},
		{"a second in the future counts from the start too", now.Add(time.Second), now, day},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			if in := untilRotation(now, c.rotated, c.start, day); in != c.in {
				t.Errorf("untilRotation = %s, want %s", in, c.in)
			}
		})
	}
}

func TestABootWithoutAClockRotatesNothing(t *testing.T) {
	rotated := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	epoch, right := time.Unix(10, 0), rotated.Add(72*time.Hour)
	const week = 7 * 24 * time.Hour
	if in := untilRotation(epoch.Add(time.Minute), rotated, epoch, week); in <= 0 {
		t.Errorf("with the clock at 1970 a rotation is due in %s", in)
	}
	if in := untilRotation(right, rotated, epoch, week); in != week-72*time.Hour {
		t.Errorf("once the clock is right a rotation is due in %s, want %s", in, week-72*time.Hour)
	}
}

func TestBackOffGrowsToFiveMinutes(t *testing.T) {
	last := time.Duration(0)
	for n := range 100 {
		d := backOff(n)
		if d < last || d < time.Second || d > 5*time.Minute {
			t.Fatalf("backOff(%d) = %s after %s", n, d, last)
		}
		last = d
	}
	if backOff(1) != time.Second || backOff(3) != 4*time.Second || last != 5*time.Minute {
		t.Errorf("backOff: %s, %s … %s", backOff(1), backOff(3), last)
	}
}

func TestGapNeverFallsBelowTheSpacing(t *testing.T) {
	for _, spacing := range []time.Duration{0, 200 * time.Millisecond, 8 * time.Second} {
		last := time.Duration(0)
		for n := range 10 {
			d := gap(spacing, n)
			if d < spacing || d < last {
				t.Errorf("gap(%s, %d) = %s after %s", spacing, n, d, last)
			}
			last = d
		}
	}
	if gap(8*time.Second, 1) <= 8*time.Second {
		t.Error("the gap does not grow when a query is unanswered")
	}
}
