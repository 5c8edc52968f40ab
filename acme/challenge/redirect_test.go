package challenge

import (
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"

	"ntsagent/hostcheck"
)

// The pool's own name and alice's lead browsers to the join page, bob's does not.
func TestOnlyListedHostsAreLedElsewhere(t *testing.T) {
	t.Parallel()
	const to = "https://www.pool.example/join?from=member"
	log := hclog.NewNullLogger()
	hosts := hostcheck.NewSet([]hostcheck.Name{mustName(t, "pool.example"), mustName(t, "alice.pool.example")}, 5002)
	addr := serveHTTP(t, NewHTTPServer(Redirect{Hosts: hosts, To: to, Responder: newResponder(t, log)}, log))
	const alice, bob, pool = "Host: alice.pool.example\r\n", "Host: bob.pool.example\r\n", "Host: pool.example\r\n"
	for _, c := range []struct {
		name, request string
		status        string
	}{
		{"the pool's name", "GET / HTTP/1.1\r\n" + pool, "301"},
		{"a listed name of ours", "GET /shop?evil=1 HTTP/1.1\r\n" + alice + "Cookie: evil=1\r\n", "301"},
		{"its right port, upper case and a trailing dot", "HEAD /evil HTTP/1.1\r\nHost: Alice.Pool.Example.:5002\r\n", "301"},
		{"a form that is sent", "POST /evil HTTP/1.1\r\nContent-Length: 400\r\n" + pool, "308"},
		{"a method that nobody knows", "EVIL / HTTP/1.1\r\n" + pool, "308"},
		{"HTTP/1.0", "GET /evil HTTP/1.0\r\n" + pool, "301"},
		{"a proof that is not pending", "GET " + wellKnown + "evil HTTP/1.1\r\n" + alice, "301"},
		{"a pending proof by the pool's name", "GET " + path + " HTTP/1.1\r\n" + pool, "301"},
		{"a pending proof of bob by alice's name", "GET " + wellKnown + bobs + " HTTP/1.1\r\n" + alice, "301"},
		{"a path of two slashes", "GET //evil.example/ HTTP/1.1\r\n" + pool, "301"},
		{"a pending proof", "GET " + path + " HTTP/1.1\r\n" + alice, "200"},

		{"a name of ours that is not listed", "GET /evil HTTP/1.1\r\n" + bob, "404"},
		{"a pending proof of one that is not listed", "GET " + wellKnown + bobs + " HTTP/1.1\r\n" + bob, "200"},
		{"a name below a listed one", "GET / HTTP/1.1\r\nHost: x.pool.example\r\n", "421"},
		{"another name", "GET / HTTP/1.1\r\nHost: evil.example\r\n", "421"},
		{"another port", "GET / HTTP/1.1\r\nHost: pool.example:81\r\n", "421"},
		{"an address", "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n", "421"},
		{"an absolute form", "GET http://pool.example/evil HTTP/1.1\r\n" + pool, "400"},
		{"no host", "GET / HTTP/1.0\r\n", "400"},
		{"OPTIONS *", "OPTIONS * HTTP/1.1\r\n" + pool, "400"},
		{"CONNECT", "CONNECT pool.example:80 HTTP/1.1\r\n" + pool, "400"},
	} {
		reply := exchange(t, addr, c.request+"\r\n")
		head, body, _ := strings.Cut(reply, "\r\n\r\n")
		if !strings.HasPrefix(head, "HTTP/1.1 "+c.status+" ") && !strings.HasPrefix(head, "HTTP/1.0 "+c.status+" ") {
			t.Errorf("%s: %q, want %s", c.name, head, c.status)
			continue
		}
		if led := c.status[0] == '3'; led != strings.Contains(head, "\r\nLocation: "+to+"\r\n") || led && body != "" {
			t.Errorf("%s: %q", c.name, reply)
		}
		if strings.Contains(strings.ToLower(reply), "evil") || strings.Contains(head, "Set-Cookie") ||
			strings.HasPrefix(head, "HTTP/1.1") && !strings.Contains(head, "\r\nConnection: close") {
			t.Errorf("%s: an answer echoes the request, or keeps the connection: %q", c.name, reply)
		}
	}
}

// Without a redirect the Responder's rules are all there is.
func TestTheZeroRedirectLeadsNobody(t *testing.T) {
	t.Parallel()
	log := hclog.NewNullLogger()
	addr := serveHTTP(t, NewHTTPServer(Redirect{Responder: newResponder(t, log)}, log))
	for request, want := range map[string]string{
		"GET / HTTP/1.1\r\nHost: alice.pool.example\r\n\r\n": "404", "GET " + path + " HTTP/1.1\r\nHost: alice.pool.example\r\n\r\n": "200",
		"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n": "421",
	} {
		if reply := exchange(t, addr, request); !strings.HasPrefix(reply, "HTTP/1.1 "+want+" ") {
			t.Errorf("%q: %q, want %s", request, reply, want)
		}
	}
}
