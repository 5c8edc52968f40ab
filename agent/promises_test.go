package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"ntsagent/agent/status"
	"ntsagent/ntske/client"
)

// eventTable writes a row for each event.
type eventTable struct {
	m    *member
	addr netip.AddrPort
}

// What a daemon that ends leaves unanswered is not waited for; of one that goes on
// every answer is.
const ifItEnds, ifItGoesOn = 2 * time.Second, patience

func (m *member) eventTable(addr netip.AddrPort, what string) *eventTable {
	tell(m.t, "| %s | KE ok | refused | Error 2 | failed | NTP ok | NAK | silent | cookie from before | longest gap |", what)
	tell(m.t, "|---|---|---|---|---|---|---|---|---|---|")
	return &eventTable{m, addr}
}

// row has clients come before, while and after something happens, until all is
// well, and writes what they saw. Each waits so long for the daemon, and who has a
// cookie from before waits old.
func (e *eventTable) row(name string, answers, old time.Duration, happens func(c *traffic), well func(status.Document) bool) *traffic {
	t := e.m.t
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	before, err := e.m.keyExchange(ctx, e.addr)
	if err != nil {
		t.Fatalf("before %s: %v", name, err)
	}
	c := e.m.traffic(name, e.addr, answers)
	stop := sync.OnceFunc(c.stop)
	defer stop() // a test that fails leaves by Goexit
	c.more()
	event := time.Now()
	happens(c)
	e.m.wait("all is well after: "+name, well)
	proven := time.Now()
	c.more()
	stop()
	c.event, c.proven = event, proven
	ctx, cancel = context.WithTimeout(t.Context(), old)
	defer cancel()
	_, c.before = client.Query(ctx, netip.AddrPortFrom(e.addr.Addr(), before.Port), before.Keys, before.Cookies[0], 0)
	c.tell()
	return c
}

// tell writes the row, and below it why a client failed.
func (c *traffic) tell() {
	naks := fmt.Sprint(len(c.naks))
	if first, last := c.nakTimes(); len(c.naks) > 0 {
		naks += fmt.Sprintf(", %.1f to %.1f ms after", ms(first.Sub(c.event)), ms(last.Sub(c.event)))
	}
	tell(c.m.t, "| %s | %d | %d | %d | %d | %d | %s | %d | %s | %d ms |", c.name,
		c.ok, c.refused, c.told, c.failed, c.answered, naks, c.silent, inAWord(c.before), c.gap.Milliseconds())
	if c.firstFailed != nil {
		tell(c.m.t, "| ^ the first that failed: %v | | | | | | | | | |", c.firstFailed)
	}
}

// inAWord is how a query ended.
func inAWord(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, client.ErrNAK):
		return "NAK"
	case errors.Is(err, client.ErrSilent):
		return "silent"
	case errors.Is(err, client.ErrUnauthenticated):
		return "not authentic"
	default:
		return "not asked: " + err.Error()
	}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func (c *traffic) nakTimes() (first, last time.Time) {
	for _, n := range c.naks {
		if first.IsZero() || n.told.Before(first) {
			first = n.told
		}
		if n.told.After(last) {
			last = n.told
		}
	}
	return first, last
}

// unnoticed is promised where nobody needs to notice anything: no client is
// refused, told off, let down or left without an answer. But a daemon that shows
// its keys too slowly has the key exchange shut until it does.
func (e *eventTable) unnoticed(name string, happens func(c *traffic)) {
	e.m.t.Helper()
	shut := e.m.shut.Load()
	c := e.kept(name, ifItGoesOn, happens).waited()
	slow := e.m.shut.Load() > shut
	if slow {
		tell(e.m.t, "| ^ the daemon was slow to show its keys | | | | | | | | | |")
	}
	if c.silent != 0 || !slow && (c.refused != 0 || c.failed != 0) {
		e.m.t.Errorf("%s: nobody was to notice, and %d clients were refused, %d failed (%v) and %d had no answer",
			name, c.refused, c.failed, c.firstFailed, c.silent)
	}
}

// promised is served where clients keep the cookies they have.
func (e *eventTable) promised(name string, happens func(c *traffic)) *traffic {
	e.m.t.Helper()
	return e.kept(name, ifItEnds, happens)
}

func (e *eventTable) kept(name string, answers time.Duration, happens func(c *traffic)) *traffic {
	e.m.t.Helper()
	c := e.fresh(name, answers, happens)
	if c.before != nil {
		e.m.t.Errorf("%s: a cookie from before: %v", name, c.before)
	}
	return c
}

// served promises the least: no cookie just made is one that the daemon refuses.
func (e *eventTable) served(name string, happens func(c *traffic)) *traffic {
	e.m.t.Helper()
	return e.fresh(name, ifItEnds, happens)
}

func (e *eventTable) fresh(name string, answers time.Duration, happens func(c *traffic)) *traffic {
	e.m.t.Helper()
	c := e.row(name, answers, patience, happens, provenAndOpen(e.m))
	if n := len(c.naks); n != 0 {
		e.m.t.Errorf("%s: the daemon refused %d cookies just made", name, n)
	}
	return c
}

// failedPerPlace bounds the clients that fail when the agent ends: the kernel
// resets those who wait to be accepted when the socket is closed.
const failedPerPlace = 0

// restarted adds to a promise that whoever is let in is served.
func (c *traffic) restarted() {
	c.m.t.Helper()
	c.waited()
	if c.failed > places*failedPerPlace {
		c.m.t.Errorf("%s: %d clients failed, more than %d for each of %d places; the first: %v", c.name, c.failed, failedPerPlace, places, c.firstFailed)
	}
}

// waited adds to a promise that nobody is told that there are no keys before he has
// waited for them as long as he is to: a machine that is busy may take longer.
func (c *traffic) waited() *traffic {
	c.m.t.Helper()
	if c.hasty != 0 {
		c.m.t.Errorf("%s: %d clients were told Error 2 within %v", c.name, c.hasty, keysAwaited)
	}
	return c
}

// naksPerPlace bounds the cookies that are refused where chronyd loses its keys
// and starts in the same moment: for each place of clients that of the exchange
// under way, and that of one more before it is seen.
const naksPerPlace = 2

// bounded is for what cannot be promised: cookies are refused that were made
// before chronyd, asked again, had proven the keys, and only a few.
func (e *eventTable) bounded(name string, happens func(c *traffic)) *traffic {
	e.m.t.Helper()
	return e.few(name, patience, happens)
}

func (e *eventTable) few(name string, old time.Duration, happens func(c *traffic)) *traffic {
	t := e.m.t
	t.Helper()
	for try := 1; ; try++ {
		from := time.Now()
		c := e.row(name+" (not promised)", ifItEnds, old, happens, func(d status.Document) bool {
			return provenAndOpen(e.m)(d) && d.Daemon.Seen.After(from)
		})
		c.refusedInTime()
		n := len(c.naks)
		if n <= places*naksPerPlace {
			return c
		}
		if try == 5 { // a busy machine may keep the agent from seeing it, but not every time
			t.Errorf("%s: the daemon refused %d cookies just made, more than %d for each of %d places", name, n, naksPerPlace, places)
			return c
		}
	}
}

// refusedInTime says that no cookie was refused before it happened, or was made
// after the keys were proven.
func (c *traffic) refusedInTime() {
	c.m.t.Helper()
	for _, n := range c.naks {
		if n.told.Before(c.event) || n.begun.After(c.proven) {
			c.m.t.Errorf("%s: refused %.1f ms after it began, a cookie from an exchange begun %.1f ms after; the keys were proven after %.1f ms",
				c.name, ms(n.told.Sub(c.event)), ms(n.begun.Sub(c.event)), ms(c.proven.Sub(c.event)))
		}
	}
}

// fixedPort is an address that stays ours when the agent is started again: a
// socket that is bound and does not listen keeps the kernel from giving the port
// to anybody, and lets the agent, which names it, listen there.
func fixedPort(t *testing.T) netip.AddrPort {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(os.NewSyscallError("socket", err))
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		t.Fatal(os.NewSyscallError("setsockopt", err))
	}
	loopback := [4]byte{127, 0, 0, 1}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: loopback}); err != nil {
		t.Fatal(os.NewSyscallError("bind", err))
	}
	bound, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(os.NewSyscallError("getsockname", err))
	}
	return netip.AddrPortFrom(netip.AddrFrom4(loopback), uint16(bound.(*syscall.SockaddrInet4).Port))
}
