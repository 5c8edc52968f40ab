package daemontest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"testing"
)

// FreePort is a port, of tcp or udp, that is kept for a daemon of this test until it
// ends: the kernel gives it to nobody who asks for any port, and nobody else gets it here.
func FreePort(t testing.TB, network string) uint16 {
	t.Helper()
	first, n := keptPorts(t)
	for range 1000 {
		if port := first + rand.IntN(n); keep(t, network, port) {
			return uint16(port)
		}
	}
	t.Fatalf("no %s port is free among the %d from %d on", network, n, first)
	return 0
}

// keptPorts are those outside of the range the kernel chooses from, where there are
// enough: a client's socket could have one of that range when the daemon comes for it.
func keptPorts(t testing.TB) (first, n int) {
	t.Helper()
	const lowest, highest, enough = 10000, 65535, 2000
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		t.Fatal(err)
	}
	var from, to int
	if _, err := fmt.Sscan(string(b), &from, &to); err != nil {
		t.Fatalf("the kernel's own ports %q: %v", b, err)
	}
	switch {
	case from-lowest >= enough:
		return lowest, from - lowest
	case highest-to >= enough:
		return to + 1, highest - to
	}
	return lowest, highest - lowest + 1
}

// keep takes a port that nobody has: a socket of that name, which lives no longer than
// this process, tells all tests of this network that it is taken.
func keep(t testing.TB, network string, port int) bool {
	t.Helper()
	sign, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: fmt.Sprintf("@ntsagent-test-%s-%d", network, port), Net: "unixgram"})
	if err != nil {
		return false
	}
	var tried interface{ Close() error }
	if network == "udp" {
		tried, err = net.ListenUDP("udp", &net.UDPAddr{Port: port})
	} else {
		tried, err = net.ListenTCP("tcp", &net.TCPAddr{Port: port})
	}
	if err != nil {
		sign.Close()
		return false
	}
	tried.Close()
	t.Cleanup(func() { sign.Close() })
	return true
}
