package agent

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"ntsagent/agent/config"
	"ntsagent/agent/feed"
	"ntsagent/agent/status"
	"ntsagent/agent/task"
	"ntsagent/ntske/client"
	"ntsagent/ntske/cookie"
	"ntsagent/ntske/keyring"
)

// askWithin is for a key exchange and a query on the same host.
const askWithin = 5 * time.Second

// ask does what a client does, one that trusts this very certificate alone, and
// notes in now how that went.
func (e *export) ask(ctx context.Context, leaf *x509.Certificate, now *status.Export) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	now.Waits = time.Time{}
	err := e.exchange(ctx, leaf, now)
	if err == nil {
		return
	}
	served, peekErr := feed.Served(ctx, e.by, e.conf.Name.String())
	if peekErr == nil && !served.Equal(leaf) {
		waits := e.waits(leaf, served)
		if !waits.IsZero() && e.exchange(ctx, served, now) == nil {
			now.Waits = waits
			return
		}
	}
	now.Problem, now.Hurts = e.problem(leaf, served, peekErr, err)
}

// exchange exchanges keys and asks for the time with a cookie, trusting that
// certificate alone. An error is about the key exchange; what is wrong behind it is
// in now.
func (e *export) exchange(ctx context.Context, leaf *x509.Certificate, now *status.Export) error {
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	r, err := client.KeyExchange(ctx, client.Config{Addr: e.by, Name: e.conf.Name.String(), Roots: roots})
	now.Asked = time.Now()
	if err != nil {
		return err
	}
	ntp := netip.AddrPortFrom(e.by.Addr(), r.Port)
	for _, c := range r.Cookies[:min(2, len(r.Cookies))] { // a datagram may be lost
		var reply client.Reply
		if reply, err = client.Query(ctx, ntp, r.Keys, c, 0); err == nil {
			now.Served, now.Problem, now.Hurts = time.Now(), "", false
			e.seen(sighting{now.Served, reply})
			return nil
		}
	}
	now.Hurts = true
	now.Problem = fmt.Sprintf("%s serves our certificate at %s, but does not answer NTP at %s with its cookies: %v", e.server().name, e.by, ntp, err)
	return nil
}

// waits is until when the daemon goes on with the certificate that it serves, one
// of ours that clients accept, because it was restarted a short while ago; zero = it
// does not.
func (e *export) waits(leaf, served *x509.Certificate) time.Time {
	now := time.Now()
	if e.conf.Then != config.ThenRestart || served.VerifyHostname(e.conf.Name.String()) != nil || now.After(served.NotAfter) {
		return time.Time{}
	}
	return feed.Waits(e.options(nil), leaf, served, now)
}

// problem says why a key exchange failed, and whether clients have to suffer.
func (e *export) problem(leaf, served *x509.Certificate, peekErr, err error) (why string, hurts bool) {
	d := e.server()
	switch {
	case peekErr != nil:
		return fmt.Sprintf("%s exchanges no keys at %s: %v; fix: see that %s, that %s may read both, and (re)start it",
			d.name, e.by, peekErr, fmt.Sprintf(d.has, e.conf.Cert, e.conf.Key), d.name), true
	case served.Equal(leaf):
		return fmt.Sprintf("%s serves our certificate at %s, but gives no cookies: %v", d.name, e.by, err), true
	}
	hurts = served.VerifyHostname(e.conf.Name.String()) != nil || time.Now().After(served.NotAfter)
	how := "is root's `ntsagent feed certificate` started when the agent leaves one, and did it succeed?"
	switch {
	case e.conf.Then != config.ThenNone:
	case e.kind == config.KindNTPsec:
		how = "it looks once an hour; then: sighup in certificate.export tells it at once"
	default:
		how = "it looks only when it starts; then: restart in certificate.export sees to that, once a day at most"
	}
	return fmt.Sprintf("%s still serves another certificate at %s (serial %s, until %s); fix: see that %s; %s",
		d.name, e.by, served.SerialNumber.Text(16), served.NotAfter.UTC().Format(time.RFC3339), fmt.Sprintf(d.has, e.conf.Cert, e.conf.Key), how), hurts
}

// keServer is a daemon that exchanges keys itself, in the words of its own manual.
type keServer struct {
	name string
	has  string // what its configuration has, of certificate and key
	keys string // how it keeps its cookie keys
}

func (e *export) server() keServer { return keServers[e.kind] }

var keServers = map[string]keServer{
	config.KindChrony: {"chronyd", "chrony.conf has `ntsservercert %s` and `ntsserverkey %s`", "as ntsrotate in chrony.conf says"},
	config.KindNTPsec: {"ntpd", "ntp.conf has `nts enable`, `nts cert %s` and `nts key %s`", "once a day"},
	config.KindNTPDRS: {"ntp-daemon", "[[nts-ke-server]] of ntp.toml has certificate-chain-path %s and private-key-path %s", "as key-rotation-interval in ntp.toml says"},
}

// notOurs is the cookie keys of a daemon that exchanges keys itself: it needs
// nobody to know them.
type notOurs struct{ keServer }

func (notOurs) Run(ctx context.Context) error          { <-ctx.Done(); return nil }
func (notOurs) Current() *cookie.Ring                  { return nil }
func (notOurs) Await(ctx context.Context) *cookie.Ring { <-ctx.Done(); return nil }
func (notOurs) Look(bool, bool)                        {}
func (notOurs) State() keyring.State {
	return keyring.State{Mode: status.ModeCertificate, Standing: status.KeysNone}
}

// Rotate says that there is nothing to do.
func (n notOurs) Rotate(context.Context) error {
	return fmt.Errorf("%w: %s exchanges keys itself, and makes its cookie keys %s", status.ErrPointless, n.name, n.keys)
}

// newNotOurs builds the part for a daemon that exchanges keys itself; see newKeys.
func (a *agent) newNotOurs(cfg *config.Config, old *parts) *keys {
	k := &keys{kind: cfg.Daemon.Kind, log: a.Log, tasks: task.NewGroup(a.Log), address: cfg.Daemon.Address, ring: notOurs{keServers[cfg.Daemon.Kind]}, seen: new(atomic.Pointer[sighting])}
	if old != nil && old.keys.address == k.address {
		k.seen = old.keys.seen
	}
	return k
}
