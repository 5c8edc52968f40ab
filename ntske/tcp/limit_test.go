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
	const timeout = 400 * time.Millisecond
	r := start(t, Config{Timeout: timeout, Services: map[string]Service{
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
	}})
	handshake := func(t *testing.T, protocol string) {
		if err := r.client(r.dial(), protocol).Handshake(); err != nil {
			t.Fatal(err)
		}
	}
	tests := map[string]func(t *testing.T){
		"connect and say nothing":              func(*testing.T) { r.dial() },
		"half a ClientHello":                   func(t *testing.T) { h := hello(t); r.dial().Write(h[:len(h)/2]) },
		"CVE-2026-26999 a record header only":  func(*testing.T) { r.dial().Write([]byte{22, 3, 1, 2, 0}) },
		"CVE-2026-26999 half a record header":  func(*testing.T) { r.dial().Write([]byte{22, 3}) },
		"a handshake, then silence":            func(t *testing.T) { handshake(t, "wait") },
		"a handshake, answered and never shut": func(t *testing.T) { handshake(t, "close") },
		"a reader with a zero window":          func(t *testing.T) { handshake(t, "write") },
		"no room for close_notify":             func(t *testing.T) { handshake(t, "fill") },
		"an octet of ClientHello at a time": func(t *testing.T) {
			c := r.dial()
			for _, b := range hello(t) {
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
				<-time.After(5 * time.Millisecond)
			}
		},
	}
	for name, misbehave := range tests {
		t.Run(name, func(t *testing.T) {
			begin, before := time.Now(), r.events.count(Event{Kind: Accepted})
			misbehave(t)
			eventually(t, "connection taken", func() bool { return r.events.count(Event{Kind: Accepted}) == before+1 })
			eventually(t, "connection gone", func() bool { return r.open() == 0 })
			if took := time.Since(begin); took < timeout/2 || took > 4*timeout {
				t.Errorf("gone after %v, deadline is %v", took, timeout)
			}
		})
	}
	if !r.events.has(Event{Kind: HandshakeFailed, Class: TimedOut}) {
		t.Error("no handshake was counted as timed out")
	}
}

func TestWhoIsCountedAsAcceptedHasItsPlace(t *testing.T) {
	cert, _ := identity(t)
	var s *Server
	placed := make(chan int, 1)
	s, err := New(Config{
		TLS: &tls.Config{Certificates: []tls.Certificate{cert}}, Services: map[string]Service{"one": answer("fine")}, Timeout: 15 * time.Second,
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
	r := start(t, Config{Timeout: 5 * time.Second, Services: map[string]Service{"one": serviceFunc(func(ctx context.Context, _ *tls.Conn) {
		end, _ := ctx.Deadline()
		left <- time.Until(end)
	})}})
	r.ask(r.dial(), "one")
	if d := <-left; d <= 0 || d > 5*time.Second {
		t.Errorf("%v left of 5 s", d)
	}
}

func TestTheOldestUnfinishedConnectionMakesRoom(t *testing.T) {
	r := start(t, Config{MaxConns: 3, Timeout: 15 * time.Second, Services: map[string]Service{"one": answer("fine")}})
	var idle []net.Conn
	for i := range 3 {
		idle = append(idle, r.dial())
		eventually(t, "idle connection taken", func() bool { return r.open() == i+1 })
	}
	if got, err := r.ask(r.dial(), "one"); err != nil || got != "fine" {
		t.Errorf("newcomer at a full server: %q, %v", got, err)
	}
	if d := hungUp(t, idle[0]); d > 5*time.Second {
		t.Errorf("oldest connection lived on for %v", d)
	}
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
	r := start(t, Config{MaxConns: limit, Timeout: 20 * time.Second, Services: map[string]Service{"one": answer("fine")}})
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
	r := start(t, Config{MaxConns: 1, Timeout: 20 * time.Second, Services: map[string]Service{"wait": serviceFunc(func(ctx context.Context, _ *tls.Conn) {
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
	r := start(t, Config{MaxConns: 16, Timeout: 15 * time.Second, Services: map[string]Service{"one": answer("fine")}})
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
	if took := hungUp(t, r.dial()); took > 5*time.Second {
		t.Errorf("hung up after %v", took)
	}
	eventually(t, "it is counted", func() bool { return r.events.count(Event{Kind: NotAllowed}) == 1 })
	if n := r.events.count(Event{Kind: Accepted}); n != 0 || r.open() != 0 {
		t.Errorf("%d accepted, %d open", n, r.open())
	}
	may.Store(true)
	if text, err := r.ask(r.dial(), "p"); err != nil || text != "hello" {
		t.Errorf("%q, %v", text, err)
	}
}
