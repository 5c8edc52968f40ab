package agent

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func loopback(port uint16) []netip.AddrPort {
	return []netip.AddrPort{
		netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port),
		netip.AddrPortFrom(netip.IPv6Loopback(), port),
	}
}

func TestPortZeroMeansOnePortForTheWholeList(t *testing.T) {
	b := newBook()
	defer b.closeAll()
	ls, err := b.open(t.Context(), "ke", loopback(0))
	if err != nil {
		t.Fatal(err)
	}
	if len(ls) != 2 || portOf(ls[0]) != portOf(ls[1]) || portOf(ls[0]) == 0 {
		t.Fatalf("listening on %v, want one port on both families", b.addresses("ke"))
	}
}

func TestAPurposeOpensAgainWhereItWas(t *testing.T) {
	b := newBook()
	defer b.closeAll()
	first, err := b.open(t.Context(), "ke", loopback(0))
	if err != nil {
		t.Fatal(err)
	}
	port := portOf(first[0])
	b.close("ke")
	if c, err := net.Dial("tcp", first[0].Addr().String()); err == nil {
		c.Close()
		t.Fatal("a closed purpose still accepts")
	}
	if got := b.addresses("ke"); got != nil {
		t.Fatalf("a closed purpose says it listens on %v", got)
	}
	again, err := b.open(t.Context(), "ke", loopback(0))
	if err != nil {
		t.Fatal(err)
	}
	if portOf(again[0]) != port {
		t.Fatalf("reopened on port %d, was %d", portOf(again[0]), port)
	}
}

func TestAnAddressThatStaysKeepsItsSocket(t *testing.T) {
	b := newBook()
	defer b.closeAll()
	both, err := b.open(t.Context(), "ke", loopback(0))
	if err != nil {
		t.Fatal(err)
	}
	v4 := both[0].Addr().String()
	one, err := b.open(t.Context(), "ke", []netip.AddrPort{netip.MustParseAddrPort(v4)})
	if err != nil {
		t.Fatal(err)
	}
	if len(one) != 1 || one[0] != both[0] {
		t.Fatal("the IPv4 socket was exchanged though its address stayed")
	}
	if c, err := net.Dial("tcp", both[1].Addr().String()); err == nil {
		c.Close()
		t.Fatal("the address that left the list still listens")
	}
}

func TestAPortThatIsTakenChangesNothingAndNamesTheTool(t *testing.T) {
	held, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	b := newBook()
	defer b.closeAll()
	before, err := b.open(t.Context(), "ke", loopback(0))
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.open(t.Context(), "ke", loopback(portOf(held)))
	if err == nil || !strings.Contains(err.Error(), "ss -ltnp") || !strings.Contains(err.Error(), held.Addr().String()) {
		t.Fatalf("got %v, want the address and how to find who holds it", err)
	}
	c, err := net.Dial("tcp", before[0].Addr().String())
	if err != nil {
		t.Fatalf("the old socket went with the refused change: %v", err)
	}
	c.Close()
}

func TestTheSameListOpensOnce(t *testing.T) {
	b := newBook()
	defer b.closeAll()
	a, err := b.open(t.Context(), "ke", loopback(0))
	if err != nil {
		t.Fatal(err)
	}
	again, err := b.open(context.Background(), "ke", loopback(0))
	if err != nil || again[0] != a[0] || again[1] != a[1] {
		t.Fatalf("the same list gave other sockets: %v", err)
	}
}

func portOf(l net.Listener) uint16 { return uint16(l.Addr().(*net.TCPAddr).Port) }

// Multipath TCP, Go's default, has no filter for tcp.Server.Last.
func TestListenersAreOfPlainTCP(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		ln, err := listenTCP(t.Context(), netip.MustParseAddrPort(address))
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		raw, err := ln.(syscall.Conn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var protocol int
		if failed := raw.Control(func(fd uintptr) { protocol, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PROTOCOL) }); failed != nil || err != nil {
			t.Fatal(failed, err)
		}
		if protocol != unix.IPPROTO_TCP {
			t.Errorf("%s: protocol %d", address, protocol)
		}
	}
}
