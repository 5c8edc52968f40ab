package gateway

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// Listen opens n sockets at one address, between which the kernel divides the clients; [::] is IPv6 alone. No one else may have
// a socket there: the first is bound without SO_REUSEPORT, so that it fails where another server runs, even
// one that would share.
func Listen(ctx context.Context, addr netip.AddrPort, n int) ([]*net.UDPConn, error) {
	var conns []*net.UDPConn
	fail := func(err error) ([]*net.UDPConn, error) {
		for _, c := range conns {
			c.Close()
		}
		return nil, fmt.Errorf("listen for NTP on %v: %w", addr, err)
	}
	network := "udp4"
	if addr.Addr().Is6() {
		network = "udp6"
	}
	for i := range n {
		var conf net.ListenConfig
		if i > 0 {
			conf.Control = reusePort
		}
		pc, err := conf.ListenPacket(ctx, network, addr.String())
		if err != nil {
			return fail(err)
		}
		conn := pc.(*net.UDPConn)
		conns = append(conns, conn)
		if i > 0 {
			continue
		}
		addr = netip.AddrPortFrom(addr.Addr(), conn.LocalAddr().(*net.UDPAddr).AddrPort().Port())
		if n > 1 {
			if err := control(conn, "share the port", func(fd int) error {
				return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
			}); err != nil {
				return fail(err)
			}
		}
	}
	return conns, nil
}

// reusePort lets a socket share a port, before it is bound.
func reusePort(_, _ string, raw syscall.RawConn) error {
	var inner error
	err := raw.Control(func(fd uintptr) { inner = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
	if err != nil {
		return err
	}
	return inner
}

// keepOffBroadcast undoes what package net does to every socket, so that no forged source makes a response a
// broadcast: the kernel refuses to send it.
func keepOffBroadcast(conn *net.UDPConn) error {
	return control(conn, "keep off broadcast addresses", func(fd int) error {
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 0)
	})
}

// tellDestination makes the kernel tell where a datagram was sent to, if conn has no address of its own: the
// response must come from there.
func tellDestination(conn *net.UDPConn) error {
	local := conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr()
	if !local.IsUnspecified() {
		return nil
	}
	return control(conn, "have destinations told", func(fd int) error {
		family, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
		if err != nil {
			return err
		}
		if family == unix.AF_INET {
			return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
		}
		return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
	})
}
