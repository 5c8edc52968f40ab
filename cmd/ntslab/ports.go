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

// listenUDP opens a UDP port that is free on 127.0.0.1 and ::1.
func listenUDP(ctx context.Context) (port uint16, c4, c6 *net.UDPConn, err error) {
	for range triesPort {
		var lc net.ListenConfig
		var four, six net.PacketConn
		if four, err = lc.ListenPacket(ctx, "udp4", loopback4+":0"); err != nil {
			break
		}
		port = portOf(four.LocalAddr())
		if six, err = lc.ListenPacket(ctx, "udp6", on6(port)); err == nil {
			return port, four.(*net.UDPConn), six.(*net.UDPConn), nil
		}
		four.Close()
		if !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
	}
	return 0, nil, nil, fmt.Errorf("find a UDP port free on %s and %s: %w", loopback4, loopback6, err)
}

// freeUDP finds a UDP port that is free on 127.0.0.1 and ::1 at this moment.
func freeUDP(ctx context.Context) (uint16, error) {
	port, c4, c6, err := listenUDP(ctx)
	if err != nil {
		return 0, err
	}
	return port, errors.Join(c4.Close(), c6.Close())
}

// reserveUDP takes a UDP port that is free on 127.0.0.1 and ::1 and keeps others
// off it. A process of the same user that sets SO_REUSEPORT, as chronyd does,
// can still bind it and gets every packet: the sockets that hold the port are
// connected to the discard port, so no packet of a client is theirs.
func reserveUDP(ctx context.Context) (port uint16, release func(), err error) {
	port, c4, c6, err := listenUDP(ctx)
	if err != nil {
		return 0, nil, err
	}
	release = func() { c4.Close(); c6.Close() }
	if err := errors.Join(
		share(c4, &unix.SockaddrInet4{Port: 9, Addr: [4]byte{127, 0, 0, 1}}),
		share(c6, &unix.SockaddrInet6{Port: 9, Addr: netip.IPv6Loopback().As16()})); err != nil {
		release()
		return 0, nil, fmt.Errorf("hold UDP port %d of %s and %s: %w", port, loopback4, loopback6, err)
	}
	return port, release, nil
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

func both(port uint16) []string { return []string{on4(port), on6(port)} }
