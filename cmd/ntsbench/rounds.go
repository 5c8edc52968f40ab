package main

import (
	"context"
	"fmt"
	"time"

	"ntsagent/cmd/ntsbench/load"
)

// contestant is one server in a comparison and how it is loaded for a while.
type contestant struct {
	server
	column int // of the table
	load   func(ctx context.Context, d time.Duration) (load.Result, error)
}

// series is what all rounds of one contestant came to.
type series struct {
	micros []float64 // CPU-µs of the server per verified operation, one per round
	result load.Result
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

// alternate measures all contestants in every round, in turn. One failed
// operation fails it all: figures are of what was verified.
func alternate(ctx context.Context, s schedule, contestants []contestant) ([]series, error) {
	all := make([]series, len(contestants))
	for round := range s.rounds {
		for _, i := range order(len(contestants), round) {
			c := contestants[i]
			r, micros, err := c.measure(ctx, s)
			if err != nil {
				return nil, fmt.Errorf("round %d: %w", round+1, err)
			}
			all[i].micros = append(all[i].micros, micros)
			all[i].result.Merge(&r)
		}
	}
	return all, nil
}

// measure loads one server for one round.
func (c contestant) measure(ctx context.Context, s schedule) (load.Result, float64, error) {
	if _, err := c.run(ctx, s.warm); err != nil {
		return load.Result{}, 0, err
	}
	before, err := cpuOf(c.pid)
	if err != nil {
		return load.Result{}, 0, err
	}
	r, err := c.run(ctx, s.measure)
	if err != nil {
		return load.Result{}, 0, err
	}
	after, err := cpuOf(c.pid)
	return r, perOperation(after-before, r.Done), err
}

// run loads the server and wants every operation to succeed.
func (c contestant) run(ctx context.Context, d time.Duration) (load.Result, error) {
	r, err := c.load(ctx, d)
	switch {
	case ctx.Err() != nil:
		return r, ctx.Err()
	case c.gone() != nil:
		return r, c.gone()
	case err != nil:
		return r, fmt.Errorf("load %s: %w", c.name, err)
	case r.Failed > 0:
		return r, fmt.Errorf("%d of %d operations on %s failed; the first: %w", r.Failed, r.Failed+r.Done, c.name, r.FirstErr)
	case r.Done == 0:
		return r, fmt.Errorf("%s did nothing in %v", c.name, d)
	}
	return r, nil
}

// perOperation is in µs.
func perOperation(cpu time.Duration, operations int) float64 {
	return float64(cpu) / float64(time.Microsecond) / float64(operations)
}
