// Package tcp accepts TLS connections for the NTP services that run over TCP
// and hands each to the Service its ALPN protocol names.
//
// It knows no protocol. It owns what every service needs alike: a limit on
// open connections that costs the oldest unfinished one of whoever holds most
// its place and never the newcomer, one absolute deadline per connection that covers the TLS
// handshake too and is set once, and an end that delivers the last octets
// written. A peer's mistake is an Event and a debug line, nothing more.
//
//	srv, err := tcp.New(tcp.Config{TLS: conf, Services: services, Timeout: 3 * time.Second})
//	err = srv.Serve(ctx, listener) // nil once ctx is done: a successor may serve the listener
//	srv.Wait()                     // the connections have ended too
package tcp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// The limits that hold where Config leaves them zero.
const (
	DefaultTimeout  = 3 * time.Second
	DefaultMaxConns = 512
)

// Service serves one connection. The handshake is done and the protocol the
// service is registered for has been negotiated. ctx carries the absolute
// deadline that is already set on c and ends when c is evicted; it is not
// cancelled when the server stops, for a connection that has begun is finished. The server says
// close_notify and closes c when ServeConn returns.
type Service interface {
	ServeConn(ctx context.Context, c *tls.Conn)
}

// Config is what a Server is made of. TLS and Services are required.
type Config struct {
	TLS      *tls.Config           // cloned; its NextProtos say what is offered
	Services map[string]Service    // ALPN protocol → who serves it
	Timeout  time.Duration         // life of one connection, handshake included; 0: DefaultTimeout
	MaxConns int                   // over all listeners together; 0: DefaultMaxConns
	Allow    func(netip.Addr) bool // who may come; others are hung up on before TLS. nil: everybody
	Observe  func(Event)           // called from many goroutines at once; may be nil
	Log      hclog.Logger          // may be nil
}

// Server holds what the listeners of one service share: the TLS settings and
// the table of open connections. It is safe for concurrent use.
type Server struct {
	tls       *tls.Config
	services  map[string]Service
	timeout   time.Duration
	allow     func(netip.Addr) bool
	observe   func(Event)
	log       hclog.Logger
	conns     *Table[*conn]
	going     sync.WaitGroup // the connections
	panicOnce sync.Once
}

// New checks c and returns a Server. Nothing runs before Serve.
func New(c Config) (*Server, error) {
	if c.TLS == nil || len(c.Services) == 0 {
		return nil, errors.New("tcp server needs TLS settings and at least one service")
	}
	if c.Timeout < 0 || c.MaxConns < 0 {
		return nil, fmt.Errorf("tcp server: timeout %v and connection limit %d must not be negative", c.Timeout, c.MaxConns)
	}
	for protocol, service := range c.Services {
		if service == nil || protocol == "" {
			return nil, fmt.Errorf("tcp server: no service for protocol %q", protocol)
		}
	}
	s := &Server{services: c.Services, timeout: c.Timeout, allow: c.Allow, observe: c.Observe, log: c.Log}
	if s.timeout == 0 {
		s.timeout = DefaultTimeout
	}
	if s.observe == nil {
		s.observe = func(Event) {}
	}
	if s.log == nil {
		s.log = hclog.NewNullLogger()
	}
	if c.MaxConns == 0 {
		c.MaxConns = DefaultMaxConns
	}
	s.conns = NewTable[*conn](c.MaxConns)
	s.tls = c.TLS.Clone()
	s.tls.GetConfigForClient = s.admit(c.TLS.GetConfigForClient)
	return s, nil
}

// deadliner is what makes Accept return without closing the listener.
type deadliner interface{ SetDeadline(time.Time) error }

// Serve accepts connections from ln until ctx is done and returns nil. What it
// accepted goes on to its end; Wait waits for that, while a successor already
// serves ln, which is not closed: a client that says nothing must not hold up
// those who come during a reload. A listener that was closed by someone else
// is an error; whatever else fails in accepting is waited out.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	d, ok := ln.(deadliner)
	if !ok {
		return fmt.Errorf("serve %s: a %T cannot be interrupted; use a listener with SetDeadline", ln.Addr(), ln)
	}
	unblocked := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		d.SetDeadline(time.Unix(1, 0))
		close(unblocked)
	})
	defer func() {
		if !stop() {
			<-unblocked
		}
		d.SetDeadline(time.Time{})
	}()

	return s.accept(ctx, ln)
}

// take begins to serve a connection.
func (s *Server) take(nc net.Conn) {
	if s.allow != nil && !s.allow(peer(nc)) {
		nc.Close()
		s.observe(Event{Kind: NotAllowed})
		return
	}
	c := s.newConn(nc)
	evicted := s.conns.Add(c)
	s.observe(Event{Kind: Accepted}) // and counted
	if evicted != nil {
		evicted.cancel()
		evicted.Close()
		s.observe(Event{Kind: Evicted})
	}
	s.going.Go(func() { s.serve(c) })
}

// peer is the address of who has connected; the zero one where that is no IP.
func peer(nc net.Conn) netip.Addr {
	if a, ok := nc.RemoteAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// Wait returns when all connections have ended, which they do by their
// deadline. Call it after each Serve has returned.
func (s *Server) Wait() { s.going.Wait() }

// tellAgain is the least time between two log lines about failing accepts:
// peers can bring them about.
const tellAgain = time.Minute

// accept takes each connection. Running out of descriptors or
// memory ends sooner or later: it is waited for in growing steps and told
// once a minute.
func (s *Server) accept(ctx context.Context, ln net.Listener) error {
	const firstPause, maxPause = 5 * time.Millisecond, 320 * time.Millisecond
	pause, told := time.Duration(0), time.Time{}
	for {
		nc, err := ln.Accept()
		if err == nil {
			pause = 0
			s.take(nc)
			continue
		}
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("accept on %s: %w", ln.Addr(), err)
		}
		s.observe(Event{Kind: AcceptFailed})
		if now := time.Now(); now.Sub(told) >= tellAgain {
			told = now
			s.log.Error("cannot accept connections", "listener", ln.Addr().String(), "error", err,
				"hint", "raise the limit of open files, or lower the limit of sessions")
		}
		pause = min(max(2*pause, firstPause), maxPause)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// admit looks at a ClientHello before any public-key work is spent on it.
func (s *Server) admit(next func(*tls.ClientHelloInfo) (*tls.Config, error)) func(*tls.ClientHelloInfo) (*tls.Config, error) {
	return func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		c := hello.Conn.(*conn)
		switch {
		case len(hello.SupportedProtos) == 0:
			// crypto/tls would complete this handshake with no protocol, and
			// answers every error from here with internal_error.
			c.class = NoProtocol
			c.answer = noApplicationProtocol
			return nil, errNoProtocol
		case !slices.ContainsFunc(hello.SupportedProtos, func(p string) bool { return s.services[p] != nil }):
			c.class = NoProtocol // crypto/tls finds the right alert itself
		case !slices.Contains(hello.SupportedVersions, tls.VersionTLS13):
			c.class = OldVersion
		}
		if next == nil {
			return nil, nil
		}
		return next(hello)
	}
}

var errNoProtocol = errors.New("client offers no application protocol")
