package ntske

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"io"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"ntsagent/ntske/aead"
	"ntsagent/ntske/cookie"
	"ntsagent/ntske/tcp"
)

const (
	testName = "alice.pool.example"
	critical = 0x8000
)

// rec writes one record by hand, so that the tests share nothing with the codec.
func rec(kind uint16, body ...byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, kind)
	b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
	return append(b, body...)
}

func join(parts ...[]byte) []byte { return slices.Concat(parts...) }

// The records of the plainest request, and it whole.
var (
	nextNTPv4 = rec(critical|1, 0, 0)
	aead15    = rec(4, 0, 15)
	end       = rec(critical)
	plain     = join(nextNTPv4, aead15, end)
)

// Error answers as they must look on the wire (RFC 8915 §4.1.3).
var (
	error0 = []byte{0x80, 2, 0, 2, 0, 0, 0x80, 0, 0, 0}
	error1 = []byte{0x80, 2, 0, 2, 0, 1, 0x80, 0, 0, 0}
	error2 = []byte{0x80, 2, 0, 2, 0, 2, 0x80, 0, 0, 0}
)

// field is a record as a client sees it.
type field struct {
	kind     uint16
	critical bool
	body     []byte
}

// fields takes a reply apart.
func fields(t *testing.T, b []byte) (all []field) {
	t.Helper()
	for len(b) > 0 {
		if len(b) < 4 || len(b) < 4+int(binary.BigEndian.Uint16(b[2:])) {
			t.Fatalf("reply ends within a record: % x", b)
		}
		kind, n := binary.BigEndian.Uint16(b), 4+int(binary.BigEndian.Uint16(b[2:]))
		all = append(all, field{kind &^ critical, kind&critical != 0, b[4:n]})
		b = b[n:]
	}
	return all
}

func kinds(all []field) (k []uint16) {
	for _, f := range all {
		k = append(k, f.kind)
	}
	return k
}

func bodies(all []field, kind uint16) (b [][]byte) {
	for _, f := range all {
		if f.kind == kind {
			b = append(b, f.body)
		}
	}
	return b
}

// lab is a server on a loopback address and what it has reported.
type lab struct {
	t        testing.TB
	addr     string
	roots    *x509.CertPool
	ring     *cookie.Ring
	mu       sync.Mutex
	outcomes []Outcome
}

// newLab starts a server whose settings change may alter. Connections last timeout.
func newLab(t testing.TB, timeout time.Duration, change func(*Config)) *lab {
	t.Helper()
	return newLabAt(t, "127.0.0.1", timeout, change)
}

func newLabAt(t testing.TB, ip string, timeout time.Duration, change func(*Config)) *lab {
	t.Helper()
	l := &lab{t: t}
	ring, err := cookie.Chrony{}.NewRing(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	l.ring = ring
	cfg := Config{Format: cookie.Chrony{}, Ring: func(context.Context) *cookie.Ring { return ring }, Observe: func(_ context.Context, o Outcome) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.outcomes = append(l.outcomes, o)
	}}
	if change != nil {
		change(&cfg)
	}
	server, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	cert := l.identity(time.Now().Add(time.Hour))
	conf := TLSConfig(func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert, nil })
	srv, err := tcp.New(tcp.Config{TLS: conf, Services: map[string]tcp.Service{Protocol: server}, Timeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		t.Fatal(err)
	}
	l.addr = ln.Addr().String()
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
	return l
}

// identity makes the server's certificate and the pool that verifies it.
func (l *lab) identity(end time.Time) *tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		l.t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{testName}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: end.Add(-2 * time.Hour), NotAfter: end}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		l.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		l.t.Fatal(err)
	}
	l.roots = x509.NewCertPool()
	l.roots.AddCert(leaf)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// session is a TLS connection of which every octet that came is kept.
type session struct {
	*tls.Conn
	wire *recorder
}

// recorder keeps what was read from a connection.
type recorder struct {
	net.Conn
	read bytes.Buffer
}

func (r *recorder) Read(b []byte) (int, error) {
	n, err := r.Conn.Read(b)
	r.read.Write(b[:n])
	return n, err
}

// connect does the handshake; change may alter the client's settings. This
// client would take a session ticket, which a server sends to no other.
func (l *lab) connect(change func(*tls.Config)) (*session, error) {
	nc, err := net.Dial("tcp", l.addr)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(labTime))
	conf := &tls.Config{RootCAs: l.roots, ServerName: testName, NextProtos: []string{Protocol},
		ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	if change != nil {
		change(conf)
	}
	wire := &recorder{Conn: nc}
	c := tls.Client(wire, conf)
	return &session{c, wire}, c.Handshake()
}

func (l *lab) open(t testing.TB) *session {
	t.Helper()
	s, err := l.connect(nil)
	if err != nil {
		t.Fatalf("handshake: %v", err)
	}
	return s
}

// ask sends the pieces, each as a TLS record, and returns all that comes back.
func (l *lab) ask(t testing.TB, pieces ...[]byte) []byte {
	t.Helper()
	s := l.open(t)
	defer s.Close()
	for _, p := range pieces {
		if _, err := s.Write(p); err != nil {
			break // the server has heard enough
		}
	}
	return s.rest(t)
}

// rest reads until the server says that nothing follows.
func (s *session) rest(t testing.TB) []byte {
	t.Helper()
	b, err := io.ReadAll(s)
	if err != nil {
		t.Fatalf("reading the reply: %v after % x", err, b)
	}
	return b
}

// outcome waits for the next outcome and requires it to be want.
func (l *lab) outcome(t testing.TB, want Outcome) {
	t.Helper()
	for deadline := time.Now().Add(labTime); ; {
		l.mu.Lock()
		if len(l.outcomes) > 0 {
			got := l.outcomes[0]
			l.outcomes = l.outcomes[1:]
			l.mu.Unlock()
			if got != want {
				t.Errorf("outcome %q, want %q", got, want)
			}
			return
		}
		l.mu.Unlock()
		if time.Now().After(deadline) {
			t.Fatalf("no outcome was reported, want %q", want)
		}
		<-time.After(time.Millisecond)
	}
}

// refuses sends a request and requires this answer and outcome.
func (l *lab) refuses(t *testing.T, request, answer []byte, want Outcome) {
	t.Helper()
	if got := l.ask(t, request); !bytes.Equal(got, answer) {
		t.Errorf("request % x\n got % x\nwant % x", request, got, answer)
	}
	l.outcome(t, want)
}

// serves sends a request and requires cookies; it returns the answer's records.
func (l *lab) serves(t *testing.T, pieces ...[]byte) []field {
	t.Helper()
	all := fields(t, l.ask(t, pieces...))
	if len(bodies(all, 5)) == 0 {
		t.Errorf("request % x: no cookies in the answer, records %v", pieces, kinds(all))
	}
	l.outcome(t, Served)
	return all
}

// exported are the keys a client derives, by RFC 8915 §5.1 and nothing of ours.
func exported(t *testing.T, c *tls.Conn, alg aead.ID, n int) (c2s, s2c []byte) {
	t.Helper()
	state := c.ConnectionState()
	derive := func(direction byte) []byte {
		k, err := state.ExportKeyingMaterial("EXPORTER-network-time-security", []byte{0, 0, byte(alg >> 8), byte(alg), direction}, n)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	return derive(0), derive(1)
}

// listen answers every connection by TLS with the same octets, under a
// certificate that ends when told, and passes on what each was sent after the
// handshake.
func (l *lab) listen(t *testing.T, end time.Time, answer ...byte) (netip.AddrPort, *x509.CertPool, <-chan []byte) {
	t.Helper()
	own := &lab{t: t}
	conf := &tls.Config{NextProtos: []string{Protocol}, Certificates: []tls.Certificate{*own.identity(end)}}
	ln, err := tls.Listen("tcp", "127.0.0.1:0", conf)
	if err != nil {
		t.Fatal(err)
	}
	heard := make(chan []byte, 16)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			c.SetDeadline(time.Now().Add(labTime))
			request := make([]byte, 1024)
			n, _ := c.Read(request) // fails with the handshake
			c.Write(answer)
			c.Close()
			heard <- request[:n]
		}
	}()
	t.Cleanup(func() { ln.Close(); <-done })
	return ln.Addr().(*net.TCPAddr).AddrPort(), own.roots, heard
}
