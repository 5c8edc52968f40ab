package status

import (
	"sync"
	"sync/atomic"
	"time"
)

// KeyExchange counts key exchanges since the start and over the last day.
type KeyExchange struct {
	Served     uint64            `json:"served"`
	Refused    map[string]uint64 `json:"refused"` // by reason, since the start
	ServedDay  uint64            `json:"served_24h"`
	RefusedDay uint64            `json:"refused_24h"`
	P95MS      int               `json:"p95_ms,omitempty"`    // upper bound of the 95th percentile, since the start
	Announces  string            `json:"announces,omitempty"` // the NTP server that clients are told of; "": this host
	Allow      string            `json:"allow,omitempty"`     // who decides who may come; "": everybody may
}

// Other is the reason of every refusal whose reason NewCounters was not told:
// the set of labels is bounded whatever happens on the wire.
const Other = "other"

// bounds are the upper ends in milliseconds of the buckets of durations; the
// last bucket takes the rest.
var bounds = [...]int{1, 2, 4, 6, 8, 12, 16, 24, 32, 64, 128, 256, 512, 1024, 2048, 4096}

// hours is how many hourly buckets the last day needs: 24 whole ones and the
// one that is filling.
const hours = 25

// Counters count key exchanges without a lock. Make one with NewCounters.
type Counters struct {
	served  atomic.Uint64
	refused map[string]*atomic.Uint64 // the map itself never changes
	took    [len(bounds) + 1]atomic.Uint64
	day     [hours]hour
}

// hour counts one hour; number is the hour since the epoch it counts.
type hour struct {
	number          atomic.Int64
	served, refused atomic.Uint64
}

// NewCounters makes Counters that know these reasons for a refusal, and Other.
func NewCounters(reasons ...string) *Counters {
	c := &Counters{refused: map[string]*atomic.Uint64{Other: {}}}
	for _, r := range reasons {
		c.refused[r] = new(atomic.Uint64)
	}
	return c
}

// Served counts an exchange that ended with cookies.
func (c *Counters) Served(now time.Time, took time.Duration) {
	c.served.Add(1)
	i := 0
	for i < len(bounds) && took > time.Duration(bounds[i])*time.Millisecond {
		i++
	}
	c.took[i].Add(1)
	c.hour(now).served.Add(1)
}

// Refused counts an exchange that did not, under a reason NewCounters knows.
func (c *Counters) Refused(now time.Time, reason string) {
	n, ok := c.refused[reason]
	if !ok {
		n = c.refused[Other]
	}
	n.Add(1)
	c.hour(now).refused.Add(1)
}

// hour is the bucket for now, emptied if it still holds another day's hour. At
// the turn of an hour a count may fall between two buckets; the totals never do.
func (c *Counters) hour(now time.Time) *hour {
	number := now.Unix() / 3600
	h := &c.day[((number%hours)+hours)%hours]
	if old := h.number.Load(); old != number && h.number.CompareAndSwap(old, number) {
		h.served.Store(0)
		h.refused.Store(0)
	}
	return h
}

// Snapshot reads the counters.
func (c *Counters) Snapshot(now time.Time) KeyExchange {
	k := KeyExchange{Served: c.served.Load(), Refused: map[string]uint64{}, P95MS: c.p95()}
	for reason, n := range c.refused {
		if v := n.Load(); v > 0 {
			k.Refused[reason] = v
		}
	}
	number := now.Unix() / 3600
	for i := range c.day {
		if h := &c.day[i]; number-h.number.Load() < hours {
			k.ServedDay += h.served.Load()
			k.RefusedDay += h.refused.Load()
		}
	}
	return k
}

func (c *Counters) p95() int {
	var counts [len(bounds) + 1]uint64
	var total uint64
	for i := range c.took {
		counts[i] = c.took[i].Load()
		total += counts[i]
	}
	var below uint64
	for i, n := range counts[:len(bounds)] {
		below += n
		if below > 0 && below*100 >= total*95 {
			return bounds[i]
		}
	}
	if total == 0 {
		return 0
	}
	return bounds[len(bounds)-1]
}

// keptEvents is how many errors Events remembers.
const keptEvents = 10

// Events remembers the last ten errors; the zero value is ready. It is safe
// for concurrent use.
type Events struct {
	mu   sync.Mutex
	list []Event // newest first
}

// Add remembers what went wrong. The same text twice in a row is kept once,
// with the later time.
func (e *Events) Add(now time.Time, what string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.list) > 0 && e.list[0].What == what {
		e.list[0].Time = now
		return
	}
	list := append(make([]Event, 0, keptEvents), Event{now, what})
	e.list = append(list, e.list[:min(len(e.list), keptEvents-1)]...)
}

// List copies what is remembered, newest first.
func (e *Events) List() []Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]Event{}, e.list...)
}
