package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"syscall"

	"ntsagent/ntske/gateway"
)

// sockets are those of the gateway: one for each core at each address, so that
// cores do not wait for each other. They do not change.
type sockets struct {
	asked []netip.AddrPort
	port  uint16 // of all
	at    []bound
}

// bound is the sockets at one address.
type bound struct {
	addr  netip.AddrPort // the actual one
	conns []*net.UDPConn
}

// openSockets opens those at the addresses, or takes them from held, which may be
// nil and stays as it is. Port 0 is one that the kernel chooses, the same at all,
// and that of held when it was asked for the same. A family that the host lacks
// is left out.
func openSockets(ctx context.Context, asked []netip.AddrPort, held *sockets) (*sockets, error) {
	for try := 1; ; try++ {
		s, err := openSocketsOnce(ctx, asked, held)
		if err == nil || !errors.Is(err, syscall.EADDRINUSE) || asked[0].Port() != 0 || try == portTries {
			return s, err
		}
	}
}

func openSocketsOnce(ctx context.Context, asked []netip.AddrPort, held *sockets) (*sockets, error) {
	s := &sockets{asked: asked}
	if held != nil && slices.Equal(held.asked, asked) {
		s.port = held.port
	}
	var missing error
	for _, a := range asked {
		if a.Port() == 0 {
			a = netip.AddrPortFrom(a.Addr(), s.port)
		}
		if b, ok := held.find(a); ok {
			s.add(b)
			continue
		}
		conns, err := gateway.Listen(ctx, a, runtime.NumCPU())
		if unavailable(err) && a.Addr().IsUnspecified() && len(asked) > 1 {
			missing = &notOpen{a, err} // a host without IPv6 serves IPv4, and the other way round
			continue
		}
		if err != nil {
			s.closeBut(held)
			return nil, &notOpen{a, fmt.Errorf("%w%s", err, socketHint(err, a, held))}
		}
		s.add(bound{conns[0].LocalAddr().(*net.UDPAddr).AddrPort(), conns})
	}
	if len(s.at) == 0 {
		return nil, missing
	}
	return s, nil
}

// notOpen is why sockets are not opened: of all addresses because of one.
type notOpen struct {
	at  netip.AddrPort
	err error
}

func (e *notOpen) Error() string { return e.err.Error() }
func (e *notOpen) Unwrap() error { return e.err }

// reasonAt is why the address a is closed.
func (e *notOpen) reasonAt(a netip.AddrPort) string {
	if a == e.at {
		return e.Error()
	}
	return "it waits for " + e.at.String()
}

func (s *sockets) add(b bound) {
	s.at = append(s.at, b)
	s.port = b.addr.Port()
}

func (s *sockets) find(a netip.AddrPort) (bound, bool) {
	if s != nil {
		for _, b := range s.at {
			if b.addr == a {
				return b, true
			}
		}
	}
	return bound{}, false
}

// addresses are where s listens; nil has none.
func (s *sockets) addresses() (out []netip.AddrPort) {
	if s != nil {
		for _, b := range s.at {
			out = append(out, b.addr)
		}
	}
	return out
}

func (s *sockets) all() (out []*net.UDPConn) {
	for _, b := range s.at {
		out = append(out, b.conns...)
	}
	return out
}

// closeBut closes the sockets that kept has not. Either may be nil.
func (s *sockets) closeBut(kept *sockets) {
	if s == nil {
		return
	}
	for _, b := range s.at {
		if k, ok := kept.find(b.addr); ok && k.conns[0] == b.conns[0] {
			continue
		}
		for _, c := range b.conns {
			_ = c.Close()
		}
	}
}

// waitable says whether the operator can mend err while we run.
func waitable(err error) bool {
	return errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EACCES)
}

func socketHint(err error, a netip.AddrPort, held *sockets) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE) && held != nil && held.port == a.Port():
		return "; the gateway itself holds that port at another address: that change takes a restart"
	case errors.Is(err, syscall.EADDRINUSE):
		return "; another program holds that port: `ss -lunp` names it, or set daemon.gateway.listen"
	case errors.Is(err, syscall.EACCES):
		return "; ports below 1024 need CAP_NET_BIND_SERVICE"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "; no interface of this host has that address"
	}
	return ""
}
