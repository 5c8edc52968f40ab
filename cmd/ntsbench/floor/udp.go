//go:build linux && (amd64 || arm64)

package floor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// UDP sends every datagram back to where it came from until ctx is done, and then returns nil. It is the
// least a UDP server in Go can do: up to batch datagrams per recvmmsg and sendmmsg, one goroutine, no
// allocation per datagram. Of a datagram longer than reply octets only the first reply octets go back; 0: all.
// A datagram that cannot be sent back is dropped. conn stays open, past its deadline.
// An error says that conn cannot be read.
func UDP(ctx context.Context, conn *net.UDPConn, batch, reply int) error {
	if batch < 1 {
		return fmt.Errorf("batch of %d datagrams: use at least 1", batch)
	}
	if reply < 0 {
		return fmt.Errorf("reply of %d octets: use at least 0", reply)
	}
	if reply == 0 {
		reply = stride
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return fmt.Errorf("reach the UDP socket: %w", err)
	}
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	e := newEcho(raw, batch, reply)
	for {
		if err := e.turn(); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("read from the UDP socket: %w", err)
		}
	}
}

// stride is the room for one datagram of any length, and an odd number of cache lines, so that not all
// datagrams of a batch fall into the same sets of the cache.
const stride = 1<<16 + 64

// echo is a batch of datagrams in the form in which the kernel takes it.
type echo struct {
	raw    syscall.RawConn
	reply  uint32                  // most octets that go back
	names  []unix.RawSockaddrInet6 // room for both families
	iovecs []unix.Iovec
	msgs   []mmsghdr

	// Funcs that are made once: a closure per call would be an allocation.
	receive, transmit func(fd uintptr) bool

	got   int   // datagrams of this turn
	sent  int   // how many of them are sent or dropped
	fault error // that ends reading
}

// mmsghdr is struct mmsghdr of recvmmsg(2) where pointers have 64 bits.
type mmsghdr struct {
	unix.Msghdr
	length uint32
	_      [4]byte
}

func newEcho(raw syscall.RawConn, batch, reply int) *echo {
	e := &echo{
		raw: raw, reply: uint32(reply),
		names: make([]unix.RawSockaddrInet6, batch), iovecs: make([]unix.Iovec, batch), msgs: make([]mmsghdr, batch),
	}
	room := make([]byte, batch*stride)
	for i := range e.msgs {
		e.iovecs[i].Base = &room[i*stride]
		e.msgs[i].Name = (*byte)(unsafe.Pointer(&e.names[i]))
		e.msgs[i].Iov = &e.iovecs[i]
		e.msgs[i].SetIovlen(1)
	}
	e.receive, e.transmit = e.recvmmsg, e.sendmmsg
	return e
}

// turn waits for datagrams and sends them back.
func (e *echo) turn() error {
	e.got, e.sent, e.fault = 0, 0, nil
	if err := e.raw.Read(e.receive); err != nil {
		return err
	}
	if e.fault != nil || e.got == 0 {
		return e.fault
	}
	err := e.raw.Write(e.transmit)
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// passing are what a read may report of the system or of a datagram sent earlier. The socket is still good.
var passing = []syscall.Errno{
	unix.EINTR, unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EMSGSIZE, unix.EPERM, unix.ENOBUFS, unix.ENOMEM,
}

// recvmmsg fills the batch with what is there; false: nothing is, wait.
func (e *echo) recvmmsg(fd uintptr) bool {
	for i := range e.msgs {
		e.msgs[i].Namelen = unix.SizeofSockaddrInet6
		e.iovecs[i].SetLen(stride)
	}
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&e.msgs[0])), uintptr(len(e.msgs)), unix.MSG_DONTWAIT, 0, 0)
	switch {
	case errno == 0:
		e.got = int(n)
		for i := range e.got {
			e.iovecs[i].SetLen(int(min(e.msgs[i].length, e.reply)))
		}
	case errno == unix.EAGAIN:
		return false
	case !slices.Contains(passing, errno):
		e.fault = errno
	}
	return true
}

// sendmmsg sends what is left of the batch; false: the socket's buffer is full, wait.
func (e *echo) sendmmsg(fd uintptr) bool {
	for e.sent < e.got {
		n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&e.msgs[e.sent])), uintptr(e.got-e.sent), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			e.sent += int(n)
		case unix.EAGAIN:
			return false
		case unix.EINTR:
		default:
			e.sent++ // only this one's peer misses something
		}
	}
	return true
}
