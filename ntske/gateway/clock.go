package gateway

import (
	"time"

	"ntsagent/ntske/packet"
)

// Instant is one reading of the clock of the system, in nanoseconds.
type Instant struct {
	Wall int64 // since the Unix epoch: the clock that the daemon disciplines and that the kernel stamps with
	Mono int64 // since some start. It slews as Wall does, but nothing steps it: Wall-Mono changes by a step alone
}

const (
	// stepLimit is how far apart two readings of Wall-Mono may lie before the clock counts as stepped. Reading
	// both takes far less, unless the reader is interrupted in between.
	stepLimit = int64(time.Millisecond)
	// together is how near two readings must lie that nothing came between them.
	together = stepLimit / 8
	// readings bounds how often the clock is read to have two together.
	readings = 8
)

// stepped reports whether the clock was stepped between a and b.
func stepped(a, b Instant) bool {
	d := (b.Wall - a.Wall) - (b.Mono - a.Mono)
	return d > stepLimit || d < -stepLimit
}

// systemClock returns the clock of the system.
func systemClock() func() Instant {
	start := time.Now()
	return func() Instant {
		now := time.Now()
		return Instant{Wall: now.UnixNano(), Mono: int64(now.Sub(start))}
	}
}

// steady reads the clock so that an interruption between its two halves, Wall first, does not look like a step: both
// halves of what it returns were read between two readings of Mono that lie together. Should the process
// be interrupted in each of its readings, it returns the last.
func steady(clock func() Instant) Instant {
	last := clock()
	for range readings - 1 {
		next := clock()
		if next.Mono-last.Mono < together {
			return next
		}
		last = next
	}
	return last
}

func timestamp(wall int64) packet.Timestamp { return packet.FromTime(time.Unix(0, wall)) }
