package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"

	"ntsagent/agent/config"
	"ntsagent/agent/task"
	"ntsagent/ntske/client"
	"ntsagent/ntske/cookie"
	"ntsagent/ntske/gateway"
	"ntsagent/ntske/keyring"
)

// gatewayPart speaks NTS in front of a daemon that has none. Its sockets and
// what is known of the daemon outlive it: the next one takes them over.
type gatewayPart struct {
	conf   config.Gateway
	behind *behind
	server *gateway.Gateway
	before map[gateway.Outcome]uint64 // counted by those before; set when they have ended
	tasks  *task.Group
	socks  atomic.Pointer[sockets]
	kept   *sockets                       // those that were open before; may be nil
	mute   atomic.Pointer[netip.AddrPort] // where our last query got no answer; nil = it got one
	shut   atomic.Pointer[notOpen]        // why there are no sockets; nil = there are
	log    hclog.Logger
}

// behind is the daemon behind and who polls it.
type behind struct {
	*gateway.Mirror
	addr  netip.AddrPort
	tasks *task.Group
	log   hclog.Logger
	drift atomic.Pointer[drift] // nil = not looked at yet
}

// newGateway builds the part for cfg, or takes old's when nothing is new; nil for
// other kinds of daemons. Its sockets are open when it returns, those of old among
// them. A port that is taken fails a reload; at a start it is waited for.
func (a *agent) newGateway(ctx context.Context, old *parts, cfg *config.Config) (*gatewayPart, error) {
	if cfg.Daemon.Kind != config.KindGateway {
		return nil, nil
	}
	log := a.Log.Named("gateway")
	g := &gatewayPart{conf: cfg.Daemon.Gateway, tasks: task.NewGroup(a.Log), log: log}
	var held *sockets
	if old != nil {
		was := old.gateway
		if was.behind.addr == cfg.Daemon.Address && reflect.DeepEqual(was.conf, g.conf) {
			return was, nil
		}
		if was.behind.addr == cfg.Daemon.Address {
			g.behind = was.behind
		}
		held = was.socks.Load()
		g.kept = held
	}
	if g.behind == nil {
		g.behind = &behind{
			Mirror: gateway.NewMirror(gateway.MirrorConfig{Daemon: cfg.Daemon.Address, Log: log}),
			addr:   cfg.Daemon.Address, tasks: task.NewGroup(a.Log), log: log,
		}
	}
	rate := g.conf.Limits.PerPrefix
	limit := gateway.Limit{Burst: g.conf.Limits.Burst}
	if rate.Count > 0 {
		limit.Rate = float64(rate.Count) / rate.Per.Seconds()
	}
	mode, err := gateway.ParseMode(g.conf.Mode)
	if err != nil {
		return nil, err
	}
	g.server, err = gateway.New(gateway.Config{Ring: a.heldKeys, Mirror: g.behind.Mirror, Plain: g.conf.Plain, Limit: limit, Mode: mode})
	if err != nil {
		return nil, err
	}
	socks, err := openSockets(ctx, g.conf.Listen, held)
	switch {
	case err == nil:
		g.socks.Store(socks)
	case old == nil && waitable(err) && g.conf.Listen[0].Port() != 0:
		g.closed(err)
	default:
		return nil, err
	}
	return g, nil
}

// heldKeys are those the gateway opens cookies with, and mints under the last of.
func (a *agent) heldKeys() *cookie.Ring {
	if own, ok := a.parts.Load().keys.ring.(*keyring.Own); ok {
		return own.Held()
	}
	return nil
}

// closed notes why there are no sockets and says it once per reason.
func (g *gatewayPart) closed(err error) {
	why := &notOpen{err: err}
	errors.As(err, &why)
	if old := g.shut.Swap(why); old == nil || old.Error() != why.Error() {
		g.log.Warn("the gateway does not listen, trying again and again", "reason", err)
	}
}

// port is where clients find the gateway, as the key exchange announces it.
func (g *gatewayPart) port() uint16 {
	if s := g.socks.Load(); s != nil {
		return s.port
	}
	return g.conf.Listen[0].Port()
}

// shutAt says why the key exchange may not listen at addr: who exchanges keys by a
// family asks for the time by it, too. "" = it may. A family that the host lacks is
// no matter: nobody comes by it.
func (g *gatewayPart) shutAt(addr netip.Addr) string {
	if slices.ContainsFunc(g.conf.Listen, func(a netip.AddrPort) bool { return a.Addr().Unmap().Is4() == addr.Unmap().Is4() }) {
		return ""
	}
	name := "IPv6"
	if addr.Unmap().Is4() {
		name = "IPv4"
	}
	return fmt.Sprintf("%s: the gateway does not listen by it: add an address to daemon.gateway.listen, or take the %s addresses out of ke.listen", name, name)
}

// relieve ends the serving of old, which may be nil, and g goes on counting where
// that ended. What comes until g is started waits in the sockets.
func (g *gatewayPart) relieve(ctx context.Context, old *gatewayPart) {
	if old == nil || old.behind != g.behind {
		g.behind.start(ctx)
	}
	if old == nil {
		return
	}
	g.behind.known(ctx)
	_ = old.tasks.Stop()
	g.before = old.counts()
}

func (b *behind) start(ctx context.Context) {
	b.tasks.Go(ctx, task.Task{Name: "the daemon behind the gateway", Run: b.Run})
	b.tasks.Go(ctx, task.Task{Name: "the time of the daemon behind the gateway", Run: b.watch})
}

// known waits until the daemon has answered, for a while.
func (b *behind) known(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, answerWithin/2)
	defer cancel()
	for b.Condition() == gateway.Stale {
		if !pause(ctx, 5*time.Millisecond) {
			return false
		}
	}
	return true
}

// start serves. What old, which may be nil, leaves over is closed.
func (g *gatewayPart) start(ctx context.Context, old *gatewayPart) {
	g.tasks.Go(ctx, task.Task{Name: "gateway", Run: g.serve})
	if old != nil {
		old.release(g)
	}
}

// listenAgain is how long after a failure the sockets are opened again.
const listenAgain = time.Second

func (g *gatewayPart) serve(ctx context.Context) error {
	for g.socks.Load() == nil {
		if !pause(ctx, listenAgain) {
			return nil
		}
		s, err := openSockets(ctx, g.conf.Listen, nil)
		if err != nil {
			g.closed(err)
			continue
		}
		g.socks.Store(s)
		g.shut.Store(nil)
	}
	s := g.socks.Load()
	for _, at := range s.addresses() {
		log := g.log.Info
		if _, kept := g.kept.find(at); kept { // which has been said
			log = g.log.Debug
		}
		log("listening", "for", "ntp", "address", at.String(), "daemon", g.behind.addr.String())
	}
	return g.server.Serve(ctx, s.all()...)
}

// release ends what g holds and next has not.
func (g *gatewayPart) release(next *gatewayPart) {
	if next == nil || next.behind != g.behind {
		_ = g.behind.tasks.Stop()
	}
	var kept *sockets
	if next != nil {
		kept = next.socks.Load()
	}
	g.socks.Load().closeBut(kept)
}

// discard closes the sockets of a part that was never started and that old, which
// may be nil, has not.
func (g *gatewayPart) discard(old *parts) {
	var kept *sockets
	if old != nil {
		kept = old.gateway.socks.Load()
	}
	g.socks.Load().closeBut(kept)
}

// stop ends the part for good.
func (g *gatewayPart) stop() error {
	err := g.tasks.Stop()
	g.release(nil)
	return err
}

// ask sends one NTS query to the gateway at each of its addresses. All that can
// be reached from here have to answer.
func (g *gatewayPart) ask(ctx context.Context, c []byte, s *cookie.Session, seen func(client.Reply)) keyring.Answer {
	if !g.behind.known(ctx) {
		return keyring.Silent
	}
	answer := keyring.Silent
	g.mute.Store(nil)
	for _, at := range g.socks.Load().addresses() {
		at = ofThisHost(at)
		reply, err := client.Query(ctx, at, client.Keys{AEAD: s.AEAD, C2S: s.C2S, S2C: s.S2C}, c, 0)
		switch {
		case err == nil:
			seen(reply)
			answer = keyring.Answered
		case errors.Is(err, client.ErrNAK):
			return keyring.Refused
		case unavailable(err) || errors.Is(err, syscall.ENETUNREACH):
			// a family that this host has no address of
		default:
			g.mute.Store(&at)
			return keyring.Silent
		}
	}
	return answer
}

// ofThisHost is where what listens at an address is asked from this host.
func ofThisHost(at netip.AddrPort) netip.AddrPort {
	switch at.Addr() {
	case netip.IPv6Unspecified():
		return netip.AddrPortFrom(netip.IPv6Loopback(), at.Port())
	case netip.IPv4Unspecified():
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), at.Port())
	}
	return at
}

// counts is what became of the datagrams so far.
func (g *gatewayPart) counts() map[gateway.Outcome]uint64 {
	all := g.server.Counts()
	for o, n := range g.before {
		all[o] += n
	}
	return all
}

// tell calls look whenever the daemon behind comes or goes.
func (g *gatewayPart) tell(ctx context.Context, look func()) error {
	for was := g.behind.Condition() == gateway.Stale; pause(ctx, 250*time.Millisecond); {
		if is := g.behind.Condition() == gateway.Stale; is != was {
			was = is
			look()
		}
	}
	return nil
}
