package dnscheck

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// patience is how long one try may take.
type patience struct{ udp, tcp time.Duration }

var patient = patience{udp: 2 * time.Second, tcp: 3 * time.Second}

const (
	udpTries = 2

	// udpSize is what fits a path without fragments (RFC 9715). Longer answers come truncated, and then by TCP.
	udpSize = 1232

	// strays is how many packets that are no answer to our question are thrown away before a server is given up.
	strays = 32
)

// exchange asks one server one question: by UDP, then by TCP when the answer is truncated or does not come. What returns
// answers the question that was asked; its code and content are still to be judged.
func (p patience) exchange(ctx context.Context, server netip.AddrPort, q *dns.Msg) (*dns.Msg, error) {
	var err error
	for range udpTries {
		var m *dns.Msg
		m, err = exchangeUDP(ctx, server, q, p.udp)
		if err == nil && !m.Truncated {
			return m, nil
		}
		if ctx.Err() != nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
	}
	if ctx.Err() != nil || unreachable(err) {
		return nil, err
	}
	return exchangeTCP(ctx, server, q, p.tcp)
}

// unreachable is about the way to a server, which is the same for TCP.
func unreachable(err error) bool {
	return errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EHOSTUNREACH)
}

// open connects, which for UDP keeps packets of others out, and sets the one deadline for all that follows. There is no way to a
// broadcast address.
func open(ctx context.Context, network string, server netip.AddrPort, timeout time.Duration) (net.Conn, error) {
	d := net.Dialer{Control: keepOffBroadcast}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	end, _ := ctx.Deadline()
	c, err := d.DialContext(ctx, network, server.String())
	if err != nil {
		return nil, err
	}
	return c, c.SetDeadline(end)
}

// keepOffBroadcast undoes what package net does to every socket: the kernel refuses to connect it to a network's broadcast
// address, which only the kernel knows.
func keepOffBroadcast(_, _ string, raw syscall.RawConn) error {
	var inner error
	err := raw.Control(func(fd uintptr) { inner = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 0) })
	return errors.Join(err, inner)
}

func exchangeUDP(ctx context.Context, server netip.AddrPort, q *dns.Msg, timeout time.Duration) (*dns.Msg, error) {
	q.Id = dns.Id()
	wire, err := q.Pack()
	if err != nil {
		return nil, err
	}
	c, err := open(ctx, "udp", server, timeout)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if _, err := c.Write(wire); err != nil {
		return nil, err
	}
	b := make([]byte, 4096)
	for range strays {
		n, err := c.Read(b)
		if err != nil {
			return nil, err
		}
		m := new(dns.Msg)
		if err := m.Unpack(b[:n]); (err == nil || m.Truncated) && answers(m, q) {
			return m, nil
		}
	}
	return nil, errStray
}

var errStray = errors.New("answers another question")

func exchangeTCP(ctx context.Context, server netip.AddrPort, q *dns.Msg, timeout time.Duration) (*dns.Msg, error) {
	q.Id = dns.Id()
	wire, err := q.Pack()
	if err != nil {
		return nil, err
	}
	c, err := open(ctx, "tcp", server, timeout)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(wire))), wire...)); err != nil {
		return nil, err
	}
	var length [2]byte
	if _, err := io.ReadFull(c, length[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(c, b); err != nil {
		return nil, err
	}
	m := new(dns.Msg)
	if err := m.Unpack(b); err != nil {
		return nil, fmt.Errorf("answer cannot be read: %w", err)
	}
	if !answers(m, q) || m.Truncated {
		return nil, errStray
	}
	return m, nil
}

// answers tells whether m is the answer to q: the same number, and the same question.
func answers(m, q *dns.Msg) bool {
	if m.Id != q.Id || !m.Response || m.Opcode != dns.OpcodeQuery {
		return false
	}
	if len(m.Question) == 0 { // servers that do not understand a query may leave it out
		return m.Rcode == dns.RcodeFormatError || m.Rcode == dns.RcodeNotImplemented || m.Rcode == dns.RcodeServerFailure || m.Rcode == dns.RcodeRefused
	}
	a, b := m.Question[0], q.Question[0]
	return len(m.Question) == 1 && a.Qtype == b.Qtype && a.Qclass == b.Qclass && strings.EqualFold(a.Name, b.Name)
}

// why says in a few words why a server gave no answer.
func why(err error) string {
	var timeout net.Error
	switch {
	case errors.Is(err, context.Canceled):
		return "was not waited for"
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return "does not answer"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "has nothing listening"
	case unreachable(err):
		return "cannot be reached"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return "hangs up"
	}
	return clean(err.Error())
}
