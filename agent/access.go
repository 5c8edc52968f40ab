package agent

import (
	"context"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"ntsagent/agent/config"
	"ntsagent/agent/daemon"
)

// access is whom the daemon serves, as far as its configuration tells. To others
// a cookie is of no use.
type access struct {
	path string // chrony.conf; "" = nothing is read
	log  hclog.Logger
	list atomic.Pointer[daemon.Access] // nil = everybody
	told string                        // the last word in the log; for read alone
}

// newAccess makes that of a chronyd whose configuration is t's.
func newAccess(t daemon.Target, log hclog.Logger) *access {
	a := &access{path: t.ConfigFile, log: log}
	a.take(t.Conf, t.ConfErr)
	return a
}

func (a *access) take(conf daemon.Chrony, err error) {
	why := "it follows chrony's allow and deny lines"
	switch {
	case err != nil:
		a.list.Store(nil)
		why = "it is open to everybody, for " + a.path + " cannot be read: " + err.Error()
	case conf.Access.Unclear != "":
		a.list.Store(nil)
		why = "it is open to everybody, for only chronyd can tell what `" + conf.Access.Unclear + "` means"
	default:
		a.list.Store(&conf.Access)
	}
	if a.told != why {
		a.told = why
		a.log.Info("whom the key exchange serves where ke.allow is auto", "cause", why)
	}
}

// reread is how often the configuration is looked at: chronyd, which reads it at
// its start, may start unseen.
const reread = time.Minute

// run reads the configuration again and again until ctx is done, and at once when
// chronyd has started.
func (a *access) run(ctx context.Context, started <-chan struct{}) error {
	for {
		select {
		case <-time.After(reread):
		case <-started:
		case <-ctx.Done():
			return nil
		}
		a.take(daemon.ReadChrony(a.path))
	}
}

// allows says whether addr is served by the daemon as far as anybody knows.
func (a *access) allows(addr netip.Addr) bool {
	if a == nil {
		return true
	}
	list := a.list.Load()
	return list == nil || list.Allows(addr)
}

// allowed says who may exchange keys: this host, and by ke.allow those listed or,
// with auto, those whom the daemon serves. A daemon elsewhere has a list of its own.
func (a *agent) allowed(addr netip.Addr) bool {
	p := a.parts.Load()
	return addr.IsLoopback() || mayExchange(p.cfg.KE, p.keys.access, addr)
}

func mayExchange(ke config.KE, daemons *access, addr netip.Addr) bool {
	switch {
	case ke.Allow != nil:
		return slices.ContainsFunc(ke.Allow, func(p netip.Prefix) bool { return p.Contains(addr) })
	case ke.NTP.Host != "":
		return true
	}
	return daemons.allows(addr)
}

// decides is who decides who may exchange keys; "" = everybody may.
func (p *parts) decides() string {
	switch ke := p.cfg.KE; {
	case ke.Allow != nil:
		return "ke.allow"
	case ke.NTP.Host != "" || p.keys.access == nil || p.keys.access.list.Load() == nil:
		return ""
	}
	return "chrony's access list"
}
