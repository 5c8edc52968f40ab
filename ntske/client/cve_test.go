package client

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"
)

// hostileCA makes chains that no CA in its senses would: its root is trusted.
type hostileCA struct {
	t      *testing.T
	key    *ecdsa.PrivateKey // everybody's
	root   *x509.Certificate
	serial int64
}

func (h *hostileCA) sign(c, parent *x509.Certificate) *x509.Certificate {
	h.t.Helper()
	h.serial++
	c.SerialNumber, c.NotBefore, c.NotAfter = big.NewInt(h.serial), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, c, parent, h.key.Public(), h.key)
	if err != nil {
		h.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		h.t.Fatal(err)
	}
	return cert
}

func ca(name string, change func(*x509.Certificate)) *x509.Certificate {
	c := &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	if change != nil {
		change(c)
	}
	return c
}

// A server that is asked by `check` shows what it likes. Each chain ends in a
// verdict of one short line.
func TestHostileChains(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	h := &hostileCA{t: t, key: key}
	root := ca("root", nil)
	h.root = h.sign(root, root)
	roots := x509.NewCertPool()
	roots.AddCert(h.root)
	names := func(n int, format string) (list []string) {
		for i := range n {
			list = append(list, fmt.Sprintf(format, i))
		}
		return list
	}
	excluding := h.sign(ca("excluding", func(c *x509.Certificate) { c.ExcludedDNSDomains = names(2000, "h%d.example") }), h.root)
	many := []*x509.Certificate{h.sign(&x509.Certificate{DNSNames: []string{testName}}, ca("m0", nil))}
	for i := range 120 { // each is signed by all of the next name
		many = append(many, h.sign(ca(fmt.Sprintf("m%d", i/4), nil), ca(fmt.Sprintf("m%d", i/4+1), nil)))
	}
	nameless := &x509.Certificate{ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: []byte{0x30, 0x02, 0x82, 0x00}}}}
	for _, tt := range []struct {
		name  string
		chain []*x509.Certificate
	}{
		{"CVE-2025-61729 and CVE-2026-27145 three thousand other names", []*x509.Certificate{h.sign(&x509.Certificate{DNSNames: names(3000, "h%d.example")}, h.root)}},
		{"CVE-2025-61729 ninety long names", []*x509.Certificate{h.sign(&x509.Certificate{DNSNames: names(90, strings.Repeat("h.", 100)+"h%d.example")}, h.root)}},
		{"CVE-2025-58187 constraints for each of two thousand names", []*x509.Certificate{h.sign(&x509.Certificate{DNSNames: append(names(2000, "g%d.h.example"), testName, "h1999.example")}, excluding), excluding}},
		{"CVE-2026-27138 constraints for a name without letters", []*x509.Certificate{h.sign(nameless, excluding), excluding}},
		{"CVE-2026-32280 a maze of intermediates", many},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cert := tls.Certificate{PrivateKey: key}
			for _, c := range tt.chain {
				cert.Certificate = append(cert.Certificate, c.Raw)
			}
			addr := script(t, &tls.Config{NextProtos: []string{"ntske/1"}, Certificates: []tls.Certificate{cert}}, nil)
			_, err := KeyExchange(patient(t), Config{Addr: addr, Name: testName, Roots: roots})
			blames(t, err, Server, "tls", "x509")
			if err != nil && len(err.Error()) > maxText+10 {
				t.Errorf("%d octets of error", len(err.Error()))
			}
		})
	}
}
