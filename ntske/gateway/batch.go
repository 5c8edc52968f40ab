//go:build linux && (amd64 || arm64)

package gateway

import (
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"ntsagent/ntske/cookie"
)

const (
	// deepest is the most datagrams that are taken at once. More would save little and keep the first waiting.
	deepest = 8
	// shallow is asked for while it is quiet: one more than comes, to see that no more is there.
	shallow = 2
	// stride is the room for one datagram, and an odd number of cache lines, so that those of a batch do not
	// fall into the same sets of the cache.
	stride      = maxDatagram + 64
	controlRoom = 128
)

// worker serves one socket. It takes as many datagrams at once as have piled up, to a bound.
type worker struct {
	raw    syscall.RawConn
	ring   func() *cookie.Ring
	mirror *Mirror
	clock  func() Instant // that of the mirror: its states refer to it

	own    netip.Addr // of the socket
	mode   Mode
	answer *answerer
	relay  *relay
	limit  *limiter
	tally  *tally
	pace   pace
	stop   atomic.Bool
	last   Instant // when the last batch was begun
	step   int64   // Instant.Mono when the clock was last found stepped

	depth   int // datagrams to take next
	in, out []slot
	heads   struct{ in, out []mmsghdr }
	serve   func(fd uintptr) bool // made once: a closure per call would be an allocation
	fault   error                 // that ends reading

	batch batch
}

// batch is what there is to know for all datagrams that are answered together.
type batch struct {
	mirrored bool    // the Mirror's State does, the daemon need not be asked
	asked    bool    // it was, and said:
	state    *State  // nil: nothing
	outcome  Outcome // of all that need it
	detour   int64   // ns that took
}

// slot is the memory of one datagram.
type slot struct {
	room    []byte
	name    unix.RawSockaddrInet6 // room for both families
	control [controlRoom]byte
	iovec   unix.Iovec
}

// mmsghdr is struct mmsghdr of recvmmsg(2) where pointers have 64 bits.
type mmsghdr struct {
	unix.Msghdr
	length uint32
	_      [4]byte
}

func (g *Gateway) newWorker(conn *net.UDPConn, t *tally) (*worker, error) {
	if err := stampArrivals(conn); err != nil {
		return nil, err
	}
	if err := tellDestination(conn); err != nil {
		return nil, err
	}
	if err := keepOffBroadcast(conn); err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	r, err := newRelay(g.conf.Mirror, t)
	if err != nil {
		return nil, err
	}
	w := &worker{
		raw: raw, mode: g.conf.Mode, relay: r, ring: g.conf.Ring, mirror: g.conf.Mirror, clock: g.conf.Mirror.clock,
		answer: newAnswerer(g.conf.Plain, g.conf.Mirror.clock), limit: g.limit, tally: t, depth: shallow,
		own: conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap().WithZone(""),
		in:  make([]slot, deepest), out: make([]slot, deepest),
	}
	w.heads.in, w.heads.out = heads(w.in), heads(w.out)
	w.serve = w.turns
	w.last = steady(w.clock)
	w.step = w.last.Mono - maxDwell
	w.answer.relay = w.latest
	return w, nil
}

// heads lays out slots as the kernel takes them.
func heads(slots []slot) []mmsghdr {
	h := make([]mmsghdr, len(slots))
	room := make([]byte, len(slots)*stride)
	for i := range slots {
		s := &slots[i]
		s.room = room[i*stride:][:maxDatagram:maxDatagram]
		s.iovec.Base = &s.room[0]
		h[i].Name = (*byte)(unsafe.Pointer(&s.name))
		h[i].Iov = &s.iovec
		h[i].SetIovlen(1)
	}
	return h
}

// run answers until the deadline of the socket passes.
func (w *worker) run() error {
	if err := w.raw.Read(w.serve); err != nil {
		return err
	}
	return w.fault
}

// turns answers batch after batch; false: nothing is there, wait.
func (w *worker) turns(fd uintptr) bool {
	for !w.stop.Load() {
		n, errno := w.receive(fd)
		switch {
		case errno == unix.EAGAIN:
			w.depth = shallow
			return false
		case errno != 0 && !slices.Contains(passing, errno):
			w.fault = errno
			return true
		case errno != 0:
			continue
		}
		asked := w.depth
		w.depth = nextDepth(asked, n)
		w.turn(fd, n)
		if n < asked {
			return false // that was all; what comes now wakes us
		}
	}
	return true
}

// nextDepth follows the backlog: twice as deep when all that was asked for was there, else what was there.
func nextDepth(depth, got int) int {
	if got == depth {
		return min(2*depth, deepest)
	}
	return max(got, shallow)
}

// passing are what a read may report of the system or of a datagram sent earlier. The socket is still good.
var passing = []syscall.Errno{
	unix.EINTR, unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EMSGSIZE, unix.EPERM, unix.EACCES, unix.ENOBUFS, unix.ENOMEM,
}

// receive takes what is there. Neither it nor transmit waits, so both are raw system calls: others tell the
// scheduler of Go, which at low rates costs more than the call, by waking the thread that watches it.
func (w *worker) receive(fd uintptr) (int, syscall.Errno) {
	h := w.heads.in
	for i := range w.depth {
		h[i].Namelen = unix.SizeofSockaddrInet6
		h[i].Control = &w.in[i].control[0]
		h[i].SetControllen(controlRoom)
		w.in[i].iovec.SetLen(maxDatagram)
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&h[0])), uintptr(w.depth), unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

// turn answers the n datagrams of a batch.
func (w *worker) turn(fd uintptr, n int) {
	ring, state := w.ring(), w.mirror.State()
	begin := w.look(state)
	w.batch = batch{mirrored: w.mode == MirrorMode && state.Condition(begin) != RelayWanted}
	sent := 0
	for i := range n {
		in, head := &w.in[i], &w.heads.in[i]
		outcome := SilentLong
		var reply []byte
		switch {
		case head.Flags&unix.MSG_TRUNC != 0:
		case !w.limit.allowName(&in.name, w.own, begin.Mono):
			outcome = SilentLimit
		case begin.Mono-w.step < maxDwell: // its stamp may be of the clock before
			outcome = SilentStep
		default:
			control := in.control[:head.Controllen]
			a := arrival{datagram: in.room[:head.length], t2: arrivalStamp(control), seen: begin, lead: w.pace.lead(n-i, sent)}
			if a.t2 == 0 {
				a.t2 = begin.Wall
			}
			reply, outcome = w.answer.answer(w.out[sent].room[:0], a, ring, state)
		}
		w.tally.n[outcome].Add(1)
		if outcome.Silent() {
			continue
		}
		out, o := &w.heads.out[sent], &w.out[sent]
		out.Name, out.Namelen = (*byte)(unsafe.Pointer(&in.name)), head.Namelen
		o.iovec.SetLen(len(reply))
		out.Control = nil
		size := source(o.control[:], in.control[:head.Controllen])
		if size > 0 {
			out.Control = &o.control[0]
		}
		out.SetControllen(size)
		sent++
	}
	if sent == 0 {
		return
	}
	sealed := w.clock()
	w.transmit(fd, sent)
	w.pace.learn(n, sent, begin.Mono+w.batch.detour, sealed.Mono, w.clock().Mono)
}

// look reads the clock and notes a step since the last batch: no State that is younger than the step tells of it.
func (w *worker) look(s *State) Instant {
	now := s.read(w.clock)
	if stepped(w.last, now) {
		if now = steady(w.clock); stepped(w.last, now) {
			w.step = now.Mono
		}
	}
	w.last = now
	return now
}

// latest returns what to answer from: the State at hand if that does, else what the daemon says now. It is asked when the
// first request of a batch has proven to deserve an answer. Does it not say so in time, the State at hand has to do
// in MirrorMode: it is within its bounds, and tells them.
func (w *worker) latest(s *State) (*State, Outcome) {
	b := &w.batch
	if b.mirrored {
		return s, Served
	}
	if !b.asked {
		from := w.clock().Mono
		b.state, b.outcome = w.relay.ask()
		b.asked, b.detour = true, w.clock().Mono-from
		if b.outcome != Served && w.mode == MirrorMode && s != nil {
			b.state, b.outcome = s, Served
		}
	}
	return b.state, b.outcome
}

// transmit sends the first n of w.out. What the system does not take now is lost, as on any network: its time
// would be old.
func (w *worker) transmit(fd uintptr, n int) {
	for at := 0; at < n; {
		done, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&w.heads.out[at])), uintptr(n-at), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			at += int(done)
		case unix.EINTR:
		case unix.EAGAIN:
			w.tally.n[Unsent].Add(uint64(n - at))
			return
		default: // only this one's client misses something
			w.tally.n[Unsent].Add(1)
			at++
		}
	}
}
