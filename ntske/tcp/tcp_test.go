package tcp

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

func TestALPNPicksTheService(t *testing.T) {
	r := start(t, Config{Services: map[string]Service{"one": answer("first"), "two": answer("second")}})
	for protocol, want := range map[string]string{"one": "first", "two": "second"} {
		got, err := r.ask(r.dial(), protocol)
		if err != nil || got != want {
			t.Errorf("%s: got %q, %v, want %q and a clean end", protocol, got, err, want)
		}
		if !r.events.has(Event{Kind: Dispatched, Protocol: protocol}) {
			t.Errorf("no dispatched event for %s", protocol)
		}
	}
}

func TestClientHelloThatFitsNoServiceIsRefusedByItsAlert(t *testing.T) {
	r := start(t, Config{Services: map[string]Service{"one": answer("")}})
	tests := []struct {
		name  string
		conf  *tls.Config
		alert string
		class Class
	}{
		{"no ALPN", &tls.Config{}, "no application protocol", NoProtocol},
		{"ALPACA: foreign ALPN", &tls.Config{NextProtos: []string{"h2", "\n{\"level\":\"error\"}"}}, "no application protocol", NoProtocol},
		{"TLS 1.2 at most", &tls.Config{NextProtos: []string{"one"}, MaxVersion: tls.VersionTLS12}, "protocol version not supported", OldVersion},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.conf.RootCAs, tt.conf.ServerName = r.roots, testName
			err := tls.Client(r.dial(), tt.conf).Handshake()
			if err == nil || !strings.Contains(err.Error(), tt.alert) {
				t.Errorf("handshake: %v, want alert %q", err, tt.alert)
			}
			eventually(t, "event", func() bool { return r.events.has(Event{Kind: HandshakeFailed, Class: tt.class}) })
		})
	}
}

func TestClientWithoutALPNSeesOneAlertAndNothingElse(t *testing.T) {
	r := start(t, Config{Services: map[string]Service{"one": answer("")}})
	nc := r.dial()
	if _, err := nc.Write(hello(t)); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(nc)
	if err != nil || !bytes.Equal(got, []byte{21, 3, 3, 0, 2, 2, 120}) {
		t.Errorf("got % x, %v, want the alert no_application_protocol alone", got, err)
	}
}

func TestPlainTextIsNotTLS(t *testing.T) {
	r := start(t, Config{Services: map[string]Service{"one": answer("")}})
	nc := r.dial()
	io.WriteString(nc, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	hungUp(t, nc)
	eventually(t, "event", func() bool { return r.events.has(Event{Kind: HandshakeFailed, Class: NotTLS}) })
}

func TestClientThatRefusesOurCertificateIsCountedSo(t *testing.T) {
	r := start(t, Config{Services: map[string]Service{"one": answer("")}})
	c := tls.Client(r.dial(), &tls.Config{ServerName: "other.example", NextProtos: []string{"one"}})
	if err := c.Handshake(); err == nil {
		t.Fatal("a foreign certificate was accepted")
	}
	eventually(t, "event", func() bool { return r.events.has(Event{Kind: HandshakeFailed, Class: PeerAlert}) })
}

func TestSessionInOneOctetSegmentsIsServed(t *testing.T) {
	r := start(t, Config{Services: map[string]Service{"one": answer("fine")}})
	nc := r.dial()
	nc.(*net.TCPConn).SetNoDelay(true)
	if got, err := r.ask(crumbs{nc}, "one"); err != nil || got != "fine" {
		t.Errorf("got %q, %v", got, err)
	}
}

// crumbs writes each octet by itself.
type crumbs struct{ net.Conn }

func (c crumbs) Write(b []byte) (int, error) {
	for i := range b {
		if _, err := c.Conn.Write(b[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(b), nil
}

func TestConnectionEndsWithCloseNotifyThoughTheServiceForgotIt(t *testing.T) {
	r := start(t, Config{Services: map[string]Service{"one": answer("fine")}})
	var wire bytes.Buffer
	nc := r.dial()
	if got, err := r.ask(tapped{nc, &wire}, "one"); err != nil || got != "fine" {
		t.Errorf("got %q, %v", got, err)
	}
	// An alert of two octets, sealed, is a record of 19 in TLS 1.3.
	if b := wire.Bytes(); len(b) < 24 || !bytes.Equal(b[len(b)-24:len(b)-19], []byte{23, 3, 3, 0, 19}) {
		t.Errorf("the last record is not an alert: % x", b[max(0, len(b)-40):])
	}
}

// tapped keeps what was read.
type tapped struct {
	net.Conn
	to *bytes.Buffer
}

func (c tapped) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.to.Write(b[:n])
	return n, err
}

func TestLastOctetsArriveThoughInputIsUnread(t *testing.T) {
	text := strings.Repeat("last words ", 1000)
	r := start(t, Config{Services: map[string]Service{"one": serviceFunc(func(_ context.Context, c *tls.Conn) {
		io.WriteString(c, text)
	})}})
	c := r.client(r.dial(), "one")
	if _, err := c.Write(make([]byte, 30_000)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "service done", func() bool { return r.events.has(Event{Kind: Dispatched, Protocol: "one"}) })
	c.Write(make([]byte, 3000)) // after the server's last word
	got, err := io.ReadAll(c)
	if err != nil || string(got) != text {
		t.Errorf("got %d octets of %d, %v", len(got), len(text), err)
	}
}

func TestServicePanicCostsOneConnectionAndOneLogLine(t *testing.T) {
	var log bytes.Buffer
	var calls atomic.Int32
	r := start(t, Config{
		Log: hclog.New(&hclog.LoggerOptions{Output: &log, Level: hclog.Info}),
		Services: map[string]Service{"one": serviceFunc(func(_ context.Context, c *tls.Conn) {
			if calls.Add(1) <= 2 {
				panic("boom")
			}
			io.WriteString(c, "fine")
		})},
	})
	for range 2 {
		if got, _ := r.ask(r.dial(), "one"); got != "" {
			t.Errorf("a panicked service answered %q", got)
		}
	}
	if got, err := r.ask(r.dial(), "one"); got != "fine" || err != nil {
		t.Errorf("after panics: %q, %v", got, err)
	}
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "a service panicked"); n != 1 {
		t.Errorf("panics were logged %d times, want once:\n%s", n, log.String())
	}
	if !r.events.has(Event{Kind: Panicked}) {
		t.Error("no panicked event")
	}
}

func TestASuccessorServesTheListenerWhileOldConnectionsGoOn(t *testing.T) {
	r := start(t, Config{Services: map[string]Service{"one": answer("first")}})
	r.dial() // says nothing
	eventually(t, "the silent client is accepted", func() bool { return r.open() == 1 })
	silent := r.Server
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	// The first server's Serve ends though its connection does not.
	r.stopAccepting()
	again, err := New(Config{TLS: r.tls, Services: map[string]Service{"one": answer("second")}, Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	go func() { served <- again.Serve(ctx, r.ln) }()
	if text, err := r.ask(r.dial(), "one"); err != nil || text != "second" {
		t.Errorf("the successor: %q, %v", text, err)
	}
	if silent.open() != 1 {
		t.Error("the old connection did not go on")
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
	again.Wait()
}

func TestStopWaitsForOpenConnectionsAndTheListenerServesAgain(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	r := start(t, Config{Services: map[string]Service{"one": serviceFunc(func(ctx context.Context, c *tls.Conn) {
		close(entered)
		<-release
		if ctx.Err() != nil {
			io.WriteString(c, "cancelled")
			return
		}
		io.WriteString(c, "fine")
	})}})
	type result struct {
		text string
		err  error
	}
	got := make(chan result, 1)
	nc := r.dial()
	go func() {
		text, err := r.ask(nc, "one")
		got <- result{text, err}
	}()
	<-entered
	stopped := make(chan error, 1)
	go func() { stopped <- r.stop() }()
	select {
	case err := <-stopped:
		t.Fatalf("Serve returned %v with a connection open", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(release)
	if g := <-got; g.err != nil || g.text != "fine" {
		t.Errorf("connection open at the stop got %q, %v", g.text, g.err)
	}
	if err := <-stopped; err != nil {
		t.Errorf("Serve returned %v", err)
	}

	again, err := New(Config{TLS: r.tls, Services: map[string]Service{"one": answer("again")}, Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	r.Server = again
	r.serve()
	if text, err := r.ask(r.dial(), "one"); err != nil || text != "again" {
		t.Errorf("second Serve on the same listener: %q, %v", text, err)
	}
}

func TestTheLastAreServedAndLaterOnesRefused(t *testing.T) {
	r := startAt(t, "127.4.60.12", Config{Services: map[string]Service{"one": answer("fine")}}) // where nobody else takes the port that is given back
	r.stopAccepting()
	var waiting []net.Conn // let in by the kernel, and by nobody else
	for range 10 {
		waiting = append(waiting, r.dial())
	}
	if err := r.Last(r.ln); err != nil {
		t.Fatal(err)
	}
	if c, err := net.Dial("tcp", r.ln.Addr().String()); err == nil {
		c.Close()
		t.Error("it still lets clients in")
	}
	for i, c := range waiting {
		if got, err := r.ask(c, "one"); err != nil || got != "fine" {
			t.Errorf("client %d: %q, %v", i, got, err)
		}
	}
	if err := r.Last(r.ln); err == nil {
		t.Error("a closed listener was ended again")
	}
	if err := r.Last(struct{ net.Listener }{r.ln}); err != nil {
		t.Errorf("one without a queue: %v", err)
	}
}

func TestWhoComesWhileAListenerEndsIsServedOrNotHeardButNeverReset(t *testing.T) {
	for range 5 {
		r := startAt(t, "127.4.60.13", Config{Services: map[string]Service{"one": answer("fine")}}) // where nobody else takes the port
		var ended atomic.Bool
		var comers sync.WaitGroup
		for range 16 {
			comers.Go(func() {
				for !ended.Load() {
					c, err := net.DialTimeout("tcp", r.ln.Addr().String(), 100*time.Millisecond)
					if err != nil {
						continue // not heard, or refused
					}
					if got, err := r.ask(c, "one"); err != nil || got != "fine" {
						t.Errorf("let in and not served: %q, %v", got, err)
						return
					}
				}
			})
		}
		r.stopAccepting()
		if err := r.Last(r.ln); err != nil {
			t.Error(err)
		}
		ended.Store(true)
		comers.Wait()
	}
}

func TestADeafListenerHearsNobodyNewAndKeepsWhomItHas(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		r := start(t, Config{Services: map[string]Service{"one": answer("fine")}})
		r.stopAccepting()
		r.ln = listen(t, address)
		early := r.dial()
		raw, err := r.ln.(syscall.Conn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if err := deafen(raw); err != nil {
			t.Fatal(err)
		}
		var silent net.Error
		if c, err := net.DialTimeout("tcp", r.ln.Addr().String(), 100*time.Millisecond); !errors.As(err, &silent) || !silent.Timeout() {
			t.Errorf("%s: a newcomer: %v, %v; want silence", address, c, err)
		}
		if err := r.Last(r.ln); err != nil {
			t.Error(err)
		}
		if got, err := r.ask(early, "one"); err != nil || got != "fine" {
			t.Errorf("%s: who was let in: %q, %v", address, got, err)
		}
	}
}

func TestTheEndOfAListenerBeginsWithDeafness(t *testing.T) {
	r := start(t, Config{Services: map[string]Service{"one": answer("fine")}})
	r.stopAccepting()
	socket, err := r.ln.(*net.TCPListener).File() // outlives the listener
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	if err := r.Last(r.ln); err != nil {
		t.Fatal(err)
	}
	var room uint32 // for its filter; the kernel answers how long that is
	n, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, socket.Fd(), unix.SOL_SOCKET, unix.SO_GET_FILTER, 0, uintptr(unsafe.Pointer(&room)), 0)
	if errno != 0 || n+uintptr(room) == 0 {
		t.Errorf("it has ended and hears everybody: %v", errno)
	}
}

func TestServeReportsListenersItCannotServe(t *testing.T) {
	cert, _ := identity(t)
	s, err := New(Config{TLS: &tls.Config{Certificates: []tls.Certificate{cert}}, Services: map[string]Service{"one": answer("")}})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(t.Context(), struct{ net.Listener }{ln}); err == nil {
		t.Error("a listener without SetDeadline was served")
	}
	ln.Close()
	if err := s.Serve(t.Context(), ln); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed listener: %v", err)
	}
}

func TestNewRefusesWhatCannotServe(t *testing.T) {
	one := map[string]Service{"one": answer("")}
	for name, cfg := range map[string]Config{
		"no TLS settings":  {Services: one},
		"no services":      {TLS: &tls.Config{}},
		"a nil service":    {TLS: &tls.Config{}, Services: map[string]Service{"one": nil}},
		"an empty name":    {TLS: &tls.Config{}, Services: map[string]Service{"": answer("")}},
		"negative timeout": {TLS: &tls.Config{}, Services: one, Timeout: -1},
		"negative limit":   {TLS: &tls.Config{}, Services: one, MaxConns: -1},
	} {
		if s, err := New(cfg); err == nil {
			t.Errorf("%s: got %v, want an error", name, s)
		}
	}
}

// failing is a listener whose Accept always fails.
type failing struct {
	calls atomic.Int32
	err   error
}

func (f *failing) Accept() (net.Conn, error)   { f.calls.Add(1); return nil, f.err }
func (f *failing) Close() error                { return nil }
func (f *failing) Addr() net.Addr              { return &net.TCPAddr{} }
func (f *failing) SetDeadline(time.Time) error { return nil }

func TestAcceptErrorsAreWaitedOutWithoutAHotLoop(t *testing.T) {
	var log bytes.Buffer
	s, err := New(Config{TLS: &tls.Config{}, Services: map[string]Service{"one": answer("")},
		Log: hclog.New(&hclog.LoggerOptions{Output: &log})})
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		ln := &failing{err: &net.OpError{Op: "accept", Err: syscall.EMFILE}}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.Serve(ctx, ln) }()
		<-time.After(10 * time.Second) // with one line in its first minute
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve returned %v", err)
		}
		// 5+10+…+160 ms, then one try in 320 ms.
		if n := ln.calls.Load(); n < 30 || n > 40 {
			t.Errorf("%d accepts in 10 s of errors", n)
		}
	})
	if n := strings.Count(log.String(), "cannot accept"); n != 1 {
		t.Errorf("logged %d times, want once", n)
	}
}

func TestServingGoesOnAfterDescriptorsRanOut(t *testing.T) {
	r := start(t, Config{Services: map[string]Service{"one": answer("fine")}})
	r.stop()
	r.ln = &flaky{TCPListener: r.ln.(*net.TCPListener), fail: 3}
	r.serve()
	if got, err := r.ask(r.dial(), "one"); err != nil || got != "fine" {
		t.Errorf("got %q, %v", got, err)
	}
	if !r.events.has(Event{Kind: AcceptFailed}) {
		t.Error("no event for the failed accepts")
	}
}

// flaky fails the first accepts.
type flaky struct {
	*net.TCPListener
	fail int
}

func (f *flaky) Accept() (net.Conn, error) {
	if f.fail--; f.fail >= 0 {
		return nil, syscall.EMFILE
	}
	return f.TCPListener.Accept()
}

func TestAllGoroutinesEnd(t *testing.T) {
	before := runtime.NumGoroutine()
	served := start(t, Config{Services: map[string]Service{"one": answer("fine")}})
	silent := start(t, Config{Timeout: 200 * time.Millisecond, Services: map[string]Service{"one": answer("")}})
	for range 20 {
		silent.dial()
		if _, err := served.ask(served.dial(), "one"); err != nil {
			t.Error(err)
		}
	}
	for _, r := range []*running{served, silent} {
		if err := r.stop(); err != nil {
			t.Error(err)
		}
		if n := r.open(); n != 0 {
			t.Errorf("%d connections left after Serve returned", n)
		}
	}
	eventually(t, "goroutines back to where they were", func() bool { return runtime.NumGoroutine() <= before })
}

func TestEventNamesAreStable(t *testing.T) {
	for got, want := range map[string]string{
		Accepted.String(): "accepted", Panicked.String(): "panicked", HandshakeFailed.String(): "handshake failed", Kind(99).String(): "unknown",
		TimedOut.String(): "timeout", Refused.String(): "refused", NoProtocol.String(): "no protocol", Class(0).String(): "none", Class(99).String(): "none",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
