package front

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"

	"ntsagent/hostcheck"
)

func TestWhatAStrangerSeesIsJudged(t *testing.T) {
	t.Parallel()
	name, err := hostcheck.ParseName("alice.pool.example")
	if err != nil {
		t.Fatal(err)
	}
	const expected, to = "token.thumb", "https://www.pool.example/join"
	closed := Answer{Err: errors.New("EOF")}
	is := func(status int, body string) Answer { return Answer{Status: status, Body: []byte(body)} }
	led := func(to string) Answer { return Answer{Status: 301, Location: to, Body: []byte("<html>moved")} }
	good := Seen{Name: name, Expected: expected, Listens: true, Right: is(200, expected), Wrong: is(421, ""), Root: is(404, ""), Roots: closed}
	proxy, folder := Judge{Agent: netip.MustParseAddrPort("127.0.0.1:8402"), Leads: to}, Judge{Webroot: "/srv/acme/"}
	const hostPassed, alias, mute = "proxy_set_header Host $host", "alias /srv/acme/;", "ssl_reject_handshake on"
	for _, c := range []struct {
		name  string
		judge Judge
		edit  func(*Seen)
		fatal bool
		what  string // "" = no fault
		fix   string
	}{
		{"all is well", proxy, func(*Seen) {}, false, "", ""},
		{"nginx that closes on others", folder, func(s *Seen) { s.Wrong, s.Root = closed, closed }, false, "", ""},
		{"a bare server's page for 404", folder, func(s *Seen) { s.Root = is(404, strings.Repeat("x", 300)) }, false, "", ""},
		{"the pool's join page", proxy, func(s *Seen) { s.Root = led(to) }, false, "", ""},
		{"https, which is judged itself", proxy, func(s *Seen) { s.Root = led("https://Alice.pool.example/x") }, false, "", ""},
		{"a proof on another host", proxy, func(s *Seen) { s.Right = led("https://acme.example/x") }, false, "", ""},
		{"an empty page", proxy, func(s *Seen) { s.Roots = is(200, "") }, false, "", ""},

		{"nobody there", proxy, func(s *Seen) { *s = Seen{Name: name} }, true, "nobody listens on port 80", "start the web server"},
		{"the wrong Host to the agent", proxy, func(s *Seen) { s.Right = is(421, "") }, true, "does not pass the Host alice.pool.example on", hostPassed},
		{"a Host that is no host", proxy, func(s *Seen) { s.Right = is(400, "") }, true, "does not pass the Host alice.pool.example on", hostPassed},
		{"an agent that is not found", proxy, func(s *Seen) { s.Right = is(502, "") }, true, "does not find the agent at 127.0.0.1:8402", "proxy_pass http://127.0.0.1:8402;"},
		{"no such location", proxy, func(s *Seen) { s.Right = is(404, "") }, true, "with 404", hostPassed},
		{"an application for all paths", proxy, func(s *Seen) { s.Right = is(200, "<html>") }, true, "something else than the proof", hostPassed},
		{"a proof and more", proxy, func(s *Seen) { s.Right = is(200, expected+"\n") }, true, "something else than the proof", hostPassed},
		{"a server that closes", proxy, func(s *Seen) { s.Right = closed }, true, "does not answer for alice.pool.example", hostPassed},
		{"a circle of redirects", proxy, func(s *Seen) { s.Right = led("https://alice.pool.example/") }, true, "with 301", hostPassed},
		{"a redirect to a port that no CA goes to", proxy, func(s *Seen) { s.Right = led("http://alice.pool.example:8080/") }, true, "with 301", hostPassed},
		{"a folder that it may not read", folder, func(s *Seen) { s.Right = is(403, "") }, true, "may not read /srv/acme/", alias},
		{"a folder that it does not serve", folder, func(s *Seen) { s.Right = is(404, "") }, true, "with 404", alias},

		{"the proof for any Host", folder, func(s *Seen) { s.Wrong = is(200, expected) }, false, "whoever asks by another Host", "default_server; return 444;"},
		{"a page at /", proxy, func(s *Seen) { s.Root = is(200, "<html>") }, false, "port 80 shows browsers", "location / { return 404; }"},
		{"a page at / by https", proxy, func(s *Seen) { s.Roots = is(200, "<html>") }, false, "port 443 shows browsers", mute},
		{"a cookie with a refusal", proxy, func(s *Seen) { s.Roots = Answer{Status: 404, Cookies: true} }, false, "with a cookie", mute},
		{"an application's own page for 404", proxy, func(s *Seen) { s.Roots = is(404, strings.Repeat("x", 2000)) }, false, "an answer 404", mute},
		{"a password that is asked for", proxy, func(s *Seen) { s.Root = is(401, "") }, false, "an answer 401", "return 404"},
		{"an application that is down", proxy, func(s *Seen) { s.Root = is(502, "") }, false, "an answer 502", "return 404"},
		{"a redirect to an application", proxy, func(s *Seen) { s.Root = led("https://shop.example/") }, false, "an answer 301", "return 404"},
		{"a redirect to an odd port", proxy, func(s *Seen) { s.Root = led("https://alice.pool.example:8443/") }, false, "an answer 301", "return 404"},
	} {
		seen := good
		c.edit(&seen)
		faults := c.judge.Faults([]Seen{seen})
		if c.what == "" {
			if len(faults) != 0 {
				t.Errorf("%s: %+v", c.name, faults)
			}
			continue
		}
		if len(faults) != 1 || faults[0].Fatal != c.fatal || !strings.Contains(faults[0].What, c.what) || !strings.Contains(faults[0].Hint(), c.fix) {
			t.Errorf("%s: %+v, want %q with %q", c.name, faults, c.what, c.fix)
		}
		for _, f := range faults {
			if len(f.What) > 400 || len(f.Hint()) > 900 || strings.Contains(f.What+f.Hint(), "\n") {
				t.Errorf("%s: not one line: %+v", c.name, f)
			}
		}
	}
}

// The usual mistake of nginx: the name's server has no listen [::]:80, and the default one answers there.
func TestWhatIsWrongByOneFamilyIsSaidSo(t *testing.T) {
	t.Parallel()
	name, err := hostcheck.ParseName("alice.pool.example")
	if err != nil {
		t.Fatal(err)
	}
	const expected = "token.thumb"
	judge := Judge{Agent: netip.MustParseAddrPort("127.0.0.1:8402")}
	good := Seen{Name: name, Expected: expected, Listens: true, Right: Answer{Status: 200, Body: []byte(expected)}, Wrong: Answer{Status: 421}, Root: Answer{Status: 404}, Roots: Answer{Err: errors.New("EOF")}}
	bad := good
	bad.Right, bad.Over6 = Answer{Status: 404}, true
	if got := judge.Faults([]Seen{good, bad}); len(got) != 1 || got[0].Fatal || !strings.HasSuffix(got[0].What, "with 404, by IPv6 alone") || !strings.Contains(got[0].Nginx, "listen [::]:80;") {
		t.Errorf("%+v", got)
	}
	bad4 := bad
	bad4.Over6 = false
	if got := judge.Faults([]Seen{bad4, bad}); len(got) != 1 || !got[0].Fatal || !strings.HasSuffix(got[0].What, "with 404") {
		t.Errorf("%+v", got)
	}
}

func TestWhatIsMetAtPort443IsJudged(t *testing.T) {
	t.Parallel()
	name, err := hostcheck.ParseName("alice.pool.example")
	if err != nil {
		t.Fatal(err)
	}
	judge := Judge{TLS: netip.MustParseAddrPort("127.0.0.1:8403"), Leads: "https://www.pool.example/join"}
	proof, site := &x509.Certificate{Raw: []byte("proof")}, &x509.Certificate{Raw: []byte("site"), DNSNames: []string{"Shop.example"}}
	closed := Answer{Err: io.EOF}
	good := Met{Name: name, Proof: proof.Raw, Listens: true, Shown: Handshake{Protocol: acmeTLS, Leaf: proof}, Root: closed, Roots: []Answer{closed, closed}}
	fails := func(err error) Handshake { return Handshake{Err: err} }
	alert := func(words string) Handshake { return fails(errors.New("remote error: tls: " + words)) }
	for _, c := range []struct {
		name  string
		edit  func(*Met)
		fatal bool
		what  string // "" = no fault
	}{
		{"all is well", func(*Met) {}, false, ""},
		{"the pool's join page", func(m *Met) { m.Root = Answer{Status: 302, Location: judge.Leads} }, false, ""},
		{"a refusal by whoever ends TLS for browsers", func(m *Met) { m.Roots[0] = Answer{Status: 421} }, false, ""},

		{"nobody there", func(m *Met) { *m = Met{Name: name} }, true, "nobody listens on port 443"},
		{"silence", func(m *Met) { m.Shown = fails(os.ErrDeadlineExceeded) }, true, "does not answer acme-tls/1 for alice.pool.example"},
		{"silence until we stop", func(m *Met) { m.Shown = fails(context.DeadlineExceeded) }, true, "does not answer acme-tls/1"},
		{"a hang-up", func(m *Met) { m.Shown = fails(io.EOF) }, true, "does not find the agent at 127.0.0.1:8403"},
		{"a reset", func(m *Met) { m.Shown = fails(syscall.ECONNRESET) }, true, "does not find the agent at 127.0.0.1:8403"},
		{"no TLS", func(m *Met) { m.Shown = fails(tls.RecordHeaderError{Msg: "HTTP"}) }, true, "speaks no TLS"},
		{"an alert for the ALPN", func(m *Met) { m.Shown = alert("no application protocol") }, true, "knows no acme-tls/1"},
		{"an alert for the name", func(m *Met) { m.Shown = alert("unrecognized name") }, true, "refuses acme-tls/1: unrecognized name"},
		{"another's certificate", func(m *Met) { m.Shown.Protocol, m.Shown.Leaf = "", site }, true, "with a certificate for shop.example"},
		{"a certificate for all of a domain", func(m *Met) {
			m.Shown.Protocol, m.Shown.Leaf = "http/1.1", &x509.Certificate{DNSNames: []string{"*.\nexample"}}
		}, true, "with a certificate of its own"},
		{"another proof", func(m *Met) { m.Shown.Leaf = site }, true, "another ACME client"},
		{"our proof without its ALPN", func(m *Met) { m.Shown.Protocol = "" }, true, "with a certificate of its own"},
		{"a site for browsers", func(m *Met) { m.Roots[0] = Answer{Status: 200, Body: []byte("x")} }, false, "port 443 shows browsers"},
		{"a site for who has no ALPN", func(m *Met) { m.Roots[1] = Answer{Status: 200, Body: []byte("x")} }, false, "port 443 shows browsers"},
		{"a site on port 80", func(m *Met) { m.Root = Answer{Status: 200, Body: []byte("x")} }, false, "port 80 shows browsers"},
	} {
		met := good
		met.Roots = []Answer{closed, closed}
		c.edit(&met)
		faults := judge.FaultsTLS([]Met{met})
		if c.what == "" {
			if len(faults) != 0 {
				t.Errorf("%s: %+v", c.name, faults)
			}
			continue
		}
		if len(faults) != 1 || faults[0].Fatal != c.fatal || !strings.Contains(faults[0].What, c.what) ||
			strings.Contains(faults[0].What+faults[0].Hint(), "\n") || len(faults[0].What) > 400 || len(faults[0].Hint()) > 900 {
			t.Errorf("%s: %+v, want %q", c.name, faults, c.what)
		}
	}
}
