package challenge

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"ntsagent/hostcheck"
)

const (
	token   = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA"
	keyAuth = token + ".9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI"
	bobs    = "bobs-token"
	path    = "/.well-known/acme-challenge/" + token
	patient = 30 * time.Second // for what happens at once; only a defect ever waits so long
)

func mustName(t testing.TB, s string) hostcheck.Name {
	t.Helper()
	n, err := hostcheck.ParseName(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// newResponder has alice and bob as names, port 5002 listed, and a proof pending for each.
func newResponder(t testing.TB, log hclog.Logger) *Responder {
	t.Helper()
	alice, bob := mustName(t, "alice.pool.example"), mustName(t, "bob.pool.example")
	r := New(hostcheck.NewSet([]hostcheck.Name{alice, bob}, 5002), log)
	if _, err := r.PresentHTTP01(alice, token, keyAuth); err != nil {
		t.Fatal(err)
	}
	if _, err := r.PresentHTTP01(bob, bobs, bobs+".thumb"); err != nil {
		t.Fatal(err)
	}
	return r
}

// serveHTTP runs srv on a real socket until the test ends.
func serveHTTP(t testing.TB, srv *http.Server) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	t.Cleanup(func() {
		srv.Close()
		if err := <-done; err != http.ErrServerClosed {
			t.Errorf("serve: %v", err)
		}
	})
	return ln.Addr().String()
}

// exchange sends raw bytes, closes nothing, and reads until the server closes the connection.
func exchange(t testing.TB, addr, raw string) string {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patient))
	if _, err := io.WriteString(c, raw); err != nil {
		t.Fatal(err)
	}
	reply, err := io.ReadAll(c)
	if err != nil {
		t.Fatalf("the server does not close: %v after %q", err, reply)
	}
	return string(reply)
}

// parseReply reads one response and insists that nothing follows it.
func parseReply(t testing.TB, raw, method string) (*http.Response, string) {
	t.Helper()
	br := bufio.NewReader(strings.NewReader(raw))
	resp, err := http.ReadResponse(br, &http.Request{Method: method})
	if err != nil {
		t.Fatalf("no response in %q: %v", raw, err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if rest, _ := io.ReadAll(br); len(rest) > 0 {
		t.Fatalf("something follows the response: %q", rest)
	}
	return resp, string(body)
}

// get is a request for alice's token with the given Host line.
func get(host string) string { return "GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n" }

func TestHTTPRefusals(t *testing.T) {
	addr := serveHTTP(t, NewHTTPServer(newResponder(t, hclog.NewNullLogger()), hclog.NewNullLogger()))
	good := "Host: alice.pool.example\r\n\r\n"
	for _, c := range []struct {
		rule   string
		raw    string
		status int
	}{
		// What net/http hands on (reference table), by its rows.
		{"an empty Host in HTTP/1.1", get(""), 400},
		{"HTTP/1.0 without Host", "GET " + path + " HTTP/1.0\r\n\r\n", 400},
		{"a Host whose port is letters", get("alice.pool.example:abc"), 400},
		{"a Host whose port is empty", get("alice.pool.example:"), 400},
		{"a Host with a port that is not listed", get("alice.pool.example:8443"), 421},
		{"a Host with two trailing dots", get("alice.pool.example.."), 421},
		{"a percent-encoded Host", get("alice%2epool.example"), 400},
		{"an IPv6 literal with a zone", get("[fe80::1%25lo]:80"), 421},
		{"an IPv6 literal", get("[::1]"), 421},
		{"an IPv4 literal", get("127.0.0.1"), 421},
		{"bare LF line ends and another name", "GET " + path + " HTTP/1.1\nHost: evil.example\n\n", 421},
		{"an absolute-form of the right name with another Host", "GET http://alice.pool.example" + path + " HTTP/1.1\r\nHost: evil.example\r\n\r\n", 400},
		{"an absolute-form of the right name with the right Host", "GET http://alice.pool.example" + path + " HTTP/1.1\r\n" + good, 400},
		{"an absolute-form of another name with the right Host", "GET http://evil.example" + path + " HTTP/1.1\r\n" + good, 400},
		{"an absolute-form with the scheme ftp", "GET ftp://alice.pool.example" + path + " HTTP/1.1\r\n" + good, 400},
		{"an absolute-form with userinfo", "GET http://u:p@alice.pool.example" + path + " HTTP/1.1\r\n" + good, 400},
		{"OPTIONS *", "OPTIONS * HTTP/1.1\r\n" + good, 400},
		{"the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400},
		{"CONNECT to the right name", "CONNECT alice.pool.example:80 HTTP/1.1\r\n" + good, 400},
		{"CONNECT with a path", "CONNECT " + path + " HTTP/1.1\r\n" + good, 400},
		{"a path with dot segments is not cleaned", "GET /x/.." + path + " HTTP/1.1\r\n" + good, 404},
		{"an underscore in Host", get("a_b.pool.example"), 400},
		// Names.
		{"another name", get("evil.example"), 421},
		{"the pool's own name", get("pool.example"), 421},
		{"a name below ours", get("www.alice.pool.example"), 421},
		{"another name and the path /", "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421},
		{"another own name than the token's", get("bob.pool.example"), 421},
		{"a POST to another name", "POST / HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 0\r\n\r\n", 421},
		{"X-Forwarded-Host does not count", "GET " + path + " HTTP/1.1\r\nHost: evil.example\r\nX-Forwarded-Host: alice.pool.example\r\nForwarded: host=alice.pool.example\r\n\r\n", 421},
		// Methods.
		{"POST to a pending token", "POST " + path + " HTTP/1.1\r\nContent-Length: 0\r\n" + good, 405},
		{"POST to no token", "POST / HTTP/1.1\r\nContent-Length: 4\r\n" + good + "body", 405},
		{"OPTIONS of a path", "OPTIONS " + path + " HTTP/1.1\r\n" + good, 405},
		{"TRACE does not echo", "TRACE " + path + " HTTP/1.1\r\nCookie: secret=1\r\n" + good, 405},
		{"an unknown method", "BREW " + path + " HTTP/1.1\r\n" + good, 405},
		{"get in lower case", "get " + path + " HTTP/1.1\r\n" + good, 405},
		// Paths.
		{"the path /", "GET / HTTP/1.1\r\n" + good, 404},
		{"HEAD of the path /", "HEAD / HTTP/1.1\r\n" + good, 404},
		{"an unknown token", "GET " + path + "x HTTP/1.1\r\n" + good, 404},
		{"no token", "GET /.well-known/acme-challenge/ HTTP/1.1\r\n" + good, 404},
		{"no slash before the token", "GET /.well-known/acme-challenge HTTP/1.1\r\n" + good, 404},
		{"a query after the token", "GET " + path + "?x HTTP/1.1\r\n" + good, 404},
		{"an encoded path", "GET /%2ewell-known/acme-challenge/" + token + " HTTP/1.1\r\n" + good, 404},
		{"an encoded token", "GET /.well-known/acme-challenge/%65" + token[1:] + " HTTP/1.1\r\n" + good, 404},
		{"two slashes first", "GET /" + path + " HTTP/1.1\r\n" + good, 404},
		{"two slashes and a name first", "GET //evil.example" + path + " HTTP/1.1\r\n" + good, 404},
		{"upper case in the path", "GET /.Well-known/acme-challenge/" + token + " HTTP/1.1\r\n" + good, 404},
		{"a slash after the token", "GET " + path + "/ HTTP/1.1\r\n" + good, 404},
		{"profiling", "GET /debug/pprof/ HTTP/1.1\r\n" + good, 404},
		{"an upgrade to h2c", "GET / HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n" + good, 404},
	} {
		t.Run(c.rule, func(t *testing.T) {
			method, _, _ := strings.Cut(c.raw, " ")
			resp, body := parseReply(t, exchange(t, addr, c.raw), method)
			if resp.StatusCode != c.status {
				t.Errorf("status %d, want %d", resp.StatusCode, c.status)
			}
			checkRefusal(t, resp, body)
		})
	}
}

// checkRefusal wants nothing in a refusal but its status.
func checkRefusal(t *testing.T, resp *http.Response, body string) {
	t.Helper()
	if body != "" || resp.ContentLength != 0 {
		t.Errorf("body %q, length %d; want none", body, resp.ContentLength)
	}
	if !resp.Close {
		t.Error("no Connection: close")
	}
	for key, values := range resp.Header {
		switch key {
		case "Date", "Content-Length":
		case "Allow":
			if resp.StatusCode != http.StatusMethodNotAllowed || values[0] != "GET, HEAD" {
				t.Errorf("status %d has Allow: %q", resp.StatusCode, values)
			}
		case "Connection":
			if len(values) != 1 || values[0] != "close" {
				t.Errorf("Connection: %q", values)
			}
		default:
			t.Errorf("says too much: %s: %q", key, values)
		}
	}
	if resp.StatusCode == http.StatusMethodNotAllowed && resp.Header.Get("Allow") == "" {
		t.Error("405 without Allow")
	}
}

func TestWhatNetHTTPRefusesKeepsItsAnswer(t *testing.T) {
	addr := serveHTTP(t, NewHTTPServer(newResponder(t, hclog.NewNullLogger()), hclog.NewNullLogger()))
	good := "Host: alice.pool.example\r\n"
	for _, c := range []struct {
		rule   string
		raw    string
		status int
	}{
		{"two Host headers that differ", "GET " + path + " HTTP/1.1\r\n" + good + "Host: evil.example\r\n\r\n", 400},
		{"two Host headers that are equal", "GET " + path + " HTTP/1.1\r\n" + good + good + "\r\n", 400},
		{"a space before the colon of Host", "GET " + path + " HTTP/1.1\r\nHost : alice.pool.example\r\n\r\n", 400},
		{"HTTP/1.1 without Host", "GET " + path + " HTTP/1.1\r\n\r\n", 400},
		{"a folded header line", "GET " + path + " HTTP/1.1\r\n folded\r\n" + good + "\r\n", 400},
		{"userinfo in Host", get("a@alice.pool.example"), 400},
		{"a path in Host", get("alice.pool.example/x"), 400},
		{"two words in Host", get("alice.pool.example evil"), 400},
		{"a list in Host", get("alice.pool.example, evil"), 400},
		{"UTF-8 in Host", get("\u00e4lice.pool.example"), 400},
		{"an absolute-form without Host", "GET http://alice.pool.example" + path + " HTTP/1.1\r\n\r\n", 400},
		{"no HTTP at all", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400},
		{"HTTP/2.0 in a request line", "GET " + path + " HTTP/2.0\r\n" + good + "\r\n", 505},
		{"a header of 64 KiB", "GET " + path + " HTTP/1.1\r\n" + good + "X: " + strings.Repeat("x", 64<<10) + "\r\n\r\n", 431},
		{"a Host of 64 KiB", get(strings.Repeat("a", 64<<10)), 431},
	} {
		t.Run(c.rule, func(t *testing.T) {
			raw := exchangeTolerant(t, addr, c.raw)
			resp, body := parseReply(t, raw, "GET")
			if resp.StatusCode != c.status || !resp.Close {
				t.Errorf("status %d, close %v; want %d and close", resp.StatusCode, resp.Close, c.status)
			}
			if strings.Contains(body, keyAuth) || strings.Contains(raw, "evil") || strings.Contains(raw, "alice") {
				t.Errorf("echoes: %q", raw)
			}
		})
	}
}

// exchangeTolerant is exchange for requests that the server may reset while they are still being sent: large ones, or slow ones.
func exchangeTolerant(t testing.TB, addr, raw string) string {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patient))
	io.WriteString(c, raw)
	reply, err := io.ReadAll(c)
	if nerr, ok := err.(net.Error); ok && nerr.Timeout() {
		t.Fatalf("the server does not close after %q", reply)
	}
	return string(reply)
}

func TestHTTPAnswersExactlyTheKeyAuthorization(t *testing.T) {
	r := newResponder(t, hclog.NewNullLogger())
	addr := serveHTTP(t, NewHTTPServer(r, hclog.NewNullLogger()))
	for _, c := range []struct{ rule, raw string }{
		{"the plain name", get("alice.pool.example")},
		{"port 80", get("alice.pool.example:80")},
		{"a listed port", get("alice.pool.example:5002")},
		{"upper case", get("ALICE.POOL.example")},
		{"a trailing dot", get("alice.pool.example.")},
		{"HTTP/1.0 with Host", "GET " + path + " HTTP/1.0\r\nHost: alice.pool.example\r\n\r\n"},
		{"HTTP/1.0 that asks to keep the connection", "GET " + path + " HTTP/1.0\r\nHost: alice.pool.example\r\nConnection: keep-alive\r\n\r\n"},
		{"bare LF line ends", "GET " + path + " HTTP/1.1\nHost: alice.pool.example\n\n"},
		{"HEAD", "HEAD " + path + " HTTP/1.1\r\nHost: alice.pool.example\r\n\r\n"},
		{"only the first of two requests", get("alice.pool.example") + get("alice.pool.example")},
		{"a body nobody reads", "GET " + path + " HTTP/1.1\r\nHost: alice.pool.example\r\nContent-Length: 1000000\r\n\r\nabc"},
	} {
		t.Run(c.rule, func(t *testing.T) {
			method, _, _ := strings.Cut(c.raw, " ")
			resp, body := parseReply(t, exchange(t, addr, c.raw), method)
			want := keyAuth
			if method == "HEAD" {
				want = ""
			}
			if resp.StatusCode != 200 || body != want || resp.ContentLength != int64(len(keyAuth)) || !resp.Close {
				t.Errorf("status %d, body %q, length %d, close %v", resp.StatusCode, body, resp.ContentLength, resp.Close)
			}
			for key, want := range map[string]string{"Content-Type": "application/octet-stream", "X-Content-Type-Options": "nosniff", "Server": "", "Set-Cookie": ""} {
				if got := resp.Header.Get(key); got != want {
					t.Errorf("%s: %q, want %q", key, got, want)
				}
			}
		})
	}
	if got := r.Counts(); got.Answered != 11 || got.Refused != 0 {
		t.Errorf("counts = %+v", got)
	}
}

func TestSlowRequestsAreCutOff(t *testing.T) {
	for name, raw := range map[string]string{
		"nothing at all":       "",
		"half a request line":  "GET /.well-kn",
		"a header without end": "GET " + path + " HTTP/1.1\r\nHost: alice.pool.example\r\nX: ",
		"a preface of TLS":     "\x16\x03\x01",
		"a Host without end":   "OPTIONS * HTTP/1.1\r\nHost: .",
	} {
		t.Run(name, func(t *testing.T) {
			srv := NewHTTPServer(newResponder(t, hclog.NewNullLogger()), hclog.NewNullLogger())
			hurry(srv)
			if reply := exchangeTolerant(t, serveHTTP(t, srv), raw); strings.Contains(reply, "200") {
				t.Errorf("reply %q", reply)
			}
		})
	}
}

// A connection to port 80 is free again within ten seconds whatever its client does: net/http gives the request its time from
// the first octet it waits for, and the answer its own from the end of the header.
func TestEveryConnectionIsFreeAgainWithinTenSeconds(t *testing.T) {
	srv := NewHTTPServer(newResponder(t, hclog.NewNullLogger()), hclog.NewNullLogger())
	for what, limit := range map[string]time.Duration{"header": srv.ReadHeaderTimeout, "request": srv.ReadTimeout, "answer": srv.WriteTimeout, "next request": srv.IdleTimeout} {
		if limit <= 0 || limit > 5*time.Second { // 0 is no limit
			t.Errorf("the %s may take %v, want at most 5s", what, limit)
		}
	}
	if srv.MaxHeaderBytes != 8<<10 {
		t.Errorf("a header of %d octets is read", srv.MaxHeaderBytes)
	}
}

// hurry shortens the timeouts to what a test can wait for.
func hurry(srv *http.Server) {
	srv.ReadHeaderTimeout, srv.ReadTimeout, srv.WriteTimeout = 20*time.Millisecond, 20*time.Millisecond, 20*time.Millisecond
}

func TestBodiesThatNeverEndAreRefusedAndCutOff(t *testing.T) {
	for name, header := range map[string]string{
		"a chunk that stays half":       "Transfer-Encoding: chunked\r\n\r\n5\r\nhel",
		"a client that waits to be let": "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n",
		"a body that stops":             "Content-Length: 500\r\n\r\nhel",
	} {
		t.Run(name, func(t *testing.T) {
			srv := NewHTTPServer(newResponder(t, hclog.NewNullLogger()), hclog.NewNullLogger())
			srv.ReadHeaderTimeout, srv.ReadTimeout, srv.WriteTimeout = time.Hour, time.Hour, time.Hour // who waits for the body waits in vain
			resp, body := parseReply(t, exchange(t, serveHTTP(t, srv), "POST / HTTP/1.1\r\nHost: alice.pool.example\r\n"+header), "POST")
			if resp.StatusCode != 405 {
				t.Errorf("status %d", resp.StatusCode)
			}
			checkRefusal(t, resp, body)
		})
	}
}

func TestTheServerClosesWhateverItsHandlerSays(t *testing.T) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	resp, _ := parseReply(t, exchange(t, serveHTTP(t, NewHTTPServer(handler, hclog.NewNullLogger())), get("alice.pool.example")), "GET")
	if resp.StatusCode != http.StatusNoContent || !resp.Close {
		t.Errorf("status %d, close %v", resp.StatusCode, resp.Close)
	}
}

func TestScannersDoNotWriteTheLog(t *testing.T) {
	var out bytes.Buffer
	log := hclog.New(&hclog.LoggerOptions{Output: &out, Level: hclog.Info})
	srv := NewHTTPServer(newResponder(t, log), log)
	addr := serveHTTP(t, srv)
	for range 20 {
		exchange(t, addr, get("evil.example"))
		exchange(t, addr, get("a@b"))
		exchange(t, addr, get("alice.pool.example"))
	}
	srv.ErrorLog.Print("http: panic or whatever net/http has to say")
	srv.Close()
	if out.Len() > 0 {
		t.Errorf("log at info: %s", out.String())
	}
}

func TestDebugLinesAreFewAndClean(t *testing.T) {
	var out bytes.Buffer
	r := newResponder(t, hclog.New(&hclog.LoggerOptions{Output: &out, Level: hclog.Debug}))
	for range 1000 {
		r.refuse("http request refused", "host", quote("evil\n\x1b[31m"+strings.Repeat("x", 1000)))
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) > 30 || r.Counts().Refused != 1000 { // one a second; 30 leaves room for a machine that stalls
		t.Errorf("%d lines, %+v", len(lines), r.Counts())
	}
	for _, line := range lines {
		if strings.ContainsRune(line, 0x1b) || len(line) > 300 {
			t.Errorf("line %q", line)
		}
	}
}
