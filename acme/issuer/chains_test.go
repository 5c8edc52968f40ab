package issuer_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"slices"
	"testing"
	"time"

	"ntsagent/acme"
	"ntsagent/acme/issuer"
)

// swap puts another chain into the place of every certificate that the CA hands out; pub is the key that it is for.
func swap(t *testing.T, chain func(pub crypto.PublicKey) []byte) wall {
	return edit("/certZ/", func(_ http.Header, body []byte) []byte { return chain(leafOf(t, body).PublicKey) })
}

const month = 30 * 24 * time.Hour

// good is what a CA would put into a certificate for the siege's name.
func (g *siege) good(names ...string) *x509.Certificate {
	return &x509.Certificate{DNSNames: append(names, g.name.String()), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(month),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
}

// giantKey looks like an RSA key of 16384 bits. To make a real one takes minutes.
func giantKey() *rsa.PublicKey {
	n := new(big.Int).Lsh(big.NewInt(1), 16384)
	return &rsa.PublicKey{N: n.Sub(n, big.NewInt(1)), E: 65537}
}

// TestUnfitCertificateFromTheCA has a CA that does all as it should and then hands out a chain that must not be served. It is
// refused before it is stored.
func TestUnfitCertificateFromTheCA(t *testing.T) {
	t.Parallel()
	g := newSiege(t)
	other := newAuthority(t)
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf := func(pub crypto.PublicKey, edit func(*x509.Certificate), names ...string) *x509.Certificate {
		c := g.good(names...)
		if edit != nil {
			edit(c)
		}
		return g.ca.sign(t, pub, c)
	}
	with := func(edit func(*x509.Certificate)) func(crypto.PublicKey) []byte {
		return func(pub crypto.PublicKey) []byte { return chainOf(leaf(pub, edit), g.ca.cert) }
	}
	names := func(n int) []string {
		list := make([]string, n)
		for i := range list {
			list[i] = fmt.Sprintf("h%d.example", i)
		}
		return list
	}
	giant := g.ca.sign(t, giantKey(), &x509.Certificate{Subject: pkix.Name{CommonName: "a CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(month)})
	excluded := &x509.Certificate{Subject: pkix.Name{CommonName: "a CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(month), ExcludedDNSDomains: names(20000)}
	constrained := g.ca.sign(t, g.ca.key.Public(), excluded)
	// A DER element that says of itself that it is four gigabytes long, and sixty thousand sequences within each other.
	long, deep := []byte{0x30, 0x84, 0xff, 0xff, 0xff, 0xff}, bytes.Repeat([]byte{0x30, 0x80}, 60000)
	block := func(der []byte) []byte { return chainOf(&x509.Certificate{Raw: der}) }

	for _, tt := range []struct {
		name  string
		chain func(pub crypto.PublicKey) []byte
		class acme.Class // rejected if ""
		text  string
	}{
		{"for another key", func(crypto.PublicKey) []byte { return chainOf(leaf(stranger.Public(), nil), g.ca.cert) }, "", "private key does not belong"},
		{"for another name", with(func(c *x509.Certificate) { c.DNSNames = []string{"bob.members.pool.example"} }), "", `valid for "bob.members.pool.example" only`},
		{"for a name in its common name", with(func(c *x509.Certificate) { c.DNSNames, c.Subject.CommonName = nil, g.name.String() }), "", "valid for no dNSName only"},
		{"for an address", with(func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = nil, []net.IP{net.IPv4(192, 0, 2, 7)} }), "", "valid for no dNSName only"},
		{"that is over", with(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), "", "expired at"},
		{"that has not begun", with(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }), "", "is not valid before"},
		{"for a hundred years", with(func(c *x509.Certificate) { c.NotAfter = time.Now().AddDate(100, 0, 0) }), "", "longer than ten years"},
		{"for ever", with(func(c *x509.Certificate) { c.NotAfter = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC) }), "", "until 9999-12-31, longer than ten years"},
		{"without its intermediate", func(pub crypto.PublicKey) []byte { return chainOf(leaf(pub, nil)) }, "", "intermediate certificate is missing"},
		{"with the intermediate of another CA", func(pub crypto.PublicKey) []byte { return chainOf(leaf(pub, nil), other.cert) }, "", "is not signed by the one after it"},
		{"that is a CA", with(func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }), "", "first certificate is a CA"},
		{"for clients", with(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }), "", "does not allow TLS servers"},
		{"with a critical extension of a challenge", with(func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 31}, Critical: true, Value: []byte{4, 0}}}
		}), "", "critical extension"},
		{"for an RSA key of 16384 bits", func(crypto.PublicKey) []byte { return chainOf(leaf(giantKey(), nil), g.ca.cert) }, "", "private key does not belong"},
		{"from an intermediate with an RSA key of 16384 bits", func(pub crypto.PublicKey) []byte { return chainOf(leaf(pub, nil), giant) }, "", "RSA key of 16384 bits"},
		{"twice", func(pub crypto.PublicKey) []byte {
			l := leaf(pub, nil)
			return chainOf(l, l, g.ca.cert)
		}, "", "is there twice"},
		{"behind its intermediate", func(pub crypto.PublicKey) []byte { return chainOf(g.ca.cert, leaf(pub, nil)) }, "", ""},
		{"between others", func(pub crypto.PublicKey) []byte {
			return chainOf(leaf(stranger.Public(), nil), leaf(pub, nil), g.ca.cert)
		}, "", "private key does not belong"},
		{"among ten others", func(pub crypto.PublicKey) []byte {
			return append(chainOf(leaf(pub, nil)), bytes.Repeat(chainOf(g.ca.cert), 10)...)
		}, acme.ClassMalformed, "11 certificates"},
		{"in a chain without end", func(pub crypto.PublicKey) []byte { return bytes.Repeat(chainOf(leaf(pub, nil)), 1000) }, acme.ClassMalformed, "certificates, not 1 to 10"},
		{"in DER", func(pub crypto.PublicKey) []byte { return leaf(pub, nil).Raw }, acme.ClassMalformed, "not PEM"},
		{"with words behind it", func(pub crypto.PublicKey) []byte { return append(chainOf(leaf(pub, nil), g.ca.cert), "junk"...) }, acme.ClassMalformed, "not PEM"},
		{"with words before it", func(pub crypto.PublicKey) []byte {
			return append([]byte("junk\n"), chainOf(leaf(pub, nil), g.ca.cert)...)
		}, "", "text that is no PEM block"},
		{"with a key", func(pub crypto.PublicKey) []byte {
			return append(chainOf(leaf(pub, nil), g.ca.cert), "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"...)
		}, acme.ClassMalformed, "something else than certificates"},
		{"that is empty", func(crypto.PublicKey) []byte { return nil }, acme.ClassMalformed, "0 certificates"},
		{"cut short", func(pub crypto.PublicKey) []byte { b := chainOf(leaf(pub, nil)); return b[:len(b)-60] }, acme.ClassMalformed, "not PEM"},

		{"CVE-2025-61723 in PEM that begins and never ends", func(crypto.PublicKey) []byte {
			return bytes.Repeat([]byte("-----BEGIN CERTIFICATE-----\n"), 30000)
		}, acme.ClassMalformed, "not PEM"},
		{"CVE-2025-61723 in PEM with headers that never end", func(crypto.PublicKey) []byte {
			return append([]byte("-----BEGIN CERTIFICATE-----\n"), bytes.Repeat([]byte("a: b\n"), 200000)...)
		}, acme.ClassMalformed, "not PEM"},
		{"CVE-2025-58185 that says it is four gigabytes long", func(crypto.PublicKey) []byte { return block(long) }, "", "certificate 1 of 1"},
		{"CVE-2026-33818 of sequences in sequences", func(crypto.PublicKey) []byte { return block(deep) }, "", ""},
		{"CVE-2025-61729 for three thousand other names", func(pub crypto.PublicKey) []byte {
			return chainOf(leaf(pub, func(c *x509.Certificate) { c.DNSNames = names(3000) }), g.ca.cert)
		}, "", `"h2.example" and 2997 more only`},
		{"CVE-2025-58187 with constraints for every name", func(pub crypto.PublicKey) []byte { return chainOf(leaf(pub, nil, names(3000)...), constrained) }, "", "clients refuse more than"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.class == "" {
				tt.class = acme.ClassRejected
			}
			g.run(t, assault{front: swap(t, tt.chain), class: tt.class, text: tt.text, signed: true, next: time.Hour})
		})
	}
}

// TestUnusualAndFit has what a CA may do: it is served.
func TestUnusualAndFit(t *testing.T) {
	t.Parallel()
	g := newSiege(t)
	root := t.TempDir() + "/root.pem"
	pem, err := os.ReadFile(g.caFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(root, slices.Concat(pem, chainOf(g.ca.cert)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		front wall
		edit  func(*issuer.Config)
	}{
		{"names that were not ordered", swap(t, func(pub crypto.PublicKey) []byte {
			return chainOf(g.ca.sign(t, pub, g.good("www.alice.members.pool.example", "bob.members.pool.example")), g.ca.cert)
		}), nil},
		{"a certificate that a root of acme.ca_file has signed itself", swap(t, func(pub crypto.PublicKey) []byte {
			return chainOf(g.ca.sign(t, pub, g.good()))
		}), func(c *issuer.Config) { c.CAFile = root }},
		{"a chain up to its root", swap(t, func(pub crypto.PublicKey) []byte { return chainOf(g.ca.sign(t, pub, g.good()), g.ca.cert) }), nil},
		{"JSON that is called a web page", retyped("text/html; charset=utf-8"), nil},
		{"answers of no type", retyped(""), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := g.pitch(t, tt.front, 61*24*time.Hour)
			var edits []func(*issuer.Config)
			if tt.edit != nil {
				edits = append(edits, tt.edit)
			}
			got := c.attempt(t, c.store, c.issuerOf(t, edits...), acme.Obtained, nil)
			if bytes.Equal(got.served, c.leaf.Raw) || got.state.LastError != "" || got.state.Why != "" {
				t.Errorf("state = %+v, the old certificate is served: %v", got.state, bytes.Equal(got.served, c.leaf.Raw))
			}
		})
	}
}

// retyped gives every answer another content type.
func retyped(to string) wall {
	return edit("/", func(h http.Header, body []byte) []byte {
		h["Content-Type"] = []string{to}
		return body
	})
}
