package live

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var day = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func TestVerifyAcceptsWhatServersServe(t *testing.T) {
	ca := newAuthority(t, day)
	name := mustName(t, "alice.pool.example")
	key := newKey(t).(*ecdsa.PrivateKey)
	leaf := ca.leaf(t, key, day, nil, "alice.pool.example")
	sec1, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	sec1PEM := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1})
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsa2048, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	pkcs1 := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rsa2048)})
	chain := chainOf(leaf, ca.inter)
	for _, c := range []struct {
		rule       string
		chain, key []byte
		length     int
	}{
		{"a leaf with its intermediate", chain, keyOf(t, key), 2},
		{"a leaf alone, of a CA whose root signs", chainOf(leaf), keyOf(t, key), 1},
		{"a chain up to the root", chainOf(leaf, ca.inter, ca.root), keyOf(t, key), 3},
		{"a SEC 1 key", chain, sec1PEM, 2},
		{"a SEC 1 key behind its parameters", chain, append([]byte("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"), sec1PEM...), 2},
		{"line ends of another system", bytes.ReplaceAll(chain, []byte("\n"), []byte("\r\n")), keyOf(t, key), 2},
		{"blank lines between blocks", bytes.ReplaceAll(chain, []byte("-----BEGIN"), []byte("\n \n-----BEGIN")), keyOf(t, key), 2},
		{"no line end at the end", bytes.TrimSpace(chain), bytes.TrimSpace(keyOf(t, key)), 2},
		{"ECDSA P-384", chainOf(ca.leaf(t, p384, day, nil, "alice.pool.example"), ca.inter), keyOf(t, p384), 2},
		{"RSA of 2048 bits", chainOf(ca.leaf(t, rsa2048, day, nil, "alice.pool.example"), ca.inter), pkcs1, 2},
		{"a wildcard for one label", chainOf(ca.leaf(t, key, day, nil, "*.pool.example"), ca.inter), keyOf(t, key), 2},
		{"one of several names, in upper case", chainOf(ca.leaf(t, key, day, nil, "x.example", "ALICE.pool.example"), ca.inter), keyOf(t, key), 2},
		{"no extended key usage at all", chainOf(ca.leaf(t, key, day, func(c *x509.Certificate) { c.ExtKeyUsage = nil }, "alice.pool.example"), ca.inter), keyOf(t, key), 2},
		{"five minutes before its time", chainOf(ca.leaf(t, key, day, func(c *x509.Certificate) { c.NotBefore = day.Add(clockSkew) }, "alice.pool.example"), ca.inter), keyOf(t, key), 2},
		{"one second before its end", chainOf(ca.leaf(t, key, day, func(c *x509.Certificate) { c.NotAfter = day.Add(time.Second) }, "alice.pool.example"), ca.inter), keyOf(t, key), 2},
	} {
		t.Run(c.rule, func(t *testing.T) {
			cert, err := Verify(name, c.chain, c.key, day)
			if err != nil {
				t.Fatal(err)
			}
			if len(cert.Certificate) != c.length || cert.Leaf == nil || !bytes.Equal(cert.Leaf.Raw, cert.Certificate[0]) || cert.PrivateKey == nil {
				t.Errorf("%d certificates, leaf %v", len(cert.Certificate), cert.Leaf)
			}
		})
	}
}

func TestVerifyRefuses(t *testing.T) {
	ca, other := newAuthority(t, day), newAuthority(t, day)
	name := mustName(t, "alice.pool.example")
	key := newKey(t)
	keyPEM := keyOf(t, key)
	leaf := ca.leaf(t, key, day, nil, "alice.pool.example")
	chain := chainOf(leaf, ca.inter)
	with := func(edit func(*x509.Certificate), names ...string) []byte {
		return chainOf(ca.leaf(t, key, day, edit, names...), ca.inter)
	}
	oldInter := *ca
	oldInter.inter = sign(t, &x509.Certificate{SerialNumber: big.NewInt(99), Subject: pkix.Name{CommonName: "intermediate"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: day.Add(-time.Hour), NotAfter: day.Add(-time.Minute)}, ca.root, ca.interKey.Public(), ca.rootKey)
	caLeaf := func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }
	marked := func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 31}, Critical: true, Value: []byte{4, 0}}}
	}
	fat := func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 1}, Value: make([]byte, maxSentBytes)}}
	}
	giant := *ca
	giant.inter = sign(t, &x509.Certificate{SerialNumber: big.NewInt(98), Subject: pkix.Name{CommonName: "intermediate"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: day.Add(-time.Hour), NotAfter: day.Add(time.Hour)}, ca.root, giantKey(), ca.rootKey)
	cut := bytes.Index(chain, []byte("-----END"))
	for _, c := range []struct {
		rule       string
		chain, key []byte
		want       string
	}{
		{"an empty chain", nil, keyPEM, "chain: is empty"},
		{"a chain of blank lines", []byte(" \r\n\n"), keyPEM, "chain: is empty"},
		{"an empty key", chain, nil, "key: is empty"},
		{"a chain in DER", leaf.Raw, keyPEM, "DER?"},
		{"a byte order mark", append([]byte("\xef\xbb\xbf"), chain...), keyPEM, "byte order mark"},
		{"text before the chain", append([]byte("subject=alice\n"), chain...), keyPEM, "text that is no PEM block"},
		{"text inside the chain", bytes.Replace(chain, []byte("-----\n-----BEGIN"), []byte("-----\nissuer=x\n-----BEGIN"), 1), keyPEM, "before block 2: there is text"},
		{"text after the chain", append(bytes.Clone(chain), "junk"...), keyPEM, "before block 3: is not PEM text"},
		{"no PEM at all", []byte("<html>busy</html>"), keyPEM, "is not PEM text"},
		{"a chain cut in its first block", chain[:cut-100], keyPEM, "block 1 is damaged or cut short"},
		{"a chain cut in its last block", chain[:len(chain)-40], keyPEM, "block 2 is damaged or cut short"},
		{"a first block without its end", append(bytes.Clone(chain[:cut]), chainOf(ca.inter)...), keyPEM, "block 1 is damaged or cut short"},
		{"a damaged line", bytes.Replace(chain, []byte("\nM"), []byte("\n!"), 1), keyPEM, "block 1 is damaged or cut short"},
		{"a block that holds no certificate", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}), keyPEM, "certificate 1 of 1"},
		{"a key in the chain", append(bytes.Clone(chain), keyPEM...), keyPEM, `block 3 is a "PRIVATE KEY"`},
		{"a certificate with headers", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Headers: map[string]string{"a": "b"}, Bytes: leaf.Raw}), keyPEM, "not a plain CERTIFICATE"},
		{"eleven certificates", bytes.Repeat(chainOf(leaf), 11), keyPEM, "chain has 11 certificates"},
		{"more than a MiB", bytes.Repeat([]byte("\n"), 1<<20+1), keyPEM, "larger than 1048576 bytes"},
		{"a certificate that clients find too large", with(fat, "alice.pool.example"), keyPEM, "clients refuse more than"},
		{"a key of more than 64 KiB", chain, bytes.Repeat([]byte("\n"), 64<<10+1), "key is larger than"},
		{"a certificate for a key", chain, chainOf(leaf), `key: block is a "CERTIFICATE"`},
		{"two keys", chain, append(bytes.Clone(keyPEM), keyPEM...), "key file has 2 blocks"},
		{"parameters and no key", chain, []byte("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"), "key file has 0 blocks"},
		{"an encrypted key", chain, pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("x")}), "key is encrypted"},
		{"a key encrypted the old way", chain, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED"}, Bytes: []byte("x")}), "key is encrypted"},
		{"a key that does not parse", chain, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("secret")}), "the PRIVATE KEY does not parse"},
		{"a key cut short", chain, keyPEM[:len(keyPEM)-40], "key: block 1 is damaged or cut short"},
		{"another key", chain, keyOf(t, newKey(t)), "does not belong to the first certificate"},
		{"the chain the wrong way round", chainOf(ca.inter, leaf), keyPEM, "does not belong to the first certificate"},
		{"a CA for a server", with(caLeaf, "alice.pool.example"), keyPEM, "first certificate is a CA"},
		{"a challenge certificate", with(marked, "alice.pool.example"), keyPEM, "critical extension 1.3.6.1.5.5.7.1.31"},
		{"a certificate for clients", with(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }, "alice.pool.example"), keyPEM, "does not allow TLS servers"},
		{"a certificate that may not sign", with(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }, "alice.pool.example"), keyPEM, "does not allow signatures"},
		{"another name", with(nil, "bob.pool.example"), keyPEM, `first certificate is valid for "bob.pool.example" only; have one made for alice.pool.example`},
		{"many other names", with(nil, "a.example", "b.example", "c.example", "d.example", "e.example"), keyPEM, `"c.example" and 2 more only`},
		{"a common name alone", with(func(c *x509.Certificate) { c.Subject.CommonName = "alice.pool.example" }), keyPEM, "is valid for no dNSName only"},
		{"a wildcard one label too high", with(nil, "*.example"), keyPEM, `is valid for "*.example" only`},
		{"a wildcard one label too low", with(nil, "*.alice.pool.example"), keyPEM, "only"},
		{"a wildcard inside a label", with(nil, "al*.pool.example"), keyPEM, "only"},
		{"an expired certificate", with(func(c *x509.Certificate) { c.NotAfter = day.Add(-time.Second) }, "alice.pool.example"), keyPEM, "certificate 1 of 2 expired at 2026-11-23T11:59:59Z"},
		{"a certificate at its very end", with(func(c *x509.Certificate) { c.NotAfter = day }, "alice.pool.example"), keyPEM, "expired"},
		{"a certificate of next week", with(func(c *x509.Certificate) { c.NotBefore = day.Add(clockSkew + time.Second) }, "alice.pool.example"), keyPEM, "is not valid before 2026-11-23T12:05:01Z"},
		{"an expired intermediate", chainOf(leaf, oldInter.inter), keyPEM, "certificate 2 of 2 expired"},
		{"an intermediate of somebody else", chainOf(leaf, other.inter), keyPEM, "certificate 1 of 2 is not signed by the one after it"},
		{"the root without the intermediate", chainOf(leaf, ca.root), keyPEM, "certificate 1 of 2 is not issued by the one after it"},
		{"the intermediates the wrong way round", chainOf(leaf, ca.root, ca.inter), keyPEM, "not issued by the one after it"},
		{"an intermediate with an RSA key of 16384 bits", chainOf(leaf, giant.inter), keyPEM, "certificate 2 of 2 has an RSA key of 16384 bits"},
		{"a certificate for an RSA key of 16384 bits", chainOf(sign(t, &x509.Certificate{SerialNumber: big.NewInt(97), DNSNames: []string{"alice.pool.example"},
			NotBefore: day.Add(-time.Hour), NotAfter: day.Add(time.Hour)}, ca.inter, giantKey(), ca.interKey), ca.inter), keyPEM, "does not belong to the first certificate"},
		{"the leaf twice", chainOf(leaf, leaf, ca.inter), keyPEM, "certificate 1 of 3 is there twice"},
		{"the root twice", chainOf(leaf, ca.inter, ca.root, ca.root), keyPEM, "certificate 3 of 4 is there twice"},
	} {
		t.Run(c.rule, func(t *testing.T) {
			cert, err := Verify(name, c.chain, c.key, day)
			if err == nil || cert != nil {
				t.Fatal("accepted")
			}
			if msg := err.Error(); !strings.Contains(msg, c.want) || !strings.HasPrefix(msg, "certificate for alice.pool.example: ") || strings.ContainsAny(msg, "\n\r") || len(msg) > 300 {
				t.Errorf("error %q, want one line with %q", msg, c.want)
			}
		})
	}
}

// giantKey looks like an RSA key of 16384 bits. To make a real one takes minutes.
func giantKey() *rsa.PublicKey {
	n := new(big.Int).Lsh(big.NewInt(1), 16384)
	return &rsa.PublicKey{N: n.Sub(n, big.NewInt(1)), E: 65537}
}

func TestVerifyRefusesKeysThatClientsCannotUse(t *testing.T) {
	ca := newAuthority(t, day)
	name := mustName(t, "alice.pool.example")
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	x25519, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("GODEBUG", "rsa1024min=0") // else crypto/rsa makes no such key
	rsa1024, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	chain := chainOf(ca.leaf(t, ed, day, nil, "alice.pool.example"), ca.inter)
	for _, c := range []struct {
		rule       string
		chain, key []byte
		want       string
	}{
		{"Ed25519", chain, keyOf(t, ed), "key type ed25519.PrivateKey is not served"},
		{"ECDSA P-521", chainOf(ca.leaf(t, p521, day, nil, "alice.pool.example"), ca.inter), keyOf(t, p521), "key is ECDSA on P-521"},
		{"X25519, which cannot sign", chain, keyOf(t, x25519), "cannot sign"},
		{"RSA of 1024 bits", chain, keyOf(t, rsa1024), "key is RSA of 1024 bits"},
	} {
		if _, err := Verify(name, c.chain, c.key, day); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.rule, err, c.want)
		}
	}
}

func TestNoErrorShowsTheKey(t *testing.T) {
	ca := newAuthority(t, day)
	chain, key := ca.pair(t, day, nil, "alice.pool.example")
	_, otherKey := ca.pair(t, day, nil, "alice.pool.example")
	body := strings.Split(string(key), "\n")[1]
	for _, bad := range [][]byte{otherKey, key[40:], key[:100], bytes.Replace(key, []byte("BEGIN"), []byte("BEGAN"), 1),
		bytes.ReplaceAll(key, []byte("PRIVATE KEY"), []byte("CERTIFICATE")), append(bytes.Clone(key), key...), bytes.Replace(key, []byte("PRIVATE"), []byte("EC PRIVATE"), 2)} {
		for _, try := range [][2][]byte{{chain, bad}, {bad, key}} {
			_, err := Verify(mustName(t, "alice.pool.example"), try[0], try[1], day)
			if err == nil {
				t.Fatalf("accepted: %q", bad)
			}
			if strings.Contains(err.Error(), body[:8]) || strings.Contains(err.Error(), body[30:38]) {
				t.Errorf("error shows the key: %v", err)
			}
		}
	}
}

func TestReadPair(t *testing.T) {
	dir := t.TempDir()
	ca := newAuthority(t, day)
	chain, key := ca.pair(t, day, nil, "alice.pool.example")
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	link := filepath.Join(dir, "fullchain.pem")
	if err := os.Symlink("fullchain1.pem", link); err != nil {
		t.Fatal(err)
	}
	write("fullchain1.pem", chain)
	keyPath := write("privkey.pem", key)
	gotChain, gotKey, err := ReadPair(link, keyPath)
	if err != nil || !bytes.Equal(gotChain, chain) || !bytes.Equal(gotKey, key) {
		t.Fatalf("pair by a link: %v", err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	huge := write("huge", make([]byte, maxChainBytes+1))
	for _, c := range []struct{ rule, cert, key, want string }{
		{"a missing certificate", filepath.Join(dir, "none"), keyPath, "certificate: read file: open "},
		{"a missing key", link, filepath.Join(dir, "none"), "certificate key: read file: open "},
		{"a FIFO for a certificate", fifo, keyPath, "is not a regular file"},
		{"a FIFO for a key", link, fifo, "is not a regular file"},
		{"a directory", dir, keyPath, "is a directory"},
		{"a huge certificate", huge, keyPath, "larger than 1048576 bytes"},
		{"a huge key", link, huge, "larger than 65536 bytes"},
	} {
		if chain, key, err := ReadPair(c.cert, c.key); err == nil || chain != nil || key != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.rule, err, c.want)
		}
	}
}

// FuzzVerify holds PEM parsing to this: what is accepted serves, and says in canonical PEM the same again.
func FuzzVerify(f *testing.F) {
	ca := newAuthority(f, day)
	chain, key := ca.pair(f, day, nil, "alice.pool.example")
	f.Add(chain, key)
	f.Add(bytes.ReplaceAll(chain, []byte("\n"), []byte("\r\n")), append([]byte("\n\n"), key...))
	f.Add(append(bytes.Clone(chain), "junk"...), key)
	f.Add(chain[:100], key[:50])
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"), []byte("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"))
	name := mustName(f, "alice.pool.example")
	f.Fuzz(func(t *testing.T, chain, key []byte) {
		cert, err := Verify(name, chain, key, day)
		if err != nil {
			if cert != nil || strings.ContainsAny(err.Error(), "\n\r") {
				t.Fatalf("error %q with %v", err, cert)
			}
			return
		}
		var canonical []byte
		for _, der := range cert.Certificate {
			canonical = append(canonical, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
		}
		again, err := Verify(name, canonical, keyOf(t, cert.PrivateKey), day)
		if err != nil || !same(again, cert) {
			t.Fatalf("does not read the same again: %v", err)
		}
	})
}
