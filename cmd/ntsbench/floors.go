package main

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"net"
	"os"

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
