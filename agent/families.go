package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"

	"ntsagent/agent/config"
	"ntsagent/agent/daemon"
	"ntsagent/agent/task"
	"ntsagent/ntske/cookie"
	"ntsagent/ntske/keyring"
)

// families finds out whether the daemon answers by the IP family that its keys
// are not proven by. A client asks for the time by the family it has exchanged
// keys by, so where the daemon is silent no cookies may be handed out.
type families struct {
	other   netip.AddrPort // where the daemon should answer too; zero = cannot be known, and is not asked
	fix     string         // what to do where it does not
	format  cookie.Format
	await   func(context.Context) *cookie.Ring // keys that are proven, or nil when ctx is done
	ask     proveFunc                          // at other
	control proveFunc                          // where the keys are proven
	every   time.Duration
	spacing time.Duration
	rand    io.Reader
	log     hclog.Logger
	changed func()
	wake    chan struct{} // the daemon has started; capacity 1
	state   *atomic.Pointer[familyState]
}

// familyState is what is known of the other family; nil = nothing yet.
type familyState struct {
	addr    netip.AddrPort
	answers bool
	absent  bool // this host has no such family: nobody comes by it
}

// familySilences is how many queries in a row must go unanswered, each beside one
// that is answered by the first family, until a family that has answered counts as
// silent. One that has not is asked a few times soon.
const familySilences = 3

// otherFamily is where a daemon at addr should answer by the other IP family:
// bound, if its configuration says one, else the loopback address beside a
// loopback address. A zero one says that nobody can know.
func otherFamily(addr netip.AddrPort, bound netip.Addr) netip.AddrPort {
	switch {
	case bound.IsValid() && !bound.IsUnspecified():
		return netip.AddrPortFrom(bound, addr.Port())
	case !addr.Addr().IsLoopback():
		return netip.AddrPort{}
	case addr.Addr().Is4():
		return netip.AddrPortFrom(netip.IPv6Loopback(), addr.Port())
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), addr.Port())
}

// addFamilies has k find out about the other family. What is known of the same
// address stays so. bound is where the daemon's configuration binds it; zero =
// anywhere.
func (a *agent) addFamilies(k *keys, old *parts, bound netip.Addr) {
	o := k.others
	f := &families{
		other: otherFamily(k.address, bound), format: o.format, await: o.await, control: o.prove, every: o.every, spacing: o.spacing,
		rand: o.rand, log: o.log, changed: a.knock, wake: make(chan struct{}, 1), state: new(atomic.Pointer[familyState]),
	}
	f.fix = fixOf(k.kind, f.other)
	f.ask = daemon.Prove(f.other, nil)
	if old != nil && old.keys.families != nil {
		f.state = old.keys.families.state // which says of what address it is
	}
	k.families = f
	k.beside = append(k.beside, task.Task{Name: "the daemon's families", Run: f.run, Policy: task.Once})
}

// shut says why the key exchange may not listen at addr; "" = it may.
func (f *families) shut(addr netip.Addr) string {
	if f == nil || !f.other.IsValid() || addr.Unmap().Is4() != f.other.Addr().Is4() {
		return ""
	}
	name := "IPv6"
	if f.other.Addr().Is4() {
		name = "IPv4"
	}
	switch s := f.state.Load(); {
	case s == nil || s.addr != f.other:
		return fmt.Sprintf("%s: the daemon has not answered on %s yet", name, f.other)
	case s.answers || s.absent:
		return ""
	}
	return fmt.Sprintf("%s: the daemon does not answer on %s: %s, or take the %s addresses out of ke.listen", name, f.other, f.fix, name)
}

// look says that the daemon has started.
func (f *families) look() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// run asks again and again until ctx is done.
func (f *families) run(ctx context.Context) error {
	if !f.other.IsValid() {
		return nil
	}
	for silent := 0; ; {
		ring := f.await(ctx)
		if ring == nil {
			return nil
		}
		answers, beside, err := f.round(ctx, ring.Current())
		if err != nil {
			return err
		}
		s := f.state.Load()
		known := s != nil && s.addr == f.other
		switch {
		case answers:
			silent = 0
			f.note(familyState{addr: f.other, answers: true})
		case absent(f.other):
			f.note(familyState{addr: f.other, absent: true})
		case !beside:
			silent = 0
		default:
			if silent++; silent >= familySilences {
				f.note(familyState{addr: f.other})
			}
		}
		in := f.every
		if !answers && beside && silent < familySilences || !known {
			in = min(f.every, max(f.spacing, time.Second))
		}
		select {
		case <-time.After(in):
		case <-f.wake:
			silent = 0
		case <-ctx.Done():
			return nil
		}
	}
}

// round asks by the other family and, where that is silent, by the first.
func (f *families) round(ctx context.Context, key *cookie.Key) (answers, beside bool, err error) {
	a, err := askWith(ctx, f.format, f.rand, f.ask, key, f.format.AEADs()[0])
	if err != nil || a == keyring.Answered || !pause(ctx, f.spacing) {
		return a == keyring.Answered, false, err
	}
	a, err = askWith(ctx, f.format, f.rand, f.control, key, f.format.AEADs()[0])
	return false, a == keyring.Answered, err
}

func (f *families) note(s familyState) {
	if old := f.state.Swap(&s); old != nil && *old == s {
		return
	}
	f.log.Info("asked the daemon by its other family", "address", s.addr.String(), "answers", s.answers)
	f.changed()
}

// absent tells that this host has no such address, or no such family at all.
func absent(addr netip.AddrPort) bool {
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr.Addr(), 0)))
	if err == nil {
		c.Close()
	}
	return errors.Is(err, syscall.EAFNOSUPPORT) || errors.Is(err, syscall.EADDRNOTAVAIL)
}

// fixOf says what makes a daemon answer by a family.
func fixOf(kind string, other netip.AddrPort) string {
	switch kind {
	case config.KindChrony:
		return fmt.Sprintf("see that its configuration has `allow %s` and no `bindaddress` elsewhere, and that chronyd is not told to serve one family", other.Addr())
	case config.KindNTPDRS:
		return fmt.Sprintf("add a [[server]] with `listen = %q` to ntp.toml", netip.AddrPortFrom(unspecified(other.Addr()), other.Port()))
	}
	return "see that it listens there and that no `restrict` or `interface` line keeps this host out"
}

func unspecified(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// shutAt says why the key exchange may not listen at an address now. Where
// clients are sent elsewhere for the time, that is no matter of their own family.
func (a *agent) shutAt(addr netip.AddrPort) string {
	p := a.parts.Load()
	if p.cfg.KE.NTP.Host != "" {
		return ""
	}
	if p.gateway != nil {
		return p.gateway.shutAt(addr.Addr())
	}
	return p.keys.families.shut(addr.Addr())
}
