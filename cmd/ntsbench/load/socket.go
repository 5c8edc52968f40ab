package load

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socket is a connected UDP socket. One goroutine at a time may read while others write.
type socket struct {
	conn    *net.UDPConn
	raw     syscall.RawConn
	control [64]byte // what the kernel says beside a datagram; the reader's
}

// dial connects a socket whose datagrams the kernel stamps on arrival.
func dial(addr netip.AddrPort) (*socket, error) {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return nil, fmt.Errorf("open a UDP socket to %v: %w", addr, err)
	}
	raw, err := conn.SyscallConn()
	if err == nil {
		var failed error
		err = raw.Control(func(fd uintptr) {
			failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)
		})
		if err == nil {
			err = failed
		}
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("have arriving datagrams stamped: %w", err)
	}
	return &socket{conn: conn, raw: raw}, nil
}

// read reads a datagram that is there; the error is EAGAIN if there is none. It says when the datagram arrived,
// which is earlier than now: under load it waited for us, and that is neither the server's latency nor its
// clock's offset. fd is the socket's, from its raw.
func (s *socket) read(fd uintptr, b []byte) (n int, arrived time.Time, err error) {
	room := unix.Iovec{Base: &b[0]}
	room.SetLen(len(b))
	msg := unix.Msghdr{Iov: &room, Control: &s.control[0]}
	msg.SetIovlen(1)
	msg.SetControllen(len(s.control))
	got, _, errno := unix.Syscall(unix.SYS_RECVMSG, fd, uintptr(unsafe.Pointer(&msg)), unix.MSG_DONTWAIT)
	if errno != 0 {
		return 0, time.Time{}, errno
	}
	now := time.Now()
	return int(got), now.Add(-waited(now, s.control[:msg.Controllen])), nil
}

// longestWait is what a datagram may have waited for us: for more the clock was set in between.
const longestWait = 10 * time.Second

// waited returns how long ago the kernel received a datagram, from its control message SCM_TIMESTAMPNS; 0 if
// there is none or the clock was set in between.
func waited(now time.Time, control []byte) time.Duration {
	const header = unix.SizeofCmsghdr
	if len(control) < header+16 ||
		binary.NativeEndian.Uint32(control[header-8:]) != unix.SOL_SOCKET ||
		binary.NativeEndian.Uint32(control[header-4:]) != unix.SCM_TIMESTAMPNS {
		return 0
	}
	seconds, nanoseconds := binary.NativeEndian.Uint64(control[header:]), binary.NativeEndian.Uint64(control[header+8:])
	d := now.Sub(time.Unix(int64(seconds), int64(nanoseconds))) // of the wall clock: the stamp has no other
	if d < 0 || d > longestWait {
		return 0
	}
	return d
}

// pulse fires at an interval, exact to some microseconds. Timers of package time may be a millisecond late
// in a program that sleeps, so that what should be even comes in bursts.
type pulse struct {
	file  *os.File
	count [8]byte
}

func newPulse(interval time.Duration) (*pulse, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a timer: %w", err)
	}
	p := &pulse{file: os.NewFile(uintptr(fd), "timer")}
	every := unix.NsecToTimespec(interval.Nanoseconds())
	if err := unix.TimerfdSettime(fd, 0, &unix.ItimerSpec{Interval: every, Value: every}, nil); err != nil {
		p.file.Close()
		return nil, fmt.Errorf("start a timer: %w", err)
	}
	return p, nil
}

// wait returns how often the pulse has fired since the last wait, once it has; an error when it is closed.
func (p *pulse) wait() (int, error) {
	if _, err := p.file.Read(p.count[:]); err != nil {
		return 0, err
	}
	return int(binary.NativeEndian.Uint64(p.count[:])), nil
}
