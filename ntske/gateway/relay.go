package gateway

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
	"unsafe"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"ntsagent/ntske/packet"
)

const (
	// relayWait is how long the requests of a batch wait for the daemon. It answers in some 50 µs.
	relayWait = 10 * time.Millisecond
	// While the daemon does not answer it is asked more and more rarely, at last only so often.
	relayPause = 640 * time.Millisecond
	// Strangers' datagrams that are passed over while waiting.
	relayStrays = 16
	// A line through samples that lie nearer says nothing of a slope.
	relayBaseline = int64(time.Second)
	// relaySlope is faster than any daemon slews: what is faster was a step, and is over.
	relaySlope = 0.1
	// relaySay is how often at most a fault is logged, per socket.
	relaySay = int64(time.Minute)
)

// relay asks the daemon for the requests of one batch. It is not one packet that is forwarded: an exchange of its own bounds
// θ at this moment, and T2 and T3 stay readings of the clock nearest to the wire. So the detour shows in neither
// delay nor offset, and the daemon is asked once where eight requests wait. It allocates nothing.
type relay struct {
	conn   *net.UDPConn // to the daemon; one question at a time is under way
	raw    syscall.RawConn
	daemon netip.AddrPort
	clock  func() Instant
	log    hclog.Logger
	tally  *tally
	wait   time.Duration // for an answer: relayWait
	rest   time.Duration // after the kiss code RATE

	track  track
	state  State // from the last answer
	nonces nonces

	notBefore int64 // Instant.Mono of the next question
	pause     time.Duration
	cause     error // why there is none until then
	said      int64 // Instant.Mono when a fault was logged last; 0: never

	out     [packet.HeaderLen]byte
	in      [512]byte
	control [controlRoom]byte
	iovec   unix.Iovec
	head    unix.Msghdr
	n       int // octets received
	errno   syscall.Errno
	send    func(fd uintptr) bool // made once: a closure per call would be an allocation
	receive func(fd uintptr) bool
}

// errRelay is when the daemon is silent. That may be its rate limit: chronyd tells nobody.
var errRelay = errors.New("no answer to a relayed request: if it runs, exempt loopback from its rate limit")

func newRelay(m *Mirror, t *tally) (*relay, error) {
	fault := func(err error) (*relay, error) {
		return nil, fmt.Errorf("open a socket to the NTP daemon at %v: %w", m.conf.Daemon, err)
	}
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(m.conf.Daemon))
	if err != nil {
		return fault(err)
	}
	raw, err := conn.SyscallConn()
	if err == nil {
		err = stampArrivals(conn)
	}
	if err != nil {
		conn.Close()
		return fault(err)
	}
	r := &relay{conn: conn, raw: raw, clock: m.clock, log: m.conf.Log, tally: t, daemon: m.conf.Daemon, wait: relayWait, rest: rateFactor * m.conf.Interval}
	r.iovec.Base = &r.in[0]
	r.head.Iov = &r.iovec
	r.head.SetIovlen(1)
	r.send, r.receive = r.sendNow, r.receiveNow
	return r, nil
}

func (r *relay) close() { r.conn.Close() }

// ask returns what the daemon says now, which is good until the next question, or why it says nothing.
func (r *relay) ask() (*State, Outcome) {
	now := r.clock()
	if now.Mono < r.notBefore {
		return nil, silence(r.cause)
	}
	e, err := r.exchange()
	if err != nil {
		r.fail(err, now.Mono)
		return nil, silence(err)
	}
	r.pause, r.cause = r.pause/2, nil // one answer in four is what a rate limit of chronyd lets through
	if stepped(r.state.at, e.at) || e.at.Mono-r.state.at.Mono > int64(StaleAfter) {
		r.track = track{}
	}
	r.track = r.track.add(e.sample())
	r.state = State{header: e.header, at: e.at, line: r.track.now()}
	if l := &r.state.line; r.track.age() < relayBaseline {
		l.slope, l.growth = 0, min(max(slopeLimit, r.track.reach), relaySlope)
	}
	return &r.state, Served
}

// silence is the outcome of requests that cannot be answered because of an error.
func silence(err error) Outcome {
	switch err {
	case errRate:
		return SilentRate
	case errStep:
		return SilentStep
	}
	return SilentStale
}

// fail decides when to ask again. A daemon whose rate limit is hit would be hit harder by more questions.
func (r *relay) fail(err error, now int64) {
	switch err {
	case errStep:
		r.track = track{}
		return // the next answer may be good
	case errRate:
		r.pause = r.rest
	default:
		r.pause = min(max(2*r.pause, relayWait), relayPause)
	}
	r.cause, r.notBefore = err, now+int64(r.pause)
	if r.said == 0 || now-r.said > relaySay {
		r.said = max(now, 1)
		r.log.Warn("NTP daemon gives no time to relay", "daemon", r.daemon, "reason", err)
	}
}

// exchange sends one question and waits for its answer.
func (r *relay) exchange() (exchange, error) {
	origin := packet.Timestamp(binary.BigEndian.Uint64(r.nonces.take(8)))
	question(origin).AppendTo(r.out[:0])
	r.tally.n[Asked].Add(1)
	if r.conn.SetReadDeadline(time.Now().Add(r.wait)) != nil {
		return exchange{}, errRelay
	}
	begin := steady(r.clock)
	if r.raw.Write(r.send) != nil || r.errno != 0 {
		return exchange{}, errRelay
	}
	for range relayStrays { // and answers to questions that were given up
		if r.raw.Read(r.receive) != nil || r.errno != 0 {
			break
		}
		at := steady(r.clock)
		got, err := packet.ParseHeader(r.in[:r.n])
		if err != nil || got.Mode != packet.ModeServer || got.Origin != origin {
			continue
		}
		return answered(got, begin, begin.Wall, at, r.control[:r.head.Controllen])
	}
	return exchange{}, errRelay
}

// sendNow sends the question. It and receiveNow are handed to the socket, which waits when there is need.
func (r *relay) sendNow(fd uintptr) bool {
	_, _, r.errno = unix.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(&r.out)), uintptr(len(r.out)), unix.MSG_DONTWAIT, 0, 0)
	return true
}

// receiveNow takes a datagram. It reports whether there is no need to wait.
func (r *relay) receiveNow(fd uintptr) bool {
	r.head.Control = &r.control[0]
	r.head.SetControllen(controlRoom)
	r.iovec.SetLen(len(r.in))
	n, _, errno := unix.RawSyscall(unix.SYS_RECVMSG, fd, uintptr(unsafe.Pointer(&r.head)), unix.MSG_DONTWAIT)
	r.n, r.errno = int(n), errno
	return errno != unix.EAGAIN && errno != unix.EINTR
}
