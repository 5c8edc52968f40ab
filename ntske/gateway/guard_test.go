package gateway

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"ntsagent/agent/daemon/daemontest"
	"ntsagent/ntske/packet"
)

func TestDatagramsThatAreTooLongAndFloodsAreDropped(t *testing.T) {
	s := newSite(t, "127.0.0.1:0", 1, func(c *Config) { c.Limit = Limit{Rate: 1e-3, Burst: 10} })
	c := s.neighbour(t)
	send := func(b []byte) {
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	long := append(clientHeader().AppendTo(nil), make([]byte, maxDatagram)...)
	until(t, "the long one", func() bool { send(long); return s.g.Counts()[SilentLong] > 0 }) // the first may come to a network that is not up yet
	short := func() (all uint64) {
		for outcome, n := range s.g.Counts() {
			if outcome != SilentLong && outcome != Asked && outcome != Unsent {
				all += n
			}
		}
		return all
	}
	for i := range uint64(1000) {
		send(clientHeader().AppendTo(nil))
		until(t, "the next", func() bool { return short() == i+1 }) // on a busy machine it may come too late to be served
	}
	n := s.g.Counts()
	if passed := short() - n[SilentLimit]; passed < 50 || passed > 300 || n[ServedPlain] == 0 { // 10, and an eighth of the others
		t.Errorf("counted %v", n)
	}
}

// neighbour has the gateway served at one more socket, and is a client there that is not of its host.
func (s *site) neighbour(t *testing.T) net.Conn {
	t.Helper()
	here, there := daemontest.NewNetwork(t), daemontest.NewNetwork(t)
	daemontest.Connect(t, here, there, []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}, []netip.Prefix{netip.MustParsePrefix("192.0.2.2/24")})
	var conns []*net.UDPConn
	var c net.Conn
	var err, err2 error
	here.Do(func() { conns, err = Listen(t.Context(), netip.MustParseAddrPort("192.0.2.1:123"), 1) })
	there.Do(func() { c, err2 = net.DialUDP("udp", nil, &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 123}) })
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.g.Serve(ctx, conns...) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		conns[0].Close()
		c.Close()
	})
	return c
}

func TestNoResponseIsABroadcast(t *testing.T) {
	s := newSite(t, "127.0.0.1:0", 1, nil)
	w := s.worker(t, nil)
	to := unix.RawSockaddrInet4{Family: unix.AF_INET, Port: 0x0900, Addr: [4]byte{127, 255, 255, 255}} // a forged source
	h := &w.heads.out[0]
	h.Name, h.Namelen = (*byte)(unsafe.Pointer(&to)), unix.SizeofSockaddrInet4
	w.out[0].iovec.SetLen(packet.HeaderLen)
	err := w.raw.Control(func(fd uintptr) { w.transmit(fd, 1) })
	if n := w.tally.n[Unsent].Load(); err != nil || n != 1 {
		t.Errorf("%d of 1 kept back, %v", n, err)
	}
}

func TestAGatewayDoesNotAnswerAGateway(t *testing.T) {
	s := newSite(t, "127.0.0.1:0", 1, nil)
	m := startMirror(t, s.addr, 20*time.Millisecond)
	until(t, "questions of a mirror", func() bool { return s.g.Counts()[SilentGateway] >= 3 })
	w := s.worker(t, func(other *Mirror) { other.conf.Daemon = s.addr })
	before := s.g.Counts()[SilentGateway]
	if state, outcome := w.relay.ask(); state != nil || outcome != SilentStale {
		t.Errorf("by relay: %v, %+v", outcome, state)
	}
	until(t, "the question of a relay", func() bool { return s.g.Counts()[SilentGateway] > before })
	if m.State() != nil {
		t.Errorf("mirrored %+v", m.State())
	}
	until(t, "the operator being told", func() bool { return strings.Contains(m.Report().Fault, "is a gateway itself") })
	if reply, err := s.plain(t, s.addr); err != nil || reply.Header.Stratum != 2 {
		t.Errorf("a client: %+v, %v", reply.Header, err)
	}
}
