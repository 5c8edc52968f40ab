package agent

import (
	"context"
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
	m := startMember(t, time.Hour, "ke: {listen: [\"127.0.0.1:0\"], timeout: 500ms, cookies: 3, ntp: {host: ntp.pool.test, port: 12345}}\n")
	addr := m.ke(m.wait("it serves", func(d status.Document) bool { return m.ke(d).IsValid() }))

	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	r, err := client.KeyExchange(ctx, client.Config{Addr: addr, Name: memberName, Roots: m.ca.roots})
	if err != nil {
		t.Fatal(err)
	}
	if r.Server != "ntp.pool.test" || r.Port != 12345 || len(r.Cookies) != 3 {
		t.Errorf("announced %q port %d with %d cookies, want ntp.pool.test, 12345 and 3", r.Server, r.Port, len(r.Cookies))
	}
	if took, gone := idle(t, addr)(2500 * time.Millisecond); !gone {
		t.Errorf("a silent connection outlives ke.timeout of 500 ms (gone %v after %v)", gone, took)
	}

	// One session: the newcomer takes the place of the one that says nothing.
	m.configure("ke: {listen: [\"127.0.0.1:0\"], timeout: 30s, max_sessions: 1}\n")
	if err := m.reload(); err != nil {
		t.Fatal(err)
	}
	addr = m.ke(m.wait("it serves again", func(d status.Document) bool { return m.ke(d).IsValid() }))
	first := idle(t, addr)
	second := idle(t, addr)
	if _, gone := first(5 * time.Second); !gone {
		t.Error("two sessions stay open with max_sessions: 1")
	}
	if _, gone := second(50 * time.Millisecond); gone {
		t.Error("the newcomer had to go")
	}
	m.serves(addr, "", 8)
}

func TestRefusalsAreCountedByReason(t *testing.T) {
	t.Parallel()
	m := startMember(t, time.Hour, "ke: {listen: [\"127.0.0.1:0\"], timeout: 500ms}\n")
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
	m.serves(addr, "", 8)
	d := m.wait("the exchange is counted", func(d status.Document) bool { return d.KeyExchange.Served == 1 })
	if d.KeyExchange.P95MS == 0 || d.KeyExchange.P95MS > 4096 {
		t.Errorf("p95 is %d ms", d.KeyExchange.P95MS)
	}
}
