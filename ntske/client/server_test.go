package client

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/netip"
	"testing"
	"time"

	"ntsagent/ntske"
	"ntsagent/ntske/cookie"
	"ntsagent/ntske/tcp"
)

const testName = "alice.pool.example"

// patience is how long what comes is waited for: more than any machine stands still.
const patience = time.Minute

// patient is a context that ends so late that nothing is held up by it.
func patient(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// soon asks with a context that ends before long, for what never comes; on a machine on which even what does come takes
// longer, once more with twice the time.
func soon(t *testing.T, far func(error) bool, ask func(context.Context) error) error {
	t.Helper()
	for time := 300 * time.Millisecond; ; time *= 2 {
		ctx, cancel := context.WithTimeout(t.Context(), time)
		err := ask(ctx)
		cancel()
		if far(err) || time > patience/4 {
			return err
		}
	}
}

// world is a key-exchange server and an NTP server that opens its cookies, on
// one loopback address.
type world struct {
	roots *x509.CertPool
	cert  tls.Certificate
	ring  *cookie.Ring
	ke    netip.AddrPort
	ntp   *responder
}

// newWorld starts both. change may alter the key-exchange server's settings.
func newWorld(t *testing.T, ip string, change func(*ntske.Config)) *world {
	t.Helper()
	w := new(world)
	w.cert, w.roots = identity(t)
	ring, err := cookie.Chrony{}.NewRing(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	w.ring = ring
	w.ntp = respond(t, ip, ring)
	conf := ntske.Config{Format: cookie.Chrony{}, Ring: func(context.Context) *cookie.Ring { return ring }, NTPPort: w.ntp.addr.Port()}
	if change != nil {
		change(&conf)
	}
	server, err := ntske.New(conf)
	if err != nil {
		t.Fatal(err)
	}
	w.ke = serveTLS(t, ip, ntske.TLSConfig(func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &w.cert, nil }), server)
	return w
}

// serveTLS runs s for ntske/1 and returns where.
func serveTLS(t *testing.T, ip string, conf *tls.Config, s tcp.Service) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		t.Fatal(err)
	}
	serveOn(t, ln, conf, s)
	return ln.Addr().(*net.TCPAddr).AddrPort()
}

func serveOn(t *testing.T, ln net.Listener, conf *tls.Config, s tcp.Service) {
	t.Helper()
	srv, err := tcp.New(tcp.Config{TLS: conf, Services: map[string]tcp.Service{"ntske/1": s}, Timeout: 2 * patience})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { err := srv.Serve(ctx, ln); srv.Wait(); done <- err }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		ln.Close()
	})
}

// identity is a certificate by a CA for testName and the loopback addresses.
func identity(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{Organization: []string{"Test CA"}},
		DNSNames: []string{testName}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(31*24*time.Hour + time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}
