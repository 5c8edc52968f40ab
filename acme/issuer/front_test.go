package issuer_test

import (
	"crypto/elliptic"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
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
// the look may be mistaken, and after some in vain the CA is asked all the same.
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
		if !ok || e.Class != acme.ClassInternal || !strings.Contains(e.Error(), "http-01 not tried: the web server on port 80 does not pass the Host "+name.String()+" on") ||
			!strings.Contains(e.Hint, "proxy_set_header Host $host;") {
			t.Fatalf("%+v", err)
		}
	}
	w.mu.Lock()
	asked := len(w.asked)
	w.mu.Unlock()
	if asked > 0 {
		t.Fatal("the CA has asked for a proof")
	}
	issue(t, i, order)
	issue(t, w.issuer(t, w.behind), order) // by the other challenge
	w.mustHaveNoProof(t, name)
}

// A CA, Debian's nginx and the agent: a certificate behind nginx, and out of a folder that nginx serves.
func TestIssueBehindNginx(t *testing.T) {
	t.Parallel()
	for _, folder := range []bool{false, true} {
		t.Run(fmt.Sprintf("folder %v", folder), func(t *testing.T) {
			t.Parallel()
			name := mustName(t, "alice.members.pool.example")
			w := newWorld(t, settings{}, name)
			agent := listen(t)
			srv := challenge.NewHTTPServer(w.record(w.responder), nullLog)
			go srv.Serve(agent)
			t.Cleanup(func() { srv.Close() })
			dir, public := t.TempDir(), port(w.http.Listener)
			w.http.Close() // nginx takes its port
			how := "proxy_pass http://" + agent.Addr().String() + "; proxy_set_header Host $host;"
			edits := []func(*issuer.Config){only(issuer.HTTP01), w.behind}
			if folder {
				how = "alias " + dir + "/;"
				edits = append([]func(*issuer.Config){func(c *issuer.Config) { c.Webroot = challenge.Webroot(dir) }}, edits...)
			}
			fronttest.Nginx(t, fmt.Sprintf("server { listen 127.0.0.1:%d default_server; return 444; } server { listen 127.0.0.1:%d; server_name %s; "+
				"location /.well-known/acme-challenge/ { %s } location / { return 404; } }", public, public, name, how), uint16(public))
			order, _ := newOrder(t, name, elliptic.P256())
			issue(t, w.issuer(t, edits...), order)
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
			w.mustHaveNoProof(t, name)
		})
	}
}
