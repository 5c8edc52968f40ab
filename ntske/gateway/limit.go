package gateway

import (
	"encoding/binary"
	"hash/maphash"
	"math/rand/v2"
	"time"

	"golang.org/x/sys/unix"
)

// Limit says how often one network is answered: an IPv4 /24, an IPv6 /56, and eight times as often an IPv6 /48.
// Every core counts for itself, so a network whose packets reach several cores gets as many times more.
type Limit struct {
	Rate  float64 // datagrams per second; 0: no limit
	Burst int     // datagrams at once; at least 1
}

const (
	limitSets = 4096 // of limitWays networks each: 256 KiB a core
	limitWays = 4
	wideness  = 8 // times as much for a /48 as for a /56
	leak      = 8 // one in so many is answered all the same: who is being impersonated is not cut off
)

// limiter is a table of bounded size that remembers how much each network has asked. Where in it a network
// lands depends on a secret, so nobody can choose addresses that push out or stand in for another's.
type limiter struct {
	seed  maphash.Seed
	every int64 // ns for one datagram; 0: no limit
	burst int64 // ns that may be owed
	table []bucket
	key   [9]byte // scratch
}

// bucket is one network: when, as Instant.Mono, all it has asked will be paid off.
type bucket struct {
	network uint64
	due     int64
}

func newLimiter(l Limit) *limiter {
	if l.Rate <= 0 {
		return &limiter{}
	}
	every := max(1, int64(float64(time.Second)/l.Rate))
	return &limiter{
		seed: maphash.MakeSeed(), every: every, burst: every * int64(max(l.Burst, 1)),
		table: make([]bucket, limitSets*limitWays),
	}
}

// allow reports whether a datagram from ip, 4 or 16 octets, is to be answered at a time, and charges for it.
func (l *limiter) allow(ip []byte, now int64) bool {
	if l.every == 0 {
		return true
	}
	good := false
	if ip4 := to4(ip); ip4 != nil {
		good = l.charge(4, ip4[:3], now, l.every)
	} else {
		good = l.charge(56, ip[:7], now, l.every) && l.charge(48, ip[:6], now, l.every/wideness)
	}
	return good || rand.Uint32N(leak) == 0
}

// charge takes one datagram, which costs every ns, from the network's allowance.
func (l *limiter) charge(kind byte, network []byte, now, every int64) bool {
	l.key = [9]byte{kind}
	copy(l.key[1:], network)
	h := maphash.Bytes(l.seed, l.key[:])
	set := l.table[h%limitSets*limitWays:][:limitWays]
	b := &set[0]
	for i := range set {
		if set[i].network == h {
			b = &set[i]
			break
		}
		if set[i].due < b.due {
			b = &set[i] // the one that is forgotten at the least loss
		}
	}
	if b.network != h {
		*b = bucket{h, now}
	}
	due := max(b.due, now)
	if due-now+every > l.burst {
		return false
	}
	b.due = due + every
	return true
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

// allowName is allow for a raw socket address. One of another family is never answered.
func (l *limiter) allowName(name *unix.RawSockaddrInet6, now int64) bool {
	switch name.Family {
	case unix.AF_INET6:
		return l.allow(name.Addr[:], now)
	case unix.AF_INET: // struct sockaddr_in: the address is where the flow information of IPv6 stands
		var ip [4]byte
		binary.NativeEndian.PutUint32(ip[:], name.Flowinfo)
		return l.allow(ip[:], now)
	}
	return false
}
