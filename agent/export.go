package agent

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"ntsagent/acme/disk"
	"ntsagent/agent/config"
	"ntsagent/agent/feed"
	"ntsagent/agent/status"
	"ntsagent/agent/task"
	"ntsagent/hostcheck"
)

// ExportFile is where the pair of a name is left for `ntsagent feed certificate`.
func ExportFile(stateDir string, name hostcheck.Name) string {
	return filepath.Join(stateDir, "export", name.String()+".pem")
}

// exports keep the copies of our certificates that other programs serve.
type exports struct {
	conf  []config.Export
	from  config.Daemon
	every time.Duration
	tasks *task.Group
	all   []*export
}

// export is one copy.
type export struct {
	conf  config.Export
	left  string         // where the pair is left if we may not write ourselves
	by    netip.AddrPort // who serves it, and is asked; zero = nobody is
	kind  string         // of that daemon
	rec   string         // feed.RestartRecord
	every time.Duration
	cert  func() *tls.Certificate // the one to copy; nil = none is valid
	seen  func(sighting)
	log   hclog.Logger
	kick  chan struct{} // capacity 1
	state atomic.Pointer[status.Export]

	// Of run alone: the certificate that was handed over last, when that will be
	// done again though it is the same, and how long the pause was before.
	handed *x509.Certificate
	since  time.Time // when it was
	again  time.Time
	pause  time.Duration
}

// newExports builds the part for cfg, or takes old's when nothing is new.
func (a *agent) newExports(old *parts, cfg *config.Config) (*exports, error) {
	if old != nil {
		was := old.exports
		if reflect.DeepEqual(was.conf, cfg.Certificate.Export) && reflect.DeepEqual(was.from, cfg.Daemon) && was.every == cfg.Observe.SelfCheck {
			return was, nil
		}
	}
	x := &exports{conf: cfg.Certificate.Export, from: cfg.Daemon, every: cfg.Observe.SelfCheck, tasks: task.NewGroup(a.Log)}
	for _, conf := range x.conf {
		left := ExportFile(cfg.StateDir, conf.Name)
		if err := disk.MkdirAll(filepath.Dir(left), 0o700); err != nil {
			return nil, fmt.Errorf("make folder for exports: %w", err)
		}
		e := &export{
			conf: conf, left: left, by: cfg.Daemon.KE(), kind: cfg.Daemon.Kind, rec: feed.RestartRecord(cfg.StateDir), every: x.every, kick: make(chan struct{}, 1), log: a.Log.Named("export").With("cert", conf.Cert),
			cert: func() *tls.Certificate { return a.valid(conf.Name) },
			seen: func(s sighting) { a.parts.Load().keys.seen.Store(&s) },
		}
		e.state.Store(&status.Export{Name: conf.Name.String(), Cert: conf.Cert, Key: conf.Key})
		x.all = append(x.all, e)
	}
	return x, nil
}

// valid is the certificate in service for a name, if it has not ended.
func (a *agent) valid(name hostcheck.Name) *tls.Certificate {
	cert, _ := a.certificate(&tls.ClientHelloInfo{ServerName: name.String()}) // never an error
	return cert
}

func (x *exports) start(ctx context.Context) {
	for _, e := range x.all {
		x.tasks.Go(ctx, task.Task{Name: "export of a certificate", Run: e.run})
	}
}

func (x *exports) knock() {
	for _, e := range x.all {
		select {
		case e.kick <- struct{}{}:
		default:
		}
	}
}

func (x *exports) report() (out []status.Export) {
	for _, e := range x.all {
		out = append(out, *e.state.Load())
	}
	return out
}

// How long after an export that did not help the next one follows: twice as long
// each time.
const (
	firstAgain = 2 * time.Second
	lastAgain  = time.Hour
)

// leaveAgain is how long files that we can neither read nor ask for are taken to be
// what we left: the helper may have been ended between the two.
const leaveAgain = 24 * time.Hour

// run looks now, whenever there may be another certificate, and now and then,
// until ctx is done.
func (e *export) run(ctx context.Context) error {
	tick := time.NewTicker(e.every)
	defer tick.Stop()
	for {
		e.look(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-e.kick:
		case <-tick.C:
		}
	}
}

// look sees that the copy is the certificate in service, and that it is served.
func (e *export) look(ctx context.Context) {
	cert := e.cert()
	if cert == nil {
		return // which the status tells of the certificate itself
	}
	now := *e.state.Load()
	now.Serial = cert.Leaf.SerialNumber.Text(16)
	if e.by.IsValid() {
		e.ask(ctx, cert.Leaf, &now)
	}
	if ctx.Err() != nil {
		return
	}
	good := (!e.by.IsValid() || now.Problem == "") && e.holds(cert)
	switch {
	case good && now.Waits.IsZero():
		e.settled(cert)
		now.Failed = ""
	case good && e.handed != nil && e.handed.Equal(cert.Leaf):
		now.Failed = "" // the daemon waits, and nothing else is to be done until then
	case e.due(cert):
		e.hand(ctx, cert, &now)
	}
	e.tell(now)
}

// due says whether what is not good yet is to be exported now: a new certificate
// at once, one that was before later and later.
func (e *export) due(cert *tls.Certificate) bool {
	if e.handed == nil || !e.handed.Equal(cert.Leaf) {
		e.pause = 0
		return true
	}
	return !time.Now().Before(e.again)
}

// holds says whether the files hold the pair, as far as we may know: those that
// are closed to us are known by what we left last.
func (e *export) holds(cert *tls.Certificate) bool {
	if !feed.MayFeedCertificate(e.conf) {
		return e.by.IsValid() || e.handed != nil && e.handed.Equal(cert.Leaf) && time.Since(e.since) < leaveAgain
	}
	pair := pairOf(cert)
	for path, want := range map[string][]byte{e.conf.Cert: pair.chain, e.conf.Key: pair.key} {
		b, err := disk.ReadFile(path, int64(len(want)))
		if err != nil || !bytes.Equal(b, want) {
			return false
		}
	}
	return true
}

// handLooks is how long after an export the daemon is asked again: it takes a
// SIGHUP within a second, and the helper may take some too.
var handLooks = [...]time.Duration{300 * time.Millisecond, time.Second, time.Second, 2 * time.Second, 5 * time.Second}

// hand exports the pair and waits until it is served.
func (e *export) hand(ctx context.Context, cert *tls.Certificate, now *status.Export) {
	e.pause = min(max(2*e.pause, firstAgain), lastAgain)
	pair := pairOf(cert)
	var err error
	if feed.MayFeedCertificate(e.conf) {
		err = feed.Certificate(ctx, e.options(pair.both()))
	} else {
		err = feed.Leave(e.left, pair.both())
	}
	e.handed, e.since, e.again = cert.Leaf, time.Now(), time.Now().Add(e.pause)
	if waiting := (*feed.Waiting)(nil); err != nil && !errors.As(err, &waiting) {
		now.Failed = err.Error()
		return
	}
	now.Written, now.Failed = time.Now(), ""
	e.log.Info("certificate exported", "name", now.Name, "serial", now.Serial)
	if !e.by.IsValid() {
		e.settled(cert)
		return
	}
	waiting := *now
	e.state.Store(&waiting)
	for _, in := range handLooks {
		if !pause(ctx, in) {
			return
		}
		if e.ask(ctx, cert.Leaf, now); now.Problem == "" {
			if now.Waits.IsZero() {
				e.settled(cert)
			}
			return
		}
	}
}

func (e *export) options(pair []byte) feed.CertificateOptions {
	return feed.CertificateOptions{Export: e.conf, Pair: pair, KE: e.by, Record: e.rec}
}

// settled says that all is well: what comes next is not the same trouble again.
func (e *export) settled(cert *tls.Certificate) {
	e.handed, e.again, e.pause = cert.Leaf, time.Time{}, 0
}

// tell makes now the state, and says what has changed about what is wrong.
func (e *export) tell(now status.Export) {
	before := e.state.Swap(&now)
	was, is := before.Why(), now.Why()
	switch {
	case is != "" && is != was:
		e.log.Warn("exported certificate", "problem", is)
	case is == "" && (was != "" || before.Serial != now.Serial) && e.by.IsValid():
		e.log.Info("the daemon serves our certificate", "name", now.Name, "serial", now.Serial)
	}
}

// pair is a certificate as PEM.
type pair struct{ key, chain []byte }

func (p pair) both() []byte { return append(bytes.Clone(p.key), p.chain...) }

func pairOf(cert *tls.Certificate) (p pair) {
	if der, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey); err == nil { // it was parsed from that
		p.key = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	}
	for _, der := range cert.Certificate {
		p.chain = append(p.chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return p
}

// removeLeft removes what was left for names that are exported no longer.
func removeLeft(cfg *config.Config) {
	wanted := map[string]bool{}
	for _, e := range cfg.Certificate.Export {
		wanted[ExportFile(cfg.StateDir, e.Name)] = true
	}
	dir := filepath.Join(cfg.StateDir, "export")
	entries, _ := os.ReadDir(dir) // there need be none
	for _, entry := range entries {
		if path := filepath.Join(dir, entry.Name()); !wanted[path] {
			_ = os.Remove(path) // it is closed to all others anyway
		}
	}
}
