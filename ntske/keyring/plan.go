package keyring

import "time"

// situation is all that decides what Run does next.
type situation struct {
	standing   Standing
	resume     bool          // a ring proven before the restart waits to be asked about
	minting    bool          // a ring is published
	pending    bool          // the ring on disk waits for hand-over and proof
	rotateIn   time.Duration // until the next rotation is due; <= 0 = due
	tryIn      time.Duration // until a hand-over may be tried again
	checkIn    time.Duration // until the next check of the minting key is due
	checkEvery time.Duration
}

// action is what Run does next.
type action uint8

const (
	wait action = iota
	check
	handOver
	rotate
	proveNew // of a Follower: ask about the newest key file
)

// plan decides what to do now, or how long to wait.
func plan(s situation) (action, time.Duration) {
	switch {
	case s.resume:
		return check, 0
	case s.pending && s.tryIn <= 0:
		return handOver, 0
	case s.minting && s.checkIn <= 0:
		return check, 0
	case s.mayRotate() && s.rotateIn <= 0 && s.tryIn <= 0:
		return rotate, 0
	}
	// Never sleep past a check: the wall clock may jump in the meantime.
	d := s.checkEvery
	if s.pending {
		d = min(d, s.tryIn)
	}
	if s.minting {
		d = min(d, s.checkIn)
	}
	if s.mayRotate() {
		d = min(d, max(s.rotateIn, s.tryIn))
	}
	return wait, d
}

// mayRotate: four rows hold two old keys, the current and the next. Rotating
// while the last rotation is unproven would drop what clients still hold, and
// without sight of the daemon the new keys could not be proven.
func (s situation) mayRotate() bool {
	return s.standing == Proven && s.minting && !s.pending
}

// untilRotation is the time until the next rotation by the wall clock. A last
// rotation in the future is a clock that is wrong now, as at a boot without a
// battery, or was wrong then. Nothing is concluded from it but that one interval
// of our own running time, from start, is enough: so a wrong clock never delays
// a rotation for ever, and one that is set right later brings none forward.
func untilRotation(now, rotated, start time.Time, every time.Duration) time.Duration {
	if rotated.After(wall(now)) {
		return start.Add(every).Sub(now)
	}
	return rotated.Add(every).Sub(wall(now))
}

// backOff is the pause after that many failed attempts in a row: 1 s, 2 s, 4 s … 5 min.
func backOff(failures int) time.Duration {
	return min(time.Second<<min(max(failures-1, 0), 9), 5*time.Minute)
}

// gap is the least time to the next query after that many unanswered in a row.
// It grows because what drops us may be a limit that others use up too.
func gap(spacing time.Duration, unanswered int) time.Duration {
	if unanswered == 0 {
		return spacing
	}
	return max(spacing<<min(unanswered, 3), silenceApart)
}
