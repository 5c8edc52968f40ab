package load

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"
)

// naiveQuantile is the definition, word for word: of the durations, the shortest that at least the share q
// of all does not exceed.
func naiveQuantile(all []time.Duration, q float64) time.Duration {
	var best time.Duration
	found := false
	for _, candidate := range all {
		within := 0
		for _, x := range all {
			if x <= candidate {
				within++
			}
		}
		if float64(within) >= q*float64(len(all)) && (!found || candidate < best) {
			best, found = candidate, true
		}
	}
	return best
}

func TestQuantileIsWhatItsDefinitionSays(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for n := range 60 {
		var d Dist
		var all []time.Duration
		for range n {
			x := time.Duration(random.IntN(40) - 20) // negative ones and equal ones among them
			d.Add(x)
			all = append(all, x)
		}
		if d.Len() != n {
			t.Fatalf("Len is %d after %d Adds", d.Len(), n)
		}
		for _, q := range []float64{0, 0.01, 0.25, 0.5, 0.75, 0.99, 0.999, 1, random.Float64()} {
			if got, want := d.Quantile(q), naiveQuantile(all, q); got != want {
				t.Errorf("quantile %v of %v is %d, want %d", q, all, got, want)
			}
		}
	}
}

func TestMagnitudesHaveNoSigns(t *testing.T) {
	var d Dist
	for _, x := range []time.Duration{-30, 1, -2, 20, 0} {
		d.Add(x)
	}
	if m := d.Magnitudes(); m.Quantile(0.5) != 2 || m.Quantile(1) != 30 || m.Len() != 5 {
		t.Errorf("median %d, longest %d of %d, want 2, 30 and 5", m.Quantile(0.5), m.Quantile(1), m.Len())
	}
	if d.Quantile(0) != -30 {
		t.Error("the signs are lost")
	}
}

func TestDistSortsAgainAfterItHasGrown(t *testing.T) {
	var d, o Dist
	d.Add(5)
	d.Add(3)
	if got := d.Quantile(1); got != 5 {
		t.Fatalf("longest is %d, want 5", got)
	}
	d.Add(1)
	if got := d.Quantile(0); got != 1 {
		t.Errorf("shortest after Add is %d, want 1", got)
	}
	o.Add(-7)
	o.Add(9)
	d.Merge(&o)
	if lo, hi := d.Quantile(0), d.Quantile(1); lo != -7 || hi != 9 || d.Len() != 5 {
		t.Errorf("after Merge: %d durations from %d to %d, want 5 from -7 to 9", d.Len(), lo, hi)
	}
	if o.Len() != 2 {
		t.Errorf("what was merged has %d durations left, want 2", o.Len())
	}
}

func TestMergeOfResultsKeepsTheFirstReasonAndTheLongestTime(t *testing.T) {
	first, second := errors.New("first"), errors.New("second")
	var sum, a, b Result
	a.Done, a.Took = 3, 2*time.Second
	a.Fail(first)
	a.Fail(second)
	a.Exchanges, b.Exchanges = 1, 2
	a.Latency.Add(1)
	a.Offset.Add(2)
	b.Done, b.Took = 4, time.Second
	b.Fail(second)
	b.Latency.Add(3)
	b.Delay.Add(4)
	sum.Merge(&a)
	sum.Merge(&b)
	if sum.Done != 7 || sum.Failed != 3 || sum.FirstErr != first || sum.Took != 2*time.Second {
		t.Errorf("sum is %d done, %d failed (%v) in %v, want 7, 3 (first), 2s", sum.Done, sum.Failed, sum.FirstErr, sum.Took)
	}
	if sum.Exchanges != 3 {
		t.Errorf("sum has %d key exchanges, want 3", sum.Exchanges)
	}
	if sum.Latency.Len() != 2 || sum.Offset.Len() != 1 || sum.Delay.Len() != 1 {
		t.Errorf("sum has %d latencies, %d offsets, %d delays, want 2, 1, 1", sum.Latency.Len(), sum.Offset.Len(), sum.Delay.Len())
	}
}
