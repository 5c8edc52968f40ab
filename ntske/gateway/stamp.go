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

// source writes into dst the control message that sends a response from where its request, which had these control
// messages, was sent to, and returns its length. 0: the kernel told no destination.
func source(dst, request []byte) int {
	for {
		level, kind, data, rest, ok := nextControl(request)
		switch {
		case !ok:
			return 0
		case level == unix.IPPROTO_IP && kind == unix.IP_PKTINFO && len(data) == unix.SizeofInet4Pktinfo:
			// ifindex, then the address to send from, then one that only counts on arrival. Routing picks the interface.
			return putControl(dst, level, kind, 4, data[4:8], 4)
		case level == unix.IPPROTO_IPV6 && kind == unix.IPV6_PKTINFO && len(data) == unix.SizeofInet6Pktinfo:
			n := putControl(dst, level, kind, 0, data[:16], 4)
			if data[0] == 0xfe && data[1]&0xc0 == 0x80 { // link-local: the address says nothing without its interface
				copy(dst[cmsgHeader+16:], data[16:20])
			}
			return n
		}
		request = rest
	}
}

// putControl writes a control message with data between as many zeros, and returns its room.
func putControl(dst []byte, level, kind int32, before int, data []byte, after int) int {
	n := cmsgHeader + before + len(data) + after
	room := (n + cmsgAlign - 1) &^ (cmsgAlign - 1)
	clear(dst[:room])
	binary.NativeEndian.PutUint64(dst, uint64(n))
	binary.NativeEndian.PutUint32(dst[8:], uint32(level))
	binary.NativeEndian.PutUint32(dst[12:], uint32(kind))
	copy(dst[cmsgHeader+before:], data)
	return room
}
