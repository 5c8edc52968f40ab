package challenge

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"ntsagent/hostcheck"
)

// pendingALPN has alice and bob as names and a TLS-ALPN-01 proof pending for alice only.
func pendingALPN(t testing.TB) (r *Responder, remove func()) {
	t.Helper()
	alice := mustName(t, "alice.pool.example")
	r = New(hostcheck.NewSet([]hostcheck.Name{alice, mustName(t, "bob.pool.example")}), hclog.NewNullLogger())
	cert, err := Certificate(alice, keyAuth, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	remove, err = r.PresentTLSALPN01(alice, cert)
	if err != nil {
		t.Fatal(err)
	}
	return r, remove
}

// tap keeps what a client reads from the wire.
type tap struct {
	net.Conn
	read bytes.Buffer
}

func (c *tap) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.read.Write(b[:n])
	return n, err
}

// visit makes one handshake over TCP with a server that has config, and reads until the server closes.
func visit(t testing.TB, r *Responder, config *tls.Config, client *tls.Config) (cs tls.ConnectionState, wire, after []byte, err error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		raw, err := ln.Accept()
		if err != nil {
			return
		}
		defer raw.Close()
		c := tls.Server(raw, config)
		if c.HandshakeContext(ctx) == nil {
			r.ServeConn(ctx, c)
		}
	}()
	raw, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	raw.SetDeadline(time.Now().Add(patient))
	tapped := &tap{Conn: raw}
	c := tls.Client(tapped, client)
	err = c.HandshakeContext(ctx)
	if err == nil {
		after, err = io.ReadAll(c)
	}
	<-done
	return c.ConnectionState(), tapped.read.Bytes(), after, err
}

// caClient is how an ACME server connects: the certificate is judged by its content, not by trust.
func caClient(sni string, version uint16, protocols ...string) *tls.Config {
	return &tls.Config{ServerName: sni, NextProtos: protocols, MinVersion: version, MaxVersion: version, InsecureSkipVerify: true}
}

func TestTLSALPNShowsTheProofAndSaysNothing(t *testing.T) {
	r, _ := pendingALPN(t)
	for name, client := range map[string]*tls.Config{
		"TLS 1.3":           caClient("alice.pool.example", tls.VersionTLS13, ALPN),
		"TLS 1.2":           caClient("alice.pool.example", tls.VersionTLS12, ALPN),
		"SNI in upper case": caClient("ALICE.pool.example", tls.VersionTLS13, ALPN),
	} {
		t.Run(name, func(t *testing.T) {
			cs, _, after, err := visit(t, r, r.TLSConfig(), client)
			if err != nil || len(after) != 0 {
				t.Fatalf("%v; after the handshake: %q", err, after)
			}
			if cs.NegotiatedProtocol != ALPN || len(cs.PeerCertificates) != 1 {
				t.Fatalf("protocol %q, %d certificates", cs.NegotiatedProtocol, len(cs.PeerCertificates))
			}
			checkProof(t, cs.PeerCertificates[0])
		})
	}
	if got := r.Counts(); got.Answered != 3 || got.Refused != 0 {
		t.Errorf("counts = %+v", got)
	}
}

// checkProof is what RFC 8737 §3 has the ACME server check, written from the RFC.
func checkProof(t *testing.T, leaf *x509.Certificate) {
	t.Helper()
	if err := leaf.CheckSignature(leaf.SignatureAlgorithm, leaf.RawTBSCertificate, leaf.Signature); err != nil {
		t.Errorf("self-signature: %v", err)
	}
	if len(leaf.DNSNames) != 1 || leaf.DNSNames[0] != "alice.pool.example" || len(leaf.IPAddresses) != 0 {
		t.Errorf("names: %q %v", leaf.DNSNames, leaf.IPAddresses)
	}
	digest := sha256.Sum256([]byte(keyAuth))
	want := append([]byte{0x04, 0x20}, digest[:]...) // DER OCTET STRING of 32 octets
	count := map[string]int{}
	for _, e := range leaf.Extensions {
		count[e.Id.String()]++
		if e.Id.String() == "1.3.6.1.5.5.7.1.31" && (!e.Critical || !bytes.Equal(e.Value, want)) {
			t.Errorf("acmeIdentifier: critical %v, %x", e.Critical, e.Value)
		}
	}
	if count["1.3.6.1.5.5.7.1.31"] != 1 || count["2.5.29.17"] != 1 {
		t.Errorf("extensions: %v", count)
	}
	for id, n := range count {
		if n != 1 {
			t.Errorf("extension %s is there %d times", id, n)
		}
	}
	if now := time.Now(); leaf.IsCA || now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
		t.Errorf("CA %v, valid %s to %s", leaf.IsCA, leaf.NotBefore, leaf.NotAfter)
	}
}

func TestTLSALPNRefusesEverybodyElseByAnAlertAlone(t *testing.T) {
	const (
		protocolVersion       = 70
		unrecognizedName      = 112
		noApplicationProtocol = 120
	)
	r, _ := pendingALPN(t)
	tls11 := caClient("alice.pool.example", tls.VersionTLS11, ALPN)
	for _, c := range []struct {
		rule   string
		client *tls.Config
		alert  byte
	}{
		{"no SNI", caClient("", tls.VersionTLS13, ALPN), unrecognizedName},
		{"an address, for which Go sends no SNI", caClient("127.0.0.1", tls.VersionTLS13, ALPN), unrecognizedName},
		{"ALPACA: another name", caClient("evil.example", tls.VersionTLS13, ALPN), unrecognizedName},
		{"another name in TLS 1.2", caClient("evil.example", tls.VersionTLS12, ALPN), unrecognizedName},
		{"an own name without a pending proof", caClient("bob.pool.example", tls.VersionTLS13, ALPN), unrecognizedName},
		{"no ALPN", caClient("alice.pool.example", tls.VersionTLS13), unrecognizedName},
		{"no ALPN in TLS 1.2", caClient("alice.pool.example", tls.VersionTLS12), unrecognizedName},
		{"a second protocol after acme-tls/1", caClient("alice.pool.example", tls.VersionTLS13, ALPN, "h2"), unrecognizedName},
		{"a second protocol before acme-tls/1", caClient("alice.pool.example", tls.VersionTLS13, "h2", ALPN), unrecognizedName},
		{"acme-tls/1 twice", caClient("alice.pool.example", tls.VersionTLS13, ALPN, ALPN), unrecognizedName},
		{"ALPACA: the ALPN of HTTP", caClient("alice.pool.example", tls.VersionTLS13, "http/1.1"), noApplicationProtocol},
		{"other ALPN in TLS 1.2", caClient("alice.pool.example", tls.VersionTLS12, "h2", "http/1.1"), noApplicationProtocol},
		{"ALPACA: the ALPN of NTS-KE", caClient("alice.pool.example", tls.VersionTLS13, "ntske/1"), noApplicationProtocol},
		{"acme-tls/1 in upper case", caClient("alice.pool.example", tls.VersionTLS13, "ACME-TLS/1"), noApplicationProtocol},
		{"TLS 1.1", tls11, protocolVersion},
	} {
		t.Run(c.rule, func(t *testing.T) {
			_, wire, _, err := visit(t, r, r.TLSConfig(), c.client)
			if err == nil {
				t.Fatal("the handshake succeeds")
			}
			// One plaintext alert record and nothing else: no ServerHello, no certificate.
			if len(wire) != 7 || wire[0] != 21 || wire[5] != 2 || wire[6] != c.alert {
				t.Errorf("the server sent % x, want the fatal alert %d alone (%v)", wire, c.alert, err)
			}
		})
	}
}

func TestAddressesAsSNINeverMatch(t *testing.T) {
	r, _ := pendingALPN(t)
	for _, sni := range []string{"127.0.0.1", "::1", "[::1]", "2001:db8::7", "", "*.pool.example", "alice.pool.example\x00"} {
		if r.match(&tls.ClientHelloInfo{ServerName: sni, SupportedProtos: []string{ALPN}}) != nil {
			t.Errorf("%q matches", sni)
		}
	}
	if r.match(&tls.ClientHelloInfo{ServerName: "alice.pool.example", SupportedProtos: []string{ALPN}}) == nil {
		t.Error("the name itself does not match")
	}
}

func TestTLSALPNEndsWithItsProof(t *testing.T) {
	r, first := pendingALPN(t)
	alice := mustName(t, "alice.pool.example")
	next, err := Certificate(alice, token+".other", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	second, err := r.PresentTLSALPN01(alice, next)
	if err != nil {
		t.Fatal(err)
	}
	config := r.TLSConfig()
	first()
	cs, _, _, err := visit(t, r, config, caClient("alice.pool.example", tls.VersionTLS13, ALPN))
	if err != nil || !cs.PeerCertificates[0].Equal(next.Leaf) {
		t.Fatalf("the newer proof is not shown: %v", err)
	}
	second()
	if _, wire, _, err := visit(t, r, config, caClient("alice.pool.example", tls.VersionTLS13, ALPN)); err == nil || len(wire) != 7 {
		t.Fatalf("a removed proof is still shown: %v", err)
	}
}

func TestTLSALPNNeverResumes(t *testing.T) {
	r, _ := pendingALPN(t)
	config := r.TLSConfig()
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		client := caClient("alice.pool.example", version, ALPN)
		client.ClientSessionCache = tls.NewLRUClientSessionCache(4)
		for range 2 {
			if cs, _, _, err := visit(t, r, config, client); err != nil || cs.DidResume {
				t.Errorf("%s: resumed %v, %v", tls.VersionName(version), cs.DidResume, err)
			}
		}
	}
}

func TestPresentTLSALPN01RefusesCertificatesThatProveNothing(t *testing.T) {
	r, _ := pendingALPN(t)
	alice, bob, evil := mustName(t, "alice.pool.example"), mustName(t, "bob.pool.example"), mustName(t, "evil.example")
	challenge := func(name hostcheck.Name) *tls.Certificate {
		cert, err := Certificate(name, keyAuth, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	withoutKey := *challenge(alice)
	withoutKey.PrivateKey = nil
	long := *challenge(alice)
	long.Certificate = append(long.Certificate, long.Certificate[0])
	for name, c := range map[string]struct {
		name hostcheck.Name
		cert *tls.Certificate
	}{
		"a name that is not ours":         {evil, challenge(evil)},
		"no name":                         {hostcheck.Name{}, challenge(alice)},
		"no certificate":                  {alice, nil},
		"an empty certificate":            {alice, &tls.Certificate{}},
		"a proof for another of ours":     {alice, challenge(bob)},
		"a proof without its key":         {alice, &withoutKey},
		"a proof with a chain":            {alice, &long},
		"a certificate for production":    {alice, selfSigned(t, nil, "alice.pool.example")},
		"a proof for two names":           {alice, selfSigned(t, []pkix.Extension{{Id: acmeIdentifier, Critical: true, Value: []byte{4, 0}}}, "alice.pool.example", "x.example")},
		"a certificate that is no X.509 ": {alice, &tls.Certificate{Certificate: [][]byte{{1, 2, 3}}, PrivateKey: withoutKey.Leaf}},
	} {
		if remove, err := r.PresentTLSALPN01(c.name, c.cert); err == nil || remove != nil {
			t.Errorf("%s: accepted", name)
		} else if !strings.HasPrefix(err.Error(), "present tls-alpn-01 for ") {
			t.Errorf("%s: error %q", name, err)
		}
	}
}

// selfSigned makes a certificate that Certificate would not make.
func selfSigned(t testing.TB, extra []pkix.Extension, names ...string) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{DNSNames: names, NotAfter: time.Now().Add(time.Hour), ExtraExtensions: extra}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestAStalledHandshakeEndsWithItsContext(t *testing.T) {
	r, _ := pendingALPN(t)
	near, far := net.Pipe()
	defer near.Close()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- tls.Server(far, r.TLSConfig()).HandshakeContext(ctx) }()
	if _, err := near.Write([]byte{22, 3, 1, 2, 0}); err != nil { // the head of a record that never comes
		t.Fatal(err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("handshake: %v", err)
	}
}
