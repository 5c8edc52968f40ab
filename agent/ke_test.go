package agent

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"ntsagent/agent/status"
	"ntsagent/ntske/client"
)

// idle connects, says nothing and returns how long it was let stay.
func idle(t *testing.T, addr netip.AddrPort) (stayed func(within time.Duration) (time.Duration, bool)) {
	t.Helper()
	start := time.Now()
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return func(within time.Duration) (time.Duration, bool) {
		_ = c.SetReadDeadline(time.Now().Add(within))
		for {
			_, err := c.Read(make([]byte, 64))
			if nerr, ok := err.(net.Error); ok && nerr.Timeout() {
				return 0, false
			}
			if err != nil {
				return time.Since(start), true
			}
		}
	}
}

func TestTheConfigurationReachesTheKeyExchange(t *testing.T) {
	t.Parallel()
	const lines = `ke: {listen: ["127.0.0.1:0"], timeout: %s, cookies: 3, ntp: {host: ntp.pool.test, port: 12345}}` + "\n"
	m := startMember(t, time.Hour, fmt.Sprintf(lines, "30s"))
	addr := m.ke(m.wait("it serves", func(d status.Document) bool { return m.ke(d).IsValid() }))

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, err := client.KeyExchange(ctx, client.Config{Addr: addr, Name: memberName, Roots: m.ca.roots})
	if err != nil {
		t.Fatal(err)
	}
	if r.Server != "ntp.pool.test" || r.Port != 12345 || len(r.Cookies) != 3 {
		t.Errorf("announced %q port %d with %d cookies, want ntp.pool.test, 12345 and 3", r.Server, r.Port, len(r.Cookies))
	}
	m.configure(fmt.Sprintf(lines, "4s")) // the default is less
	if err := m.reload(); err != nil {
		t.Fatal(err)
	}
	if took, gone := idle(t, addr)(patience / 2); !gone || took < 4*time.Second {
		t.Errorf("a silent connection is gone: %v, after %v, with a ke.timeout of 4 s", gone, took)
	}

	// One session: the newcomer takes the place of the one that says nothing.
	m.configure("ke: {listen: [\"127.0.0.1:0\"], timeout: 30s, max_sessions: 1}\n")
	if err := m.reload(); err != nil {
		t.Fatal(err)
	}
	addr = m.ke(m.wait("it serves again", func(d status.Document) bool { return m.ke(d).IsValid() }))
	first := idle(t, addr)
	second := idle(t, addr)
	if _, gone := first(20 * time.Second); !gone {
		t.Error("two sessions stay open with max_sessions: 1")
	}
	if _, gone := second(50 * time.Millisecond); gone {
		t.Error("the newcomer had to go")
	}
	m.serves(addr, "", 8)
}

func TestRefusalsAreCountedByReason(t *testing.T) {
	t.Parallel()
	m := startMember(t, time.Hour, "")
	addr := m.ke(m.wait("it serves", func(d status.Document) bool { return m.ke(d).IsValid() }))
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("GET / HTTP/1.0\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	m.wait("the stray request is counted", func(d status.Document) bool { return d.KeyExchange.Refused["tls: not tls"] == 1 })
	begun := time.Now()
	m.serves(addr, "", 8)
	took := time.Since(begun)
	d := m.wait("the exchange is counted", func(d status.Document) bool { return d.KeyExchange.Served == 1 })
	// The upper end of a bucket, each up to twice as long as the one before.
	if p95 := time.Duration(d.KeyExchange.P95MS) * time.Millisecond; p95 == 0 || p95 > max(2*took, 4*time.Millisecond) {
		t.Errorf("p95 is %v of one that took %v", p95, took)
	}
}
