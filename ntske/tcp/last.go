package tcp

import (
	"fmt"
	"net"
	"os"
	"syscall"
)

// Last ends ln, where Serve has returned and no successor takes it over: whom the
// kernel has let in already is still served, and whoever comes later is refused.
// Closing alone would reset those who are between the two.
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
