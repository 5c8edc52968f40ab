package gateway

import (
	"encoding/binary"
	"math"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ask counts how many of n datagrams at once are answered, and takes those off that leak through.
func (l *limiter) ask(addr netip.Addr, now int64, n int) (good float64) {
	for range n {
		if l.allow(addr.AsSlice(), now) {
			good++
		}
	}
	return max(0, (good-float64(n)/leak)/(1-1.0/leak))
}

func TestNetworksAreLimited(t *testing.T) {
	const n = 20000
	near := func(t *testing.T, what string, got, want float64) {
		t.Helper()
		if math.Abs(got-want) > 6*math.Sqrt(n/leak) {
			t.Errorf("%s: %.0f of %d answered, want %.0f", what, got, n, want)
		}
	}
	for _, c := range []struct {
		name, first, same, other string
	}{
		{"an IPv4 /24", "192.0.2.1", "192.0.2.254", "192.0.3.1"},
		{"an IPv4 /24 mapped into IPv6", "::ffff:192.0.2.1", "192.0.2.254", "::ffff:192.0.3.1"},
		{"an IPv6 /56", "2001:db8:1:200::1", "2001:db8:1:2ff:ffff::1", "2001:db8:1:300::1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLimiter(Limit{Rate: 1000, Burst: 2000})
			now := int64(1e9)
			near(t, "the first", l.ask(netip.MustParseAddr(c.first), now, n), 2000)
			near(t, "another of its network", l.ask(netip.MustParseAddr(c.same), now, n), 0)
			near(t, "another network", l.ask(netip.MustParseAddr(c.other), now, n), 2000)
			near(t, "a second later", l.ask(netip.MustParseAddr(c.same), now+1e9, n), 1000)
			near(t, "an hour later", l.ask(netip.MustParseAddr(c.same), now+3600e9, n), 2000)
		})
	}
	t.Run("an IPv6 /48 gets eight times as much", func(t *testing.T) {
		l := newLimiter(Limit{Rate: 1000, Burst: 1000})
		sum := 0.0
		for i := range n {
			if a := [16]byte{0x20, 1, 0xd, 0xb8, 0, 1, byte(i % 16)}; l.allow(a[:], 1e9) {
				sum++
			}
		}
		near(t, "16 networks of one /48", (sum-n/leak)/(1-1.0/leak), 8*1000)
	})
	t.Run("no limit", func(t *testing.T) {
		l := newLimiter(Limit{})
		for range 1000 {
			if !l.allow([]byte{192, 0, 2, 1}, 5) {
				t.Fatal("refused")
			}
		}
	})
	t.Run("a burst of none is one", func(t *testing.T) {
		near(t, "one", newLimiter(Limit{Rate: 1}).ask(netip.MustParseAddr("192.0.2.1"), 1e9, n), 1)
	})
}

func TestTheLimitHoldsForAllSocketsTogether(t *testing.T) {
	const burst = 100_000
	l := newLimiter(Limit{Rate: 1000, Burst: burst})
	var good atomic.Int64
	var sockets sync.WaitGroup
	start := make(chan struct{})
	for socket := range byte(4) {
		sockets.Go(func() {
			<-start
			for i := range burst / 2 {
				if l.charge(4, []byte{192, 0, 2}, 1e9, l.every) {
					good.Add(1)
				}
				l.charge(4, []byte{10, socket, byte(i)}, 1e9, l.every) // others, all the while
			}
		})
	}
	close(start)
	sockets.Wait()
	if n := good.Load(); n != burst {
		t.Errorf("%d answered at once, want %d", n, burst)
	}
}

func TestTimesStartAnewInTheTable(t *testing.T) {
	const around = tick << tickBits // ns
	l := newLimiter(Limit{Rate: 1, Burst: 10})
	for _, start := range []int64{around - 5e9, 3*around - 5e9} {
		got := 0
		for s := range int64(100) {
			for range 5 {
				if l.charge(4, []byte{192, 0, 2}, uint64(start+s*1e9)/tick, l.every) {
					got++
				}
			}
		}
		if got != 10+99 {
			t.Errorf("%d answered in 100 s, want 109", got)
		}
	}
}

func BenchmarkLimit(b *testing.B) {
	l := newLimiter(Limit{Rate: 1e9, Burst: 1000})
	for name, network := range map[string]byte{"own networks": 1, "one network": 0} {
		b.Run(name, func(b *testing.B) {
			var socket atomic.Int64
			b.RunParallel(func(p *testing.PB) {
				ip := []byte{10, byte(socket.Add(1)) * network, 3, 4}
				for now := int64(0); p.Next(); now += 1000 {
					l.allow(ip, now)
				}
			})
		})
	}
}

func TestAFloodOfNetworksPushesNobodyOutWhoIsLimited(t *testing.T) {
	l := newLimiter(Limit{Rate: 10, Burst: 50})
	bad := netip.MustParseAddr("192.0.2.1")
	l.ask(bad, 1e9, 1000)
	for i := range 1 << 20 { // 64 times as many networks as there is room for, one datagram each
		var ip [4]byte
		binary.BigEndian.PutUint32(ip[:], uint32(i)<<8|10<<24)
		l.allow(ip[:], 1e9)
	}
	if got := l.ask(bad, 1e9, 4000); got > 200 {
		t.Errorf("%.0f answered", got)
	}
	if size := int(unsafe.Sizeof(bucket{})) * len(l.table); size > 1<<18 {
		t.Errorf("the table has %d octets", size)
	}
}

func TestWhereANetworkLandsIsASecret(t *testing.T) {
	a, b := newLimiter(Limit{Rate: 1}), newLimiter(Limit{Rate: 1})
	ip := []byte{192, 0, 2, 1}
	a.allow(ip, 1)
	b.allow(ip, 1)
	at := func(l *limiter) (i int) {
		for i = range l.table {
			if l.table[i].Load() != 0 {
				break
			}
		}
		return i
	}
	if at(a) == at(b) {
		c := newLimiter(Limit{Rate: 1}) // once in 4096
		if c.allow(ip, 1); at(a) == at(c) {
			t.Error("three tables keep the network at the same place")
		}
	}
}

func TestAddressesAreTakenFromTheKernelsForm(t *testing.T) {
	l := newLimiter(Limit{Rate: 1e-3, Burst: 1})
	var v4 unix.RawSockaddrInet4
	v4.Family, v4.Addr, v4.Port = unix.AF_INET, [4]byte{192, 0, 2, 1}, 5
	var name unix.RawSockaddrInet6
	*(*unix.RawSockaddrInet4)(unsafe.Pointer(&name)) = v4
	if !l.allowName(&name, netip.Addr{}, 1) || l.ask(netip.MustParseAddr("192.0.2.9"), 1, 4000) > 200 {
		t.Error("IPv4")
	}
	name = unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: netip.MustParseAddr("2001:db8::1").As16()}
	if !l.allowName(&name, netip.Addr{}, 1) || l.ask(netip.MustParseAddr("2001:db8::9"), 1, 4000) > 200 {
		t.Error("IPv6")
	}
	if name.Family = unix.AF_UNIX; l.allowName(&name, netip.Addr{}, 1) {
		t.Error("another family")
	}
	n := testing.AllocsPerRun(500, func() { l.allow(v4.Addr[:], int64(time.Second)) })
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestThisHostIsNotLimited(t *testing.T) {
	for _, c := range []struct {
		name, from, own string
		limited         bool
	}{
		{"loopback", "127.0.0.1", "0.0.0.0", false},
		{"loopback of IPv6", "::1", "::", false},
		{"loopback at a socket of both families", "::ffff:127.0.0.1", "::", false},
		{"its own address", "192.0.2.1", "192.0.2.1", false},
		{"its own address of IPv6", "2001:db8::1", "2001:db8::1", false},
		{"a neighbour", "192.0.2.2", "192.0.2.1", true},
		{"a neighbour by IPv6", "2001:db8::2", "2001:db8::1", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLimiter(Limit{Rate: 1e-3, Burst: 1})
			var name unix.RawSockaddrInet6
			if a := netip.MustParseAddr(c.from); a.Is4() {
				*(*unix.RawSockaddrInet4)(unsafe.Pointer(&name)) = unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: a.As4()}
			} else {
				name = unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: a.As16()}
			}
			refused := 0
			for range 1000 {
				if !l.allowName(&name, netip.MustParseAddr(c.own), 1) {
					refused++
				}
			}
			if c.limited != (refused > 0) {
				t.Errorf("%d of 1000 refused", refused)
			}
		})
	}
}
