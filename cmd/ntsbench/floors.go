package main

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"

	"ntsagent/cmd/ntsbench/floor"
)

// inherited is the descriptor of the open socket a floor is started with.
const inherited = 3

// runFloor is the verb of the floors' processes, which bench starts.
func runFloor(ctx context.Context, args []string, stdout, _ io.Writer) error {
	kind := ""
	if len(args) > 0 {
		kind, args = args[0], args[1:]
	}
	socket := os.NewFile(inherited, "socket")
	if socket == nil {
		return fmt.Errorf("%w of floor: it is started by ntsbench bench", errUsage)
	}
	defer socket.Close()
	switch kind {
	case "tls":
		return tlsFloor(ctx, socket, args, stdout)
	case "udp":
		return udpFloor(ctx, socket, args, stdout)
	case "gateway":
		return gatewayChild(ctx, socket, args, stdout)
	}
	return fmt.Errorf("%w of floor: %q is none of tls, udp and gateway", errUsage, kind)
}

func tlsFloor(ctx context.Context, socket *os.File, args []string, stdout io.Writer) error {
	f := flag.NewFlagSet("floor tls", flag.ContinueOnError)
	cert := f.String("cert", "", "PEM `FILE` of the certificate chain")
	key := f.String("key", "", "PEM `FILE` of its key")
	octets := f.Int("octets", 0, "length of the answer")
	if err := parse(f, args, stdout); err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(*cert, *key)
	if err != nil {
		return fmt.Errorf("load the floor's certificate: %w", err)
	}
	ln, err := net.FileListener(socket)
	if err != nil {
		return fmt.Errorf("take over the floor's socket: %w", err)
	}
	return floor.TLS(ctx, ln, pair, floor.Answer(*octets))
}

// floorBatch is how many datagrams the UDP floor takes and sends at once.
const floorBatch = 32

func udpFloor(ctx context.Context, socket *os.File, args []string, stdout io.Writer) error {
	f := flag.NewFlagSet("floor udp", flag.ContinueOnError)
	reply := f.Int("reply", 0, "most octets that go back; 0: all")
	if err := parse(f, args, stdout); err != nil {
		return err
	}
	conn, err := takeUDP(socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	return floor.UDP(ctx, conn, floorBatch, *reply)
}

// takeUDP makes an inherited socket ours.
func takeUDP(socket *os.File) (*net.UDPConn, error) {
	pc, err := net.FilePacketConn(socket)
	if err != nil {
		return nil, fmt.Errorf("take over the floor's socket: %w", err)
	}
	conn, ok := pc.(*net.UDPConn)
	if !ok {
		pc.Close()
		return nil, fmt.Errorf("take over the floor's socket: it is a %T, not UDP", pc)
	}
	return conn, nil
}

// startFloor runs this program's floor of that kind on the open sockets.
func (s *servers) startFloor(kind string, sockets []*os.File, args ...string) (*child, error) {
	dir, err := s.folder("floor-" + kind)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(s.self, append([]string{"floor", kind}, args...)...)
	cmd.ExtraFiles = sockets
	return s.start("the "+kind+" floor", dir, cmd)
}

// startTLSFloor runs a TLS floor that answers with so many octets.
func (s *servers) startTLSFloor(octets int) (server, error) {
	socket, at, err := s.listenTCP()
	if err != nil {
		return server{}, err
	}
	defer socket.Close()
	c, err := s.startFloor("tls", []*os.File{socket}, "--cert", s.id.cert, "--key", s.id.key, "--octets", strconv.Itoa(octets))
	return server{child: c, ke: s.target(at)}, err
}

// startUDPFloor runs a UDP echo, of the first reply octets only, or of all if reply is 0.
func (s *servers) startUDPFloor(reply int) (server, error) {
	socket, at, err := s.listenUDP()
	if err != nil {
		return server{}, err
	}
	defer socket.Close()
	c, err := s.startFloor("udp", []*os.File{socket}, "--reply", strconv.Itoa(reply))
	return server{child: c, ntp: at}, err
}

// listenTCP opens a listening socket for a child.
func (s *servers) listenTCP() (*os.File, netip.AddrPort, error) {
	ln, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(s.anyPort()))
	if err != nil {
		return nil, netip.AddrPort{}, fmt.Errorf("listen for a floor: %w", err)
	}
	defer ln.Close()
	socket, err := ln.File()
	if err != nil {
		return nil, netip.AddrPort{}, fmt.Errorf("hand a floor its socket: %w", err)
	}
	return socket, ln.Addr().(*net.TCPAddr).AddrPort(), nil
}

// listenUDP opens a socket for a child.
func (s *servers) listenUDP() (*os.File, netip.AddrPort, error) {
	pc, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(s.anyPort()))
	if err != nil {
		return nil, netip.AddrPort{}, fmt.Errorf("listen for a floor: %w", err)
	}
	defer pc.Close()
	socket, err := pc.File()
	if err != nil {
		return nil, netip.AddrPort{}, fmt.Errorf("hand a floor its socket: %w", err)
	}
	return socket, pc.LocalAddr().(*net.UDPAddr).AddrPort(), nil
}
