package gateway

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"ntsagent/ntske/packet"
)

const us = 1e3 // ns

// sim polls a daemon whose served time is off by theta(t), t in ns, once a second.
type sim struct {
	theta   func(t float64) float64
	to      func(*rand.Rand) float64 // ns there and back
	from    func(*rand.Rand) float64
	settled int       // the polls after which the time is to be known well
	jumps   []float64 // when θ changes in a way that nobody could foresee
	turns   []float64 // when it changes its slope as foreseen
}

func about(delay, jitter float64) func(*rand.Rand) float64 {
	return func(r *rand.Rand) float64 { return delay + jitter*r.ExpFloat64() }
}

func TestTheOffsetIsTracked(t *testing.T) {
	const s, ms = 1e9, 1e6
	quiet := about(6*us, 1*us)
	for name, c := range map[string]sim{
		"the daemon serves the clock as it is":       {theta: func(float64) float64 { return 0 }, settled: 2},
		"a constant offset of a second":              {theta: func(float64) float64 { return s }, settled: 2},
		"a constant offset back by an hour":          {theta: func(float64) float64 { return -3600 * s }, settled: 2},
		"a drift of 40 ppm, as with -x":              {theta: func(t float64) float64 { return 40e-6 * t }, settled: 3},
		"OpenNTPD in the middle of a slew":           {theta: func(t float64) float64 { return 30*ms - 500e-6*t }, settled: 3},
		"the same back":                              {theta: func(t float64) float64 { return -30*ms + 500e-6*t }, settled: 3},
		"a slew that ends between two polls":         {theta: func(t float64) float64 { return max(0, 4.7*ms-500e-6*t) }, settled: 3, turns: []float64{9.4 * s}},
		"a drift that passes through zero":           {theta: func(t float64) float64 { return 90e-6 * (t - 9.4*s) }, settled: 3},
		"jitter of 200 µs on both ways":              {theta: func(float64) float64 { return 3 * ms }, to: about(20*us, 200*us), from: about(20*us, 200*us), settled: 99},
		"now and then a packet that waits 5 ms":      {theta: func(float64) float64 { return 3 * ms }, to: rarely(5 * ms), settled: 3},
		"the same on the way back":                   {theta: func(float64) float64 { return 3 * ms }, from: rarely(5 * ms), settled: 3},
		"the way there takes 30 µs and back 5 µs":    {theta: func(float64) float64 { return 0 }, to: about(30*us, us), from: about(5*us, us), settled: 3},
		"the way there takes 5 µs and back 30 µs":    {theta: func(t float64) float64 { return 500e-6 * t }, to: about(5*us, us), from: about(30*us, us), settled: 4},
		"a step of 20 ms, as by a new adjustment":    {theta: func(t float64) float64 { return 20 * ms * step(t, 9.5*s) }, settled: 2, jumps: []float64{9.5 * s}},
		"a step of 300 µs":                           {theta: func(t float64) float64 { return -300 * us * step(t, 9.5*s) }, settled: 2, jumps: []float64{9.5 * s}},
		"a step and the slew that works it off":      {theta: func(t float64) float64 { return step(t, 9.5*s) * max(0, 9*ms-500e-6*(t-9.5*s)) }, settled: 3, jumps: []float64{9.5 * s}},
		"a slew begins, as chronyd's smoothtime may": {theta: func(t float64) float64 { return 300e-6 * max(0, t-9.5*s) }, settled: 3, jumps: []float64{9.5 * s}},
	} {
		t.Run(name, func(t *testing.T) {
			if c.to == nil {
				c.to = quiet
			}
			if c.from == nil {
				c.from = quiet
			}
			for seed := range uint64(40) {
				c.run(t, rand.New(rand.NewPCG(seed, 1)))
			}
		})
	}
}

func TestADaemonThatWakesUpLateDoesNotShiftTheTime(t *testing.T) {
	var tr track
	r := rand.New(rand.NewPCG(1, 1))
	for poll := range 60 { // as measured with OpenNTPD
		t1 := float64(poll) * 1e9
		t2 := t1 + 60*us + 40*us*r.ExpFloat64()
		t3 := t2 + 20*us
		t4 := t3 + 7*us + 2*us*r.ExpFloat64()
		const theta = 5e6
		tr = tr.add(makeSample(int64(t4), int64(t1), int64(t2+theta), int64(t3+theta), int64(t4), 1000))
		l := tr.line()
		l.offset -= theta
		if poll >= 3 && (math.Abs(l.at(0)) > 15*us || math.Abs(l.at(1e9)) > 20*us) {
			t.Errorf("poll %d: off by %.1f and %.1f µs", poll, l.at(0)/us, l.at(1e9)/us)
		}
		if s := newState(daemonHeader, Instant{}, tr, time.Second); poll >= 8 && s.relay {
			t.Errorf("poll %d: relay wanted: %+v", poll, l)
		}
	}
}

func TestADelayThatHidesAStepDoesNotHideItsBound(t *testing.T) {
	for _, theta := range []float64{-2e6, -300e3, 300e3, 2e6} {
		var tr track
		poll := func(at, theta, delay float64) {
			tr = tr.add(makeSample(int64(at+delay), int64(at), int64(at+delay/2+theta), int64(at+delay/2+theta), int64(at+delay), 1000))
		}
		for i := range 8 {
			poll(float64(i)*1e9, 0, 40*us)
		}
		for i := range 4 {
			poll(float64(8+i)*1e9, theta, 2.1*math.Abs(theta)) // as long as all delays are
			s := newState(daemonHeader, Instant{}, tr, time.Second)
			if off := math.Abs(s.line.offset - theta); off > s.line.spread {
				t.Errorf("%.0f µs, poll %d: off by %.0f µs, bound %.0f µs", theta/us, i, off/us, s.line.spread/us)
			}
			if tr.n < 8 {
				t.Errorf("%.0f µs, poll %d: the delay hid nothing", theta/us, i)
			}
		}
		poll(12e9, theta, 40*us)
		if l := tr.now(); tr.n != 1 || math.Abs(l.offset-theta) > l.spread || l.spread > 40*us {
			t.Errorf("%.0f µs: %+v", theta/us, l)
		}
	}
}

func TestADelayThatTellsNothingLeavesTheLine(t *testing.T) {
	var tr track
	for i, delay := range []float64{40 * us, 40 * us, 40 * us, 11e6} {
		at := float64(i) * 1e9
		tr = tr.add(makeSample(int64(at+delay), int64(at), int64(at+delay/2), int64(at+delay/2), int64(at+delay), 1000))
	}
	if l := tr.now(); l.spread > 100*us {
		t.Errorf("%+v", l)
	}
}

func TestADaemonThatMayServeTheClockIsTakenToDoSo(t *testing.T) {
	var tr track
	r := rand.New(rand.NewPCG(1, 1))
	for poll := range 60 {
		at := float64(poll) * 1e9
		to, back := 10*us+20*us*r.ExpFloat64(), 7*us+2*us*r.ExpFloat64()
		if poll >= 30 {
			to, back = back, to // bounds are of both sides
		}
		tr = tr.add(makeSample(int64(at+to+back), int64(at), int64(at+to), int64(at+to), int64(at+to+back), 1000))
		if l := tr.line(); l.at(1e9) != 0 || poll < 30 && l.spread < 10*us || poll == 59 && l.spread < 10*us {
			t.Errorf("poll %d: %+v", poll, l)
		}
	}
}

func TestLongDelaysAloneAreNoOffsetToExplain(t *testing.T) {
	var tr track
	for poll := range 20 { // of a machine at full load
		at, delay := float64(poll)*1e9, float64(1+poll%4)*1e6
		tr = tr.add(makeSample(int64(at+delay), int64(at), int64(at+delay/2), int64(at+delay/2), int64(at+delay), 1000))
		s := newState(daemonHeader, Instant{Mono: int64(at + delay)}, tr, time.Second)
		if s.relay || s.line.offset != 0 || s.line.spread < 0.4e6 {
			t.Errorf("poll %d: %+v", poll, s)
		}
	}
}

func step(t, at float64) float64 {
	if t < at {
		return 0
	}
	return 1
}

func rarely(late float64) func(*rand.Rand) float64 {
	return func(r *rand.Rand) float64 {
		if r.IntN(4) == 0 {
			return 6*us + late
		}
		return 6*us + us*r.Float64()
	}
}

// run checks after every poll and until the next that θ lies within the bounds, unless it jumped since, and
// that it is known to 50 µs when it did not jump during the last polls.
func (c *sim) run(t *testing.T, r *rand.Rand) {
	var tr track
	for poll := range 24 {
		t1 := float64(poll)*1e9 + r.Float64()*1e8
		t2 := t1 + c.to(r)
		t3 := t2 + 10*us
		t4 := t3 + c.from(r)
		tr = tr.add(makeSample(int64(t4), int64(t1), int64(t2+c.theta(t2)), int64(t3+c.theta(t3)), int64(t4), 10))
		l := tr.line()
		calm := poll >= c.settled
		for _, j := range slices.Concat(c.jumps, c.turns) {
			calm = calm && (t4 < j || t4 > j+float64(c.settled)*1e9)
		}
		for dt := 0.0; dt <= 1.1e9; dt += 1e8 {
			jumped := false
			for _, j := range c.jumps {
				jumped = jumped || t4 < j && t4+dt >= j-1e6
			}
			if jumped {
				break
			}
			off := math.Abs(l.at(dt) - c.theta(t4+dt))
			bound := l.spread + l.growth*dt
			if off > bound+2 {
				t.Fatalf("poll %d + %.1f s: off by %.1f µs, bound %.1f µs (%+v)", poll, dt/1e9, off/us, bound/us, l)
			}
			if s := newState(daemonHeader, Instant{}, tr, time.Second); calm && (l.spread > 50*us || s.relay) {
				t.Fatalf("poll %d + %.1f s: known to %.1f µs only", poll, dt/1e9, bound/us)
			}
		}
	}
}

func TestARampThatIsTooSteepIsNeverBelieved(t *testing.T) {
	var tr track
	for poll := range 20 { // chronyd may slew by 83,333 ppm
		at := float64(poll) * 1e9
		theta := func(t float64) float64 { return 0.083333 * t }
		tr = tr.add(makeSample(int64(at+12e3), int64(at), int64(at+6e3+theta(at)), int64(at+6e3+theta(at)), int64(at+12e3), 0))
		if poll == 0 {
			continue // nothing can be known yet
		}
		l := tr.line()
		if off, bound := math.Abs(l.at(0.9e9)-theta(at+0.9e9)), l.spread+l.growth*0.9e9; off > bound {
			t.Errorf("poll %d: off by %.0f µs, bound %.0f µs", poll, off/us, bound/us)
		}
		s := newState(daemonHeader, Instant{int64(at), int64(at)}, tr, time.Second)
		if got := s.Condition(Instant{int64(at + 0.9e9), int64(at + 0.9e9)}); got != Uncertain {
			t.Errorf("poll %d: %v", poll, got)
		}
	}
}

func TestUnexplainedOffsetAsksForRelay(t *testing.T) {
	poll := func(tr track, at, theta float64) track {
		return tr.add(makeSample(int64(at), int64(at-12e3), int64(at-6e3+theta), int64(at-6e3+theta), int64(at), 0))
	}
	var tr track
	for i := range 10 {
		tr = poll(tr, float64(i)*1e9, 0)
	}
	for _, c := range []struct {
		name  string
		theta float64
		want  []Condition // after this poll and those that follow
	}{
		{"nothing", 0, []Condition{Good, Good, Good}},
		{"5 µs", 5e3, []Condition{Good, Good, Good}},
		{"40 µs", 40e3, []Condition{RelayWanted, Good, Good}}, // one poll alone cannot tell a slope
		{"100 µs", 100e3, []Condition{RelayWanted, RelayWanted, Good}},
		{"-5 ms", -5e6, []Condition{RelayWanted, RelayWanted, Good}},
	} {
		t.Run(c.name, func(t *testing.T) {
			now := tr
			for i, want := range c.want {
				at := float64(10+i) * 1e9
				now = poll(now, at, c.theta)
				s := newState(daemonHeader, Instant{int64(at), int64(at)}, now, time.Second)
				if got := s.Condition(Instant{int64(at), int64(at)}); got != want {
					t.Errorf("poll %d: %v, want %v (%+v)", i, got, want, s.line)
				}
			}
		})
	}
}

func TestPollsThatGoBackInTimeStartAnew(t *testing.T) {
	tr := track{}.add(sample{100, 0, 10}).add(sample{200, 0, 10})
	if tr = tr.add(sample{200, 5, 15}); tr.n != 1 || tr.line().offset != 10 {
		t.Errorf("%+v", tr)
	}
}

func TestBothTimestampsAreCorrected(t *testing.T) {
	at := Instant{1_790_000_000e9, 7e9}
	s := &State{header: daemonHeader, at: at, line: line{offset: 5e6, slope: 500e-6, spread: 20e3}}
	q := clientHeader()
	h, outcome := s.respond(&q, at.Wall+900e6, Instant{at.Wall + 1000e6, at.Mono + 1000e6}, 50e3)
	if want := timestamp(at.Wall + 900e6 + 5e6 + 450e3); outcome != Served || h.Receive != want {
		t.Errorf("%v, receive %v too late", outcome, h.Receive.Sub(want))
	}
	if want := timestamp(at.Wall + 1000e6 + 50e3 + 5e6 + 500e3 + 25); h.Transmit.Sub(want).Abs() > 1 {
		t.Errorf("transmit %v too late", h.Transmit.Sub(want))
	}
	if offset, bound := s.Offset(Instant{at.Wall, at.Mono + 1e9}); offset != 5500*time.Microsecond || bound != 20*time.Microsecond {
		t.Errorf("offset %v ± %v", offset, bound)
	}
}

func TestARootDispersionIsNeverZero(t *testing.T) {
	for _, c := range []struct {
		of   uint32
		ns   float64
		want uint32
	}{{0, 0, 1}, {0, 1, 1}, {0, 15.3e3, 2}, {5, 0, 5}, {5, 1, 6}, {5, 1e9, 65541}, {math.MaxUint32, 1e9, math.MaxUint32}} {
		if got := addDispersion(c.of, c.ns); got != c.want {
			t.Errorf("%d and %v ns: %d, want %d", c.of, c.ns, got, c.want)
		}
	}
	d := newDesk(t)
	d.state.header.RootDispersion = 0
	d.state.line = line{}
	if b, uid := d.request(t, 0); d.served(t, b, uid, 1).RootDispersion == 0 {
		t.Error("served")
	}
	before := packet.Header{}
	for range 8 { // it ages
		d.after(time.Second)
		b, uid := d.request(t, 0)
		h := d.served(t, b, uid, 1)
		if h.RootDispersion < before.RootDispersion || h.RootDispersion > before.RootDispersion+2 {
			t.Errorf("root dispersion %d after %d", h.RootDispersion, before.RootDispersion)
		}
		before = h
	}
	if before.RootDispersion != 8 { // 15 ppm of 8 s are 120 µs
		t.Errorf("root dispersion %d after 8 s", before.RootDispersion)
	}
}
