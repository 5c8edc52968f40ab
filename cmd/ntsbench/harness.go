package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ntsagent/ntske"
	"ntsagent/ntske/aead"
	"ntsagent/ntske/cookie"
	"ntsagent/ntske/gateway"
	"ntsagent/ntske/tcp"
)

// The further sockets a gateway child is started with: where it exchanges keys,
// and where it is asked what it has allocated.
const (
	inheritedKE = inherited + 1 + iota
	inheritedAsk
)

// gatewayChild runs the agent's gateway and key exchange without the agent. It
// tells how many objects it has allocated, which the agent does not.
func gatewayChild(ctx context.Context, socket *os.File, args []string, stdout io.Writer) error {
	f := flag.NewFlagSet("floor gateway", flag.ContinueOnError)
	cert := f.String("cert", "", "PEM `FILE` of the certificate chain")
	key := f.String("key", "", "PEM `FILE` of its key")
	daemon := f.String("daemon", "", "`ADDRESS:PORT` of the NTP daemon")
	if err := parse(f, args, stdout); err != nil {
		return err
	}
	at, err := address("daemon", *daemon)
	if err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(*cert, *key)
	if err != nil {
		return fmt.Errorf("load the gateway's certificate: %w", err)
	}
	conn, err := takeUDP(socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	ring, err := cookie.Own{}.NewRing(rand.Reader)
	if err != nil {
		return err
	}
	mirror := gateway.NewMirror(gateway.MirrorConfig{Daemon: at})
	g, err := gateway.New(gateway.Config{Ring: func() *cookie.Ring { return ring }, Mirror: mirror})
	if err != nil {
		return err
	}
	ke, ln, err := childKE(pair, ring)
	if err != nil {
		return err
	}
	defer ln.Close()
	ask, err := net.FileConn(os.NewFile(inheritedAsk, "ask"))
	if err != nil {
		return fmt.Errorf("take over the gateway's socket: %w", err)
	}
	return together(ctx, mirror.Run,
		func(ctx context.Context) error { return g.Serve(ctx, conn) },
		func(ctx context.Context) error { return ke.Serve(ctx, ln) },
		func(ctx context.Context) error { return tellAllocations(ctx, ask) })
}

// childKE is a key exchange for cookies of the ring.
func childKE(pair tls.Certificate, ring *cookie.Ring) (*tcp.Server, net.Listener, error) {
	service, err := ntske.New(ntske.Config{
		Format: cookie.Own{}, Ring: func(context.Context) *cookie.Ring { return ring },
		Opens: func() []aead.ID { return cookie.Own{}.Carries() },
	})
	if err != nil {
		return nil, nil, err
	}
	s, err := tcp.New(tcp.Config{
		TLS:      ntske.TLSConfig(func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &pair, nil }),
		Services: map[string]tcp.Service{ntske.Protocol: service},
	})
	if err != nil {
		return nil, nil, err
	}
	ln, err := net.FileListener(os.NewFile(inheritedKE, "ke"))
	if err != nil {
		return nil, nil, fmt.Errorf("take over the gateway's socket: %w", err)
	}
	return s, ln, nil
}

// together runs all until one of them ends, then ends the others.
func together(ctx context.Context, all ...func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(all))
	var going sync.WaitGroup
	for i, run := range all {
		going.Go(func() {
			defer cancel()
			errs[i] = run(ctx)
		})
	}
	going.Wait()
	return errors.Join(errs...)
}

// tellAllocations answers every octet with the number of objects this program
// has allocated so far, on a line.
func tellAllocations(ctx context.Context, ask net.Conn) error {
	defer context.AfterFunc(ctx, func() { ask.Close() })()
	var octet [1]byte
	var m runtime.MemStats
	for {
		if _, err := io.ReadFull(ask, octet[:]); err != nil {
			return nil // nobody asks any more
		}
		runtime.ReadMemStats(&m)
		if _, err := fmt.Fprintln(ask, m.Mallocs); err != nil {
			return nil
		}
	}
}

// harness is a running gateway child.
type harness struct {
	server
	ask     net.Conn
	answers *bufio.Reader
}

// startHarness runs a gateway in front of the daemon.
func (s *servers) startHarness(ctx context.Context, daemon netip.AddrPort) (*harness, error) {
	udp, ntp, err := s.listenUDP()
	if err != nil {
		return nil, err
	}
	defer udp.Close()
	ke, at, err := s.listenTCP()
	if err != nil {
		return nil, err
	}
	defer ke.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make a socket to ask the gateway: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ask"), os.NewFile(uintptr(pair[1]), "ask")
	defer ours.Close()
	defer theirs.Close()
	h := &harness{server: server{ke: s.target(at), ntp: ntp}}
	if h.ask, err = net.FileConn(ours); err != nil {
		return nil, fmt.Errorf("make a socket to ask the gateway: %w", err)
	}
	h.answers = bufio.NewReader(h.ask)
	h.child, err = s.startFloor("gateway", []*os.File{udp, ke, theirs}, "--cert", s.id.cert, "--key", s.id.key, "--daemon", daemon.String())
	if err == nil {
		err = h.tellsTime(ctx)
	}
	if err != nil {
		h.close()
		return nil, err
	}
	return h, nil
}

// close ends it.
func (h *harness) close() {
	h.ask.Close()
	if h.child != nil {
		h.stop()
	}
}

// allocated is how many objects it has allocated so far.
func (h *harness) allocated() (int, error) {
	h.ask.SetDeadline(time.Now().Add(startMost))
	if _, err := h.ask.Write([]byte{'?'}); err != nil {
		return 0, fmt.Errorf("ask the gateway what it has allocated: %w", err)
	}
	line, err := h.answers.ReadString('\n')
	if err != nil {
		return 0, fmt.Errorf("ask the gateway what it has allocated: %w", err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		return 0, fmt.Errorf("ask the gateway what it has allocated: it says %q", line)
	}
	return n, nil
}
