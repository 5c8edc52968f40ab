package tcp

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// underWay is for how long a TCP handshake that has begun is waited for.
const underWay = 200 * time.Millisecond

// Last ends ln, where Serve has returned and no successor takes it over: whom the
// kernel has let in already is still served, and whoever comes later is refused.
// Closing alone would reset those who are between the two. So nobody new is heard
// first: they ask again after a second, when a restarted agent is there for them.
func (s *Server) Last(ln net.Listener) error {
	defer ln.Close()
	l, ok := ln.(syscall.Conn)
	if !ok {
		return nil // it has no such queue
	}
	raw, err := l.SyscallConn()
	if err != nil {
		return fmt.Errorf("end %s: %w", ln.Addr(), err)
	}
	if deafen(raw) == nil { // or the rest has to do, with a gap of microseconds
		s.takeFor(underWay, ln)
	}
	var waiting []int
	err = raw.Control(func(fd uintptr) {
		for {
			c, _, err := syscall.Accept4(int(fd), syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC)
			if err != nil {
				break
			}
			waiting = append(waiting, c)
		}
		_ = syscall.Shutdown(int(fd), syscall.SHUT_RD) // it listens no more
	})
	ln.Close() // before the first of them is served
	for _, fd := range waiting {
		f := os.NewFile(uintptr(fd), "connection")
		nc, err := net.FileConn(f)
		f.Close()
		if err == nil {
			s.take(nc)
		}
	}
	if err != nil {
		return fmt.Errorf("end %s: %w", ln.Addr(), err)
	}
	return nil
}

// deafen has the kernel drop every SYN to a listener without a word. Whoever is on
// the way in or let in already notices nothing. Multipath TCP cannot do it.
func deafen(raw syscall.RawConn) error {
	drop := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 13}, // the flags of the TCP header
		{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: 2, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		{Code: unix.BPF_RET | unix.BPF_K, K: 1<<32 - 1},
	}
	var failed error
	err := raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(drop)), Filter: &drop[0]})
	})
	return errors.Join(err, failed)
}

// takeFor begins to serve whoever is let in within d.
func (s *Server) takeFor(d time.Duration, ln net.Listener) {
	l, ok := ln.(deadliner)
	if !ok || l.SetDeadline(time.Now().Add(d)) != nil {
		return
	}
	for {
		nc, err := ln.Accept()
		if err != nil {
			return
		}
		s.take(nc)
	}
}
