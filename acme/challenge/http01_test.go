package challenge

import (
	"bufio"
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"

	"ntsagent/hostcheck"
)

func TestPresentHTTP01RefusesWhatItWouldNotServe(t *testing.T) {
	alice := mustName(t, "alice.pool.example")
	r := newResponder(t, hclog.NewNullLogger())
	for name, c := range map[string]struct {
		name           hostcheck.Name
		token, keyAuth string
	}{
		"a name that is not ours":           {mustName(t, "evil.example"), "t", "t.k"},
		"no name":                           {hostcheck.Name{}, "t", "t.k"},
		"an empty token":                    {alice, "", ".k"},
		"a token that climbs":               {alice, "../../x", "../../x.k"},
		"a token with NUL":                  {alice, "a\x00", "a\x00.k"},
		"a token with a line end":           {alice, "a\n", "a\n.k"},
		"a token of 129 octets":             {alice, strings.Repeat("a", 129), strings.Repeat("a", 129) + ".k"},
		"a token of 10 KiB":                 {alice, strings.Repeat("a", 10<<10), strings.Repeat("a", 10<<10) + ".k"},
		"a key authorization of another":    {alice, "t", "u.k"},
		"a key authorization without dot":   {alice, "t", "tk"},
		"a key authorization with markup":   {alice, "t", "t.<script>"},
		"a key authorization that is short": {alice, "tttttt", "t.k"},
		"a token pending for another name":  {alice, bobs, bobs + ".thumb"},
	} {
		if remove, err := r.PresentHTTP01(c.name, c.token, c.keyAuth); err == nil || remove != nil {
			t.Errorf("%s: accepted", name)
		} else if strings.ContainsAny(err.Error(), "\n\x00") || len(err.Error()) > 200 {
			t.Errorf("%s: error %q", name, err)
		}
	}
}

func TestRemoveEndsItsOwnProofOnly(t *testing.T) {
	alice := mustName(t, "alice.pool.example")
	r := New(hostcheck.NewSet([]hostcheck.Name{alice}), hclog.NewNullLogger())
	addr := serveHTTP(t, NewHTTPServer(r, hclog.NewNullLogger()))
	status := func() int {
		resp, _ := parseReply(t, exchange(t, addr, get("alice.pool.example")), "GET")
		return resp.StatusCode
	}
	first, err := r.PresentHTTP01(alice, token, keyAuth)
	if err != nil {
		t.Fatal(err)
	}
	second, err := r.PresentHTTP01(alice, token, keyAuth)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		name   string
		remove func()
		want   int
	}{
		{"an older remove does not end a newer proof", first, 200},
		{"the newer remove ends it", second, 404},
		{"removing twice does no harm", second, 404},
	} {
		if step.remove(); status() != step.want {
			t.Errorf("%s: status %d, want %d", step.name, status(), step.want)
		}
	}
}

func FuzzHTTP(f *testing.F) {
	r := newResponder(f, hclog.NewNullLogger())
	for _, raw := range []string{get("alice.pool.example"), get("evil.example"), get("bob.pool.example:80"), "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "GET http://a/ HTTP/1.0\r\n\r\n"} {
		f.Add([]byte(raw))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw)))
		if err != nil {
			return
		}
		w := &recorder{header: http.Header{}}
		r.ServeHTTP(w, req)
		switch w.status {
		case 200:
			host := strings.ToLower(req.Host)
			for _, port := range []string{":80", ":5002"} {
				host = strings.TrimSuffix(host, port)
			}
			ours := map[string]string{"alice.pool.example": token, "bob.pool.example": bobs}[strings.TrimSuffix(host, ".")]
			if ours == "" || req.RequestURI != wellKnown+ours || req.Method != "GET" && req.Method != "HEAD" {
				t.Fatalf("answers %q to %s %q for %q", w.body, req.Method, req.RequestURI, req.Host)
			}
		case 400, 404, 405, 421:
			if len(w.body) > 0 {
				t.Fatalf("refuses with a body: %q", w.body)
			}
		default:
			t.Fatalf("status %d", w.status)
		}
		if w.header.Get("Connection") != "close" {
			t.Fatal("keeps the connection")
		}
	})
}

// recorder is the least ResponseWriter that can be checked.
type recorder struct {
	header http.Header
	status int
	body   []byte
}

func (w *recorder) Header() http.Header { return w.header }

func (w *recorder) WriteHeader(status int) {
	if w.status != 0 {
		panic(fmt.Sprintf("status %d after %d", status, w.status))
	}
	w.status = status
}

func (w *recorder) Write(b []byte) (int, error) {
	w.body = append(w.body, b...)
	return len(b), nil
}
