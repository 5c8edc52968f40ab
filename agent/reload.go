package agent

import (
	"context"
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"ntsagent/agent/config"
	"ntsagent/agent/daemon"
	"ntsagent/agent/task"
)

// reload is one wish to read the configuration again.
type reload struct{ done chan error }

// reloadOutcome is how the last reload went.
type reloadOutcome struct {
	ok  time.Time // when the configuration in effect was taken
	err string    // why the last reload changed nothing, or ""
	// doubt is who else could change the file of the configuration in effect, or "".
	doubt string
}

// parts is what one configuration amounts to. It never changes; a reload makes
// a new one that keeps every part whose configuration is the same.
type parts struct {
	cfg    *config.Config // with a kind of daemon in place of auto
	chosen *choice        // how auto was decided; nil = the file names the kind
	target daemon.Target  // as chrony.conf, if any, said when the keys part was built
	certs  *certs
	keys   *keys
	ke     *ke // nil where the daemon exchanges keys itself
	// exports are the copies of certificates for others.
	exports  *exports
	warnings []string // of what cfg says and may not mean
	// gateway answers clients for a daemon without NTS; nil for one that has it.
	gateway *gatewayPart
}

// ntp is where clients find the NTP server: its port counts.
func (p *parts) ntp() netip.AddrPort {
	if p.gateway != nil {
		return netip.AddrPortFrom(p.target.Addr.Addr(), p.gateway.port())
	}
	return p.target.Addr
}

// stop ends the parts; key exchanges that have begun are finished first, which
// takes no longer than their deadline. Newcomers are not heard meanwhile, or wait
// for the next agent in a given socket: to be let in and not served would cost
// them more.
func (p *parts) stop() error {
	var err error
	if p.ke != nil {
		err = errors.Join(p.ke.tasks.Stop(), p.ke.end())
	}
	err = errors.Join(err, p.exports.tasks.Stop(), p.certs.stop(), p.keys.tasks.Stop())
	if p.gateway != nil {
		err = errors.Join(err, p.gateway.stop())
	}
	return err
}

// askReload hands a wish to the main loop and waits for its outcome.
func (a *agent) askReload(ctx context.Context) error {
	r := reload{done: make(chan error, 1)}
	select {
	case a.reloads <- r:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-r.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// reload reads the configuration again. A bad one changes nothing and says so.
func (a *agent) reload(ctx context.Context) error {
	_ = task.NotifyReloading("reading the configuration")
	defer func() { _ = task.NotifyReady("serving") }()
	cfg, doubt, err := LoadConfig(a.ConfigPath)
	if err == nil {
		err = a.exchange(ctx, cfg)
	}
	before := a.outcome.Load()
	if err != nil {
		a.outcome.Store(&reloadOutcome{ok: before.ok, doubt: before.doubt, err: err.Error()})
		a.events.Add(time.Now(), "reload: "+err.Error())
		a.Log.Error("configuration not changed", "cause", err)
		return err
	}
	a.took(&reloadOutcome{ok: time.Now(), doubt: doubt})
	a.Log.Info("configuration reloaded", "config", a.ConfigPath)
	return nil
}

// exchange puts cfg into effect. On an error all goes on as it was: what can
// fail is done before anything that runs is touched, the cookie keys apart (see
// exchangeKeys).
func (a *agent) exchange(ctx context.Context, cfg *config.Config) error {
	old := a.parts.Load()
	var before *choice
	if old != nil {
		before = old.chosen
	}
	cfg, chosen, err := a.resolve(ctx, cfg, before)
	if err != nil {
		return err
	}
	cfg = instead(cfg, a.book.given)
	if old != nil {
		if err := needsRestart(a.ConfigPath, old.cfg, cfg); err != nil {
			return err
		}
		if err := a.reserve(ctx, cfg); err != nil {
			return err
		}
		defer a.book.release()
	}
	next, err := a.build(ctx, old, cfg)
	if err != nil {
		return err
	}
	next.chosen = chosen
	a.swap(ctx, old, next)
	return nil
}

// swap stops the parts of old that next has not, and starts those that are new.
// The key exchange comes last: it looks up certificates and keys at each client,
// and its own successor takes the sockets over from it without a gap.
func (a *agent) swap(ctx context.Context, old, next *parts) {
	certs, keys, ke := old == nil || old.certs != next.certs, old == nil || old.keys != next.keys, old == nil || old.ke != next.ke
	if old != nil && certs {
		_ = old.certs.tasks.Stop()
	}
	var before *gatewayPart
	if old != nil {
		before = old.gateway
	}
	exchanged := before != next.gateway
	if exchanged {
		next.gateway.relieve(ctx, before)
	}
	a.parts.Store(next)
	if exchanged {
		next.gateway.start(ctx, before)
	}
	if keys {
		next.keys.start(ctx)
	}
	if certs {
		next.certs.start(ctx)
	}
	if old == nil || old.exports != next.exports {
		if old != nil {
			_ = old.exports.tasks.Stop()
		}
		removeLeft(next.cfg)
		next.exports.start(ctx)
	}
	if old != nil && ke && old.ke != nil {
		_ = old.ke.tasks.Stop()
	}
	a.book.keep(doorsOf(next.cfg))
	if ke && next.ke != nil {
		next.ke.start(ctx)
	}
}

// build makes the parts for cfg and starts none of them. Old parts whose
// configuration is the same are taken over.
func (a *agent) build(ctx context.Context, old *parts, cfg *config.Config) (_ *parts, err error) {
	next := &parts{cfg: cfg, warnings: append(cfg.Warnings(config.ThisHost()), misfits(cfg, a.book.given)...)}
	for _, w := range next.warnings {
		if old == nil || !slices.Contains(old.warnings, w) {
			a.Log.Warn("the configuration may not be meant so", "cause", w)
		}
	}
	if old != nil && sameCertificates(old.cfg, cfg) {
		next.certs = old.certs
	} else if next.certs, err = a.newCerts(ctx, old, cfg); err != nil {
		return nil, err
	}
	if next.exports, err = a.newExports(old, cfg); err != nil {
		return nil, err
	}
	next.target = a.target(cfg)
	if next.gateway, err = a.newGateway(ctx, old, cfg); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil && next.gateway != nil && (old == nil || old.gateway != next.gateway) {
			next.gateway.discard(old)
		}
	}()
	keep := old != nil && sameKeys(old, next)
	if old != nil && old.ntp() == next.ntp() && reflect.DeepEqual(old.cfg.KE, cfg.KE) {
		next.ke = old.ke
	} else if cfg.Daemon.ServesKE() {
		next.ke = nil
	} else if next.ke, err = a.newKE(cfg, next.ntp()); err != nil {
		return nil, err
	}
	if keep {
		next.keys = old.keys
	} else if next.keys, err = a.exchangeKeys(ctx, old, next); err != nil {
		return nil, err
	}
	return next, nil
}

// exchangeKeys builds the keys for next, last of all parts. The old ones are
// stopped first: a rotation between our reading the key file and their end would
// leave us to make another key under the number of one that is out already.
// Clients are served on meanwhile, and if it fails the old ones go on.
func (a *agent) exchangeKeys(ctx context.Context, old, next *parts) (*keys, error) {
	if old == nil {
		if !next.cfg.Daemon.Follows() && !next.cfg.Daemon.ServesKE() {
			if err := makeKeyFolders(next.cfg); err != nil {
				return nil, err
			}
		}
		return a.newKeys(next.cfg, next.target, nil)
	}
	err := old.keys.tasks.Stop()
	if err == nil {
		var k *keys
		if k, err = a.newKeys(next.cfg, next.target, old); err == nil {
			return k, nil
		}
	}
	old.keys.start(ctx)
	return nil, err
}

func sameCertificates(old, cfg *config.Config) bool {
	return reflect.DeepEqual(old.Names, cfg.Names) && reflect.DeepEqual(old.ACME, cfg.ACME) &&
		reflect.DeepEqual(old.Certificate, cfg.Certificate)
}

func sameKeys(old, next *parts) bool {
	return reflect.DeepEqual(old.cfg.Daemon, next.cfg.Daemon) && reflect.DeepEqual(old.cfg.Keys, next.cfg.Keys) &&
		old.cfg.Observe.SelfCheck == next.cfg.Observe.SelfCheck && old.target.Spacing == next.target.Spacing
}

// needsRestart names what a running process cannot exchange. That is a matter
// of the configuration: trying again does not help.
func needsRestart(path string, old, cfg *config.Config) error {
	for _, k := range []struct {
		key  string
		same bool
	}{
		{"state_dir", old.StateDir == cfg.StateDir},
		{"observe.socket", old.Observe.Socket == cfg.Observe.Socket},
		{"log", old.Log == cfg.Log},
		{"daemon.mode", old.Daemon.Mode == cfg.Daemon.Mode},
		{"daemon.kind", formatOf(old.Daemon) == formatOf(cfg.Daemon)},
	} {
		if !k.same {
			return &config.Error{File: path, Key: k.key, Problem: "has changed, which takes a restart",
				Hint: "restart the agent, or put the old value back"}
		}
	}
	return nil
}

// reserve opens the addresses that cfg adds to what listens now, so that a port
// that is taken is found while the old configuration still serves.
func (a *agent) reserve(ctx context.Context, cfg *config.Config) error {
	// The closed ones first: what is only tried is released again.
	for _, closed := range []bool{true, false} {
		for _, d := range doorsOf(cfg) {
			if closed != (len(a.book.addresses(d.purpose)) == 0) {
				continue
			}
			if err := a.book.reserve(ctx, d.asked); err != nil {
				a.book.release()
				return err
			}
		}
		if closed {
			a.book.release() // closed for a reason: nobody may wait before a closed door
		}
	}
	return nil
}
