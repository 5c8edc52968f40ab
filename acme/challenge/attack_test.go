package challenge

import (
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
)

// h2 is a client of HTTP/2 with prior knowledge: its preface and many SETTINGS.
var h2 = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + strings.Repeat("\x00\x00\x00\x04\x00\x00\x00\x00\x00", 1000)

// What published flaws of others did at this port, and what else belongs to none
// of our forms. All of it finds a status at most.
func TestAttacksOnThePortOfHTTP01FindNothing(t *testing.T) {
	t.Parallel()
	addr := serveHTTP(t, NewHTTPServer(newResponder(t, hclog.NewNullLogger()), hclog.NewNullLogger()))
	const good = "Host: alice.pool.example\r\n"
	cookies := func(n int) string { return "Cookie: " + strings.Repeat("a=;", n) + "\r\n" }
	for _, c := range []struct {
		rule   string
		raw    string
		status string
	}{
		{"CVE-2026-33814 HTTP/2 with SETTINGS without end is not spoken", h2, "400"},
		{"CVE-2026-33814 nor after an upgrade", "GET " + path + "x HTTP/1.1\r\n" + good + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n" + h2, "404"},
		{"CVE-2025-58186 a header full of cookies", "GET " + path + " HTTP/1.1\r\n" + good + cookies(400<<10) + "\r\n", "431"},
		{"CVE-2025-58186 many headers of cookies", "GET " + path + " HTTP/1.1\r\n" + good + strings.Repeat("Cookie: a=\r\n", 40<<10) + "\r\n", "431"},
		{"CVE-2025-58186 cookies that fit are not looked at", "GET " + path + "x HTTP/1.1\r\n" + good + cookies(2000) + "\r\n", "404"},
		{"CVE-2022-30636 a token that climbs", "GET " + wellKnown + "../../../etc/passwd HTTP/1.1\r\n" + good + "\r\n", "404"},
		{"CVE-2022-30636 a token that climbs to a proof", "GET " + wellKnown + "x/../" + token + " HTTP/1.1\r\n" + good + "\r\n", "404"},
		{"CVE-2022-30636 an encoded slash", "GET " + wellKnown + "..%2f..%2faccount HTTP/1.1\r\n" + good + "\r\n", "404"},
		{"CVE-2022-30636 backslashes", "GET " + wellKnown + `..\..\account HTTP/1.1` + "\r\n" + good + "\r\n", "404"},
		{"CVE-2022-23632 a wildcard as Host", get("*.pool.example"), "400"},
		{"CVE-2022-23632 two trailing dots", get("alice.pool.example.."), "421"},
		{"CVE-2026-48491 upper case of another name", get("EVIL.example"), "421"},
		{"CVE-2026-53622 a trailing dot of another name", get("evil.example."), "421"},
		{"CVE-2026-53622 a leading dot", get(".alice.pool.example"), "421"},

		{"NUL in Host", get("alice.pool.example\x00"), "400"},
		{"NUL in the path", "GET " + path + "\x00 HTTP/1.1\r\n" + good + "\r\n", "400"},
		{"NUL in a header", "GET " + path + " HTTP/1.1\r\n" + good + "X: \x00\r\n\r\n", "400"},
		{"a tab in Host", get("alice.pool.example\t.evil.example"), "400"},
		{"a vertical tab in Host", get("alice.pool.example\v"), "400"},
		{"a bare CR in Host", get("alice.pool.example\rX"), "400"},
		{"userinfo and a port in Host", get("alice.pool.example:80@evil.example"), "400"},
		{"two ports in Host", get("alice.pool.example:80:80"), "400"},
		{"a negative port", get("alice.pool.example:-80"), "400"},
		{"a port with a leading zero", get("alice.pool.example:080"), "421"},
		{"a port of 64 bits", get("alice.pool.example:18446744073709551696"), "421"},
		{"CONNECT without Host", "CONNECT alice.pool.example:80 HTTP/1.1\r\n\r\n", "400"},
		{"OPTIONS * for another", "OPTIONS * HTTP/1.1\r\nHost: evil.example\r\n\r\n", "400"},
		{"OPTIONS * in HTTP/1.0", "OPTIONS * HTTP/1.0\r\n\r\n", "400"},
		{"GET of *", "GET * HTTP/1.1\r\n" + good + "\r\n", "400"},
		{"an authority as target", "GET alice.pool.example HTTP/1.1\r\n" + good + "\r\n", "400"},
		{"an absolute-form by https", "GET https://alice.pool.example" + path + " HTTP/1.1\r\n" + good + "\r\n", "400"},
		{"an absolute-form and a Host in HTTP/1.0", "GET http://alice.pool.example" + path + " HTTP/1.0\r\n" + good + "\r\n", "400"},
		{"a proof behind one that is not there", "GET / HTTP/1.1\r\n" + good + "\r\n" + get("alice.pool.example"), "404"},
		{"a proof in the body of another request", "POST / HTTP/1.1\r\n" + good + "Content-Length: 500\r\n\r\n" + get("alice.pool.example"), "405"},
		{"a proof behind chunks", "POST / HTTP/1.1\r\n" + good + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + get("alice.pool.example"), "405"},
		{"a chunk whose extension does not end", "POST / HTTP/1.1\r\n" + good + "Transfer-Encoding: chunked\r\n\r\n1;" + strings.Repeat("x", 64<<10), "405"},
		{"trailers", "POST / HTTP/1.1\r\n" + good + "Transfer-Encoding: chunked\r\nTrailer: Host\r\n\r\n0\r\nHost: evil.example\r\n\r\n", "405"},
		{"a transfer coding nobody knows", "POST / HTTP/1.1\r\n" + good + "Transfer-Encoding: gzip, chunked\r\n\r\n", "501"},
		{"two lengths", "POST / HTTP/1.1\r\n" + good + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx", "400"},
		{"a negative length", "POST / HTTP/1.1\r\n" + good + "Content-Length: -1\r\n\r\n", "400"},
		{"a client that waits to be let, by GET", "GET / HTTP/1.1\r\n" + good + "Content-Length: 5\r\nExpect: 100-continue\r\n\r\n", "404"},
		{"one that expects what nobody knows", "GET " + path + " HTTP/1.1\r\n" + good + "Expect: evil\r\n\r\n", "417"},
		{"a version nobody speaks", "GET " + path + " HTTP/9.9\r\n" + good + "\r\n", "505"},
		{"HTTP/0.9", "GET " + path + "\r\n", "400"},
	} {
		t.Run(c.rule, func(t *testing.T) {
			reply := exchangeTolerant(t, addr, c.raw)
			if len(c.raw) > 4<<10 && reply == "" {
				return // it sent more than anybody read: a reset may have overtaken the answer
			}
			if !strings.HasPrefix(reply, "HTTP/1.1 "+c.status+" ") && !strings.HasPrefix(reply, "HTTP/1.0 "+c.status+" ") {
				t.Fatalf("%.200q, want %s", reply, c.status)
			}
			if strings.Contains(reply, keyAuth) || strings.Contains(reply, "evil") || strings.Contains(reply, "100 Continue") ||
				strings.Contains(reply, "Set-Cookie") || strings.Contains(reply, "Location") || strings.Count(reply, "HTTP/1.") != 1 || len(reply) > 300 {
				t.Errorf("says too much: %.400q", reply)
			}
		})
	}
}

// CVE-2026-56853: the preface of HTTP/2 was waited for without a timeout.
func TestCVE_2026_56853_APrefaceThatStaysHalfIsCutOff(t *testing.T) {
	t.Parallel()
	for n := 1; n <= 24; n++ {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			srv := NewHTTPServer(newResponder(t, hclog.NewNullLogger()), hclog.NewNullLogger())
			if srv.Protocols.HTTP2() || srv.Protocols.UnencryptedHTTP2() || !srv.Protocols.HTTP1() {
				t.Fatalf("protocols %v", srv.Protocols)
			}
			hurry(srv)
			if reply := exchangeTolerant(t, serveHTTP(t, srv), h2[:n]); strings.Contains(reply, "200") || strings.Contains(reply, "\x00") {
				t.Errorf("reply %q", reply)
			}
		})
	}
}

// A body of a client that waits to be let is not asked for, though the request is
// a right one: the proof comes at once.
func TestWhoWaitsToBeLetIsAnsweredAtOnce(t *testing.T) {
	t.Parallel()
	addr := serveHTTP(t, NewHTTPServer(newResponder(t, hclog.NewNullLogger()), hclog.NewNullLogger()))
	for _, body := range []string{"Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n"} {
		resp, got := parseReply(t, exchange(t, addr, "GET "+path+" HTTP/1.1\r\nHost: alice.pool.example\r\nExpect: 100-continue\r\n"+body+"\r\n"), "GET")
		if resp.StatusCode != http.StatusOK || got != keyAuth {
			t.Errorf("%s%d %q", body, resp.StatusCode, got)
		}
	}
}

// CVE-2022-23632, CVE-2026-48491 and CVE-2026-53622: an SNI in other letters, with
// a trailing dot or as a wildcard was given a laxer configuration. Here there is
// one, and a name is that name or nobody's.
func TestCVE_2022_23632_2026_48491_2026_53622_AnSNIIsOneNameOrNobodys(t *testing.T) {
	t.Parallel()
	r, _ := pendingALPN(t)
	for sni, ours := range map[string]bool{
		"alice.pool.example": true, "ALICE.POOL.EXAMPLE": true, "aLiCe.pool.example.": true,
		"alice.pool.example..": false, ".alice.pool.example": false, "*.pool.example": false, "*": false, ".": false,
		"bob.pool.example": false, "BOB.pool.example.": false, "pool.example": false, "evil.example": false, "EVIL.example.": false,
		"alice.pool.example:443": false, "al\u0131ce.pool.example": false, "\u212Aate.pool.example": false, " alice.pool.example": false,
	} {
		got := r.match(&tls.ClientHelloInfo{ServerName: sni, SupportedProtos: []string{ALPN}})
		if (got != nil) != ours || ours && (got.Leaf == nil || got.Leaf.DNSNames[0] != "alice.pool.example") {
			t.Errorf("%q: a proof %v, want %v", sni, got != nil, ours)
		}
	}
}

// CVE-2026-32305: a ClientHello in many records or segments got past who sniffed
// for it, to a laxer configuration.
func TestCVE_2026_32305_AClientHelloInPiecesIsTheSame(t *testing.T) {
	t.Parallel()
	r, _ := pendingALPN(t)
	for _, c := range []struct {
		rule   string
		client *tls.Config
		proof  bool
	}{
		{"a CA", caClient("alice.pool.example", tls.VersionTLS13, ALPN), true},
		{"no ALPN", caClient("alice.pool.example", tls.VersionTLS13), false},
		{"a browser", caClient("alice.pool.example", tls.VersionTLS13, "h2", "http/1.1"), false},
		{"another name", caClient("evil.example", tls.VersionTLS13, ALPN), false},
		{"a name of ours without a proof", caClient("bob.pool.example", tls.VersionTLS13, ALPN), false},
	} {
		for _, pieces := range []int{2, 3, 16, 64} {
			t.Run(fmt.Sprintf("%s in %d records", c.rule, pieces), func(t *testing.T) {
				t.Parallel()
				ln, err := net.Listen("tcp4", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				defer ln.Close()
				served := make(chan error, 1)
				go func() {
					nc, err := ln.Accept()
					if err != nil {
						served <- err
						return
					}
					defer nc.Close()
					nc.SetDeadline(time.Now().Add(patient))
					served <- tls.Server(nc, r.TLSConfig()).Handshake()
				}()
				raw, err := net.Dial("tcp4", ln.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				defer raw.Close()
				raw.SetDeadline(time.Now().Add(patient))
				tapped := &tap{Conn: &splitter{Conn: raw, pieces: pieces}}
				client := tls.Client(tapped, c.client)
				err = client.Handshake()
				<-served
				if c.proof {
					if err != nil || client.ConnectionState().NegotiatedProtocol != ALPN {
						t.Fatalf("a CA gets no proof: %v", err)
					}
					checkProof(t, client.ConnectionState().PeerCertificates[0])
					return
				}
				if wire := tapped.read.Bytes(); err == nil || len(wire) != 7 || wire[0] != 21 {
					t.Errorf("%v; the server sent % x, want an alert alone", err, wire)
				}
			})
		}
	}
}

// splitter sends the first record, which is the ClientHello, as that many records
// of one segment for each octet.
type splitter struct {
	net.Conn
	pieces int
}

func (s *splitter) Write(b []byte) (int, error) {
	if s.pieces == 0 {
		return s.Conn.Write(b)
	}
	const head = 5
	body := b[head : head+int(binary.BigEndian.Uint16(b[3:]))]
	rest := b[head+len(body):]
	for left := s.pieces; left > 0; left-- {
		n := len(body) / left
		record := binary.BigEndian.AppendUint16(append([]byte{}, b[:3]...), uint16(n))
		for _, octet := range append(record, body[:n]...) {
			if _, err := s.Conn.Write([]byte{octet}); err != nil {
				return 0, err
			}
		}
		body = body[n:]
	}
	s.pieces = 0
	if _, err := s.Conn.Write(rest); err != nil {
		return 0, err
	}
	return len(b), nil
}
