package gateway

import (
	"math"
	"time"

	"ntsagent/ntske/packet"
)

// The bounds within which time is served.
const (
	// StaleAfter is how long the daemon may be silent before the gateway is, too.
	StaleAfter = 8 * time.Second
	// MaxUncertainty of the daemon's time, beyond what the daemon itself admits, is served. Above it there is
	// silence. Up to it the uncertainty is added to the root dispersion.
	MaxUncertainty = 10 * time.Millisecond
	// RelayAbove this much of unexplained offset the daemon should be asked for every packet.
	RelayAbove = 50 * time.Microsecond
	// maxDwell is how long a request may wait for its response. What takes longer is of no use to the client.
	maxDwell = int64(250 * time.Millisecond)
	// agePPB is how fast a root dispersion grows (RFC 5905 §7.3, PHI = 15 ppm).
	agePPB = 15e-6
	// unsynchronisedDispersion is what a server that is not synchronised admits (RFC 5905 §7.2, MAXDISP = 16 s).
	unsynchronisedDispersion = uint32(16 << 16)
)

// Condition says what the gateway can do with the daemon's time.
type Condition uint8

// The conditions, from best to worst.
const (
	Good           Condition = iota // served
	RelayWanted                     // served with a greater root dispersion: its offset to the clock is not explained well
	Unsynchronised                  // served as leap 3, stratum 0
	Uncertain                       // not served: the uncertainty is above MaxUncertainty
	Stale                           // not served: the daemon has not answered, or the clock was stepped since
)

// String names the condition.
func (c Condition) String() string {
	return [...]string{"good", "relay wanted", "unsynchronised", "uncertain", "stale"}[c]
}

// State is what the last answer of the daemon says, and how the time it serves relates to the clock of the
// system. It is immutable.
type State struct {
	header packet.Header // of the daemon's answer
	at     Instant       // when it came
	line   line          // θ from at on
	relay  bool
}

// newState makes the state from an answer at an instant and the track that holds it.
func newState(h packet.Header, at Instant, t track, interval time.Duration) *State {
	s := &State{header: h, at: at, line: t.now()}
	// Where θ lies within the delay of a poll is known once and for all; how it will go on is what may be unexplained. As long as
	// no poll speaks of an offset there is none to explain, however long the delays on a busy machine are.
	s.relay = !t.canBeZero() && s.line.growth*float64(interval) > float64(RelayAbove) || t.gap > float64(RelayAbove) && t.n < 3
	return s
}

// synchronised reports whether the daemon says that it has the time.
func (s *State) synchronised() bool {
	h := &s.header
	return h.Leap != 3 && h.Stratum > 0 && h.Stratum < 16
}

// Condition returns the condition at an instant. A nil State is Stale.
func (s *State) Condition(now Instant) Condition {
	switch {
	case s == nil || now.Mono < s.at.Mono || now.Mono-s.at.Mono > int64(StaleAfter) || stepped(s.at, now):
		return Stale
	case !s.synchronised():
		return Unsynchronised
	case s.spread(now.Mono-s.at.Mono) > float64(MaxUncertainty):
		return Uncertain
	case s.relay:
		return RelayWanted
	}
	return Good
}

// read reads the clock, as a rule once. What looks like a step since the State was made may only be an interruption
// between the two halves of the reading: on a machine at full load one reading in some 100,000 is. Then it is
// read again, with care.
func (s *State) read(clock func() Instant) Instant {
	now := clock()
	if s == nil || stepped(s.at, now) {
		return steady(clock)
	}
	return now
}

// Header returns the header of the daemon's last answer.
func (s *State) Header() packet.Header { return s.header }

// Offset returns how far the time the daemon serves is ahead of the clock of the system, and the bound on the
// error of that.
func (s *State) Offset(now Instant) (offset, uncertainty time.Duration) {
	age := now.Mono - s.at.Mono
	return time.Duration(s.line.at(float64(age))), time.Duration(s.spread(age))
}

func (s *State) spread(age int64) float64 { return s.line.spread + s.line.growth*float64(age) }

// respond makes the header of the response to q, which came when the clock of the system showed t2. now is
// that clock at this moment, and lead is how long the response will take to the wire. Both timestamps are
// corrected to the time the daemon serves. If the Outcome is not Served there is no response.
func (s *State) respond(q *packet.Header, t2 int64, now Instant, lead int64) (packet.Header, Outcome) {
	condition := s.Condition(now)
	switch condition {
	case Stale:
		if s != nil && stepped(s.at, now) {
			return packet.Header{}, SilentStep
		}
		return packet.Header{}, SilentStale
	case Uncertain:
		return packet.Header{}, SilentUncertain
	}
	dwell := now.Wall - t2
	switch {
	case dwell < 0:
		return packet.Header{}, SilentStep
	case dwell > maxDwell:
		return packet.Header{}, SilentLate
	}
	age := now.Mono - s.at.Mono
	h := packet.Header{
		Version: q.Version, Mode: packet.ModeServer, Poll: q.Poll, Precision: s.header.Precision, RefTime: s.header.RefTime,
		Origin:   q.Transmit,
		Receive:  timestamp(t2 + int64(s.line.at(float64(age-dwell)))),
		Transmit: timestamp(now.Wall + lead + int64(s.line.at(float64(age+lead)))),
	}
	if condition == Unsynchronised {
		h.Leap, h.RootDispersion = 3, unsynchronisedDispersion
		return h, Served
	}
	h.Leap, h.Stratum, h.RefID = s.header.Leap, s.header.Stratum, s.header.RefID
	h.RootDelay = s.header.RootDelay
	// Of a State that is younger than the request the receive timestamp is what is known less well.
	h.RootDispersion = addDispersion(s.header.RootDispersion, agePPB*float64(age)+s.spread(max(age, dwell-age)))
	return h, Served
}

// addDispersion adds ns to a root dispersion, rounded up: it is never 0 and never overflows.
func addDispersion(d uint32, ns float64) uint32 {
	sum := float64(d) + math.Ceil(ns*65536/1e9)
	return uint32(min(max(sum, 1), math.MaxUint32))
}
