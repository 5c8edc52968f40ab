package tcp

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// hello returns the octets of a ClientHello without ALPN.
func hello(t *testing.T) []byte {
	t.Helper()
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	go tls.Client(near, &tls.Config{ServerName: testName, CurvePreferences: []tls.CurveID{tls.X25519}}).Handshake()
	b := make([]byte, 4096)
	n, err := far.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return b[:n]
}

func TestEveryConnectionEndsByTheDeadline(t *testing.T) {
	const timeout = 800 * time.Millisecond
	services := map[string]Service{
		"wait":  serviceFunc(func(_ context.Context, c *tls.Conn) { io.Copy(io.Discard, c) }),
		"close": serviceFunc(func(context.Context, *tls.Conn) {}),
		"write": serviceFunc(func(_ context.Context, c *tls.Conn) {
			for b := make([]byte, 1<<14); ; {
				if _, err := c.Write(b); err != nil {
					return
				}
			}
		}),
		"fill": serviceFunc(func(_ context.Context, c *tls.Conn) {
			for _, n := range []int{1 << 14, 1 << 10, 64, 1} { // until not one octet more has room
				c.SetWriteDeadline(time.Now().Add(timeout / 16))
				for b := make([]byte, n); ; {
					if _, err := c.NetConn().Write(b); err != nil {
						break
					}
				}
			}
		}),
	}
	say := func(what func(hello []byte) []byte) func(*testing.T, *running) {
		return func(t *testing.T, r *running) { r.dial().Write(what(hello(t))) }
	}
	shake := func(protocol string) func(*testing.T, *running) {
		return func(t *testing.T, r *running) { // which has a deadline that some machines miss
			eventually(t, "a handshake", func() bool { return r.client(r.dial(), protocol).Handshake() == nil })
		}
	}
	for _, tt := range []struct {
		name      string
		misbehave func(*testing.T, *running)
		shaken    bool
	}{
		{"connect and say nothing", say(func([]byte) []byte { return nil }), false},
		{"half a ClientHello", say(func(hello []byte) []byte { return hello[:len(hello)/2] }), false},
		{"CVE-2026-26999 a record header only", say(func([]byte) []byte { return []byte{22, 3, 1, 2, 0} }), false},
		{"CVE-2026-26999 half a record header", say(func([]byte) []byte { return []byte{22, 3} }), false},
		{"a handshake, then silence", shake("wait"), true},
		{"a handshake, answered and never shut", shake("close"), true},
		{"a reader with a zero window", shake("write"), true},
		{"no room for close_notify", shake("fill"), true},
		{"an octet of ClientHello at a time", func(t *testing.T, r *running) {
			c := r.dial()
			for _, b := range hello(t) {
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
				<-time.After(timeout / 80)
			}
		}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := start(t, Config{Timeout: timeout, Services: services})
			begin := time.Now()
			tt.misbehave(t, r)
			eventually(t, "connection taken", func() bool { return r.events.has(Event{Kind: Accepted}) })
			ms := eventually(t, "connection gone", func() bool { return r.open() == 0 })
			if took := time.Since(begin); took < timeout/4 || ms > 3000 { // crypto/tls alone would wait 5 s
				t.Errorf("gone after %v, of which it was waited %d ms; deadline is %v", took, ms, timeout)
			}
			if timedOut := r.events.has(Event{Kind: HandshakeFailed, Class: TimedOut}); !timedOut && !tt.shaken {
				t.Error("the handshake was not counted as timed out")
			}
		})
	}
}

func TestWhoIsCountedAsAcceptedHasItsPlace(t *testing.T) {
	cert, _ := identity(t)
	var s *Server
	placed := make(chan int, 1)
	s, err := New(Config{
		TLS: &tls.Config{Certificates: []tls.Certificate{cert}}, Services: map[string]Service{"one": answer("fine")}, Timeout: 2 * patience,
		Observe: func(e Event) {
			if e.Kind == Accepted {
				placed <- s.open()
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe()
	s.take(far)
	near.Close()
	if n := <-placed; n != 1 {
		t.Errorf("%d connections open when it was counted", n)
	}
	s.Wait()
}

func TestServiceIsToldTheDeadline(t *testing.T) {
	left := make(chan time.Duration, 1)
	r := start(t, Config{Timeout: patience, Services: map[string]Service{"one": serviceFunc(func(ctx context.Context, _ *tls.Conn) {
		end, _ := ctx.Deadline()
		left <- time.Until(end)
	})}})
	r.ask(r.dial(), "one")
	if d := <-left; d <= 0 || d > patience {
		t.Errorf("%v left of %v", d, patience)
	}
}

func TestTheOldestUnfinishedConnectionMakesRoom(t *testing.T) {
	r := start(t, Config{MaxConns: 3, Services: map[string]Service{"one": answer("fine")}})
	var idle []net.Conn
	for i := range 3 {
		idle = append(idle, r.dial())
		eventually(t, "idle connection taken", func() bool { return r.open() == i+1 })
	}
	if got, err := r.ask(r.dial(), "one"); err != nil || got != "fine" {
		t.Errorf("newcomer at a full server: %q, %v", got, err)
	}
	hungUp(t, idle[0])
	if !r.events.has(Event{Kind: Evicted}) {
		t.Error("no evicted event")
	}
	for i, c := range idle[1:] {
		if got, err := r.ask(c, "one"); err != nil || got != "fine" {
			t.Errorf("younger connection %d was not spared: %q, %v", i+1, got, err)
		}
	}
}

func TestAFloodFromOnePrefixPutsOutItsOwn(t *testing.T) {
	const limit = 16
	r := start(t, Config{MaxConns: limit, Services: map[string]Service{"one": answer("fine")}})
	slow := r.dial() // from 127.0.0.1, and the oldest of all
	eventually(t, "the slow client is in", func() bool { return r.open() == 1 })
	elsewhere := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 9, 1)}}
	for range 10 * limit {
		c, err := elsewhere.Dial("tcp", r.ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	eventually(t, "the flood is in", func() bool { return r.events.count(Event{Kind: Accepted}) == 10*limit+1 })
	if got, err := r.ask(slow, "one"); err != nil || got != "fine" {
		t.Errorf("the slow client got %q, %v", got, err)
	}
}

func TestAnEvictedConnectionsServiceEnds(t *testing.T) {
	ended := make(chan error, 1)
	r := start(t, Config{MaxConns: 1, Services: map[string]Service{"wait": serviceFunc(func(ctx context.Context, _ *tls.Conn) {
		<-ctx.Done() // it looks at nothing else
		select {
		case ended <- ctx.Err():
		default:
		}
	})}})
	if err := r.client(r.dial(), "wait").Handshake(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the service has it", func() bool { return r.events.has(Event{Kind: Dispatched, Protocol: "wait"}) })
	r.dial()
	if err := <-ended; err != context.Canceled {
		t.Errorf("the service ended by %v", err)
	}
}

func TestFloodOfIdleConnectionsStarvesNobody(t *testing.T) {
	r := start(t, Config{MaxConns: 16, Services: map[string]Service{"one": answer("fine")}})
	for i := range 50 {
		for range 4 {
			r.dial()
		}
		if got, err := r.ask(r.dial(), "one"); err != nil || got != "fine" {
			t.Fatalf("session %d: %q, %v", i, got, err)
		}
		if n := r.open(); n > 16 {
			t.Fatalf("%d connections open, limit 16", n)
		}
	}
}

// halfPipe is a net.Pipe end that can be closed in one direction, in name: the
// other side sees no end.
type halfPipe struct{ net.Conn }

func (halfPipe) CloseWrite() error { return nil }

func TestAPeerThatSaidCloseNotifyIsNotWaitedFor(t *testing.T) {
	cert, roots := identity(t)
	s, err := New(Config{
		TLS:      &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"one"}},
		Services: map[string]Service{"one": answer("fine")}, Timeout: time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	real := time.Now() // a bubble's clock tells the year 2000
	for name, tt := range map[string]struct {
		say    func(c *tls.Conn)
		waited bool
	}{
		"close_notify, and TCP stays open":        {func(c *tls.Conn) { c.CloseWrite() }, false},
		"more data, then close_notify":            {func(c *tls.Conn) { c.Write(make([]byte, 5000)); c.CloseWrite() }, false},
		"no close_notify, and TCP stays open":     {func(*tls.Conn) {}, true},
		"what is no TLS, and TCP stays open":      {func(c *tls.Conn) { c.NetConn().Write(make([]byte, 100)) }, true},
		"an end of TCP, and no close_notify ever": {func(c *tls.Conn) { c.NetConn().Close() }, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := net.Pipe()
				defer theirs.Close()
				go func() {
					c := tls.Client(theirs, &tls.Config{RootCAs: roots, ServerName: testName, NextProtos: []string{"one"}, Time: func() time.Time { return real }})
					c.Write([]byte("?"))
					if b, err := io.ReadAll(c); err != nil || string(b) != "fine" {
						t.Errorf("answer %q, %v", b, err)
					}
					tt.say(c)
				}()
				begin := time.Now()
				s.serve(s.newConn(halfPipe{ours}))
				if took := time.Since(begin); (took != 0) != tt.waited {
					t.Errorf("the connection was kept for %v", took)
				}
			})
		})
	}
}

func TestWhoMayNotComeIsHungUpOnBeforeTLS(t *testing.T) {
	var may atomic.Bool
	r := start(t, Config{Services: map[string]Service{"p": answer("hello")}, Allow: func(a netip.Addr) bool {
		if a != netip.MustParseAddr("127.0.0.1") {
			t.Errorf("asked about %s", a)
		}
		return may.Load()
	}})
	hungUp(t, r.dial())
	eventually(t, "it is counted", func() bool { return r.events.count(Event{Kind: NotAllowed}) == 1 })
	if n := r.events.count(Event{Kind: Accepted}); n != 0 || r.open() != 0 {
		t.Errorf("%d accepted, %d open", n, r.open())
	}
	may.Store(true)
	if text, err := r.ask(r.dial(), "p"); err != nil || text != "hello" {
		t.Errorf("%q, %v", text, err)
	}
}
