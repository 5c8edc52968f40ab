package load

import (
	"math"
	"slices"
	"time"
)

// Dist is a distribution of durations, which may be negative. The zero value is empty and ready. It is for
// one goroutine: each worker fills its own, and they are merged at the end.
type Dist struct {
	durations []time.Duration
	sorted    bool
}

// Add adds one duration.
func (d *Dist) Add(x time.Duration) {
	d.durations = append(d.durations, x)
	d.sorted = false
}

// Merge adds all of o, which stays as it is.
func (d *Dist) Merge(o *Dist) {
	d.durations = append(d.durations, o.durations...)
	d.sorted = false
}

// Len returns how many durations there are.
func (d *Dist) Len() int { return len(d.durations) }

// Quantile returns the shortest of the durations that at least the share q of them, 0 to 1, do not exceed:
// 0.5 the (lower) median, 0 the shortest, 1 the longest. It is 0 for an empty distribution.
func (d *Dist) Quantile(q float64) time.Duration {
	if len(d.durations) == 0 {
		return 0
	}
	if !d.sorted {
		slices.Sort(d.durations)
		d.sorted = true
	}
	rank := int(math.Ceil(q * float64(len(d.durations)))) // from 1
	return d.durations[min(max(rank, 1), len(d.durations))-1]
}

// Magnitudes returns the durations without their signs.
func (d *Dist) Magnitudes() *Dist {
	m := &Dist{durations: make([]time.Duration, len(d.durations))}
	for i, x := range d.durations {
		m.durations[i] = x.Abs()
	}
	return m
}

// Result is what one load came to. It is for one goroutine, as Dist is.
type Result struct {
	Done     int           // operations that ended well and were verified whole
	Failed   int           // all others
	Lost     int           // those of the failed that nobody answered; queries only
	FirstErr error         // why the first of them failed; nil if none did
	Took     time.Duration // from the first operation's start to the last one's end

	Request, Reply int // octets of the longest request that is Done, and of the longest reply

	Exchanges int // good key exchanges of a load with NTS queries, those before it included

	Latency Dist // of what is Done
	Offset  Dist // how far the server's clock is ahead of ours; NTP queries only
	Delay   Dist // of the network, there and back; NTP queries only
}

// Fail counts a failed operation.
func (r *Result) Fail(err error) {
	r.Failed++
	if r.FirstErr == nil {
		r.FirstErr = err
	}
}

// lose counts a failed operation that nobody has answered.
func (r *Result) lose(err error) {
	r.Lost++
	r.Fail(err)
}

// Merge adds all of o. Took becomes the longer of both, which is the time of loads that ran side by side; of
// loads that ran one after another it says nothing.
func (r *Result) Merge(o *Result) {
	r.Done += o.Done
	r.Failed += o.Failed
	r.Lost += o.Lost
	r.Exchanges += o.Exchanges
	r.Request, r.Reply = max(r.Request, o.Request), max(r.Reply, o.Reply)
	if r.FirstErr == nil {
		r.FirstErr = o.FirstErr
	}
	r.Took = max(r.Took, o.Took)
	r.Latency.Merge(&o.Latency)
	r.Offset.Merge(&o.Offset)
	r.Delay.Merge(&o.Delay)
}
