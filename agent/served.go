package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"ntsagent/agent/config"
	"ntsagent/agent/status"
	"ntsagent/agent/task"
	"ntsagent/ntske/client"
	"ntsagent/ntske/cookie"
	"ntsagent/ntske/keyring"
)

// kePort is the one of RFC 8915 section 7.1, at which ntpd insists.
const kePort = 4460

// askWithin is for a key exchange and a query on the same host.
const askWithin = 5 * time.Second

// ask does what a client does, one that trusts this very certificate alone, and
// notes in now how that went.
func (e *export) ask(ctx context.Context, leaf *x509.Certificate, now *status.Export) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	r, err := client.KeyExchange(ctx, client.Config{Addr: e.by, Name: e.conf.Name.String(), Roots: roots})
	now.Asked = time.Now()
	if err != nil {
		now.Problem, now.Hurts = e.problem(ctx, leaf, err)
		return
	}
	ntp := netip.AddrPortFrom(e.by.Addr(), r.Port)
	for _, c := range r.Cookies[:min(2, len(r.Cookies))] { // a datagram may be lost
		var reply client.Reply
		if reply, err = client.Query(ctx, ntp, r.Keys, c, 0); err == nil {
			now.Served, now.Problem, now.Hurts = time.Now(), "", false
			e.seen(sighting{now.Served, reply})
			return
		}
	}
	now.Hurts = true
	now.Problem = fmt.Sprintf("ntpd serves our certificate at %s, but does not answer NTP at %s with its cookies: %v", e.by, ntp, err)
}

// problem says why a key exchange failed, and whether clients have to suffer.
func (e *export) problem(ctx context.Context, leaf *x509.Certificate, err error) (why string, hurts bool) {
	served, peekErr := peek(ctx, e.by, e.conf.Name.String())
	switch {
	case peekErr != nil:
		return fmt.Sprintf("ntpd exchanges no keys at %s: %v; fix: see that ntp.conf has `nts enable`, `nts cert %s` and `nts key %s`, that ntpd may read both, and (re)start it",
			e.by, peekErr, e.conf.Cert, e.conf.Key), true
	case served.Equal(leaf):
		return fmt.Sprintf("ntpd serves our certificate at %s, but gives no cookies: %v", e.by, err), true
	}
	hurts = served.VerifyHostname(e.conf.Name.String()) != nil || time.Now().After(served.NotAfter)
	how := "is root's `ntsagent feed certificate` started when the agent leaves one, and did it succeed?"
	if e.conf.Then == config.ThenNone {
		how = "it looks once an hour; then: sighup in certificate.export tells it at once"
	}
	return fmt.Sprintf("ntpd still serves another certificate at %s (serial %s, until %s); fix: see that `nts cert` of ntp.conf is %s and `nts key` is %s; %s",
		e.by, served.SerialNumber.Text(16), served.NotAfter.UTC().Format(time.RFC3339), e.conf.Cert, e.conf.Key, how), hurts
}

// peek is the certificate that is served, whatever it is.
func peek(ctx context.Context, addr netip.AddrPort, name string) (*x509.Certificate, error) {
	d := tls.Dialer{Config: &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"ntske/1"}, ServerName: name,
		InsecureSkipVerify: true, // it is looked at, nothing is sent
	}}
	nc, err := d.DialContext(ctx, "tcp", addr.String())
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	return nc.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}

// notOurs is the cookie keys of a daemon that exchanges keys itself: it needs
// nobody to know them.
type notOurs struct{}

func (notOurs) Run(ctx context.Context) error          { <-ctx.Done(); return nil }
func (notOurs) Current() *cookie.Ring                  { return nil }
func (notOurs) Await(ctx context.Context) *cookie.Ring { <-ctx.Done(); return nil }
func (notOurs) Look(bool, bool)                        {}
func (notOurs) State() keyring.State {
	return keyring.State{Mode: status.ModeCertificate, Standing: status.KeysNone}
}

// Rotate says that there is nothing to do.
func (notOurs) Rotate(context.Context) error {
	return fmt.Errorf("%w: ntpd exchanges keys itself, and makes its cookie keys once a day", status.ErrPointless)
}

// newNotOurs builds the part for a daemon that exchanges keys itself; see newKeys.
func (a *agent) newNotOurs(cfg *config.Config, old *parts) *keys {
	k := &keys{kind: cfg.Daemon.Kind, log: a.Log, tasks: task.NewGroup(a.Log), address: cfg.Daemon.Address, ring: notOurs{}, seen: new(atomic.Pointer[sighting])}
	if old != nil && old.keys.address == k.address {
		k.seen = old.keys.seen
	}
	return k
}
