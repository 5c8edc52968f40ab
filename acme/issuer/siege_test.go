package issuer_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"log"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ntsagent/acme"
	"ntsagent/acme/issuer"
	"ntsagent/acme/live"
	"ntsagent/acme/store"
	"ntsagent/hostcheck"
)

// siege is one real CA, before which each case stands a hostile server of its own. The agent of a case begins with an account
// and with a certificate that is due.
type siege struct {
	*world
	name hostcheck.Name
	real http.Handler
	ca   *authority
}

func newSiege(t *testing.T) *siege {
	t.Helper()
	g := &siege{name: mustName(t, "alice.members.pool.example"), ca: newAuthority(t)}
	g.world = newWorld(t, settings{front: func(real http.Handler) http.Handler {
		g.real = edit("/chalZ/", unheard)(real)
		return real
	}}, g.name)
	return g
}

// unheard makes the answer to a challenge one from before its validation. Where the server's comes after, as it may on a busy
// machine, nobody would ask for the authorization.
func unheard(_ http.Header, body []byte) []byte {
	return bytes.Replace(body, []byte(`"valid"`), []byte(`"processing"`), 1)
}

// camp is one case: an agent and the server that it takes for its CA.
type camp struct {
	*siege
	directory string
	dir       string // state
	store     *store.Store
	leaf      *x509.Certificate
	requests  atomic.Int64
	written   atomic.Int64 // octets from the server
}

// pitch begins a case. The certificate in use is of that age, of 90 days. The account is the case's own, for pebble now and then
// reuses the authorizations of one.
func (g *siege) pitch(t *testing.T, f wall, age time.Duration) *camp {
	t.Helper()
	c := &camp{siege: g, dir: filepath.Join(t.TempDir(), "acme")}
	handler := at("/order-plz", always(503, "not yet"))(g.real)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.requests.Add(1)
		handler.ServeHTTP(w, r)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.Listener = counting{server.Listener, &c.written}
	server.StartTLS()
	t.Cleanup(server.Close)
	c.directory = server.URL + "/dir"

	c.store = openStore(t, c.dir)
	order, _ := newOrder(t, g.name, elliptic.P256())
	if _, err := c.issuerOf(t).Issue(t.Context(), order); err == nil || !strings.Contains(err.Error(), "503") {
		t.Fatalf("the order to register an account with: %v", err)
	}
	if a, err := c.store.Account(c.directory); err != nil || a.URI == "" {
		t.Fatalf("account %v: %v", a, err)
	}
	handler = f(g.real)
	c.requests.Store(0)
	c.written.Store(0)
	key, err := c.store.PendingKey(g.name, store.P256)
	if err != nil {
		t.Fatal(err)
	}
	from := time.Now().Add(-age)
	c.leaf = g.ca.sign(t, key.Public(), &x509.Certificate{DNSNames: []string{g.name.String()}, NotBefore: from, NotAfter: from.Add(90 * 24 * time.Hour)})
	if err := c.store.Commit(g.name, chainOf(c.leaf, g.ca.cert)); err != nil {
		t.Fatal(err)
	}
	return c
}

// files are all files and links in the state folder, with what they hold.
func (c *camp) files(t *testing.T) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(c.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(c.dir, path)
		if err != nil {
			return err
		}
		if d.Type() == fs.ModeSymlink {
			all[rel], err = os.Readlink(path)
			return err
		}
		b, err := os.ReadFile(path)
		all[rel] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// mustBeUntouched fails when anything is not as it was but what an attempt may leave behind, which it removes from now.
func (c *camp) mustBeUntouched(t *testing.T, before map[string]string) {
	t.Helper()
	now := c.files(t)
	for _, file := range []string{"renewal.json", "pending.key"} {
		delete(now, filepath.Join("names", c.name.String(), file))
	}
	if maps.Equal(now, before) {
		return
	}
	for path, content := range now {
		if was, ok := before[path]; !ok {
			t.Errorf("%s has appeared", path)
		} else if was != content {
			t.Errorf("%s has changed: %.200q was %.200q", path, content, was)
		}
	}
	for path := range before {
		if _, ok := now[path]; !ok {
			t.Errorf("%s is gone", path)
		}
	}
}

// hearing is an Issuer that keeps how the last order ended.
type hearing struct {
	acme.Issuer
	mu  sync.Mutex
	err error
}

func (h *hearing) Issue(ctx context.Context, o acme.Order) ([]byte, error) {
	chain, err := h.Issuer.Issue(ctx, o)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.err = err
	return chain, err
}

// scripted is an Issuer whose every order ends alike.
type scripted struct {
	acme.Issuer
	signed bool // after the CA was asked to sign
	err    *acme.Error
}

func (s scripted) Issue(_ context.Context, o acme.Order) ([]byte, error) {
	if s.signed {
		if err := o.Finalizing(); err != nil {
			return nil, err
		}
	}
	return nil, s.err
}

// outcome is what an agent shows and remembers after one attempt.
type outcome struct {
	state   acme.State
	renewal store.Renewal
	next    time.Duration // from the failure to the next attempt
	served  []byte
}

// attempt lets an agent with the state in s make one attempt with i. Jitter is as if there were none.
func (c *camp) attempt(t *testing.T, s *store.Store, i acme.Issuer, want acme.Kind, edit func(*acme.Config)) outcome {
	t.Helper()
	set := live.NewSet([]hostcheck.Name{c.name})
	events := make(chan acme.Event, 100)
	cfg := acme.Config{Name: c.name, Issuer: i, Store: s, Live: set, Log: nullLog, Directory: c.directory,
		Roll: func() float64 { return 0.5 }, Event: func(e acme.Event) { events <- e }}
	if edit != nil {
		edit(&cfg)
	}
	m := acme.NewManager(cfg)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { m.Run(ctx) })
	await(t, events, acme.Installed)
	served := shown(t, set, c.name)
	await(t, events, want)
	cancel()
	running.Wait()
	o := outcome{state: m.State(), served: shown(t, set, c.name)}
	var err error
	if o.renewal, err = s.Renewal(c.name); err != nil {
		t.Fatal(err)
	}
	o.next = o.state.NextAttempt.Round(0).Sub(o.renewal.LastFailure)
	if want != acme.Obtained && !bytes.Equal(o.served, served) {
		t.Error("what is served has changed")
	}
	return o
}

// policy is what the schedule makes of an order that ended with e, asked in the same state.
func (c *camp) policy(t *testing.T, signed bool, e acme.Error) time.Duration {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "acme")
	if err := os.CopyFS(dir, os.DirFS(c.dir)); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, dir)
	if err := s.SaveRenewal(c.name, store.Renewal{}); err != nil {
		t.Fatal(err)
	}
	e.Err, e.Hint = errors.New("no"), "none"
	return c.attempt(t, s, scripted{signed: signed, err: &e}, acme.Failed, nil).next
}

// authority is a CA of the test's own.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

var serial atomic.Int64

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{key: key, cert: &x509.Certificate{Subject: pkix.Name{CommonName: "a CA"}}}
	a.cert = a.sign(t, key.Public(), &x509.Certificate{Subject: pkix.Name{CommonName: "a CA"}, IsCA: true, BasicConstraintsValid: true,
		SubjectKeyId: []byte{1, 2, 3}, KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().AddDate(-1, 0, 0), NotAfter: time.Now().AddDate(200, 0, 0)})
	return a
}

func (a *authority) sign(t *testing.T, pub crypto.PublicKey, template *x509.Certificate) *x509.Certificate {
	t.Helper()
	template.SerialNumber = big.NewInt(serial.Add(1))
	parent := a.cert
	if parent.Raw == nil { // the root itself
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, a.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func chainOf(certs ...*x509.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}

// issuerOf makes the case's Issuer.
func (c *camp) issuerOf(t *testing.T, edit ...func(*issuer.Config)) *issuer.Issuer {
	t.Helper()
	with := func(cfg *issuer.Config) {
		cfg.Directory, cfg.Store, cfg.Challenges = c.directory, c.store, []string{issuer.HTTP01}
	}
	return c.issuer(t, append([]func(*issuer.Config){with}, edit...)...)
}
