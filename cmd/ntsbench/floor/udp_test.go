package floor

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ntsagent/cmd/ntsbench/load"
)

// patience is for what must come: on a busy machine any process stands still for seconds.
const patience = time.Minute

func listen(t *testing.T) *net.UDPConn {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func dial(t *testing.T, to *net.UDPConn) *net.UDPConn {
	t.Helper()
	conn, err := net.DialUDP("udp4", nil, to.LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return conn
}

// echoOn is an echo that a test drives by hand.
func echoOn(t *testing.T, conn *net.UDPConn, batch int) *echo {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(patience))
	return newEcho(raw, batch, stride)
}

// serve runs UDP until the test ends, and wants it to end well.
func serve(t *testing.T, conn *net.UDPConn, batch int) {
	t.Helper()
	serveShort(t, conn, batch, 0)
}

// serveShort is serve with the most octets that go back.
func serveShort(t *testing.T, conn *net.UDPConn, batch, reply int) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- UDP(ctx, conn, batch, reply) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func wantEcho(t *testing.T, c *net.UDPConn, text string) {
	t.Helper()
	b := make([]byte, 100)
	n, err := c.Read(b)
	if err != nil || string(b[:n]) != text {
		t.Errorf("%q came back (%v), want %q", b[:n], err, text)
	}
}

func send(t *testing.T, c *net.UDPConn, text string) {
	t.Helper()
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
}

func TestEveryDatagramComesBackAsItWas(t *testing.T) {
	for _, batch := range []int{1, 4, 32} {
		conn := listen(t)
		serve(t, conn, batch)
		for octets, window := range map[int]int{8: 4, 48: 4, 232: 4, 1501: 4, 65507: 1} { // a socket has room for few of 64 KiB
			r, err := load.Echo(t.Context(), load.PlainConfig{
				NTP: conn.LocalAddr().(*net.UDPAddr).AddrPort(), Sockets: 1, Window: window, Octets: octets, For: 50 * time.Millisecond, LostAfter: patience,
			})
			if err != nil {
				t.Fatal(err)
			}
			if r.Done == 0 || r.Failed != 0 {
				t.Errorf("batch %d, %d octets: %d done, %d failed (%v)", batch, octets, r.Done, r.Failed, r.FirstErr)
			}
		}
	}
}

func TestAnEchoMayBeShorter(t *testing.T) {
	conn := listen(t)
	serveShort(t, conn, 4, 84)
	for _, octets := range []int{84, 85, 228, 1501} {
		r, err := load.Echo(t.Context(), load.PlainConfig{
			NTP: conn.LocalAddr().(*net.UDPAddr).AddrPort(), Sockets: 1, Window: 4, Octets: octets, Reply: 84, For: 50 * time.Millisecond, LostAfter: patience,
		})
		if err != nil || r.Done == 0 || r.Failed != 0 {
			t.Errorf("%d octets: %d done, %d failed (%v), %v", octets, r.Done, r.Failed, r.FirstErr, err)
		}
	}
	c := dial(t, conn)
	send(t, c, "short")
	wantEcho(t, c, "short")
}

func TestAnEchoAllocatesNothing(t *testing.T) {
	conn := listen(t)
	c, e := dial(t, conn), echoOn(t, conn, 4)
	b := make([]byte, 232)
	allocs := testing.AllocsPerRun(1000, func() {
		c.Write(b)
		if err := e.turn(); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Read(b); n != len(b) || err != nil {
			t.Fatalf("%d octets came back: %v", n, err)
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations per datagram, want 0", allocs)
	}
}

func TestOnePeerThatCannotBeReachedStopsNobodyElse(t *testing.T) {
	conn := listen(t)
	e := echoOn(t, conn, 8)
	var peers []*net.UDPConn
	for range 3 {
		c := dial(t, conn)
		send(t, c, "hello")
		peers = append(peers, c)
	}
	if err := e.raw.Read(e.receive); err != nil || e.got != 3 {
		t.Fatalf("%d datagrams read (%v), want 3", e.got, err)
	}
	e.names[1].Family = unix.AF_UNIX // the kernel refuses to send there
	if err := e.raw.Write(e.transmit); err != nil {
		t.Fatal(err)
	}
	wantEcho(t, peers[0], "hello")
	wantEcho(t, peers[2], "hello")
}

func TestAPeerThatHasGoneStopsNobodyElse(t *testing.T) {
	conn := listen(t)
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	// The kernel then reports ICMP errors, of any peer, to this socket.
	if err := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_RECVERR, 1) }); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	for range 5 { // sent before anything is read, so that the echo finds them gone
		gone := dial(t, conn)
		send(t, gone, "bye")
		gone.Close()
	}
	here := dial(t, conn)
	send(t, here, "hello")
	serve(t, conn, 2)
	wantEcho(t, here, "hello")
	send(t, here, "again")
	wantEcho(t, here, "again")
}

func TestAnEchoSaysWhenItsSocketIsClosed(t *testing.T) {
	conn := listen(t)
	conn.Close()
	if err := UDP(t.Context(), conn, 4, 0); err == nil {
		t.Error("no error from a closed socket")
	}
	if err := UDP(t.Context(), listen(t), 0, 0); err == nil || !strings.Contains(err.Error(), "batch of 0") {
		t.Errorf("a batch of none: %v", err)
	}
}
