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

// stepLimit is how far apart two readings of Wall-Mono may lie before the clock counts as stepped. Reading
// both takes far less, even when the reader is interrupted in between most of the time.
const stepLimit = int64(time.Millisecond)

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

func timestamp(wall int64) packet.Timestamp { return packet.FromTime(time.Unix(0, wall)) }
