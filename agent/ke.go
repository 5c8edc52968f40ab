package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"ntsagent/agent/config"
	"ntsagent/agent/daemon"
	"ntsagent/agent/status"
	"ntsagent/agent/task"
	"ntsagent/ntske"
	"ntsagent/ntske/aead"
	"ntsagent/ntske/cookie"
	"ntsagent/ntske/tcp"
)

// ntpPort needs no announcement (RFC 8915 section 4.1.8).
const ntpPort = 123

// doubt is how long newcomers are let in while there are no keys: a daemon that
// has just started is asked for milliseconds, and they wait (see cookieKeys).
const doubt = 300 * time.Millisecond

// ke serves the key exchange.
type ke struct {
	tasks  *task.Group
	server *tcp.Server
	door   *door
}

func (a *agent) newKE(cfg *config.Config, ntp netip.AddrPort) (*ke, error) {
	port := cfg.KE.NTP.Port
	if port == 0 && ntp.Port() != ntpPort {
		port = ntp.Port()
	}
	exchange, err := ntske.New(ntske.Config{
		Ring:    a.cookieKeys,
		Format:  formatOf(cfg.Daemon),
		Opens:   func() []aead.ID { return offered(cfg.KE.AEADs, a.parts.Load().keys.opens()) },
		Cookies: cfg.KE.Cookies, NTPHost: cfg.KE.NTP.Host, NTPPort: port,
		Observe: a.observeKE(cfg.KE.Timeout), Log: a.Log.Named("ke"),
	})
	if err != nil {
		return nil, err
	}
	server, err := tcp.New(tcp.Config{
		TLS: ntske.TLSConfig(a.certificate), Services: map[string]tcp.Service{ntske.Protocol: exchange},
		Timeout: cfg.KE.Timeout, MaxConns: cfg.KE.MaxSessions, Allow: a.allowed, Observe: a.observeTCP, Log: a.Log.Named("ke"),
	})
	if err != nil {
		return nil, err
	}
	return &ke{tasks: task.NewGroup(a.Log), server: server, door: &door{
		purpose: status.ServiceKE, asked: cfg.KE.Listen, book: a.book, ready: a.keReady, shutAt: a.shutAt, serve: server.Serve,
		patience: doubt, kick: make(chan struct{}, 1), log: a.Log.Named("listen"),
	}}, nil
}

// end ends the listeners, all at the same time, and returns when the last client is served.
func (k *ke) end() error {
	listeners := k.door.book.take(k.door.purpose)
	failed := make([]error, len(listeners))
	var ending sync.WaitGroup
	for i, ln := range listeners {
		ending.Go(func() { failed[i] = k.server.Last(ln) })
	}
	ending.Wait()
	k.server.Wait()
	return errors.Join(failed...)
}

// formatOf is the daemon's way to write cookies.
func formatOf(d config.Daemon) cookie.Format {
	switch {
	case d.Follows():
		return daemon.FollowedOf(d).Format
	case d.Kind == config.KindGateway:
		return cookie.Own{}
	}
	return cookie.Chrony{}
}

// offered lists what of opens the operator wants to be offered; nil = all.
func offered(asked []uint16, opens []aead.ID) []aead.ID {
	if asked == nil {
		return opens
	}
	return slices.DeleteFunc(opens, func(alg aead.ID) bool { return !slices.Contains(asked, uint16(alg)) })
}

// cookieKeys are those to mint with. While they are in doubt, for the
// milliseconds in which a daemon that has just started is asked, the client
// waits: a failed exchange would keep it away for much longer.
func (a *agent) cookieKeys(ctx context.Context) *cookie.Ring {
	const patience = time.Second
	keys := a.parts.Load().keys.ring
	if ring := keys.Current(); ring != nil {
		return ring
	}
	wait := patience
	if end, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(end)/2)
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	return keys.Await(ctx)
}

func (k *ke) start(ctx context.Context) {
	k.tasks.Go(ctx, task.Task{Name: "key exchange", Run: k.door.run})
}

// keReady says whether a key exchange can end well now, and why not.
func (a *agent) keReady(now time.Time) (bool, string) {
	p := a.parts.Load()
	if !p.certs.live.Valid(now) {
		return false, "no valid certificate" + expired(p, now)
	}
	if p.keys.ring.Current() == nil {
		if p.gateway != nil {
			return false, "no cookie keys that the gateway has shown to open"
		}
		return false, "no cookie keys that the daemon has proven to hold"
	}
	return true, ""
}

// expired names the certificate that ended, if that is what is wrong.
func expired(p *parts, now time.Time) string {
	for _, name := range p.cfg.Names {
		if leaf := p.certs.live.Leaf(name); leaf != nil && now.After(leaf.NotAfter) {
			return fmt.Sprintf(": that of %s expired %s", name, leaf.NotAfter.UTC().Format(time.RFC3339))
		}
	}
	return ""
}

func newCounters() *status.Counters {
	var reasons []string
	for _, o := range ntske.Outcomes() {
		reasons = append(reasons, o.String())
	}
	for _, c := range tcp.Classes() {
		reasons = append(reasons, "tls: "+c.String())
	}
	return status.NewCounters(append(reasons, tcp.Evicted.String(), tcp.AcceptFailed.String(), tcp.NotAllowed.String())...)
}

// observeKE counts an exchange. The deadline its connection was given when it
// was accepted tells how long the client waited, handshake included.
func (a *agent) observeKE(timeout time.Duration) func(context.Context, ntske.Outcome) {
	return func(ctx context.Context, o ntske.Outcome) {
		now := time.Now()
		if o != ntske.Served {
			a.counts.Refused(now, o.String())
			return
		}
		deadline, _ := ctx.Deadline()
		a.counts.Served(now, timeout-deadline.Sub(now))
	}
}

func (a *agent) observeTCP(e tcp.Event) {
	switch e.Kind {
	case tcp.HandshakeFailed:
		a.counts.Refused(time.Now(), "tls: "+e.Class.String())
	case tcp.NoALPN, tcp.Evicted, tcp.AcceptFailed, tcp.NotAllowed:
		a.counts.Refused(time.Now(), e.Kind.String())
	}
}
