package status

import (
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"
)

// What peers said became labels, one more for each word, until there was no memory left.
func TestCVE_2022_21698_CountersKeepTheirLabelsBounded(t *testing.T) {
	c := NewCounters("tls", "alpn")
	for i := range 1000 {
		c.Refused(now, fmt.Sprintf("peer says %d", i))
	}
	c.Refused(now, "tls")
	want := map[string]uint64{"tls": 1, Other: 1000}
	if got := c.Snapshot(now).Refused; !reflect.DeepEqual(got, want) {
		t.Errorf("refused %v, want %v", got, want)
	}
}

func TestTheDayForgetsAndTheTotalsDoNot(t *testing.T) {
	c := NewCounters()
	for h := range 48 {
		c.Served(now.Add(time.Duration(h)*time.Hour), time.Millisecond)
		c.Refused(now.Add(time.Duration(h)*time.Hour), "x")
	}
	k := c.Snapshot(now.Add(47 * time.Hour))
	if k.Served != 48 || k.ServedDay != 25 || k.RefusedDay != 25 {
		t.Errorf("served %d, last day %d and %d refused; want 48, 25, 25", k.Served, k.ServedDay, k.RefusedDay)
	}
	if k := c.Snapshot(now.Add(100 * time.Hour)); k.ServedDay != 0 || k.Served != 48 {
		t.Errorf("days later: served %d, last day %d", k.Served, k.ServedDay)
	}
}

func TestP95(t *testing.T) {
	for _, c := range []struct {
		name       string
		fast, slow int
		want       int
	}{
		{"nothing counted", 0, 0, 0},
		{"all fast", 100, 0, 4},
		{"five of a hundred slow", 95, 5, 4},
		{"six of a hundred slow", 94, 6, 128},
		{"slower than the last bound", 0, 0, 4096},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := NewCounters()
			for range c.fast {
				n.Served(now, 3*time.Millisecond)
			}
			for range c.slow {
				n.Served(now, 100*time.Millisecond)
			}
			if c.want == 4096 {
				n.Served(now, time.Hour)
			}
			if got := n.Snapshot(now).P95MS; got != c.want {
				t.Errorf("p95 %d ms, want %d", got, c.want)
			}
		})
	}
}

func TestCountersCountAllOfManyAtOnce(t *testing.T) {
	c := NewCounters("tls")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				c.Served(now, time.Millisecond)
				c.Refused(now, "tls")
				c.Snapshot(now)
			}
		})
	}
	wg.Wait()
	if k := c.Snapshot(now); k.Served != 8000 || k.Refused["tls"] != 8000 {
		t.Errorf("served %d, refused %v", k.Served, k.Refused)
	}
}

func TestCountingAllocatesNothing(t *testing.T) {
	c := NewCounters("tls")
	if n := testing.AllocsPerRun(100_000, func() {
		c.Served(now, time.Millisecond)
		c.Refused(now, "tls")
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestEventsKeepTheLastTenNewestFirst(t *testing.T) {
	var e Events
	for i := range 25 {
		e.Add(now.Add(time.Duration(i)*time.Second), fmt.Sprint("error ", i))
	}
	e.Add(now.Add(time.Minute), "error 24") // the same again
	list := e.List()
	if len(list) != 10 || list[0] != (Event{now.Add(time.Minute), "error 24"}) || list[9].What != "error 15" {
		t.Errorf("remembered %v", list)
	}
	list[0].What = "changed by a reader"
	if e.List()[0].What != "error 24" {
		t.Error("List hands out the inside")
	}
}
