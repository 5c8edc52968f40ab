package gateway

import (
	"math"
	"time"
)

// A sample is what one poll says of the offset θ, the time the daemon serves minus the clock of the system. No
// packet arrives before it is sent, so of the four timestamps of the poll (RFC 5905 §8) θ ≤ T2-T1 and
// θ ≥ T3-T4: an interval as wide as the delay, and a hard one, however the delay is shared between the two ways.
type sample struct {
	mono   int64   // when, Instant.Mono
	lo, hi float64 // ns
}

// makeSample returns what a poll says, with t1 and t4 on the clock of the system and t2 and t3 as served, all in ns
// since the Unix epoch. slack is how much the daemon may blur its timestamps.
func makeSample(mono, t1, t2, t3, t4 int64, slack time.Duration) sample {
	return sample{mono, float64(t3-t4) - float64(slack), float64(t2-t1) + float64(slack)}
}

const (
	trackLen = 8
	// slopeLimit is the fastest change of θ that is taken for a slope and not for a step: adjtime slews at
	// 500 ppm, the rest is the frequency error of the clock.
	slopeLimit = 600e-6
	// wayBack is how long an answer takes at most, in ns, from the daemon's reading of T3 to the stamp of our
	// kernel, when nothing comes between. The way there may be longer: OpenNTPD reads the clock only when it
	// has woken up. So where the delay is long, θ is taken to lie this far above its lower bound, and not in
	// the middle. The bounds stay what they are.
	wayBack = 8e3
	// slewing is a slope that no drift of a clock explains: an adjustment is under way and ends at θ = 0.
	slewing = 100e-6
)

// track is the estimator: the last samples, oldest first, that one straight line θ(t) of at most slopeLimit can
// pass through. All lines that do form a set whose extremes are known in closed form, so the estimate comes
// with bounds and needs no noise model: the intervals of the polls with the least delay decide by
// themselves, the others never spoil it. A sample that no line can reach together with the others ends the
// line (a step, or a slew that starts or ends) and starts the next alone. It is a value: add returns
// another one.
type track struct {
	samples [trackLen]sample
	n       int
	gap     float64 // ns by which the last line missed the first sample of this one; 0: there was none
	reach   float64 // slope to be feared while there is one sample alone, at least slopeLimit
}

// line is an estimate of θ: at the newest sample, and how it goes on from there.
type line struct {
	offset float64 // ns: where θ most probably is
	slope  float64 // ns per ns
	spread float64 // ns: where it is for certain, offset ± spread
	growth float64 // of spread, ns per ns
}

// add returns the track with a newer sample.
func (t track) add(s sample) track {
	if t.n == 0 || s.mono <= t.samples[t.n-1].mono {
		return track{samples: [trackLen]sample{s}, n: 1, reach: slopeLimit}
	}
	next := t
	if next.n == trackLen {
		copy(next.samples[:], next.samples[1:])
		next.n--
	}
	next.samples[next.n] = s
	next.n++
	if lo, hi := next.slopes(); lo <= hi {
		return next
	}
	last := t.samples[t.n-1]
	dt := float64(s.mono - last.mono)
	l := t.line()
	at, spread := l.at(dt), l.spread+l.growth*dt
	gap := max(at-spread-s.hi, s.lo-at-spread, 1)
	// Whatever moved θ as far as this since the last sample may go on.
	reach := max(s.hi-last.lo, last.hi-s.lo) / dt
	return track{samples: [trackLen]sample{s}, n: 1, gap: gap, reach: max(slopeLimit, reach)}
}

// age returns how long the samples reach back, in ns.
func (t *track) age() int64 { return t.samples[t.n-1].mono - t.samples[0].mono }

// slopes returns the least and the greatest slope of a line through all samples. There is none if lo > hi.
func (t *track) slopes() (lo, hi float64) {
	lo, hi = -t.reach, t.reach
	if t.n > 1 {
		lo, hi = -slopeLimit, slopeLimit
	}
	for j := 1; j < t.n; j++ {
		for i := range j {
			a, b := &t.samples[i], &t.samples[j]
			dt := float64(b.mono - a.mono)
			lo = max(lo, (b.lo-a.hi)/dt)
			hi = min(hi, (b.hi-a.lo)/dt)
		}
	}
	return lo, hi
}

// line returns the most probable of all lines through the samples, and their bounds. The extremes at the newest sample, by duality of
// linear programs: each older sample carried there at the steepest slope that it and one older still allow.
func (t *track) line() line {
	newest := t.samples[t.n-1]
	lo, hi := newest.lo, newest.hi
	for j := range t.n - 1 {
		b := &t.samples[j]
		up, down := slopeLimit, -slopeLimit
		for i := range j {
			a := &t.samples[i]
			dt := float64(b.mono - a.mono)
			up = min(up, (b.hi-a.lo)/dt)
			down = max(down, (b.lo-a.hi)/dt)
		}
		dt := float64(newest.mono - b.mono)
		hi = min(hi, b.hi+up*dt)
		lo = max(lo, b.lo+down*dt)
	}
	least, most := t.slopes()
	if t.canBeZero() {
		return line{0, 0, max(hi, -lo), max(most, -least)}
	}
	offset := min((lo+hi)/2, lo+wayBack)
	return line{offset, (least + most) / 2, hi - offset, (most - least) / 2}
}

// now is the line, with bounds at the newest sample that hold even if the daemon has changed its time at once since
// the others and the delay of the newest hides that. A delay so long that little would be served tells nothing: as long
// as all are, the line is believed.
func (t *track) now() line {
	l, newest := t.line(), &t.samples[t.n-1]
	if own := max(newest.hi-l.offset, l.offset-newest.lo); own <= float64(MaxUncertainty/2) {
		l.spread = max(l.spread, own)
	}
	return l
}

// canBeZero reports whether no sample speaks against the simplest: that the daemon serves the clock of the
// system as it is. Then that is taken for true, so that the noise of the polls does not reach the clients.
func (t *track) canBeZero() bool {
	for i := range t.n {
		if t.samples[i].lo > 0 || t.samples[i].hi < 0 {
			return false
		}
	}
	return true
}

// at returns θ at dt ns after the newest sample. What a slew has left shrinks to nothing and stays there.
func (l *line) at(dt float64) float64 {
	v := l.offset + l.slope*dt
	if dt > 0 && math.Abs(l.slope) > slewing && l.offset*l.slope < 0 && v*l.offset < 0 {
		return 0
	}
	return v
}
