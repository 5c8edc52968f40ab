package main

import (
	"context"
	"fmt"
	"math"
	"time"

	"ntsagent/cmd/ntsbench/load"
)

// contestant is one server in a comparison and how it is loaded for a while.
type contestant struct {
	server
	column int // of the table
	// load loads it for a while. begin is called when what comes before is done.
	load   func(ctx context.Context, d time.Duration, begin func()) (load.Result, error)
	behind *child // the daemon behind a gateway, whose CPU time is told apart; nil: none
	judged bool   // what fails is counted; of others the round is repeated
	lossy  bool   // of a judged one: a round with lost datagrams is repeated as those of others are, and counts if it comes to the worst
}

// series is what all rounds of one contestant came to.
type series struct {
	name   string
	micros []float64 // CPU-µs of the server per verified operation, one per round; NaN: there was none
	result load.Result
	offset []float64 // the median of clock offsets without their signs, in µs, one per round; NaN: there was none
	rate   []float64 // verified operations per second, one per round
	busy   []float64 // percent of one CPU that the server used, one per round
	behind []float64 // CPU-µs of the daemon behind it per verified operation, one per round

	failed, tried int   // operations of a judged one, those of the warm-up included
	firstErr      error // why the first of those failed
	repeated      int   // rounds measured again
	repeatErr     error // why the first of those was
	err           error // why it was given up; nothing else counts then
}

// notes are what the reader of a row has to know of its rounds.
func (s *series) notes() []string {
	var notes []string
	if s.failed > 0 {
		notes = append(notes, fmt.Sprintf("%d of %d failed: %v", s.failed, s.tried, s.firstErr))
	}
	if s.repeated > 0 {
		notes = append(notes, fmt.Sprintf("%s of %s repeated: %v", times(s.repeated, "round"), s.name, s.repeatErr))
	}
	return notes
}

// count adds operations of a judged contestant.
func (s *series) count(r load.Result) {
	s.failed += r.Failed
	s.tried += r.Failed + r.Done
	if s.firstErr == nil && r.Failed > 0 {
		s.firstErr = r.FirstErr
	}
}

// schedule says how long.
type schedule struct {
	rounds  int
	measure time.Duration // one server in one round
	warm    time.Duration // before that
}

// order is who comes when in a round: each round begins with the next one, so
// that nobody always follows the same neighbour's noise.
func order(contestants, round int) []int {
	list := make([]int, contestants)
	for i := range list {
		list[i] = (round + i) % contestants
	}
	return list
}

// alternate measures all contestants in every round, in turn. One that cannot be
// measured is given up, the others go on. The error is of a ctx that ended.
func alternate(ctx context.Context, s schedule, contestants []contestant, begin func(round int)) ([]series, error) {
	all := make([]series, len(contestants))
	for i, c := range contestants {
		all[i].name = c.name
	}
	for round := range s.rounds {
		begin(round + 1)
		for _, i := range order(len(contestants), round) {
			if all[i].err == nil {
				all[i].round(ctx, s, contestants[i], round+1)
			}
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
		}
	}
	return all, nil
}

// tries is how often one round is measured before its contestant is given up:
// on a busy machine a datagram may get lost.
const tries = 3

// round measures c once more.
func (s *series) round(ctx context.Context, plan schedule, c contestant, number int) {
	for try := 1; ; try++ {
		warm, m, err := c.measure(ctx, plan)
		if err == nil && c.lossy && warm.Lost+m.result.Lost > 0 && try < tries {
			both := warm
			both.Merge(&m.result)
			s.again(fmt.Errorf("%d of %d operations were lost: %w", both.Lost, both.Done+both.Failed, both.FirstErr))
			both.Failed -= both.Lost // the others were answered wrongly, which is no matter of luck
			s.count(both)
			continue
		}
		if err == nil {
			s.add(m)
			s.count(warm)
			s.count(m.result)
			return
		}
		if try == tries || ctx.Err() != nil || c.gone() != nil {
			s.err = fmt.Errorf("round %d: %w", number, err)
			return
		}
		s.again(err)
	}
}

// again notes that a round is repeated, and why.
func (s *series) again(why error) {
	s.repeated++
	if s.repeatErr == nil {
		s.repeatErr = why
	}
}

// measured is one server in one round.
type measured struct {
	result      load.Result
	cpu, behind time.Duration
}

// add takes in one more round.
func (s *series) add(m measured) {
	r := &m.result
	s.micros = append(s.micros, perOperation(m.cpu, r.Done))
	s.behind = append(s.behind, perOperation(m.behind, r.Done))
	s.rate = append(s.rate, float64(r.Done)/r.Took.Seconds())
	s.busy = append(s.busy, 100*m.cpu.Seconds()/r.Took.Seconds())
	offset := math.NaN()
	if r.Offset.Len() > 0 {
		offset = microseconds(r.Offset.Magnitudes().Quantile(0.5))
	}
	s.offset = append(s.offset, offset)
	s.result.Merge(r)
}

// measure loads one server for one round.
func (c contestant) measure(ctx context.Context, s schedule) (warm load.Result, m measured, err error) {
	if warm, err = c.run(ctx, s.warm, func() {}); err != nil {
		return warm, m, err
	}
	var before, behind time.Duration
	begun := func() {
		before, err = cpuOf(c.pid)
		if c.behind != nil && err == nil {
			behind, err = cpuOf(c.behind.pid)
		}
	}
	var failed error
	if m.result, failed = c.run(ctx, s.measure, begun); failed != nil {
		return warm, m, failed
	}
	if err != nil {
		return warm, m, err
	}
	if m.cpu, err = cpuOf(c.pid); err != nil {
		return warm, m, err
	}
	m.cpu -= before
	if c.behind != nil {
		m.behind, err = cpuOf(c.behind.pid)
		m.behind -= behind
	}
	return warm, m, err
}

// run loads the server and wants every operation to succeed, unless they are counted.
func (c contestant) run(ctx context.Context, d time.Duration, begin func()) (load.Result, error) {
	r, err := c.load(ctx, d, begin)
	switch {
	case ctx.Err() != nil:
		return r, ctx.Err()
	case c.gone() != nil:
		return r, c.gone()
	case err != nil:
		return r, fmt.Errorf("load %s: %w", c.name, err)
	case r.Failed > 0 && !c.judged:
		return r, fmt.Errorf("%d of %d operations on %s failed: %w", r.Failed, r.Failed+r.Done, c.name, r.FirstErr)
	case r.Failed+r.Done == 0:
		return r, fmt.Errorf("%s did nothing in %v", c.name, d)
	}
	return r, nil
}

// perOperation is in µs; NaN without operations.
func perOperation(cpu time.Duration, operations int) float64 {
	if operations == 0 {
		return math.NaN()
	}
	return float64(cpu) / float64(time.Microsecond) / float64(operations)
}
