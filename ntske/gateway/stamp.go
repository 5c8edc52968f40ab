package gateway

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// stampArrivals makes the kernel stamp every datagram on arrival with the clock of the system.
func stampArrivals(conn *net.UDPConn) error {
	return control(conn, "have arrivals stamped", func(fd int) error {
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)
	})
}

// control calls f with the file descriptor of conn. what says for what, should it fail.
func control(conn *net.UDPConn, what string, f func(fd int) error) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if inner != nil {
		return fmt.Errorf("%s: %w", what, os.NewSyscallError("setsockopt", inner))
	}
	return nil
}

// Control messages, as cmsg(3) lays them out where pointers have 64 bits.
const (
	cmsgHeader = 16
	cmsgAlign  = 8
	stampLen   = cmsgHeader + 16 // struct timespec
)

// nextControl takes the first control message off b. ok is false at the end, or if b is broken.
func nextControl(b []byte) (level, kind int32, data, rest []byte, ok bool) {
	if len(b) < cmsgHeader {
		return 0, 0, nil, nil, false
	}
	n := binary.NativeEndian.Uint64(b)
	if n < cmsgHeader || n > uint64(len(b)) {
		return 0, 0, nil, nil, false
	}
	next := min((int(n)+cmsgAlign-1)&^(cmsgAlign-1), len(b))
	return int32(binary.NativeEndian.Uint32(b[8:])), int32(binary.NativeEndian.Uint32(b[12:])), b[cmsgHeader:n], b[next:], true
}

// arrivalStamp returns the stamp of the kernel among control messages in ns since the Unix epoch, or 0.
func arrivalStamp(b []byte) int64 {
	for {
		level, kind, data, rest, ok := nextControl(b)
		if !ok {
			return 0
		}
		if level == unix.SOL_SOCKET && kind == unix.SCM_TIMESTAMPNS && len(data) >= 16 {
			return int64(binary.NativeEndian.Uint64(data))*1e9 + int64(binary.NativeEndian.Uint64(data[8:]))
		}
		b = rest
	}
}
