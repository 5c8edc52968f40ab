package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"ntsagent/ntske/packet"
)

// source is a plain NTP server in this process, as OpenNTPD is one: it answers
// requests of 48 octets or more with the time of this host and looks at nothing
// behind the header.
type source struct {
	c    *net.UDPConn
	done chan struct{}
}

// startSource answers at an address of the loopback device.
func startSource(ctx context.Context, ip string) (*source, error) {
	var lc net.ListenConfig
	c, err := lc.ListenPacket(ctx, "udp4", ip+":0")
	if err != nil {
		return nil, fmt.Errorf("listen for the NTP source: %w", err)
	}
	s := &source{c: c.(*net.UDPConn), done: make(chan struct{})}
	go func() {
		answer(s.c)
		close(s.done)
	}()
	return s, nil
}

// answer serves until c is closed.
func answer(c *net.UDPConn) {
	var b [512]byte
	for {
		n, from, err := c.ReadFromUDPAddrPort(b[:])
		received := time.Now()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		request, parseErr := packet.ParseHeader(b[:n])
		if err != nil || parseErr != nil || request.Mode != packet.ModeClient || request.Version < 3 || request.Version > 4 {
			continue
		}
		reply := sourceHeader(request, received)
		reply.Transmit = packet.FromTime(time.Now())
		_, _ = c.WriteToUDPAddrPort(reply.AppendTo(nil), from) // a lost packet is the client's to notice
	}
}

// sourceHeader is the answer but for the time of sending. The source is a clock
// that nothing disciplines, as chrony's `local stratum 8`, and vouches for no more
// than to be within 10 ms of itself.
func sourceHeader(request packet.Header, received time.Time) packet.Header {
	const tenMilliseconds = 10 << 16 / 1000
	return packet.Header{
		Version: request.Version, Mode: packet.ModeServer, Poll: request.Poll,
		Stratum: 8, Precision: -20, RootDispersion: tenMilliseconds, RefID: [4]byte{127, 127, 1, 1},
		RefTime: packet.FromTime(received.Truncate(16 * time.Second)),
		Origin:  request.Transmit, Receive: packet.FromTime(received),
	}
}

func (s *source) addr() string { return s.c.LocalAddr().String() }

func (s *source) stop() {
	s.c.Close()
	<-s.done
}
