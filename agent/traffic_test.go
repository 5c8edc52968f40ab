package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"ntsagent/ntske/client"
	"ntsagent/ntske/record"
)

// traffic is the clients of one row of a table of events: each exchanges keys
// and asks the daemon once with a cookie from that.
type traffic struct {
	m    *member
	ke   netip.AddrPort
	done chan struct{}
	all  sync.WaitGroup

	mu                        sync.Mutex
	ok, refused, told, failed int // key exchanges; refused: the connection, told: by Error record 2
	answered, nak, silent     int // queries
	last                      time.Time
	gap                       time.Duration // the longest without a client that was served
	nakFirst, nakLast         time.Time
	firstFailed               error
	before                    error // of a query, after all, with a cookie from before
}

// Clients come this often at each of a few places, so that they leave the
// machine time for what happens meanwhile.
const (
	places     = 4
	clientEach = 8 * time.Millisecond
)

func (m *member) traffic(addr netip.AddrPort) *traffic {
	c := &traffic{m: m, ke: addr, done: make(chan struct{}), last: time.Now()}
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
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	r, err := c.m.keyExchange(ctx, c.ke)
	c.exchanged(err)
	if err != nil {
		return
	}
	// What a daemon that ends leaves unanswered is not waited for.
	ctx, cancel = context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	_, err = client.Query(ctx, netip.AddrPortFrom(c.ke.Addr(), r.Port), r.Keys, r.Cookies[0], 0)
	c.queried(err)
}

func (c *traffic) exchanged(err error) {
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
	default:
		c.failed++
		if c.firstFailed == nil {
			c.firstFailed = err
		}
	}
}

func (c *traffic) queried(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	switch {
	case err == nil:
		c.answered++
		c.gap = max(c.gap, now.Sub(c.last))
		c.last = now
	case errors.Is(err, client.ErrNAK):
		c.nak++
		if c.nakFirst.IsZero() {
			c.nakFirst = now
		}
		c.nakLast = now
	default:
		c.silent++
	}
}

func (c *traffic) served() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.answered
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

// eventTable writes a row for each event.
type eventTable struct {
	m    *member
	addr netip.AddrPort
}

func (m *member) eventTable(addr netip.AddrPort, what string) *eventTable {
	tell(m.t, "| %s | KE ok | refused | Error 2 | failed | NTP ok | NAK | silent | cookie from before | longest gap |", what)
	tell(m.t, "|---|---|---|---|---|---|---|---|---|---|")
	return &eventTable{m, addr}
}

// during has clients come before, while and after something happens, until all
// is as it was.
func (e *eventTable) during(name string, happens func(c *traffic)) *traffic {
	t := e.m.t
	t.Helper()
	before, err := e.m.keyExchange(t.Context(), e.addr)
	if err != nil {
		t.Fatalf("before %s: %v", name, err)
	}
	c := e.m.traffic(e.addr)
	stop := sync.OnceFunc(c.stop)
	defer stop() // a test that fails leaves by Goexit
	c.more()
	happens(c)
	e.m.wait("all is well after: "+name, provenAndOpen(e.m))
	c.more()
	stop()
	_, c.before = client.Query(t.Context(), netip.AddrPortFrom(e.addr.Addr(), before.Port), before.Keys, before.Cookies[0], 0)
	old, nak := "ok", fmt.Sprint(c.nak)
	if c.before != nil {
		old = "NAK"
	}
	if c.nak > 0 {
		nak += fmt.Sprintf(" in %d ms", c.nakLast.Sub(c.nakFirst).Milliseconds())
	}
	tell(t, "| %s | %d | %d | %d | %d | %d | %s | %d | %s | %d ms |", name,
		c.ok, c.refused, c.told, c.failed, c.answered, nak, c.silent, old, c.gap.Milliseconds())
	if c.firstFailed != nil {
		t.Logf("%s: %v", name, c.firstFailed)
	}
	return c
}

// promised is during with what can be promised: no cookie that the daemon
// refuses, and clients keep those they have.
func (e *eventTable) promised(name string, happens func(c *traffic)) {
	e.m.t.Helper()
	if c := e.served(name, happens); c.before != nil {
		e.m.t.Errorf("%s: a cookie from before: %v", name, c.before)
	}
}

// served is promised where the keys are lost, and with them the cookies that
// clients have.
func (e *eventTable) served(name string, happens func(c *traffic)) *traffic {
	e.m.t.Helper()
	c := e.during(name, happens)
	if c.nak != 0 {
		e.m.t.Errorf("%s: the daemon refused %d cookies just made", name, c.nak)
	}
	return c
}

// fixedPort is an address that stays the same when the agent is started again.
// Ports from which clients connect are higher: none takes it in between.
func fixedPort(t *testing.T) netip.AddrPort {
	t.Helper()
	for port := 20000 + uint16(time.Now().UnixNano()%10000); ; port++ {
		addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)
		if l, err := net.Listen("tcp4", addr.String()); err == nil {
			l.Close()
			return addr
		}
	}
}
