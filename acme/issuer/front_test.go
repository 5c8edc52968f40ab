package issuer_test

import (
	"crypto/elliptic"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"ntsagent/acme"
	"ntsagent/acme/challenge"
	"ntsagent/acme/front"
	"ntsagent/acme/front/fronttest"
	"ntsagent/acme/issuer"
)

// behind has the agent count on a web server at pebble's HTTP-01 port.
func (w *world) behind(c *issuer.Config) {
	at := w.http.Listener.Addr().(*net.TCPAddr).AddrPort()
	c.Front = &issuer.Front{
		Prober: front.Prober{Addrs: []netip.Addr{at.Addr()}, HTTP: at.Port(), HTTPS: 1},
		Judge:  front.Judge{Agent: netip.MustParseAddrPort("127.0.0.1:8402"), Webroot: string(c.Webroot)},
	}
}

// What a web server would not show the CA is found out before the CA is asked, and the other challenge is tried. But
// the look may be mistaken, and whoever insists has the CA asked all the same.
func TestTheCAIsNotAskedInVain(t *testing.T) {
	t.Parallel()
	name := mustName(t, "alice.members.pool.example")
	w := newWorld(t, settings{}, name)
	w.http.Config.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.UserAgent() == "ntsagent" {
			rw.WriteHeader(http.StatusMisdirectedRequest)
			return
		}
		w.record(w.responder).ServeHTTP(rw, r)
	})
	i := w.issuer(t, only(issuer.HTTP01), w.behind)
	order, _ := newOrder(t, name, elliptic.P256())
	for range 3 {
		_, err := i.Issue(t.Context(), order)
		e, ok := err.(*acme.Error)
		if !ok || e.Class != acme.ClassFront || !strings.Contains(e.Error(), "http-01 not tried: the web server on port 80 does not pass the Host "+name.String()+" on") ||
			!strings.Contains(e.Hint, "proxy_set_header Host $host;") {
			t.Fatalf("%+v", err)
		}
		if !slices.Equal(e.InVain, []string{issuer.HTTP01}) {
			t.Errorf("not tried: %q", e.InVain)
		}
	}
	if faults := i.LookAround(t.Context(), name); len(faults) != 1 || !strings.Contains(faults[0].What, "does not pass the Host") || !strings.Contains(faults[0].Hint, "proxy_set_header") {
		t.Errorf("%+v", faults)
	}
	w.mu.Lock()
	asked := len(w.asked)
	w.mu.Unlock()
	if asked > 0 {
		t.Fatal("the CA has asked for a proof")
	}
	order.Insist = []string{issuer.HTTP01}
	issue(t, i, order)
	order.Insist = nil
	issue(t, w.issuer(t, w.behind), order) // by the other challenge
	w.mustHaveNoProof(t, name)
}

// Where others have both ports each challenge has its look, and both see the shop.
func TestALookAroundTellsOfEachFaultOnce(t *testing.T) {
	t.Parallel()
	name := mustName(t, "alice.members.pool.example")
	w := newWorld(t, settings{}, name)
	w.http.Config.Handler = always(http.StatusOK, "the shop")
	i := w.issuer(t, w.behind, func(c *issuer.Config) {
		c.Front.Judge.TLS, c.Front.Prober.HTTPS = netip.MustParseAddrPort("127.0.0.1:8443"), netip.MustParseAddrPort(w.tlsAddr).Port()
	})
	found := make(map[string]int)
	for _, f := range i.LookAround(t.Context(), name) {
		found[f.What]++
		if f.Hint == "" {
			t.Errorf("%q without a hint", f.What)
		}
	}
	shops, proofs := 0, 0
	for what, n := range found {
		if n != 1 {
			t.Errorf("%q %d times", what, n)
		}
		if strings.Contains(what, "shows browsers") {
			shops++
		}
		if strings.Contains(what, "something else than the proof") {
			proofs++
		}
	}
	if shops != 1 || proofs != 1 {
		t.Errorf("%v", found)
	}
	if faults := w.issuer(t).LookAround(t.Context(), name); faults != nil {
		t.Errorf("with nobody before us: %+v", faults)
	}
}

// A CA, Debian's nginx and the agent: a certificate behind nginx, and out of a folder that nginx serves.
func TestIssueBehindNginx(t *testing.T) {
	t.Parallel()
	for _, folder := range []bool{false, true} {
		t.Run(fmt.Sprintf("folder %v", folder), func(t *testing.T) {
			t.Parallel()
			name := mustName(t, "alice.members.pool.example")
			public := fronttest.FreePort(t)
			w := newWorld(t, settings{webPort: public}, name)
			dir, agent := t.TempDir(), w.http.Listener.Addr().(*net.TCPAddr).AddrPort()
			how := "proxy_pass http://" + agent.String() + "; proxy_set_header Host $host;"
			judge, webroot := front.Judge{Agent: agent}, challenge.Webroot("")
			if folder {
				how = "alias " + dir + "/;"
				judge, webroot = front.Judge{Webroot: dir}, challenge.Webroot(dir)
			}
			fronttest.Nginx(t, fmt.Sprintf("server { listen 127.0.0.1:%d default_server; return 444; } server { listen 127.0.0.1:%d; server_name %s; "+
				"location /.well-known/acme-challenge/ { %s } location / { return 404; } }", public, public, name, how))
			order, _ := newOrder(t, name, elliptic.P256())
			issue(t, w.issuer(t, only(issuer.HTTP01), func(c *issuer.Config) {
				c.Webroot, c.Front = webroot, &issuer.Front{Judge: judge, Prober: front.Prober{Addrs: loopback, HTTP: public, HTTPS: 1}}
			}), order)
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
			w.mustHaveNoProof(t, name)
		})
	}
}

var loopback = []netip.Addr{netip.MustParseAddr("127.0.0.1")}

// The routers of the next tests; HERE is where the CA comes to.
const (
	nginxRouter = "stream { map $ssl_preread_WHAT $to { WHICH AGENT; default SHOP; } server { listen HERE; ssl_preread on; proxy_pass $to; } }"
	haproxyTLS  = "frontend tls\n mode tcp\n bind HERE\n tcp-request inspect-delay 5s\n tcp-request content accept if { req.ssl_hello_type 1 }\n " +
		"use_backend agent if { WHAT WHICH }\n default_backend web\nbackend agent\n mode tcp\n server agent AGENT\nbackend web\n mode tcp\n server web SHOP\n"
)

// A CA, a router of Debian's in front of everything, and the agent: a certificate by tls-alpn-01, while a web site beside it
// is found by its own name.
func TestIssueBehindARouter(t *testing.T) {
	t.Parallel()
	const alice = "alice.members.pool.example"
	for _, c := range []struct{ router, conf, what, which string }{
		{"nginx by name", nginxRouter, "server_name", alice},
		{"nginx by ALPN", nginxRouter, "alpn_protocols", `~\bacme-tls/1\b`},
		{"haproxy by name", haproxyTLS, "req.ssl_sni", "-i " + alice},
		{"haproxy by ALPN", haproxyTLS, "req.ssl_alpn", "acme-tls/1"},
	} {
		t.Run(c.router, func(t *testing.T) {
			t.Parallel()
			name, public := mustName(t, alice), fronttest.FreePort(t)
			w := newWorld(t, settings{routerPort: public}, name)
			w.route(t, c.conf, c.what, c.which, w.tlsAddr, public)
			i := w.issuer(t, only(issuer.TLSALPN01), w.routed(public))
			order, _ := newOrder(t, name, elliptic.P256())
			issue(t, i, order)
			w.mustHaveNoProof(t, name)
			for host, want := range map[string]string{"shop.example": "shop.example", alice: ""} {
				got := ""
				if c, err := tls.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", public), &tls.Config{ServerName: host, NextProtos: []string{"http/1.1"}, InsecureSkipVerify: true}); err == nil {
					got = c.ConnectionState().PeerCertificates[0].DNSNames[0]
					c.Close()
				}
				if got != want {
					t.Errorf("a browser that comes for %s is shown a certificate for %q", host, got)
				}
			}
		})
	}
}

// What a router would not lead to us is found out before the CA is asked.
func TestTheCAIsNotAskedInVainBehindARouter(t *testing.T) {
	t.Parallel()
	name, public := mustName(t, "alice.members.pool.example"), fronttest.FreePort(t)
	w := newWorld(t, settings{routerPort: public}, name)
	w.route(t, nginxRouter, "server_name", "another.example", w.tlsAddr, public)
	order, _ := newOrder(t, name, elliptic.P256())
	_, err := w.issuer(t, only(issuer.TLSALPN01), w.routed(public)).Issue(t.Context(), order)
	e, ok := err.(*acme.Error)
	if !ok || e.Class != acme.ClassFront || e.Validations != 0 || !strings.Contains(e.Error(), "tls-alpn-01 not tried: who has port 443 ends TLS for "+name.String()+" itself") ||
		!strings.Contains(e.Hint, "$ssl_preread_server_name") || !strings.Contains(e.Hint, "req.ssl_sni") {
		t.Fatalf("%+v", err)
	}
	w.mustHaveNoProof(t, name)
	issue(t, w.issuer(t, w.routed(public)), order) // by the other challenge, for which nobody stands before us
}

// route runs a router at the port, and beside the agent a web server with a shop, which rejects who comes by another name.
func (w *world) route(t *testing.T, conf, what, which, agent string, at uint16) {
	t.Helper()
	web := fronttest.FreePort(t)
	cert, key := fronttest.Certificate(t)
	certificate := fmt.Sprintf("ssl_certificate %s; ssl_certificate_key %s;", cert, key)
	shop := fmt.Sprintf("server { listen 127.0.0.1:%d ssl default_server; ssl_reject_handshake on; } "+
		"server { listen 127.0.0.1:%d ssl; server_name shop.example; %s return 200 'the shop'; }", web, web, certificate)
	conf = strings.NewReplacer("WHAT", what, "WHICH", which, "AGENT", agent, "HERE", fmt.Sprintf("127.0.0.1:%d", at), "SHOP", fmt.Sprintf("127.0.0.1:%d", web)).Replace(conf)
	if strings.HasPrefix(conf, "stream") {
		fronttest.NginxRouter(t, conf, shop)
		return
	}
	fronttest.Nginx(t, shop)
	fronttest.HAProxy(t, conf)
}

// routed has the agent count on a router at the port.
func (w *world) routed(at uint16) func(*issuer.Config) {
	return func(c *issuer.Config) {
		c.Front = &issuer.Front{Prober: front.Prober{Addrs: loopback, HTTPS: at}, Judge: front.Judge{TLS: netip.MustParseAddrPort(w.tlsAddr)}}
	}
}
