package front_test

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"ntsagent/acme/challenge"
	"ntsagent/acme/front"
	"ntsagent/acme/front/fronttest"
	"ntsagent/hostcheck"
)

// routed is an agent with a pending proof for acme-tls/1, a web site for everybody at a port of its own, and the port of
// a router in front of both.
type routed struct {
	name       hostcheck.Name
	proof      []byte
	agent      netip.AddrPort
	https, web uint16
	cert, key  string
	both       string // in one file, as HAProxy has them
}

func newRouted(t *testing.T) *routed {
	t.Helper()
	name, err := hostcheck.ParseName(alice)
	if err != nil {
		t.Fatal(err)
	}
	proof, err := challenge.Certificate(name, expected, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	responder := challenge.New(hostcheck.NewSet([]hostcheck.Name{name}), hclog.NewNullLogger())
	if _, err := responder.PresentTLSALPN01(name, proof); err != nil {
		t.Fatal(err)
	}
	r := &routed{name: name, proof: proof.Certificate[0], agent: serveTLS(t, responder.TLSConfig()), https: fronttest.FreePort(t), web: fronttest.FreePort(t)}
	r.cert, r.key = fronttest.Certificate(t)
	r.both = together(t, r.cert, r.key)
	return r
}

// serveTLS shakes hands with everybody, and hangs up.
func serveTLS(t *testing.T, config *tls.Config) netip.AddrPort {
	t.Helper()
	return accept(t, func(c net.Conn) {
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		_ = tls.Server(c, config).Handshake() // what came of it is the prober's to say
	})
}

func (r *routed) prober() front.Prober {
	return front.Prober{Addrs: []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}, HTTPS: r.https}
}

func (r *routed) faults(t *testing.T) []front.Fault {
	return front.Judge{TLS: r.agent}.FaultsTLS(r.prober().AskTLS(t.Context(), r.name, r.proof))
}

// fill puts this test's places where a configuration has the usual ones.
func (r *routed) fill(conf string) string {
	return strings.NewReplacer("listen [::]:443", fmt.Sprintf("listen [::1]:%d", r.https), "listen 443", fmt.Sprintf("listen 127.0.0.1:%d", r.https),
		"bind :443,:::443 v6only", fmt.Sprintf("bind 127.0.0.1:%d,::1:%d", r.https, r.https), "127.0.0.1:8443", fmt.Sprintf("127.0.0.1:%d", r.web),
		"AGENT", r.agent.String(), "CERT", fmt.Sprintf("ssl_certificate %s; ssl_certificate_key %s;", r.cert, r.key),
		"PEM", r.both).Replace(conf)
}

// shop is the web site at 443, or behind a router that has it.
const shop = "server { listen 127.0.0.1:8443 ssl; CERT location / { add_header Set-Cookie session=1; return 200 'the shop'; } }"

// The routers that lead to the agent, and to the shop by its own name.
const (
	nginxByName = "stream { map $ssl_preread_server_name $to { " + alice + " AGENT; default 127.0.0.1:8443; } " +
		"server { listen 443; listen [::]:443; ssl_preread on; proxy_pass $to; } }"
	nginxByALPN = `stream { map $ssl_preread_alpn_protocols $to { ~\bacme-tls/1\b AGENT; default 127.0.0.1:8443; } ` +
		"server { listen 443; listen [::]:443; ssl_preread on; proxy_pass $to; } }"
	haproxyTLS = "frontend tls\n mode tcp\n bind :443,:::443 v6only\n tcp-request inspect-delay 5s\n tcp-request content accept if { req.ssl_hello_type 1 }\n " +
		"use_backend agent if { HOW }\n default_backend web\nbackend agent\n mode tcp\n server agent AGENT\nbackend web\n mode tcp\n server web 127.0.0.1:8443\n"
)

// What the operator is told when something is wrong with his router is what mends it, in nginx and in HAProxy; and the
// web site stays where it was.
func TestBehindARouterAFaultIsFoundAndItsSnippetMendsIt(t *testing.T) {
	t.Parallel()
	const browsers = "port 443 shows browsers of the pool's visitors something: an answer 200 with a cookie"
	const shopAt443 = "server { listen 443 ssl; listen [::]:443 ssl; CERT location / { add_header Set-Cookie session=1; return 200 'the shop'; } } " + shop
	for _, c := range []struct {
		name            string
		stream, haproxy string // of nginx; or HAProxy in front of it
		servers         string
		want            []string // what each fault says
	}{
		{"nginx by name", nginxByName, "", shop, nil},
		{"nginx by ALPN", nginxByALPN, "", shop, []string{browsers}},
		{"nginx by ALPN, and a web server that is silent by the name", nginxByALPN, "",
			"server { listen 127.0.0.1:8443 ssl default_server; ssl_reject_handshake on; } " + strings.Replace(shop, "CERT", "CERT server_name shop.example;", 1), nil},
		{"haproxy by name", "", strings.Replace(haproxyTLS, "HOW", "req.ssl_sni -i "+alice, 1), shop, nil},
		{"haproxy by ALPN", "", strings.Replace(haproxyTLS, "HOW", "req.ssl_alpn acme-tls/1", 1), shop, []string{browsers}},

		{"nginx ends TLS", "", "", shopAt443, []string{"ends TLS for " + alice + " itself, and knows no acme-tls/1", browsers}},
		{"nginx ends TLS and rejects the name", "", "", "server { listen 443 ssl default_server; listen [::]:443 ssl default_server; ssl_reject_handshake on; } " + shop,
			[]string{"ends TLS for " + alice + " itself, and refuses acme-tls/1: unrecognized name"}},
		{"haproxy ends TLS", "", "frontend tls\n bind :443,:::443 v6only ssl crt PEM\n default_backend web\nbackend web\n server web 127.0.0.1:8443 ssl verify none\n", shop,
			[]string{"itself, with a certificate for shop.example", browsers}},
		{"haproxy ends TLS and speaks it again to the agent", "",
			"frontend tls\n mode tcp\n bind :443,:::443 v6only ssl crt PEM\n default_backend agent\nbackend agent\n mode tcp\n server agent AGENT ssl verify none alpn acme-tls/1 sni str(" + alice + ")\n", shop,
			[]string{"itself, with a certificate for shop.example"}},
		{"nginx leads all to the web site", "stream { server { listen 443; listen [::]:443; proxy_pass 127.0.0.1:8443; } }", "", shop,
			[]string{"knows no acme-tls/1", browsers}},
		{"nginx seeks the agent elsewhere", strings.Replace(nginxByName, "AGENT", "127.0.0.1:1", 1), "", shop, []string{"does not find the agent at "}},
		{"haproxy seeks the agent elsewhere", "", strings.NewReplacer("HOW", "req.ssl_sni -i "+alice, "AGENT", "127.0.0.1:1").Replace(haproxyTLS), shop, []string{"does not find the agent at "}},
		{"nginx sends the PROXY protocol", strings.Replace(nginxByName, "ssl_preread on;", "ssl_preread on; proxy_protocol on;", 1), "", "", []string{"or sends it something before TLS"}},
		{"haproxy sends the PROXY protocol", "", strings.NewReplacer("HOW", "req.ssl_sni -i "+alice, "AGENT", "AGENT send-proxy-v2").Replace(haproxyTLS), "", []string{"or sends it something before TLS"}},
		{"no TLS at 443", "", "", "server { listen 443; listen [::]:443; location / { return 404; } } " + shop, []string{"speaks no TLS"}},
		{"IPv6 is left to the web site", strings.Replace(nginxByName, "listen [::]:443; ", "", 1), "",
			"server { listen [::]:443 ssl; CERT location / { return 404; } } " + shop, []string{"knows no acme-tls/1, by IPv6 alone"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRouted(t)
			var stops []func()
			start := func(stream, haproxy, servers string) {
				stops = append(stops, fronttest.NginxRouter(t, r.fill(stream), r.fill(servers)))
				if haproxy != "" {
					stops = append(stops, fronttest.HAProxy(t, r.fill(haproxy)))
				}
			}
			start(c.stream, c.haproxy, c.servers)
			faults := r.faults(t)
			if len(faults) != len(c.want) {
				t.Fatalf("faults %+v, want %q", faults, c.want)
			}
			for i, f := range faults {
				if !strings.Contains(f.What, c.want[i]) {
					t.Errorf("%q, want %q", f.What, c.want[i])
				}
				if fatal := c.want[i] != browsers && !strings.Contains(c.want[i], "alone"); f.Fatal != fatal || f.Nginx != faults[0].Nginx || f.HAProxy != faults[0].HAProxy {
					t.Errorf("%+v: fatal is to be %v, and the snippets alike", f, fatal)
				}
			}
			if len(faults) == 0 {
				r.leadsToTheShop(t)
				return
			}
			for _, mended := range []struct{ stream, haproxy string }{{faults[0].Nginx, ""}, {"", faults[0].HAProxy}} {
				for _, stop := range stops {
					stop()
				}
				stops = nil
				start(mended.stream, mended.haproxy, shop)
				if left := r.faults(t); len(left) > 0 {
					t.Errorf("the snippet\n%s%s\nleaves %+v", mended.stream, mended.haproxy, left)
				}
				r.leadsToTheShop(t)
			}
		})
	}
}

// leadsToTheShop visits another host of the same machine.
func (r *routed) leadsToTheShop(t *testing.T) {
	t.Helper()
	for _, at := range []string{"127.0.0.1", "[::1]"} {
		c, err := tls.Dial("tcp", fmt.Sprintf("%s:%d", at, r.https), &tls.Config{ServerName: "shop.example", NextProtos: []string{"http/1.1"}, InsecureSkipVerify: true})
		if err != nil {
			t.Errorf("the shop by %s: %v", at, err)
			continue
		}
		if leaf := c.ConnectionState().PeerCertificates[0]; len(leaf.DNSNames) != 1 || leaf.DNSNames[0] != "shop.example" {
			t.Errorf("the shop by %s shows a certificate for %q", at, leaf.DNSNames)
		}
		c.Close()
	}
}

func TestAnotherACMEClientAt443IsTold(t *testing.T) {
	t.Parallel()
	r := newRouted(t)
	other, err := challenge.Certificate(r.name, "other.thumb", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	at := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{*other}, NextProtos: []string{challenge.ALPN}})
	r.https = at.Port()
	if faults := r.faults(t); len(faults) != 1 || !faults[0].Fatal || !strings.Contains(faults[0].What, "another ACME client answers") {
		t.Errorf("%+v", faults)
	}
}

func TestNobodyAtPort443IsToldAndTheAgentIsNotHisOwnRouter(t *testing.T) {
	t.Parallel()
	r := newRouted(t)
	told := func(met []front.Met) {
		t.Helper()
		if faults := (front.Judge{TLS: r.agent}).FaultsTLS(met); len(faults) != 1 || !faults[0].Fatal || !strings.Contains(faults[0].What, "nobody listens on port 443") {
			t.Errorf("%+v", faults)
		}
	}
	told(r.prober().AskTLS(t.Context(), r.name, r.proof))
	p := r.prober()
	for _, own := range []netip.Addr{r.agent.Addr(), netip.IPv4Unspecified()} {
		p.HTTPS, p.Own = r.agent.Port(), []netip.AddrPort{netip.AddrPortFrom(own, r.agent.Port())}
		told(p.AskTLS(t.Context(), r.name, r.proof))
	}
	p.Own = []netip.AddrPort{netip.AddrPortFrom(netip.IPv6Unspecified(), r.agent.Port())}
	if met := p.AskTLS(t.Context(), r.name, r.proof); len(met) != 1 || !met[0].Listens || met[0].Over6 {
		t.Errorf("by IPv4, where the agent has the port of IPv6 alone: %+v", met)
	}
}

// Nobody asks port 80 for a proof, and browsers come there all the same.
func TestAWebSiteOnPort80BesideARouterIsFoundAndItsSnippetMendsIt(t *testing.T) {
	t.Parallel()
	for _, haproxy := range []bool{false, true} {
		r := newRouted(t)
		port := fronttest.FreePort(t)
		places := strings.NewReplacer("listen 80", fmt.Sprintf("listen 127.0.0.1:%d", port), "listen [::]:80", fmt.Sprintf("listen [::1]:%d", port),
			"bind :80", fmt.Sprintf("bind 127.0.0.1:%d,::1:%d", port, port))
		site, run := "server { listen 80 default_server; listen [::]:80 default_server; return 200 'the shop'; }", fronttest.Nginx
		mended := func(f front.Fault) string { return site + f.Nginx }
		if haproxy {
			const head = "frontend http\n"
			site, run = head+" bind :80\n http-request return status 200 content-type text/html string shop\n", fronttest.HAProxy
			mended = func(f front.Fault) string { return f.HAProxy + strings.TrimPrefix(site, head) }
		}
		fronttest.NginxRouter(t, r.fill(nginxByName), r.fill(shop))
		faults := func() []front.Fault {
			p := r.prober()
			p.HTTP = port
			return front.Judge{TLS: r.agent}.FaultsTLS(p.AskTLS(t.Context(), r.name, r.proof))
		}
		stop := run(t, places.Replace(site))
		found := faults()
		if len(found) != 1 || found[0].Fatal || !strings.Contains(found[0].What, "at port 80 shows browsers") || (found[0].HAProxy != "") != haproxy {
			t.Fatalf("%+v", found)
		}
		stop()
		run(t, places.Replace(mended(found[0])))
		if left := faults(); len(left) > 0 {
			t.Errorf("the snippet in\n%s\nleaves %+v", mended(found[0]), left)
		}
	}
}
