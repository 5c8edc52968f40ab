package client

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"ntsagent/ntske/aead"
	"ntsagent/ntske/packet"
)

// Reply is an answer that has been verified.
type Reply struct {
	Header  packet.Header // may be a kiss or tell of a clock that is not synchronised
	Cookies [][]byte      // fresh ones; nil from Plain
	Offset  time.Duration // how far the server's clock is ahead of ours
	Delay   time.Duration // of the network, there and back
}

// Query sends one NTS-protected request (RFC 8915 §5.7) to the NTP server at
// addr and returns its authenticated answer. Packets that do not answer the
// request or do not authenticate are passed over until ctx ends, at the latest
// after 5 s. Errors wrap ErrNAK, ErrSilent or ErrUnauthenticated, or say that
// this tool could not send; all are of type *Error. A cookie should be used once.
func Query(ctx context.Context, addr netip.AddrPort, k Keys, cookie []byte, placeholders int) (Reply, error) {
	c2s, err := aead.New(k.AEAD, k.C2S)
	if err != nil {
		return Reply{}, couldNot("ntp", "seal a request with "+k.AEAD.String(), err)
	}
	s2c, err := aead.New(k.AEAD, k.S2C)
	if err != nil {
		return Reply{}, couldNot("ntp", "open answers with "+k.AEAD.String(), err)
	}
	var uid [32]byte
	nonce := make([]byte, k.AEAD.NonceLen())
	rand.Read(uid[:]) // never fails
	rand.Read(nonce)
	header := request48()
	out := packet.AppendNTSRequest(nil, header, uid[:], cookie, placeholders, nonce, c2s.Seal)
	return exchange(ctx, addr, out, func(b []byte) (Reply, error) {
		h, cookies, err := packet.ParseNTSResponse(b, uid[:], s2c.Open)
		if (err == nil || errors.Is(err, ErrNAK)) && h.Origin != header.Transmit {
			err = packet.ErrNotOurs
		}
		return Reply{Header: h, Cookies: cookies}, err
	})
}

// Plain sends one NTP request without NTS and returns the answer, which proves
// only that something at addr has seen the request. Errors are as of Query.
func Plain(ctx context.Context, addr netip.AddrPort) (Reply, error) {
	header := request48()
	return exchange(ctx, addr, header.AppendTo(nil), func(b []byte) (Reply, error) {
		h, err := packet.ParseHeader(b)
		if err == nil && (h.Mode != packet.ModeServer || h.Origin != header.Transmit) {
			err = packet.ErrNotOurs
		}
		return Reply{Header: h}, err
	})
}

// request48 is the header of a request. It tells nothing about our clock: the
// transmit timestamp is random and only comes back as origin.
func request48() packet.Header {
	var b [8]byte
	rand.Read(b[:])
	return packet.Header{Version: 4, Mode: packet.ModeClient, Transmit: packet.Timestamp(binary.BigEndian.Uint64(b[:]))}
}

// exchange sends out and reads until parse takes a packet, sees a NAK, or the
// time is over.
func exchange(ctx context.Context, addr netip.AddrPort, out []byte, parse func([]byte) (Reply, error)) (Reply, error) {
	ctx, cancel := withDefault(ctx)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, "udp", addr.String())
	if err != nil {
		return Reply{}, netError("ntp", "answer", err)
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })()

	sent := time.Now()
	if _, err := c.Write(out); err != nil {
		return Reply{}, silence(ctx, err, nil)
	}
	in := make([]byte, 1<<16)
	var bad error
	for {
		n, err := c.Read(in)
		if err != nil {
			return Reply{}, silence(ctx, err, bad)
		}
		got := sent.Add(time.Since(sent)) // a step of our clock in between does no harm
		reply, err := parse(in[:n])
		switch {
		case err == nil:
			h := &reply.Header
			reply.Offset, reply.Delay = packet.OffsetDelay(packet.FromTime(sent), h.Receive, h.Transmit, packet.FromTime(got))
			return reply, nil
		case errors.Is(err, ErrNAK):
			return Reply{}, did("ntp", "open its own cookie", err)
		case errors.Is(err, ErrUnauthenticated):
			bad = err
		}
	}
}

// silence says why no answer was taken when reading ended with err.
func silence(ctx context.Context, err, bad error) *Error {
	var network net.Error
	switch {
	case errors.Is(context.Cause(ctx), context.Canceled):
		return couldNot("ntp", "go on", context.Canceled)
	case bad != nil:
		return did("ntp", "answer under the negotiated key", bad)
	case errors.Is(err, syscall.ECONNREFUSED):
		return did("ntp", "answer", fmt.Errorf("%w: nothing listens on that UDP port", ErrSilent))
	case errors.As(err, &network) && network.Timeout():
		return did("ntp", "answer", ErrSilent)
	default:
		return couldNot("ntp", "ask", cause(err))
	}
}
