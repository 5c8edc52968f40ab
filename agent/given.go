package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"ntsagent/agent/config"
	"ntsagent/agent/status"
	"ntsagent/agent/task"
)

// A given socket is one that the service manager has opened, and holds as well:
// it outlives the process, so that nobody is refused while there is none, and
// takes the place of the addresses in the configuration. It cannot be closed.
// Where another one would be closed, who comes is hung up on before an octet is
// said. Nobody takes that for an answer, and to a client of NTS it is as good as
// a refusal: chronyd asks again after 17 s and 52 s, whichever of the two it met.
type given struct {
	*net.TCPListener
	at     []netip.AddrPort // IPv6's first where it takes both families
	idle   sync.WaitGroup   // who hangs up
	cancel func()           // ends idle; nil while the socket is served
}

// givenNames are the purposes that a socket can be given for.
var givenNames = []string{status.ServiceKE, status.ServiceHTTP01, status.ServiceTLSALPN01}

// takeGiven sorts the sockets by purpose and says, one line each, what is wrong
// with the others.
func takeGiven(in task.Inherited) (by map[string][]*given, problems []string) {
	by = map[string][]*given{}
	if in.Problem != nil {
		problems = append(problems, in.Problem.Error())
	}
	var seen []netip.AddrPort
	for _, s := range in.Sockets {
		g, err := newGiven(s)
		switch {
		case s.Name == status.ServiceNTP:
			problems = append(problems, fmt.Sprintf("socket %q (descriptor %d) is not used: the gateway opens daemon.gateway.listen itself, one socket for each core; disable the .socket unit", s.Name, s.FD))
			continue
		case err != nil:
			problems = append(problems, fmt.Sprintf("socket %.40q (descriptor %d) %v", s.Name, s.FD, err))
			continue
		case !slices.Contains(givenNames, s.Name):
			problems = append(problems, fmt.Sprintf("socket %.40q at %s is for nothing known here: set FileDescriptorName= in its .socket unit to one of %s",
				s.Name, g.Addr(), strings.Join(givenNames, ", ")))
		case slices.Contains(seen, g.at[0]):
			problems = append(problems, fmt.Sprintf("socket %.40q at %s is there twice: have one ListenStream= for it and no ReusePort=", s.Name, g.Addr()))
		default:
			seen = append(seen, g.at...)
			by[s.Name] = append(by[s.Name], g)
			continue
		}
		_ = g.TCPListener.Close() // the service manager's own stays open
	}
	return by, problems
}

func sayGiven(log hclog.Logger, by map[string][]*given, problems []string) {
	for _, p := range problems {
		log.Warn("a socket of the service manager is not used", "cause", p)
	}
	for _, purpose := range givenNames {
		for _, g := range by[purpose] {
			log.Info("a socket of the service manager takes the place of the configuration's addresses", "for", purpose, "address", g.Addr().String())
		}
	}
}

// newGiven looks at a socket before anything relies on it.
func newGiven(s task.Socket) (*given, error) {
	option := func(level, name int) int {
		v, err := unix.GetsockoptInt(s.FD, level, name)
		if err != nil {
			return -1
		}
		return v
	}
	domain := option(unix.SOL_SOCKET, unix.SO_DOMAIN)
	switch {
	case option(unix.SOL_SOCKET, unix.SO_TYPE) != unix.SOCK_STREAM, domain != unix.AF_INET && domain != unix.AF_INET6:
		return nil, errors.New("is no TCP socket: have a port, or an address and a port, behind ListenStream= in its .socket unit")
	case option(unix.SOL_SOCKET, unix.SO_ACCEPTCONN) != 1:
		return nil, errors.New("does not listen: set Accept=no in its .socket unit")
	}
	f := os.NewFile(uintptr(s.FD), s.Name)
	defer f.Close() // the listener has a copy
	ln, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("cannot be used: %w", err)
	}
	tcp, ok := ln.(*net.TCPListener)
	if !ok {
		return nil, errors.Join(fmt.Errorf("cannot be used: it is a %T", ln), ln.Close())
	}
	at := tcp.Addr().(*net.TCPAddr).AddrPort()
	g := &given{TCPListener: tcp, at: []netip.AddrPort{at}}
	if v6only := option(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY); domain == unix.AF_INET6 && at.Addr().IsUnspecified() && v6only == 0 {
		g.at = append(g.at, netip.AddrPortFrom(netip.IPv4Unspecified(), at.Port()))
	}
	return g, nil
}

// instead puts the addresses of the given sockets in the place of cfg's.
func instead(cfg *config.Config, by map[string][]*given) *config.Config {
	c := *cfg
	for purpose, list := range map[string]*[]netip.AddrPort{
		status.ServiceKE: &c.KE.Listen, status.ServiceHTTP01: &c.ACME.HTTP01.Listen, status.ServiceTLSALPN01: &c.ACME.TLSALPN01.Listen,
	} {
		if len(by[purpose]) > 0 {
			*list = addressesOf(by[purpose])
		}
	}
	return &c
}

func addressesOf(all []*given) (out []netip.AddrPort) {
	for _, g := range all {
		out = append(out, g.at...)
	}
	return out
}

// misfits says of each purpose whose given sockets do not fit cfg what to do about
// it: it has no use for them, or would not have had them where they are.
func misfits(cfg *config.Config, by map[string][]*given) (out []string) {
	for _, purpose := range givenNames {
		wanted := slices.ContainsFunc(doorsOf(cfg), func(w wanted) bool { return w.purpose == purpose && len(w.asked) > 0 })
		if len(by[purpose]) > 0 && !wanted {
			out = append(out, fmt.Sprintf("systemd holds a socket for %s at %s, for which this configuration has no use, and who comes there is hung up on: disable its .socket unit",
				purpose, by[purpose][0].Addr()))
		}
		behind := purpose == status.ServiceHTTP01 && cfg.ACME.HTTP01.Mode == config.HTTP01Proxy ||
			purpose == status.ServiceTLSALPN01 && cfg.ACME.TLSALPN01.Mode == config.TLSALPN01Proxy
		at := addressesOf(by[purpose])
		open := slices.IndexFunc(at, func(at netip.AddrPort) bool { return !at.Addr().Unmap().IsLoopback() })
		if wanted && behind && open >= 0 {
			out = append(out, fmt.Sprintf("systemd holds a socket for %s at %s, which is open to others, and with mode: proxy somebody comes in between: "+
				"have ListenStream= of its .socket unit name a loopback address, where he finds the agent", purpose, at[open]))
		}
	}
	return out
}

// restAfter is how long newcomers wait in a given socket that is not served: an
// agent that starts again beside the same daemon needs less, and clients of NTS
// wait longer.
const restAfter = 2 * time.Second

// rest has nobody served until wake.
func (g *given) rest() {
	if g.cancel != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	g.cancel = cancel
	g.idle.Go(func() {
		for pause(ctx, restAfter) {
			g.hangUp(ctx)
		}
	})
}

// hangUp hangs up on newcomers until ctx is done or accepting fails: whoever
// served before may still be ending, or there are no descriptors.
func (g *given) hangUp(ctx context.Context) {
	for ctx.Err() == nil {
		c, err := g.AcceptTCP()
		if err != nil {
			return
		}
		turnAway(c)
	}
}

// turnAway hangs up on c by a reset, which leaves nothing behind.
func turnAway(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}

// wake ends rest.
func (g *given) wake() {
	if g.cancel == nil {
		return
	}
	g.cancel()
	_ = g.SetDeadline(time.Unix(1, 0)) // Accept returns
	g.idle.Wait()
	_ = g.SetDeadline(time.Time{})
	g.cancel = nil
}

// serving is what g serves at those of its addresses that are in use, nil if none is.
func (g *given) serving(use []netip.AddrPort) net.Listener {
	var at []netip.AddrPort
	for _, a := range g.at {
		if slices.Contains(use, a) {
			at = append(at, a)
		}
	}
	switch {
	case len(at) == 0:
		return nil
	case len(at) < len(g.at):
		return half{g.TCPListener, at[0]}
	}
	return g.TCPListener
}

// half is one family of a socket that takes both.
type half struct {
	*net.TCPListener
	at netip.AddrPort
}

func (h half) Addr() net.Addr { return net.TCPAddrFromAddrPort(h.at) }

func (h half) Accept() (net.Conn, error) {
	for {
		c, err := h.AcceptTCP()
		if err != nil {
			return nil, err
		}
		if c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap().Is4() == h.at.Addr().Is4() {
			return c, nil
		}
		turnAway(c)
	}
}
