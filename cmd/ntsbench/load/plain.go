package load

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"ntsagent/ntske/packet"
)

var (
	errLength = errors.New("plain reply is not 48 octets long")
	errEcho   = errors.New("echo is not what was sent")
)

// PlainConfig says how to load a server without NTS.
type PlainConfig struct {
	NTP       netip.AddrPort
	Sockets   int
	Window    int           // requests in flight on each socket, at most
	Rate      float64       // requests per second on all sockets together; 0: closed loop
	Octets    int           // length of a request; 0: 48, which is the only length of an NTP query
	Reply     int           // of an echo: length of its reply, the start of the request; 0: all of it
	For       time.Duration // how long requests are sent; 0: until the context ends
	LostAfter time.Duration // a request without a reply has failed after; 0: the package's LostAfter
}

func (c PlainConfig) traffic() (traffic, error) {
	t := traffic{addr: c.NTP, sockets: c.Sockets, window: c.Window, rate: c.Rate, span: c.For, lostAfter: c.LostAfter}
	return t, t.valid()
}

// Plain sends NTP queries without NTS for c.For, or until ctx ends, and verifies every reply: mode, origin
// timestamp, leap indicator, stratum, length. In a closed loop (c.Rate = 0) every reply makes room for the
// next request. In an open loop latency counts from the moment a request was meant to be sent; if the
// window is full then, it is sent late. The error says that the load could not begin.
func Plain(ctx context.Context, c PlainConfig) (Result, error) {
	if c.Octets != 0 && c.Octets != packet.HeaderLen || c.Reply != 0 {
		return Result{}, fmt.Errorf("NTP query of %d octets: without NTS it and its reply have %d", max(c.Octets, c.Reply), packet.HeaderLen)
	}
	return c.run(ctx, func(int) dialect { return plain{} })
}

// Echo sends datagrams of c.Octets to a UDP echo, as Plain sends queries, and verifies that every one comes
// back as it was, or its first c.Reply octets. Result has no offsets and delays.
func Echo(ctx context.Context, c PlainConfig) (Result, error) {
	octets := c.Octets
	if octets == 0 {
		octets = packet.HeaderLen
	}
	if octets < 8 || octets > 65507 {
		return Result{}, fmt.Errorf("echo of %d octets: use 8 to 65507", octets)
	}
	reply := c.Reply
	if reply == 0 {
		reply = octets
	}
	if reply < 8 || reply > octets {
		return Result{}, fmt.Errorf("reply of %d octets to an echo of %d: use 8 to that", reply, octets)
	}
	return c.run(ctx, func(int) dialect { return newEcho(octets, reply) })
}

func (c PlainConfig) run(ctx context.Context, speak func(int) dialect) (Result, error) {
	t, err := c.traffic()
	if err != nil {
		return Result{}, err
	}
	lanes, idle, err := t.lanes(speak)
	if err != nil {
		return Result{}, err
	}
	return t.run(ctx, lanes, idle)
}

// plain is NTP without NTS (RFC 5905). The token is the transmit timestamp, which comes back as origin.
type plain struct{}

func (plain) reserve(int) bool { return true }

func (plain) ask(dst []byte, _ int, token uint64) []byte {
	return packet.Header{Version: 4, Mode: packet.ModeClient, Transmit: packet.Timestamp(token)}.AppendTo(dst)
}

func (plain) token(reply []byte) (uint64, bool) {
	h, err := packet.ParseHeader(reply)
	return uint64(h.Origin), err == nil
}

func (plain) judge(_ int, asked, reply []byte) (t2, t3 packet.Timestamp, err error) {
	if len(reply) > len(asked) {
		return 0, 0, errLonger
	}
	if len(reply) != packet.HeaderLen {
		return 0, 0, errLength
	}
	h, err := packet.ParseHeader(reply)
	if err == nil {
		err = tellsTime(h)
	}
	return h.Receive, h.Transmit, err
}

// tellsTime returns why the header of a reply is not that of a server with the time.
func tellsTime(h packet.Header) error {
	switch {
	case h.Version != 4 || h.Mode != packet.ModeServer:
		return fmt.Errorf("%w: version %d, mode %d", errHeader, h.Version, h.Mode)
	case h.Stratum == 0:
		return fmt.Errorf("%w: kiss code %s", errHeader, h.Kiss())
	case h.Leap == 3 || h.Stratum > 15:
		return fmt.Errorf("%w: leap indicator %d, stratum %d", errHeader, h.Leap, h.Stratum)
	case h.Receive == 0 || h.Transmit == 0:
		return fmt.Errorf("%w: no timestamps", errHeader)
	}
	return nil
}

// echo is datagrams whose first 8 octets are the token and the rest noise.
type echo struct {
	noise []byte
	reply int // octets that come back
}

func newEcho(octets, reply int) echo {
	e := echo{noise: make([]byte, octets-8), reply: reply}
	for i := range e.noise {
		e.noise[i] = byte(rand.Uint32())
	}
	return e
}

func (echo) reserve(int) bool { return true }

func (e echo) ask(dst []byte, _ int, token uint64) []byte {
	return append(binary.BigEndian.AppendUint64(dst, token), e.noise...)
}

func (echo) token(reply []byte) (uint64, bool) {
	if len(reply) < 8 {
		return 0, false
	}
	return binary.BigEndian.Uint64(reply), true
}

func (e echo) judge(_ int, asked, reply []byte) (t2, t3 packet.Timestamp, err error) {
	if len(reply) > len(asked) {
		return 0, 0, errLonger
	}
	if !bytes.Equal(asked[:e.reply], reply) {
		return 0, 0, errEcho
	}
	return 0, 0, nil
}
