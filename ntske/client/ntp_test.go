package client

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"ntsagent/ntske/aead"
	"ntsagent/ntske/cookie"
	"ntsagent/ntske/packet"
)

// responder is a small NTP server that does what chronyd does with NTS.
type responder struct {
	addr    netip.AddrPort
	ring    atomic.Pointer[cookie.Ring]
	queries atomic.Int32
	// before may swallow a request (false) or send something ahead of the answer.
	before atomic.Pointer[func(n int32, request []byte, send func([]byte)) bool]
	// header may alter what is answered.
	header atomic.Pointer[func(*packet.Header)]
}

func respond(t *testing.T, ip string, ring *cookie.Ring) *responder {
	t.Helper()
	r := &responder{}
	r.ring.Store(ring)
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(ip)})
	if err != nil {
		t.Fatal(err)
	}
	r.run(t, conn)
	return r
}

// run answers at a socket.
func (r *responder) run(t *testing.T, conn *net.UDPConn) {
	t.Helper()
	r.addr = conn.LocalAddr().(*net.UDPAddr).AddrPort()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for b := make([]byte, 2048); ; {
			n, from, err := conn.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			send := func(out []byte) { conn.WriteToUDPAddrPort(out, from) }
			if f := r.before.Load(); f == nil || (*f)(r.queries.Add(1), b[:n], send) {
				send(r.answer(bytes.Clone(b[:n]), time.Now()))
			}
		}
	}()
	t.Cleanup(func() { conn.Close(); <-done })
}

func (r *responder) hook(f func(n int32, request []byte, send func([]byte)) bool) { r.before.Store(&f) }

// answer returns the reply to one request.
func (r *responder) answer(b []byte, now time.Time) []byte {
	q, err := packet.ParseHeader(b)
	if err != nil {
		return nil
	}
	h := packet.Header{Version: 4, Mode: packet.ModeServer, Stratum: 2, RefID: [4]byte{198, 51, 100, 4}, Origin: q.Transmit,
		RefTime: packet.FromTime(now), Receive: packet.FromTime(now), Transmit: packet.FromTime(now)}
	if f := r.header.Load(); f != nil {
		(*f)(&h)
	}
	req, err := parseRequest(b)
	if err != nil {
		return h.AppendTo(nil)
	}
	s, err := cookie.Chrony{}.Open(nil, r.ring.Load(), req.cookie)
	if err != nil {
		return nak(q, req.uid)
	}
	c2s, err := aead.New(s.AEAD, s.C2S)
	if err != nil {
		return nil
	}
	s2c, err := aead.New(s.AEAD, s.S2C)
	if err != nil {
		return nil
	}
	if _, err := c2s.Open(nil, req.nonce, req.sealed, req.ad); err != nil {
		return nak(q, req.uid)
	}
	var plaintext []byte
	for range req.placeholders + 1 {
		c, err := cookie.Chrony{}.Seal(nil, r.ring.Load().Current(), random(), &s)
		if err != nil {
			return nil
		}
		plaintext = packet.AppendField(plaintext, packet.NTSCookie, c)
	}
	out := packet.AppendField(h.AppendTo(nil), packet.UniqueIdentifier, req.uid)
	nonce := random()[:s.AEAD.NonceLen()]
	sealed := s2c.Seal(nil, nonce, plaintext, out)
	lengths := []byte{0, byte(len(nonce)), byte(len(sealed) >> 8), byte(len(sealed))}
	return packet.AppendField(out, packet.Authenticator, slices.Concat(lengths, nonce, sealed))
}

// random returns a nonce.
func random() []byte {
	b := make([]byte, 16)
	rand.Read(b)
	return b
}

// ntsRequest is an NTS request taken apart, as far as a server needs it.
type ntsRequest struct {
	header                         packet.Header
	uid, cookie, nonce, sealed, ad []byte
	placeholders                   int
}

// parseRequest takes a request apart. Only what is malformed is an error.
func parseRequest(b []byte) (r ntsRequest, err error) {
	if r.header, err = packet.ParseHeader(b); err != nil {
		return r, err
	}
	for f, err := range packet.Fields(b) {
		if err != nil {
			return r, err
		}
		switch f.Type {
		case packet.UniqueIdentifier:
			r.uid = f.Body
		case packet.NTSCookie:
			r.cookie = f.Body
		case packet.CookiePlaceholder:
			r.placeholders++
		case packet.Authenticator:
			n, m := binary.BigEndian.Uint16(f.Body), binary.BigEndian.Uint16(f.Body[2:])
			if len(f.Body) != int(4+n+m) {
				return r, fmt.Errorf("authenticator of %d octets with %d and %d in it", len(f.Body), n, m)
			}
			r.nonce, r.sealed, r.ad = f.Body[4:4+n], f.Body[4+n:], b[:f.Offset]
			return r, nil
		}
	}
	return r, errors.New("no authenticator")
}

// nak is an NTS NAK (RFC 8915 §5.7).
func nak(q packet.Header, uid []byte) []byte {
	h := packet.Header{Leap: 3, Version: 4, Mode: packet.ModeServer, RefID: [4]byte{'N', 'T', 'S', 'N'}, Origin: q.Transmit}
	return packet.AppendField(h.AppendTo(nil), packet.UniqueIdentifier, uid)
}
