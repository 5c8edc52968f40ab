package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"ntsagent/ntske"
	"ntsagent/ntske/aead"
	"ntsagent/ntske/cookie"
	"ntsagent/ntske/record"
)

func TestKeyExchangeWithOurOwnServer(t *testing.T) {
	for _, ip := range []string{"127.0.0.1", "::1"} {
		t.Run(ip, func(t *testing.T) {
			w := newWorld(t, ip, func(c *ntske.Config) { c.NTPHost = "ntp.example" })
			res, err := KeyExchange(patient(t), Config{Addr: w.ke, Name: testName, Roots: w.roots})
			if err != nil {
				t.Fatal(err)
			}
			if len(res.Cookies) != 8 || res.Keys.AEAD != 15 || res.Server != "ntp.example" || res.Port != w.ntp.addr.Port() || res.Took <= 0 {
				t.Errorf("got %d cookies, %v, %q:%d in %v", len(res.Cookies), res.Keys.AEAD, res.Server, res.Port, res.Took)
			}
			s, err := cookie.Chrony{}.Open(nil, w.ring, res.Cookies[7])
			if err != nil || string(s.C2S) != string(res.Keys.C2S) || string(s.S2C) != string(res.Keys.S2C) {
				t.Errorf("the cookie does not hold the keys the client derived: %v", err)
			}
		})
	}
}

func TestPortIs123UnlessAnnounced(t *testing.T) {
	w := newWorld(t, "127.0.0.1", func(c *ntske.Config) { c.NTPPort = 0 })
	res, err := KeyExchange(patient(t), Config{Addr: w.ke, Name: testName, Roots: w.roots})
	if err != nil || res.Port != 123 || res.Server != "" {
		t.Errorf("got %q:%d, %v", res.Server, res.Port, err)
	}
}

func TestSNIIsSentForNamesOnlyAndAnAddressIsVerifiedAsOne(t *testing.T) {
	cert, roots := identity(t)
	var sni atomic.Value
	addr := script(t, &tls.Config{NextProtos: []string{"ntske/1"}, GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		sni.Store(h.ServerName)
		return &cert, nil
	}}, reply(record.NTPv4, 15))
	for name, want := range map[string]string{testName: testName, testName + ".": testName, "127.0.0.1": "", "::1": ""} {
		if _, err := KeyExchange(patient(t), Config{Addr: addr, Name: name, Roots: roots}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := sni.Load(); got != want {
			t.Errorf("%s: SNI %q, want %q", name, got, want)
		}
	}
	_, err := KeyExchange(patient(t), Config{Addr: addr, Name: "127.0.0.9", Roots: roots})
	blames(t, err, Server, "tls", "show a certificate that verifies")
}

// serviceFunc is a tcp.Service made of a func.
type serviceFunc func(context.Context, *tls.Conn)

func (f serviceFunc) ServeConn(ctx context.Context, c *tls.Conn) { f(ctx, c) }

// script serves a fixed answer to every request.
func script(t *testing.T, conf *tls.Config, answer []byte) netip.AddrPort {
	t.Helper()
	return serveTLS(t, "127.0.0.1", conf, serviceFunc(func(_ context.Context, c *tls.Conn) {
		if _, err := record.ReadRequest(c); err == nil {
			c.Write(answer)
		}
	}))
}

// scriptFor hands every request on and answers with an Error.
func scriptFor(t *testing.T, conf *tls.Config, asked chan<- record.Request) netip.AddrPort {
	t.Helper()
	return serveTLS(t, "127.0.0.1", conf, serviceFunc(func(_ context.Context, c *tls.Conn) {
		if req, err := record.ReadRequest(c); err == nil {
			asked <- req
			c.Write(record.AppendError(nil, record.InternalError))
		}
	}))
}

// reply is an answer with one cookie.
func reply(p record.Protocol, alg aead.ID) []byte {
	r := record.Response{Protocols: []record.Protocol{p}, AEADs: []aead.ID{alg}, Cookies: [][]byte{make([]byte, 100)}}
	return r.AppendTo(nil)
}

// blames requires an *Error of this fault and step with these words in it.
func blames(t *testing.T, err error, fault Fault, step, words string) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Fault != fault || e.Step != step || !strings.Contains(e.Error(), words) {
		t.Errorf("got %v (%+v), want a fault of the %v in step %s with %q", err, e, fault, step, words)
	}
}

func TestAnswersThatAStrictClientRefuses(t *testing.T) {
	cert, roots := identity(t)
	good := reply(record.NTPv4, 15)
	for name, tt := range map[string]struct {
		answer []byte
		words  string
	}{
		"Error 2":                  {record.AppendError(nil, record.InternalError), "did not serve the request: NTS-KE: peer answered"},
		"Error 1":                  {record.AppendError(nil, record.BadRequest), "did not serve the request"},
		"no protocol":              {[]byte{0x80, 1, 0, 0, 0x80, 0, 0, 0}, "agree to NTPv4"},
		"another protocol":         {reply(0x8001, 15), "agree to NTPv4"},
		"no algorithm":             {[]byte{0x80, 1, 0, 2, 0, 0, 0x80, 4, 0, 0, 0x80, 0, 0, 0}, "agree to any AEAD algorithm of [AES-SIV-CMAC-256]"},
		"an algorithm not offered": {reply(record.NTPv4, 17), "choose an AEAD algorithm that was offered, but AES-SIV-CMAC-512"},
		"nothing":                  {nil, "as RFC 8915 asks"},
		"half an answer":           {good[:len(good)-5], "as RFC 8915 asks"},
		"a Warning":                {append([]byte{0x80, 3, 0, 2, 0, 0}, good...), "as RFC 8915 asks"},
		"octets after it":          {append(good[:len(good):len(good)], 0), "as RFC 8915 asks"},
		"text":                     {[]byte("HTTP/1.1 400 Bad Request\r\n\r\n"), "as RFC 8915 asks"},
	} {
		t.Run(name, func(t *testing.T) {
			addr := script(t, &tls.Config{NextProtos: []string{"ntske/1"}, Certificates: []tls.Certificate{cert}}, tt.answer)
			res, err := KeyExchange(patient(t), Config{Addr: addr, Name: testName, Roots: roots})
			blames(t, err, Server, "ntske", tt.words)
			if len(res.TLS.PeerCertificates) == 0 {
				t.Error("the handshake, which was good, is not reported")
			}
			if res.Keys.C2S != nil {
				t.Error("keys of a failed exchange are returned")
			}
		})
	}
}

func TestErrorRecordCanBeTold(t *testing.T) {
	cert, roots := identity(t)
	addr := script(t, &tls.Config{NextProtos: []string{"ntske/1"}, Certificates: []tls.Certificate{cert}}, record.AppendError(nil, record.InternalError))
	_, err := KeyExchange(patient(t), Config{Addr: addr, Name: testName, Roots: roots})
	var told *record.Error
	if !errors.As(err, &told) || told.Code != record.InternalError {
		t.Errorf("got %v", err)
	}
}

func TestHandshakesThatFailAreTheServersFault(t *testing.T) {
	cert, roots := identity(t)
	other, _ := identity(t)
	certs := []tls.Certificate{cert}
	tests := []struct {
		name  string
		conf  *tls.Config
		ask   Config
		words string
	}{
		{"a certificate nobody vouches for", &tls.Config{NextProtos: []string{"ntske/1"}, Certificates: []tls.Certificate{other}}, Config{Name: testName}, "show a certificate that verifies: x509"},
		{"a certificate for another name", &tls.Config{NextProtos: []string{"ntske/1"}, Certificates: certs}, Config{Name: "bob.pool.example"}, "show a certificate that verifies: x509"},
		{"TLS 1.2", &tls.Config{NextProtos: []string{"ntske/1"}, Certificates: certs, MaxVersion: tls.VersionTLS12}, Config{Name: testName}, "complete a TLS 1.3 handshake"},
		{"another protocol", &tls.Config{NextProtos: []string{"h2"}, Certificates: certs}, Config{Name: testName}, "complete a TLS 1.3 handshake"},
		{"no protocol", &tls.Config{Certificates: certs}, Config{Name: testName}, "negotiate the application protocol ntske/1"},
		{"no certificate", &tls.Config{NextProtos: []string{"ntske/1"}, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, nil }}, Config{Name: testName}, "complete a TLS 1.3 handshake"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.ask.Addr, tt.ask.Roots = script(t, tt.conf, nil), roots
			_, err := KeyExchange(patient(t), tt.ask)
			blames(t, err, Server, "tls", tt.words)
		})
	}
}

func TestServersThatDoNotAnswerInTime(t *testing.T) {
	cert, roots := identity(t)
	conf := &tls.Config{NextProtos: []string{"ntske/1"}, Certificates: []tls.Certificate{cert}}
	silent := serveTLS(t, "127.0.0.1", conf, serviceFunc(func(_ context.Context, c *tls.Conn) { io.Copy(io.Discard, c) })) // for longer than anybody waits
	asked := func(err error) bool {
		var e *Error
		return !errors.As(err, &e) || e.Step == "ntske"
	}
	err := soon(t, asked, func(ctx context.Context) error {
		_, err := KeyExchange(ctx, Config{Addr: silent, Name: testName, Roots: roots})
		return err
	})
	blames(t, err, Server, "ntske", "answer the request in time")

	none := netip.MustParseAddrPort("127.0.0.1:1")
	_, err = KeyExchange(patient(t), Config{Addr: none, Name: testName, Roots: roots})
	blames(t, err, Server, "connect", "accept a TCP connection: connection refused")
}

// nowhere cannot even be connected to: a link-local address without a link.
var nowhere = netip.MustParseAddrPort("[fe80::1]:123")

func TestWhatThisToolCannotDoIsNotTheServersFault(t *testing.T) {
	w := newWorld(t, "127.0.0.1", nil)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := KeyExchange(cancelled, Config{Addr: w.ke, Name: testName, Roots: w.roots})
	blames(t, err, Tool, "connect", "this tool could not go on")
	_, err = KeyExchange(patient(t), Config{Addr: nowhere, Name: testName, Roots: w.roots})
	blames(t, err, Tool, "connect", "this tool could not reach the server: ")

	interrupted, stop := context.WithCancel(patient(t))
	conf := &tls.Config{NextProtos: []string{"ntske/1"}, Certificates: []tls.Certificate{w.cert}}
	addr := serveTLS(t, "127.0.0.1", conf, serviceFunc(func(_ context.Context, c *tls.Conn) {
		record.ReadRequest(c)
		stop()
		io.Copy(io.Discard, c)
	}))
	_, err = KeyExchange(interrupted, Config{Addr: addr, Name: testName, Roots: w.roots})
	blames(t, err, Tool, "ntske", "this tool could not go on")
}

func TestKeysPrintNoKey(t *testing.T) {
	k := Keys{AEAD: 15, C2S: []byte(strings.Repeat("C", 32)), S2C: []byte(strings.Repeat("S", 32))}
	text := fmt.Sprintf("%v|%+v|%#v|%s|%q|%x|%d|%v|%+v", k, k, k, k, k, k, k, &k, struct{ K Keys }{k})
	b, err := json.Marshal(map[string]any{"k": k, "r": Result{Keys: k}.Keys})
	if err != nil {
		t.Fatal(err)
	}
	text += string(b)
	for _, leak := range []string{"CCCC", "SSSS", "4343", "5353", "67 67", "83 83", "0x43", "Q0ND"} {
		if strings.Contains(text, leak) {
			t.Errorf("%q in %s", leak, text)
		}
	}
	if !strings.Contains(text, "AES-SIV-CMAC-256") {
		t.Errorf("does not even name the algorithm: %s", text)
	}
}

func TestErrorsDriveNoTerminal(t *testing.T) {
	err := did("tls", "behave", errors.New("a\x1b[2J\nb\r\u009b\u2028c"))
	if got := err.Error(); got != "the server did not behave: a?[2J?b???c" {
		t.Errorf("got %q", got)
	}
	if got := issuer(&x509.Certificate{}); got != "" {
		t.Errorf("issuer of nobody: %q", got)
	}
}
