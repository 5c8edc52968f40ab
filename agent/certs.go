package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"ntsagent/acme"
	"ntsagent/acme/challenge"
	"ntsagent/acme/front"
	"ntsagent/acme/issuer"
	"ntsagent/acme/live"
	"ntsagent/acme/store"
	"ntsagent/agent/config"
	"ntsagent/agent/status"
	"ntsagent/agent/task"
	"ntsagent/hostcheck"
	"ntsagent/ntske/tcp"
)

// The challenge listeners serve a CA's few validators; everybody else is noise.
const (
	maxHTTPConns    = 128
	maxTLSALPNConns = 128
	tlsALPNTimeout  = 5 * time.Second
)

// certs is where certificates come from: ordered by ACME, one Manager and order
// per name, or watched files that somebody else renews.
type certs struct {
	tasks    *task.Group
	log      hclog.Logger
	live     *live.Set
	source   string
	profile  string
	managers []*acme.Manager
	second   *issuer.Issuer // of the fallback CA; nil where there is none
	files    []*fileSource
	doors    []*door
	going    sync.WaitGroup // requests that have begun
	proofs   *tcp.Server    // for tls-alpn-01; nil = none
}

// newCerts builds the part for cfg. What old serves for a name that stays is
// served on until something newer comes.
func (a *agent) newCerts(ctx context.Context, old *parts, cfg *config.Config) (*certs, error) {
	c := &certs{tasks: task.NewGroup(a.Log), log: a.Log.Named("acme"), live: live.NewSet(cfg.Names), source: cfg.Certificate.Source}
	if old != nil {
		c.live.Adopt(old.certs.live)
	}
	if c.source == config.SourceFiles {
		for _, f := range cfg.CertificateFiles() {
			c.files = append(c.files, newFileSource(f, c.live, a.Log.Named("files"), a.knock, &a.events))
		}
		return c, nil
	}
	c.profile = cfg.ACME.Profile
	c.doors = a.challengeDoors(cfg)
	ports := a.hostPorts(ctx, cfg)
	responder := challenge.New(hostcheck.NewSet(cfg.Names, ports...), a.Log.Named("challenge"))
	redirect := challenge.Redirect{
		Hosts: hostcheck.NewSet(cfg.ACME.HTTP01.Redirect.Hosts, ports...), To: cfg.ACME.HTTP01.Redirect.To, Responder: responder,
	}
	webroot := a.webroot(old, cfg)
	for _, d := range c.doors {
		if err := a.answer(c, d, redirect); err != nil {
			return nil, err
		}
	}
	of := issuer.Config{
		Directory: cfg.ACME.Directory, Email: cfg.ACME.Email, AgreeToTerms: cfg.ACME.AgreeToTerms, EAB: issuer.EAB(cfg.ACME.EAB),
		CAFile: cfg.ACME.CAFile, Challenges: cfg.ACME.Challenges, Responder: responder, Webroot: webroot, Front: a.front(cfg),
		Store: a.store, Log: a.Log.Named("acme"),
	}
	order, err := issuer.New(of)
	if err != nil {
		return nil, err
	}
	var fallback acme.Authority
	if d := cfg.ACME.FallbackDirectory; d != "" {
		of.Directory, of.EAB, of.Fallback = d, issuer.EAB(cfg.ACME.FallbackEAB), true
		if c.second, err = issuer.New(of); err != nil {
			return nil, err
		}
		fallback = acme.Authority{Directory: d, Issuer: c.second, Look: lookAtDNS(cfg, d)}
	}
	for _, name := range cfg.Names {
		c.managers = append(c.managers, acme.NewManager(acme.Config{
			Name: name, Issuer: order, Store: a.store, Live: c.live, KeyType: store.KeyType(cfg.ACME.KeyType),
			Profile: cfg.ACME.Profile, Roots: order.Roots(), Log: a.Log.Named("acme"), Event: a.certificateEvent,
			Directory: cfg.ACME.Directory, Built: a.Built, Synced: acme.Synchronized,
			Look: lookAtDNS(cfg, cfg.ACME.Directory), LookAround: order.LookAround, Fallback: fallback,
		}))
	}
	return c, nil
}

// stop ends the part; what CAs have begun to ask is answered first, within seconds.
func (c *certs) stop() error {
	err := c.tasks.Stop()
	c.going.Wait()
	if c.proofs != nil {
		c.proofs.Wait()
	}
	return err
}

func (a *agent) certificateEvent(e acme.Event) {
	switch e.Kind {
	case acme.Failed, acme.Barred, acme.Exposed:
		a.events.Add(e.Time, "certificate "+e.Name+": "+nameless(e.Name, e.Text))
	}
	a.knock()
}

func (c *certs) start(ctx context.Context) {
	for _, d := range c.doors {
		c.tasks.Go(ctx, task.Task{Name: d.purpose, Run: d.run})
	}
	for _, m := range c.managers {
		c.tasks.Go(ctx, task.Task{Name: "certificate", Run: m.Run})
	}
	if c.second != nil {
		c.tasks.Go(ctx, task.Task{Name: "fallback account", Run: func(ctx context.Context) error { return openAccount(ctx, c.second.Register, c.log) }})
	}
	for _, f := range c.files {
		c.tasks.Go(ctx, task.Task{Name: "certificate files", Run: f.run})
	}
}

// challengeDoors are open as long as the process lives, so that a port that is
// taken shows at once and not at the first renewal.
func (a *agent) challengeDoors(cfg *config.Config) []*door {
	var doors []*door
	always := func(time.Time) (bool, string) { return true, "" }
	for _, w := range doorsOf(cfg)[1:] {
		doors = append(doors, &door{
			purpose: w.purpose, asked: w.asked, book: a.book, ready: always, kick: make(chan struct{}, 1), log: a.Log.Named("listen"),
		})
	}
	return doors
}

// answer sets who answers at a challenge door.
func (a *agent) answer(c *certs, d *door, redirect challenge.Redirect) error {
	if d.purpose == status.ServiceHTTP01 {
		d.serve = func(ctx context.Context, ln net.Listener) error {
			return serveHTTP(ctx, challenge.NewHTTPServer(redirect, a.Log.Named("http")), ln, &c.going)
		}
		return nil
	}
	responder := redirect.Responder
	server, err := tcp.New(tcp.Config{
		TLS: responder.TLSConfig(), Services: map[string]tcp.Service{"acme-tls/1": responder},
		Timeout: tlsALPNTimeout, MaxConns: maxTLSALPNConns, Log: a.Log.Named("tls-alpn-01"),
	})
	if err != nil {
		return err
	}
	d.serve, c.proofs = server.Serve, server
	return nil
}

// webroot is the folder that shows proofs, "" where we do so ourselves. What an
// agent that was killed left in it goes: not at a reload, for an order may be under way.
func (a *agent) webroot(old *parts, cfg *config.Config) challenge.Webroot {
	h := cfg.ACME.HTTP01
	if h.Mode != config.HTTP01Webroot || !slices.Contains(cfg.ACME.Challenges, config.ChallengeHTTP01) {
		return ""
	}
	w := challenge.Webroot(h.Webroot)
	if old != nil && old.cfg.ACME.HTTP01.Webroot == h.Webroot {
		return w
	}
	if err := w.Sweep(); err != nil { // it may be there by the time of the order
		a.Log.Warn("folder for proofs of http-01 cannot be used", "error", err,
			"hint", "make it, for the agent's user alone to write to and for the web server to read")
	}
	return w
}

// front is who has port 80 or 443 instead of us, nil where nobody has.
func (a *agent) front(cfg *config.Config) *issuer.Front {
	h, t, judge := cfg.ACME.HTTP01, cfg.ACME.TLSALPN01, front.Judge{Leads: cfg.ACME.HTTP01.Redirect.To}
	if slices.Contains(cfg.ACME.Challenges, config.ChallengeHTTP01) {
		switch h.Mode {
		case config.HTTP01Proxy:
			judge.Agent = h.Listen[0]
		case config.HTTP01Webroot:
			judge.Webroot = h.Webroot
		}
	}
	if slices.Contains(cfg.ACME.Challenges, config.ChallengeTLSALPN01) && t.Mode == config.TLSALPN01Proxy {
		judge.TLS = t.Listen[0]
	}
	if !judge.Agent.IsValid() && judge.Webroot == "" && !judge.TLS.IsValid() {
		return nil
	}
	var own []netip.AddrPort
	for _, w := range doorsOf(cfg)[1:] {
		own = append(own, w.asked...)
	}
	return &issuer.Front{Judge: judge, Prober: front.Prober{Addrs: askable(config.ThisHost().Addrs), Own: own, HTTP: 80, HTTPS: 443}}
}

// askable are the addresses of this host where strangers come to, and then those of loopback: what listens there alone
// may be the web server behind the one that strangers meet.
func askable(here []netip.Addr) []netip.Addr {
	here = slices.DeleteFunc(slices.Clone(here), func(a netip.Addr) bool { return a.IsLoopback() || a.IsLinkLocalUnicast() })
	return append(here, netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback())
}

// hostPorts are the ports a Host field may name beside 80. A port left to the
// kernel is known only once the socket is open.
func (a *agent) hostPorts(ctx context.Context, cfg *config.Config) []uint16 {
	if cfg.ACME.HTTP01.Mode == config.HTTP01Webroot {
		return nil
	}
	ports := slices.Clone(cfg.ACME.HTTP01.HostPorts)
	for _, asked := range cfg.ACME.HTTP01.Listen {
		ports = append(ports, asked.Port())
	}
	if slices.Contains(ports, 0) && slices.Contains(cfg.ACME.Challenges, config.ChallengeHTTP01) {
		listeners, err := a.book.open(ctx, status.ServiceHTTP01, cfg.ACME.HTTP01.Listen)
		if err != nil {
			a.Log.Warn("port for http-01 not open yet", "cause", err)
		}
		for _, l := range listeners {
			ports = append(ports, l.Addr().(*net.TCPAddr).AddrPort().Port())
		}
	}
	return slices.DeleteFunc(ports, func(p uint16) bool { return p == 0 })
}

// serveHTTP serves ln until ctx is done and leaves it open for whoever is next,
// who need not wait for the requests that have begun: they end by their timeouts
// and are going till then. http.Server's own Shutdown would answer none of them.
func serveHTTP(ctx context.Context, srv *http.Server, ln net.Listener, going *sync.WaitGroup) error {
	kept := keptOpen{ln.(*net.TCPListener)}
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = kept.SetDeadline(time.Unix(1, 0)) // Accept returns
		close(interrupted)
	})
	err := srv.Serve(newCrowd(kept, maxHTTPConns, going))
	if stop() {
		return err
	}
	<-interrupted
	return kept.SetDeadline(time.Time{})
}

// keptOpen is a listener that an http.Server does not close: the socket has to
// outlive it. A deadline is its end.
type keptOpen struct{ *net.TCPListener }

func (k keptOpen) Accept() (net.Conn, error) {
	c, err := k.TCPListener.Accept()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, net.ErrClosed // the other is one that http.Server tries again after
	}
	return c, err
}

func (k keptOpen) Close() error { return nil }

// wanted is a purpose and where the configuration wants it to listen.
type wanted struct {
	purpose string
	asked   []netip.AddrPort
}

// doorsOf lists what cfg wants to listen, the key exchange first.
func doorsOf(cfg *config.Config) []wanted {
	doors := []wanted{{status.ServiceKE, cfg.KE.Listen}}
	if cfg.Daemon.ServesKE() {
		doors[0].asked = nil
	}
	if cfg.Certificate.Source != config.SourceACME {
		return doors
	}
	for _, c := range cfg.ACME.Challenges {
		switch c {
		case config.ChallengeHTTP01:
			if cfg.ACME.HTTP01.Mode != config.HTTP01Webroot {
				doors = append(doors, wanted{status.ServiceHTTP01, cfg.ACME.HTTP01.Listen})
			}
		case config.ChallengeTLSALPN01:
			doors = append(doors, wanted{status.ServiceTLSALPN01, cfg.ACME.TLSALPN01.Listen})
		}
	}
	return doors
}

// certificate picks for a handshake from the set that is in effect now, so that
// the key exchange need not be rebuilt when the source of certificates is.
func (a *agent) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return a.parts.Load().certs.live.Get(hello)
}
