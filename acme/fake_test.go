package acme

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"ntsagent/acme/live"
	"ntsagent/acme/store"
	"ntsagent/hostcheck"
)

// fakeCA is an Issuer that does what a test tells it: the faults here are those that no real server can be made to show.
type fakeCA struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	life time.Duration

	mu     sync.Mutex
	answer func(ctx context.Context, o Order) ([]byte, error) // nil = sign
	info   func(*x509.Certificate) (RenewalInfo, error)       // nil = tells nothing
	revoke func(*x509.Certificate, Reason) error              // nil = does it
	orders []time.Time
	asked  []time.Time // when renewal information was asked for
	serial int64

	revoked []int64 // serial numbers
}

func newFakeCA(t *testing.T) *fakeCA {
	t.Helper()
	key, err := store.NewKey(store.P256)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Fake CA"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(20, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &fakeCA{key: key, cert: cert, life: 9 * day}
}

// roots are those of operators who know it.
func (ca *fakeCA) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	return pool
}

func (ca *fakeCA) Issue(ctx context.Context, o Order) ([]byte, error) {
	ca.mu.Lock()
	ca.orders = append(ca.orders, time.Now())
	answer := ca.answer
	ca.mu.Unlock()
	if answer != nil {
		return answer(ctx, o)
	}
	return ca.sign(o.CSR.DNSNames[0], o.CSR.PublicKey, time.Now(), time.Now().Add(ca.life)), nil
}

func (ca *fakeCA) RenewalInfo(_ context.Context, leaf *x509.Certificate) (RenewalInfo, error) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	ca.asked = append(ca.asked, time.Now())
	if ca.info == nil {
		return RenewalInfo{}, ErrNoRenewalInfo
	}
	return ca.info(leaf)
}

// set changes what orders come to from now on.
func (ca *fakeCA) set(answer func(ctx context.Context, o Order) ([]byte, error)) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	ca.answer = answer
}

// sign makes a chain of one certificate.
func (ca *fakeCA) sign(name string, pub crypto.PublicKey, from, to time.Time) []byte {
	ca.mu.Lock()
	ca.serial++
	serial := ca.serial
	ca.mu.Unlock()
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), DNSNames: []string{name}, NotBefore: from, NotAfter: to,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, pub, ca.key)
	if err != nil {
		panic(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// gaps are the waits between the orders so far.
func (ca *fakeCA) gaps() []time.Duration {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	var gaps []time.Duration
	for i := 1; i < len(ca.orders); i++ {
		gaps = append(gaps, ca.orders[i].Sub(ca.orders[i-1]))
	}
	return gaps
}

// questions is how often renewal information was asked for.
func (ca *fakeCA) questions() int {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	return len(ca.asked)
}

func (ca *fakeCA) count() int {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	return len(ca.orders)
}

// house is one name's Manager with a real store and a real live set.
type house struct {
	*Manager
	ca     *fakeCA
	dir    string
	store  *store.Store
	live   *live.Set
	name   hostcheck.Name
	log    *logBuffer
	events []Event
}

func newHouse(t *testing.T, ca *fakeCA, dir string) *house {
	t.Helper()
	if dir == "" {
		dir = filepath.Join(t.TempDir(), "acme")
	}
	name, err := hostcheck.ParseName("alice.members.pool.example")
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	h := &house{ca: ca, dir: dir, store: s, live: live.NewSet([]hostcheck.Name{name}), name: name, log: new(logBuffer)}
	log := hclog.New(&hclog.LoggerOptions{Output: h.log, Level: hclog.Info, DisableTime: true})
	h.Manager = NewManager(Config{Name: name, Issuer: ca, Store: s, Live: h.live, Log: log, Directory: simulated, Roots: ca.roots(),
		Event: func(e Event) { h.events = append(h.events, e) }})
	return h
}

// logBuffer is a log that can be read while it is written.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logBuffer) Len() int { return len(l.String()) }

// run starts the Manager; the returned func stops it and waits for its end.
func (h *house) run(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- h.Run(ctx) }()
	return func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	}
}

// wish wishes for an order that need not be due; what it comes to is left to be seen.
func (h *house) wish() { go h.Renew(context.Background(), true) }

// served is what a client is shown: the leaf in DER, nil when nothing is served.
func (h *house) served(t *testing.T) []byte {
	t.Helper()
	cert, err := h.live.Get(&tls.ClientHelloInfo{ServerName: h.name.String()})
	if err != nil {
		t.Fatal(err)
	}
	if cert == nil {
		return nil
	}
	return cert.Certificate[0]
}

// put makes a pair current in the store, as an earlier run of the agent would have.
func (h *house) put(t *testing.T, from, to time.Time) {
	t.Helper()
	key, err := h.store.PendingKey(h.name, store.P256)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.store.Commit(h.name, h.ca.sign(h.name.String(), key.Public(), from, to)); err != nil {
		t.Fatal(err)
	}
}

func strangerKey(t *testing.T) crypto.PublicKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key.Public()
}

func sameKey(a, b crypto.PublicKey) bool {
	k, ok := a.(*ecdsa.PublicKey)
	return ok && k.Equal(b)
}

// Revoke notes what is revoked and answers as a test has told it.
func (ca *fakeCA) Revoke(_ context.Context, leaf *x509.Certificate, reason Reason) error {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	if ca.revoke != nil {
		if err := ca.revoke(leaf, reason); err != nil {
			return err
		}
	}
	ca.revoked = append(ca.revoked, leaf.SerialNumber.Int64())
	return nil
}
