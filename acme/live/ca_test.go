package live

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"sync/atomic"
	"testing"
	"time"

	"ntsagent/hostcheck"
)

func mustName(t testing.TB, s string) hostcheck.Name {
	t.Helper()
	n, err := hostcheck.ParseName(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// authority is a CA of the test's own: a root and an intermediate that signs.
type authority struct {
	root, inter       *x509.Certificate
	rootKey, interKey crypto.Signer
}

var serial atomic.Int64

func newAuthority(t testing.TB, now time.Time) *authority {
	t.Helper()
	a := &authority{rootKey: newKey(t), interKey: newKey(t)}
	ca := func(cn string) *x509.Certificate {
		return &x509.Certificate{SerialNumber: big.NewInt(serial.Add(1)), Subject: pkix.Name{CommonName: cn}, IsCA: true, BasicConstraintsValid: true,
			KeyUsage: x509.KeyUsageCertSign, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(1000 * time.Hour)}
	}
	root := ca("root")
	a.root = sign(t, root, root, a.rootKey.Public(), a.rootKey)
	a.inter = sign(t, ca("intermediate"), a.root, a.interKey.Public(), a.rootKey)
	return a
}

func newKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func sign(t testing.TB, template, parent *x509.Certificate, pub crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// leaf issues a certificate for names, after edit has changed what it likes.
func (a *authority) leaf(t testing.TB, key crypto.Signer, now time.Time, edit func(*x509.Certificate), names ...string) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(serial.Add(1)), DNSNames: names, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(90 * time.Hour)}
	if edit != nil {
		edit(template)
	}
	return sign(t, template, a.inter, key.Public(), a.interKey)
}

// pair issues a chain of two with its key, as PEM.
func (a *authority) pair(t testing.TB, now time.Time, edit func(*x509.Certificate), names ...string) (chainPEM, keyPEM []byte) {
	t.Helper()
	key := newKey(t)
	return chainOf(a.leaf(t, key, now, edit, names...), a.inter), keyOf(t, key)
}

func chainOf(certs ...*x509.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}

func keyOf(t testing.TB, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}
