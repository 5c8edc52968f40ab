package load

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"ntsagent/ntske"
	"ntsagent/ntske/aead"
	"ntsagent/ntske/cookie"
	"ntsagent/ntske/packet"
	"ntsagent/ntske/tcp"
)

const fakeName = "fake.test"

// fake is a key-exchange server, and an NTP server that gives answers no real one gives.
type fake struct {
	ntp  netip.AddrPort
	ke   KETarget
	ring *cookie.Ring
	// unknown has requests come with cookies whose key's id has its highest bit changed.
	unknown bool
	// reply returns the datagrams that answer a request, which a is the good answer to.
	reply func(a *answer) [][]byte

	mu      sync.Mutex
	seen    map[string]int // what must be fresh in every request, and how often it came
	queries int
}

// answer is a good answer before it is sealed.
type answer struct {
	n        int // of the request, from 1
	header   packet.Header
	uid      []byte // nil: to a request without NTS
	cookies  [][]byte
	seal     packet.Seal
	nonceLen int
	unsealed bool
	clear    bool // cookies stand before the authenticator, for all to see
	trailing []byte
}

// datagram is the answer as it is sent.
func (a *answer) datagram() []byte {
	out := a.header.AppendTo(nil)
	if a.uid != nil {
		out = packet.AppendField(out, packet.UniqueIdentifier, a.uid)
	}
	for _, c := range a.cookies {
		if a.clear {
			out = packet.AppendField(out, packet.NTSCookie, c)
		}
	}
	if a.uid != nil && !a.unsealed {
		var plaintext []byte
		for _, c := range a.cookies {
			if a.clear {
				break
			}
			plaintext = packet.AppendField(plaintext, packet.NTSCookie, c)
		}
		nonce := make([]byte, a.nonceLen)
		rand.Read(nonce)
		sealed := a.seal(nil, nonce, plaintext, out)
		lengths := []byte{0, byte(len(nonce)), byte(len(sealed) >> 8), byte(len(sealed))}
		out = packet.AppendField(out, packet.Authenticator, slices.Concat(lengths, nonce, sealed))
	}
	return append(out, a.trailing...)
}

func good(a *answer) [][]byte { return [][]byte{a.datagram()} }

// startFake runs a fake until the test ends.
func startFake(t *testing.T, reply func(*answer) [][]byte) *fake {
	t.Helper()
	return startFakeFor(t, false, reply)
}

// startFakeFor is startFake with fake.unknown.
func startFakeFor(t *testing.T, unknown bool, reply func(*answer) [][]byte) *fake {
	t.Helper()
	ring, err := cookie.Chrony{}.NewRing(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{ring: ring, unknown: unknown, reply: reply, seen: map[string]int{}}
	f.exchangeKeys(t)
	f.ntp = respond(t, func(b []byte) [][]byte {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.queries++
		a := f.answer(t, b)
		a.n = f.queries
		return f.reply(a)
	})
	return f
}

// respond answers every datagram with those that reply returns, until the test ends.
func respond(t *testing.T, reply func([]byte) [][]byte) netip.AddrPort {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for b := make([]byte, 1<<16); ; {
			n, from, err := conn.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			for _, out := range reply(bytes.Clone(b[:n])) {
				conn.WriteToUDPAddrPort(out, from)
			}
		}
	}()
	t.Cleanup(func() { conn.Close(); <-done })
	return conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

// answer is the good answer to the request b.
func (f *fake) answer(t *testing.T, b []byte) *answer {
	now := packet.FromTime(time.Now())
	q, err := packet.ParseHeader(b)
	if err != nil {
		t.Error(err)
	}
	f.seen[fmt.Sprint("transmit timestamp ", q.Transmit)]++
	a := &answer{header: packet.Header{Version: 4, Mode: packet.ModeServer, Stratum: 2, Origin: q.Transmit, Receive: now, Transmit: now}}
	var spent cookie.Session
	want := 0
	for field, err := range packet.Fields(b) {
		if err != nil {
			t.Error(err)
		}
		switch field.Type {
		case packet.UniqueIdentifier:
			a.uid = field.Body
			if len(a.uid) != 32 {
				t.Errorf("unique identifier of %d octets, want 32", len(a.uid))
			}
			for part := range slices.Chunk(a.uid, 8) {
				f.seen[fmt.Sprintf("part of a unique identifier %x", part)]++
			}
		case packet.NTSCookie:
			if f.unknown {
				if _, err = (cookie.Chrony{}).Open(nil, f.ring, field.Body); err != cookie.ErrUnknownKey {
					t.Errorf("cookie opens with %v, want %v", err, cookie.ErrUnknownKey)
				}
				field.Body = bytes.Clone(field.Body)
				field.Body[0] ^= 0x80
			} else {
				f.seen[fmt.Sprintf("cookie %x", field.Body)]++
			}
			if spent, err = (cookie.Chrony{}).Open(nil, f.ring, field.Body); err != nil {
				t.Error(err)
			}
			want++
		case packet.CookiePlaceholder:
			want++
		case packet.Authenticator:
			f.authenticate(t, spent.AEAD, spent.C2S, field.Body, b[:field.Offset])
		}
	}
	for range want {
		nonce := make([]byte, 16)
		rand.Read(nonce)
		c, err := cookie.Chrony{}.Seal(nil, f.ring.Current(), nonce, &spent)
		if err != nil {
			t.Error(err)
		}
		a.cookies = append(a.cookies, c)
	}
	if want > 0 {
		s2c, err := aead.New(spent.AEAD, spent.S2C)
		if err != nil {
			t.Error(err)
			return a
		}
		a.seal, a.nonceLen = s2c.Seal, spent.AEAD.NonceLen()
	}
	return a
}

// authenticate wants a request sealed with the client's key.
func (f *fake) authenticate(t *testing.T, alg aead.ID, key, body, ad []byte) {
	c2s, err := aead.New(alg, key)
	if err != nil {
		t.Error(err)
		return
	}
	n := int(binary.BigEndian.Uint16(body))
	if n != alg.NonceLen() {
		t.Errorf("nonce of %d octets with %v", n, alg)
	}
	f.seen[fmt.Sprintf("nonce %x", body[4:4+n])]++
	if _, err := c2s.Open(nil, body[4:4+n], body[4+n:], ad); err != nil {
		t.Errorf("request does not authenticate: %v", err)
	}
}

// asked returns how many requests came.
func (f *fake) asked() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.queries
}

// wantAsked wants that n requests have come.
func (f *fake) wantAsked(t *testing.T, n int) {
	t.Helper()
	if got := f.asked(); got != n {
		t.Errorf("%d requests have come, want %d", got, n)
	}
}

// wantAllFresh wants that no cookie was spent twice, whatever happened to its reply, and that nothing else
// that must be random came twice.
func (f *fake) wantAllFresh(t *testing.T) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for what, n := range f.seen {
		if n != 1 {
			t.Errorf("%d times the same %.20s…", n, what)
			return
		}
	}
}

// exchangeKeys serves NTS-KE with cookies of f.ring.
func (f *fake) exchangeKeys(t *testing.T) {
	t.Helper()
	cert, roots := selfSigned(t)
	service, err := ntske.New(ntske.Config{
		Format: cookie.Chrony{}, Ring: func(context.Context) *cookie.Ring { return f.ring },
		Opens: func() []aead.ID { return cookie.Chrony{}.Carries() },
	})
	if err != nil {
		t.Fatal(err)
	}
	server, err := tcp.New(tcp.Config{
		TLS:      ntske.TLSConfig(func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &cert, nil }),
		Services: map[string]tcp.Service{ntske.Protocol: service},
		Timeout:  patience,
	})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { err := server.Serve(ctx, ln); server.Wait(); done <- err }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		ln.Close()
	})
	f.ke = KETarget{Addr: ln.Addr().(*net.TCPAddr).AddrPort(), Name: fakeName, Roots: roots, Timeout: patience}
}

func selfSigned(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{fakeName}}
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
