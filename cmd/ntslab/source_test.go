package main

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"ntsagent/ntske/client"
	"ntsagent/ntske/packet"
)

func TestTheSourceTellsThisHostsTime(t *testing.T) {
	s, err := startSource(t.Context(), loopback4)
	if err != nil {
		t.Fatal(err)
	}
	defer s.stop()
	reply, err := client.Plain(t.Context(), netip.MustParseAddrPort(s.addr()))
	if err != nil {
		t.Fatal(err)
	}
	h := reply.Header
	if h.Leap != 0 || h.Stratum != 8 || h.RootDispersion == 0 || h.RefID != [4]byte{127, 127, 1, 1} || h.Receive > h.Transmit || h.RefTime > h.Receive {
		t.Errorf("it says %+v", h)
	}
	if reply.Offset.Abs() > reply.Delay/2+time.Second/10 { // it is the same clock; the machine may be busy
		t.Errorf("it is %v off, after a way of %v", reply.Offset, reply.Delay)
	}
}

func TestTheSourceAnswersRequestsOnly(t *testing.T) {
	s, err := startSource(t.Context(), loopback4)
	if err != nil {
		t.Fatal(err)
	}
	defer s.stop()
	c, err := net.Dial("udp4", s.addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	request := packet.Header{Version: 4, Mode: packet.ModeClient, Transmit: 42}
	reply, control, old := request, request, request
	reply.Mode, control.Mode, old.Version = packet.ModeServer, 6, 2
	for _, h := range []packet.Header{reply, control, old, request} { // in this order on one loopback device
		if _, err := c.Write(h.AppendTo(nil)); err != nil {
			t.Fatal(err)
		}
	}
	wantAnswer := func(to packet.Timestamp) {
		t.Helper()
		var b [512]byte
		n, err := c.Read(b[:])
		if err != nil {
			t.Fatal(err)
		}
		if h, err := packet.ParseHeader(b[:n]); err != nil || n != packet.HeaderLen || h.Mode != packet.ModeServer || h.Origin != to {
			t.Errorf("%d octets, %+v (%v), want the answer to %d", n, h, err, to)
		}
	}
	wantAnswer(request.Transmit)
	if _, err := c.Write([]byte("short")); err != nil {
		t.Fatal(err)
	}
	request.Transmit = 43
	if _, err := c.Write(request.AppendTo(nil)); err != nil {
		t.Fatal(err)
	}
	wantAnswer(request.Transmit)
}
