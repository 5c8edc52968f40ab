package issuer_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/wfe"
	"github.com/miekg/dns"

	"ntsagent/acme"
	"ntsagent/acme/challenge"
	"ntsagent/acme/front/fronttest"
	"ntsagent/acme/issuer"
	"ntsagent/acme/pebble"
	"ntsagent/acme/store"
	"ntsagent/hostcheck"
)

// world is a real ACME server with its DNS, and the challenge listeners of one agent.
type world struct {
	directory string
	caFile    string // root of the ACME server's own certificate
	server    *server
	manage    http.Handler // pebble's own management
	zone      *zone
	names     hostcheck.Set
	responder *challenge.Responder
	http      *server
	tlsAddr   string

	mu    sync.Mutex
	asked []string // paths that the CA asked port 80 for
}

// settings are pebble's knobs. Its constructors read them from the environment, one world at a time.
type settings struct {
	authzReuse          int // percent
	eab                 bool
	expired             bool                            // the server's own TLS certificate is over
	front               func(http.Handler) http.Handler // stands before the server; nil = nothing does
	webPort, routerPort uint16                          // where the CA comes for proofs, of who stands before the agent; 0 = the agent's own
}

var pebbleEnv sync.Mutex

func newWorld(t *testing.T, s settings, names ...hostcheck.Name) *world {
	t.Helper()
	w := &world{zone: newZone(t)}
	for _, n := range names {
		w.zone.set(n, "127.0.0.1")
	}
	httpListener, tlsListener := listen(t), listen(t)
	httpPort, tlsPort := port(httpListener), port(tlsListener)
	if s.webPort != 0 {
		httpPort = int(s.webPort)
	}
	if s.routerPort != 0 {
		tlsPort = int(s.routerPort)
	}
	w.names = hostcheck.NewSet(names, uint16(httpPort))
	w.responder = challenge.New(w.names, nullLog)
	w.http = newServer(httpListener, challenge.NewHTTPServer(w.record(w.responder), nullLog))
	w.http.Start()
	t.Cleanup(w.http.Close)
	w.tlsAddr = tlsListener.Addr().String()
	go serveTLS(tlsListener, w.responder.TLSConfig())

	quiet := log.New(io.Discard, "", 0)
	memory := db.NewMemoryStore()
	profiles := map[string]ca.Profile{"default": {Description: "90 days"}, "short": {Description: "six days", ValidityPeriod: 6 * 86400}}
	authority := ca.New(quiet, memory, "", "ecdsa", 0, 1, profiles)
	pebbleEnv.Lock()
	defer pebbleEnv.Unlock()
	for k, v := range map[string]string{"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0", "PEBBLE_AUTHZREUSE": strconv.Itoa(s.authzReuse)} {
		if err := os.Setenv(k, v); err != nil {
			t.Fatal(err)
		}
	}
	validator := pebble.Validator(quiet, httpPort, tlsPort, w.zone.addr, memory)
	if s.eab {
		if err := memory.AddExternalAccountKeyByID(customer, customerKey); err != nil {
			t.Fatal(err)
		}
	}
	front := wfe.New(quiet, memory, validator, authority, []string{"ca.example"}, true, s.eab, 1, 1)
	handler := pebble.Handler(front.Handler(), memory)
	w.manage = front.ManagementHandler()
	if s.front != nil {
		handler = s.front(handler)
	}
	w.server = newServer(listen(t), &http.Server{Handler: handler, ErrorLog: quiet})
	if s.expired {
		w.server.TLS = &tls.Config{Certificates: []tls.Certificate{expiredCertificate(t)}}
	}
	w.server.StartTLS()
	t.Cleanup(w.server.Close)
	w.directory = w.server.URL + wfe.DirectoryPath
	w.caFile = filepath.Join(t.TempDir(), "acme-root.pem")
	root := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.server.Certificate().Raw})
	if err := os.WriteFile(w.caFile, root, 0o600); err != nil {
		t.Fatal(err)
	}
	return w
}

// issuer makes an Issuer with a fresh store; edit may change its configuration.
func (w *world) issuer(t *testing.T, edit ...func(*issuer.Config)) *issuer.Issuer {
	t.Helper()
	cfg := issuer.Config{Directory: w.directory, Email: "ops@alice.example", AgreeToTerms: true, CAFile: w.caFile,
		Challenges: []string{issuer.HTTP01, issuer.TLSALPN01}, Responder: w.responder, Store: openStore(t, t.TempDir()), Log: nullLog}
	for _, e := range edit {
		e(&cfg)
	}
	i, err := issuer.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func only(challenges ...string) func(*issuer.Config) {
	return func(c *issuer.Config) { c.Challenges = challenges }
}

func withStore(s *store.Store) func(*issuer.Config) { return func(c *issuer.Config) { c.Store = s } }

func openStore(t *testing.T, dir string) *store.Store {
	t.Helper()
	s, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// zone is the DNS that pebble and the agent ask.
type zone struct {
	addr string
	mu   sync.Mutex
	a    map[string]string
}

func newZone(t *testing.T) *zone {
	t.Helper()
	z := &zone{a: make(map[string]string)}
	z.addr = z.serve(t)
	return z
}

// serve answers over TCP and UDP at a port where nobody else has either.
func (z *zone) serve(t *testing.T) (addr string) {
	t.Helper()
	for {
		ln := listen(t)
		addr = ln.Addr().String()
		conn, err := net.ListenPacket("udp4", addr)
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, server := range []*dns.Server{{Listener: ln}, {PacketConn: conn}} {
			started := make(chan struct{})
			server.Handler, server.NotifyStartedFunc = z, func() { close(started) }
			go server.ActivateAndServe()
			<-started
			t.Cleanup(func() { server.Shutdown() })
		}
		return addr
	}
}

func (z *zone) set(n hostcheck.Name, addr string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.a[dns.Fqdn(n.String())] = addr
}

func (z *zone) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	z.mu.Lock()
	defer z.mu.Unlock()
	m := new(dns.Msg).SetReply(q)
	m.RecursionAvailable = true
	name := q.Question[0].Name
	addr := z.a[name]
	switch {
	case addr == "":
		m.Rcode = dns.RcodeNameError
	case q.Question[0].Qtype == dns.TypeA:
		m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.ParseIP(addr)})
	}
	w.WriteMsg(m)
}

// listen opens a port that is the test's until it ends, whether somebody listens there or not.
func listen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", fronttest.FreePort(t)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

// server is one that can go down, see goDown.
type server struct {
	*httptest.Server
	tcp *net.TCPListener
}

func newServer(ln net.Listener, config *http.Server) *server {
	return &server{&httptest.Server{Listener: ln, Config: config}, ln.(*net.TCPListener)}
}

func port(ln net.Listener) int { return ln.Addr().(*net.TCPAddr).Port }

// serveTLS is the least a TLS-ALPN-01 listener must do.
func serveTLS(ln net.Listener, config *tls.Config) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			tc := tls.Server(c, config)
			_ = tc.Handshake() // what it came to is the validator's to say
			tc.Close()
		}()
	}
}

func mustName(t *testing.T, s string) hostcheck.Name {
	t.Helper()
	n, err := hostcheck.ParseName(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// newOrder makes an order with a key of its own.
func newOrder(t *testing.T, name hostcheck.Name, curve elliptic.Curve) (acme.Order, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{name.String()}}, key)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	return acme.Order{Name: name, CSR: csr}, key
}

// leafOf reads the first certificate of a chain.
func leafOf(t *testing.T, chain []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(chain)
	if block == nil {
		t.Fatalf("no PEM in the chain")
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

// expiredCertificate is one for 127.0.0.1 whose time is over: what a machine sees whose clock runs ahead.
func expiredCertificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(-24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
