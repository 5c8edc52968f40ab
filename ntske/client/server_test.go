package client

import (
	"bytes"
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
	"sync/atomic"
	"testing"
	"time"

	"ntsagent/ntske"
	"ntsagent/ntske/aead"
	"ntsagent/ntske/cookie"
	"ntsagent/ntske/packet"
	"ntsagent/ntske/tcp"
)

const testName = "alice.pool.example"

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
	conf := ntske.Config{Ring: func() *cookie.Ring { return ring }, NTPPort: w.ntp.addr.Port()}
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
	srv, err := tcp.New(tcp.Config{TLS: conf, Services: map[string]tcp.Service{"ntske/1": s}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx, ln) }()
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

// responder is a small NTP server that does what chronyd does with NTS.
type responder struct {
	addr    netip.AddrPort
	ring    atomic.Pointer[cookie.Ring]
	queries atomic.Int32
	// before may swallow a request (false) or send something ahead of the answer.
	before atomic.Pointer[func(n int32, request []byte, send func([]byte)) bool]
	// header may alter what is answered.
	header atomic.Pointer[func(*packet.Header)]
}

func respond(t *testing.T, ip string, ring *cookie.Ring) *responder {
	t.Helper()
	r := &responder{}
	r.ring.Store(ring)
	r.run(t, ip, 0)
	return r
}

// run answers at a port, 0 for any.
func (r *responder) run(t *testing.T, ip string, port int) {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(ip), Port: port})
	if err != nil {
		t.Fatal(err)
	}
	r.addr = conn.LocalAddr().(*net.UDPAddr).AddrPort()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for b := make([]byte, 2048); ; {
			n, from, err := conn.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			send := func(out []byte) { conn.WriteToUDPAddrPort(out, from) }
			if f := r.before.Load(); f == nil || (*f)(r.queries.Add(1), b[:n], send) {
				send(r.answer(bytes.Clone(b[:n]), time.Now()))
			}
		}
	}()
	t.Cleanup(func() { conn.Close(); <-done })
}

func (r *responder) hook(f func(n int32, request []byte, send func([]byte)) bool) { r.before.Store(&f) }

// answer returns the reply to one request.
func (r *responder) answer(b []byte, now time.Time) []byte {
	q, err := packet.ParseHeader(b)
	if err != nil {
		return nil
	}
	h := packet.Header{Version: 4, Mode: packet.ModeServer, Stratum: 2, RefID: [4]byte{198, 51, 100, 4}, Origin: q.Transmit,
		RefTime: packet.FromTime(now), Receive: packet.FromTime(now), Transmit: packet.FromTime(now)}
	if f := r.header.Load(); f != nil {
		(*f)(&h)
	}
	req, err := packet.ParseNTSRequest(b)
	if err != nil {
		return h.AppendTo(nil)
	}
	s, err := cookie.Chrony{}.Open(nil, r.ring.Load(), req.Cookie)
	if err != nil {
		return nak(q, req.UID)
	}
	c2s, _ := aead.NewSIV(s.C2S)
	s2c, _ := aead.NewSIV(s.S2C)
	n, err := req.Verify(nil, 16, c2s.Open)
	if err != nil {
		return nak(q, req.UID)
	}
	var fresh, nonce [16]byte
	var plaintext []byte
	for range n {
		rand.Read(fresh[:])
		c, err := cookie.Chrony{}.Seal(nil, r.ring.Load().Current(), fresh[:], &s)
		if err != nil {
			return nil
		}
		plaintext = packet.AppendCookie(plaintext, c)
	}
	rand.Read(nonce[:])
	return packet.AppendNTSResponse(nil, h, req.UID, plaintext, nonce[:], s2c.Seal)
}

// nak is an NTS NAK (RFC 8915 §5.7).
func nak(q packet.Header, uid []byte) []byte {
	h := packet.Header{Leap: 3, Version: 4, Mode: packet.ModeServer, RefID: [4]byte{'N', 'T', 'S', 'N'}, Origin: q.Transmit}
	return packet.AppendField(h.AppendTo(nil), packet.UniqueIdentifier, uid)
}
