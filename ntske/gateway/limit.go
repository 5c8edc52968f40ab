package gateway

import (
	"encoding/binary"
	"hash/maphash"
	"math"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Limit says how often one network is answered: an IPv4 /24, an IPv6 /56, and eight times as often an IPv6 /48.
// It holds for all sockets of a Gateway together, and not for this host itself: the agent asks its own gateway for proof.
type Limit struct {
	Rate  float64 // datagrams per second; 0: no limit
	Burst int     // datagrams at once; at least 1
}

const (
	limitSets = 4096 // of limitWays networks each: 256 KiB
	limitWays = 8
	wideness  = 8 // times as much for a /48 as for a /56
	leak      = 8 // one in so many is answered all the same: who is being impersonated is not cut off
)

// limiter is a table of bounded size that remembers how much each network has asked. Where in it a network
// lands, and by what it is known there, depends on a secret, so nobody can choose addresses that push out or
// stand in for another's. Many may use it at once.
type limiter struct {
	seed  maphash.Seed
	every uint64 // ticks for one datagram; 0: no limit
	burst uint64 // ticks that may be owed
	table []bucket
}

// bucket is one network, in one word so that sockets share the table without waiting for each other: above who
// it is, below when all it has asked will be paid off, in ticks. 0: none.
type bucket struct{ atomic.Uint64 }

const (
	// The ticks of a bucket start anew every 39 hours. A time farther ahead than anybody may owe has long
	// passed. (Who comes back just when it seems to lie ahead again is thought to owe something.)
	tick      = 8 // ns
	tickBits  = 44
	tickMask  = 1<<tickBits - 1
	mostTicks = tickMask / 4 // owed
)

func newLimiter(l Limit) *limiter {
	if l.Rate <= 0 {
		return &limiter{}
	}
	every := min(max(1, math.Round(float64(time.Second/tick)/l.Rate)), mostTicks)
	burst := min(every*float64(max(l.Burst, 1)), mostTicks)
	return &limiter{seed: maphash.MakeSeed(), every: uint64(every), burst: uint64(burst), table: make([]bucket, limitSets*limitWays)}
}

// allow reports whether a datagram from ip, 4 or 16 octets, is to be answered at a time, and charges for it.
func (l *limiter) allow(ip []byte, now int64) bool {
	if l.every == 0 {
		return true
	}
	at := uint64(now) / tick
	good := false
	if ip4 := to4(ip); ip4 != nil {
		good = l.charge(4, ip4[:3], at, l.every)
	} else {
		good = l.charge(56, ip[:7], at, l.every) && l.charge(48, ip[:6], at, max(1, l.every/wideness))
	}
	return good || rand.Uint32N(leak) == 0
}

// charge takes one datagram, which costs every ticks, from the network's allowance.
func (l *limiter) charge(kind byte, network []byte, now, every uint64) bool {
	key := [9]byte{kind}
	copy(key[1:], network)
	h := maphash.Bytes(l.seed, key[:])
	set := l.table[h%limitSets*limitWays:][:limitWays]
	name := h>>tickBits | 1 // never 0
	for {
		b, was, owed := &set[0], uint64(0), uint64(math.MaxUint64)
		for i := range set {
			w := set[i].Load()
			if w>>tickBits == name {
				b, was, owed = &set[i], w, l.owed(w, now)
				break
			}
			if o := l.owed(w, now); o < owed {
				b, was, owed = &set[i], w, o // the one that is forgotten at the least loss
			}
		}
		if was>>tickBits != name {
			owed = 0
		}
		if owed+every > l.burst {
			return false
		}
		if b.CompareAndSwap(was, name<<tickBits|(now+owed+every)&tickMask) {
			return true
		} // another socket was faster
	}
}

// owed returns how many ticks the network in a bucket owes.
func (l *limiter) owed(bucket, now uint64) uint64 {
	if d := (bucket - now) & tickMask; d <= l.burst {
		return d
	}
	return 0
}

var mapped = [12]byte{10: 0xff, 11: 0xff}

// to4 returns the IPv4 address in ip, also if it is mapped into IPv6, or nil.
func to4(ip []byte) []byte {
	if len(ip) == 4 {
		return ip
	}
	if [12]byte(ip) == mapped {
		return ip[12:]
	}
	return nil
}

// allowName is allow for a raw socket address, unless that is of this host: own is the address of the socket. One
// of another family is never answered.
func (l *limiter) allowName(name *unix.RawSockaddrInet6, own netip.Addr, now int64) bool {
	switch name.Family {
	case unix.AF_INET6:
		return local(netip.AddrFrom16(name.Addr), own) || l.allow(name.Addr[:], now)
	case unix.AF_INET: // struct sockaddr_in: the address is where the flow information of IPv6 stands
		var ip [4]byte
		binary.NativeEndian.PutUint32(ip[:], name.Flowinfo)
		return local(netip.AddrFrom4(ip), own) || l.allow(ip[:], now)
	}
	return false
}

// local reports whether this host asks itself: from loopback, which no network carries, or from the address
// it asks. Who forges that one makes us answer ourselves.
func local(from, own netip.Addr) bool { return from.Unmap().IsLoopback() || from == own }
