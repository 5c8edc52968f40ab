package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	loopback4 = "127.0.0.1"
	loopback6 = "::1"
	triesPort = 20
)

// reserveUDP takes a UDP port that is free on 127.0.0.1 and ::1 and keeps others
// off it. A process of the same user that sets SO_REUSEPORT, as chronyd does,
// can still bind it and gets every packet: the sockets that hold the port are
// connected to the discard port, so no packet of a client is theirs.
func reserveUDP(ctx context.Context) (port uint16, release func(), err error) {
	for range triesPort {
		var c4, c6 net.PacketConn
		var lc net.ListenConfig
		if c4, err = lc.ListenPacket(ctx, "udp4", loopback4+":0"); err != nil {
			break
		}
		port = portOf(c4.LocalAddr())
		if c6, err = lc.ListenPacket(ctx, "udp6", netip.AddrPortFrom(netip.IPv6Loopback(), port).String()); err != nil {
			c4.Close()
			if errors.Is(err, syscall.EADDRINUSE) {
				continue
			}
			break
		}
		err = errors.Join(
			share(c4.(*net.UDPConn), &unix.SockaddrInet4{Port: 9, Addr: [4]byte{127, 0, 0, 1}}),
			share(c6.(*net.UDPConn), &unix.SockaddrInet6{Port: 9, Addr: netip.IPv6Loopback().As16()}))
		release = func() { c4.Close(); c6.Close() }
		if err != nil {
			release()
			break
		}
		return port, release, nil
	}
	return 0, nil, fmt.Errorf("find a UDP port free on %s and %s: %w", loopback4, loopback6, err)
}

func share(c *net.UDPConn, peer unix.Sockaddr) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = raw.Control(func(fd uintptr) {
		inner = errors.Join(unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1), unix.Connect(int(fd), peer))
	})
	return errors.Join(err, inner)
}

// freePort finds a port that is free on 127.0.0.1 over TCP and UDP at this
// moment. It is not held: the caller proves who answers there.
func freePort(ctx context.Context) (uint16, error) {
	var lc net.ListenConfig
	var err error
	for range triesPort {
		var l net.Listener
		if l, err = lc.Listen(ctx, "tcp4", loopback4+":0"); err != nil {
			break
		}
		addr := l.Addr()
		var c net.PacketConn
		c, err = lc.ListenPacket(ctx, "udp4", addr.String())
		l.Close()
		if err == nil {
			c.Close()
			return portOf(addr), nil
		}
	}
	return 0, fmt.Errorf("find a port free on %s: %w", loopback4, err)
}

func portOf(a net.Addr) uint16 {
	switch a := a.(type) {
	case *net.TCPAddr:
		return uint16(a.Port)
	case *net.UDPAddr:
		return uint16(a.Port)
	}
	return 0
}

func on4(port uint16) string { return fmt.Sprintf("%s:%d", loopback4, port) }
func on6(port uint16) string { return fmt.Sprintf("[%s]:%d", loopback6, port) }
