package tcp

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"runtime/debug"
	"syscall"
	"time"
)

// conn is an accepted connection below TLS. Its fields belong to the one
// goroutine that serves it; only Close and cancel may be called by others.
type conn struct {
	net.Conn
	ctx      context.Context // of its Service
	cancel   context.CancelFunc
	deadline time.Time // of everything
	class    Class     // why the handshake is about to fail, where the ClientHello tells
	answer   []byte    // written in place of the next octets, once
	read     int       // octets so far
}

// maxRead is how many octets a peer may send in all. crypto/tls takes a hello
// of 64 KiB; what a service reads is far shorter. Post-handshake messages, of
// which any number fits before the deadline, cost us more than their sender.
const maxRead = 96 << 10

var errTooMuch = errors.New("peer sent more than any service asks for")

// Read gives up on a peer that sends without end.
func (c *conn) Read(b []byte) (int, error) {
	if c.read >= maxRead {
		return 0, errTooMuch
	}
	n, err := c.Conn.Read(b)
	c.read += n
	return n, err
}

// noApplicationProtocol is a fatal alert (RFC 8446 §6, RFC 7301
// §3.2) as a whole TLS record, sent in clear before any key exists.
var noApplicationProtocol = []byte{21, 3, 3, 0, 2, 2, 120}

// Write lets admit choose the alert that crypto/tls cannot be asked for.
func (c *conn) Write(b []byte) (int, error) {
	if c.answer == nil {
		return c.Conn.Write(b)
	}
	answer := c.answer
	c.answer = nil
	if _, err := c.Conn.Write(answer); err != nil {
		return 0, err
	}
	return len(b), nil
}

// SetWriteDeadline lets nobody write past the end of the connection: crypto/tls
// gives an alert five seconds of its own.
func (c *conn) SetWriteDeadline(t time.Time) error {
	if t.IsZero() || t.After(c.deadline) {
		t = c.deadline
	}
	return c.Conn.SetWriteDeadline(t)
}

// newConn starts the time of a connection.
func (s *Server) newConn(nc net.Conn) *conn {
	c := &conn{Conn: nc, deadline: time.Now().Add(s.timeout)}
	c.ctx, c.cancel = context.WithDeadline(context.Background(), c.deadline)
	return c
}

// serve takes one connection from its first octet to its last.
func (s *Server) serve(c *conn) {
	defer s.conns.Remove(c)
	defer c.cancel()
	defer c.Close()
	defer s.recover()
	if err := c.SetDeadline(c.deadline); err != nil {
		return // closed already: it was evicted before it ran
	}
	tc := tls.Server(c, s.tls)
	done := s.talk(c, tc)
	s.conns.Finished(c)
	c.finish(tc, done)
}

// talk does everything that happens above TCP. It returns whether TLS ended as
// it should, with our close_notify.
func (s *Server) talk(c *conn, tc *tls.Conn) (done bool) {
	defer s.recover()
	if err := tc.Handshake(); err != nil {
		class := c.class
		if class == 0 {
			class = classify(err)
		}
		s.observe(Event{Kind: HandshakeFailed, Class: class})
		s.log.Debug("handshake failed", "peer", c.RemoteAddr().String(), "class", class.String())
		return false
	}
	protocol := tc.ConnectionState().NegotiatedProtocol
	service := s.services[protocol]
	if service == nil {
		s.observe(Event{Kind: NoALPN})
		return tc.CloseWrite() == nil
	}
	s.observe(Event{Kind: Dispatched, Protocol: protocol})
	service.ServeConn(c.ctx, tc)
	return tc.CloseWrite() == nil // close_notify
}

// recover keeps a panic to its connection.
func (s *Server) recover() {
	if p := recover(); p != nil {
		s.observe(Event{Kind: Panicked})
		s.panicOnce.Do(func() {
			s.log.Error("a service panicked; the connection is closed, later ones are only counted",
				"panic", p, "stack", string(debug.Stack()))
		})
	}
}

// finish ends the connection so that what was written last arrives: closing
// with unread input makes TCP send a reset, which discards it at the peer. So
// our direction is closed first and the peer's is read until it ends, but only
// a little, not for long and not past the deadline. A peer that says
// close_notify sends nothing more: the end of its TCP need not be waited for.
func (c *conn) finish(tc *tls.Conn, done bool) {
	const (
		maxOctets = 64 << 10
		maxTime   = 500 * time.Millisecond
	)
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	if short := time.Now().Add(maxTime); short.Before(c.deadline) {
		c.SetReadDeadline(short)
	}
	var scrap [2048]byte
	n := 0
	drain := func(r io.Reader) error {
		for n < maxOctets {
			m, err := r.Read(scrap[:])
			if n += m; err != nil {
				return err
			}
		}
		return nil
	}
	if done && drain(tc) == io.EOF {
		return
	}
	_ = drain(c.Conn) // whatever ended it
}

// classify names the reason of a failed handshake from crypto/tls's error.
func classify(err error) Class {
	var header tls.RecordHeaderError
	var op *net.OpError
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return TimedOut
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return PeerGone
	case errors.As(err, &header):
		return NotTLS
	case errors.As(err, &op) && op.Op == "remote error":
		return PeerAlert
	default:
		return Refused
	}
}
