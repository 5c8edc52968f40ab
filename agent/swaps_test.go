package agent

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ntsagent/agent/daemon/chronytest"
	"ntsagent/ntske/client"
)

// The load of the test of swaps. The last swaps go through the files, whose
// watcher takes half a second for each.
const (
	swaps         = 1000 / fraction
	swapsByFile   = 5
	clientsAtOnce = 4
	perSwap       = 10 // handshakes at least: twice as many as there can be under way at a swap
)

// served is what the clients of a test of swaps saw.
type served struct {
	begun, installed atomic.Int64 // serial of the last swap that began, and that returned
	handshakes       atomic.Int64
	failed, old, odd atomic.Int64
	slowest          atomic.Int64 // in nanoseconds
	firstError
}

// client exchanges keys once. The certificate it is shown must have been in
// service at some moment between its first packet and its last.
func (s *served) client(t *testing.T, c client.Config) {
	from, start := s.installed.Load(), time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, err := client.KeyExchange(ctx, c)
	took, to := time.Since(start), s.begun.Load()
	s.handshakes.Add(1)
	if err != nil {
		s.failed.Add(1)
		s.fail(err)
		return
	}
	for old := s.slowest.Load(); int64(took) > old && !s.slowest.CompareAndSwap(old, int64(took)); old = s.slowest.Load() {
	}
	switch serial := r.TLS.PeerCertificates[0].SerialNumber.Int64(); {
	case serial < from:
		s.old.Add(1)
		s.fail(fmt.Errorf("shown serial %d after the swap to %d had returned", serial, from))
	case serial > to:
		s.odd.Add(1)
		s.fail(fmt.Errorf("shown serial %d before the swap to it began", serial))
	}
	if len(r.Cookies) != 8 {
		s.odd.Add(1)
		s.fail(fmt.Errorf("%d cookies", len(r.Cookies)))
	}
}

func TestNoHandshakeFailsWhileCertificatesAreSwapped(t *testing.T) {
	t.Parallel()
	m := newMember(t, time.Hour, chronytest.Options{})
	m.configure("")
	a, addr := m.openParts(0)
	set, name := a.parts.Load().certs.live, a.parts.Load().cfg.Names[0]
	s := new(served)
	s.begun.Store(m.ca.last)
	s.installed.Store(m.ca.last)
	start := time.Now()
	stop := s.crowd(m, addr)
	certificates := newChains(m.ca)
	for n := range swaps {
		m.until("its turn has come", func() bool { return s.failure() != nil || s.handshakes.Load() >= int64(n*perSwap) })
		if s.failure() != nil {
			break
		}
		chain, key, serial := certificates.issue(n)
		s.begun.Store(serial)
		if n < swaps-swapsByFile {
			if changed, err := set.Install(name, chain, key, time.Now()); !changed || err != nil {
				t.Fatalf("swap %d: changed %v, error %v", n, changed, err)
			}
		} else {
			m.write(m.key, key)
			m.write(m.cert, chain)
			m.until("the files are taken", func() bool { return set.Leaf(name).SerialNumber.Int64() == serial })
		}
		s.installed.Store(serial)
	}
	m.until("all came", func() bool { return s.failure() != nil || s.handshakes.Load() >= swaps*perSwap })
	stop()
	took := time.Since(start)
	tell(t, "| certificates swapped | of these by files | handshakes | failed | old certificate after a swap | slowest | took |")
	tell(t, "|---|---|---|---|---|---|---|")
	tell(t, "| %d | %d | %d | %d | %d | %.0f ms | %.1f s |", swaps, swapsByFile, s.handshakes.Load(), s.failed.Load(), s.old.Load(),
		time.Duration(s.slowest.Load()).Seconds()*1000, took.Seconds())
	if err := s.failure(); err != nil {
		t.Errorf("of %d handshakes %d failed, %d were shown an old certificate and %d something odd; the first: %v",
			s.handshakes.Load(), s.failed.Load(), s.old.Load(), s.odd.Load(), err)
	}
	if refused := a.document(time.Now()).KeyExchange.Refused; len(refused) > 0 {
		t.Errorf("the agent counts refusals: %v", refused)
	}
}

// crowd has clients come one after the other at several places until stop is
// called: most with X25519, some as crypto/tls prefers.
func (s *served) crowd(m *member, addr netip.AddrPort) (stop func()) {
	done := make(chan struct{})
	var all sync.WaitGroup
	for n := range clientsAtOnce {
		c := client.Config{Addr: addr, Name: memberName, Roots: m.ca.roots, Groups: []tls.CurveID{tls.X25519}}
		if n == 0 {
			c.Groups = nil
		}
		all.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					s.client(m.t, c)
				}
			}
		})
	}
	var once sync.Once
	stop = func() { once.Do(func() { close(done); all.Wait() }) }
	m.t.Cleanup(stop)
	return stop
}

// chains makes certificates of every kind that is served: with and without an
// intermediate, ECDSA and RSA.
type chains struct {
	*authority
	below    *x509.Certificate // an intermediate
	belowKey *ecdsa.PrivateKey
	rsa      *rsa.PrivateKey // made once: that takes as long as 100 handshakes
}

func newChains(a *authority) *chains {
	i := &chains{authority: a}
	var err error
	if i.belowKey, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		a.t.Fatal(err)
	}
	if i.rsa, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1 << 40), Subject: pkix.Name{CommonName: "test CA below"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &i.belowKey.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	if i.below, err = x509.ParseCertificate(der); err != nil {
		a.t.Fatal(err)
	}
	return i
}

// issue makes the n-th certificate, and its serial, which is higher than any before.
func (i *chains) issue(n int) (chain, key []byte, serial int64) {
	i.last++
	var own crypto.Signer = i.rsa
	var err error
	switch n % 50 { // the dear ones are rare
	case 3:
		own, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case 6: // RSA
	default:
		own, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		i.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(i.last), DNSNames: []string{memberName}, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	parent, signer := i.cert, i.key
	if n%2 == 1 {
		parent, signer = i.below, i.belowKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, own.Public(), signer)
	if err != nil {
		i.t.Fatal(err)
	}
	chain = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if parent == i.below {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.below.Raw})...)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(own)
	if err != nil {
		i.t.Fatal(err)
	}
	return chain, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), i.last
}
