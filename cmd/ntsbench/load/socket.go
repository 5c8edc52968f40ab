package load

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// socket is a connected UDP socket. One goroutine may read while others write.
type socket struct {
	conn    *net.UDPConn
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
	return &socket{conn: conn}, nil
}

// read reads a datagram and says when it arrived, which is earlier than now: under load it waited for us,
// and that is neither the server's latency nor its clock's offset.
func (s *socket) read(b []byte) (n int, arrived time.Time, err error) {
	n, controls, _, _, err := s.conn.ReadMsgUDPAddrPort(b, s.control[:])
	now := time.Now()
	return n, now.Add(-waited(now, s.control[:controls])), err
}

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
	if d < 0 || d > time.Second {
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
