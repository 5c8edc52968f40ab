package agent

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"ntsagent/ntske/client"
	"ntsagent/ntske/record"
)

// traffic is the clients of one row of a table of events: each exchanges keys
// and asks the daemon once with a cookie from that.
type traffic struct {
	m       *member
	name    string // of the row
	ke      netip.AddrPort
	answers time.Duration // how long a query waits
	done    chan struct{}
	all     sync.WaitGroup

	mu                        sync.Mutex
	ok, refused, told, failed int // key exchanges; refused: the connection, told: by Error record 2
	hasty                     int // of those told: sooner than who waits for keys is
	answered, silent          int // queries; what failed otherwise counts as failed
	last                      time.Time
	gap                       time.Duration // the longest without a client that was served
	naks                      []nak
	firstFailed               error

	// Set when the clients are gone.
	event, proven time.Time // when it began to happen; when the daemon had proven the keys after it, or zero
	before        error     // of a query with a cookie from before
}

// nak is a cookie that the daemon refused: when the key exchange it is from began,
// and when it was refused.
type nak struct{ begun, told time.Time }

// Clients come this often at each of a few places, so that they leave the
// machine time for what happens meanwhile.
const (
	places     = 4
	clientEach = 8 * time.Millisecond
)

func (m *member) traffic(name string, addr netip.AddrPort, answers time.Duration) *traffic {
	c := &traffic{m: m, name: name, ke: addr, answers: answers, done: make(chan struct{}), last: time.Now()}
	for range places {
		c.all.Go(func() {
			next := time.NewTicker(clientEach)
			defer next.Stop()
			for {
				c.client()
				select {
				case <-c.done:
					return
				case <-next.C:
				}
			}
		})
	}
	return c
}

func (c *traffic) client() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	begun := time.Now()
	r, err := c.m.keyExchange(ctx, c.ke)
	c.count(begun, err)
	if err != nil {
		return
	}
	ctx, cancel = context.WithTimeout(context.Background(), c.answers)
	defer cancel()
	_, err = client.Query(ctx, netip.AddrPortFrom(c.ke.Addr(), r.Port), r.Keys, r.Cookies[0], 0)
	c.queried(begun, err)
}

// keysAwaited is how long a client is kept waiting for keys that come.
const keysAwaited = time.Second

func (c *traffic) count(begun time.Time, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var told *record.Error
	switch {
	case err == nil:
		c.ok++
	case errors.Is(err, syscall.ECONNREFUSED):
		c.refused++
	case errors.As(err, &told) && told.Code == record.InternalError:
		c.told++
		if time.Since(begun) < keysAwaited {
			c.hasty++
		}
	default:
		c.fail(err)
	}
}

func (c *traffic) queried(begun time.Time, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	switch {
	case err == nil:
		c.answered++
		c.gap = max(c.gap, now.Sub(c.last))
		c.last = now
	case errors.Is(err, client.ErrNAK):
		c.naks = append(c.naks, nak{begun, now})
	case errors.Is(err, client.ErrSilent):
		c.silent++
	default:
		c.fail(err)
	}
}

// fail is for those who hold c.mu.
func (c *traffic) fail(err error) {
	c.failed++
	if c.firstFailed == nil {
		c.firstFailed = err
	}
}

func (c *traffic) served() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.answered
}

// exchanged is how many key exchanges ended well.
func (c *traffic) exchanged() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ok
}

// more waits until a number of clients were served from now on.
func (c *traffic) more() {
	c.m.t.Helper()
	from := c.served()
	c.m.until("clients are served", func() bool { return c.served() >= from+5*places })
}

// come waits until so many more came, served or not.
func (c *traffic) come(n int) {
	c.m.t.Helper()
	came := func() int {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.ok + c.refused + c.told + c.failed
	}
	from := came()
	c.m.until("clients come", func() bool { return came() >= from+n })
}

// stop returns when the last client is gone.
func (c *traffic) stop() {
	close(c.done)
	c.all.Wait()
}
