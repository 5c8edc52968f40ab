package agent

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hashicorp/go-hclog"

	"ntsagent/acme/front"
	"ntsagent/acme/store"
	"ntsagent/agent/config"
	"ntsagent/agent/status"
	"ntsagent/agent/task"
)

// http01 is the part for certificates of a configuration with these lines below
// acme, and the agent around it. Its CA is not there.
func http01(t *testing.T, lines string) (*agent, *certs, *config.Config) {
	t.Helper()
	cfg, err := config.Parse("test", fmt.Appendf(nil, "names: [alice.pool.example]\nacme:\n  agree_to_terms: true\n  directory: https://127.0.0.1:1/\n  challenges: [http-01]\n%s", lines))
	if err != nil {
		t.Fatal(err)
	}
	kept, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	log := hclog.NewNullLogger()
	a := &agent{Options: Options{Log: log}, book: newBook(), store: kept, tasks: task.NewGroup(log)}
	t.Cleanup(a.book.closeAll)
	c, err := a.newCerts(t.Context(), nil, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return a, c, cfg
}

func TestBehindAProxyTheDoorIsOnLoopbackAndLeadsListedHostsOn(t *testing.T) {
	t.Parallel()
	a, c, cfg := http01(t, `  http01: {mode: proxy, listen: ["127.0.0.1:0"], redirect: {hosts: [pool.example], to: "https://www.pool.example/join"}}`)
	if len(c.doors) != 1 {
		t.Fatalf("%d doors", len(c.doors))
	}
	at := a.book.addresses(status.ServiceHTTP01)
	ln := a.book.take(status.ServiceHTTP01)
	if len(at) != 1 || !netip.MustParseAddrPort(at[0]).Addr().IsLoopback() {
		t.Fatalf("listens at %q", at)
	}
	ended := make(chan error, 1)
	ctx, stop := context.WithCancel(t.Context())
	go func() { ended <- c.doors[0].serve(ctx, ln[0]) }()
	client := http.Client{Timeout: patience, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	for host, want := range map[string]int{"pool.example": http.StatusMovedPermanently, "alice.pool.example": http.StatusNotFound, at[0]: http.StatusMisdirectedRequest} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+at[0]+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want || (resp.Header.Get("Location") != "") != (want == http.StatusMovedPermanently) {
			t.Errorf("%s: %d to %q, want %d", host, resp.StatusCode, resp.Header.Get("Location"), want)
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	f := a.front(cfg)
	if f == nil || f.Prober.HTTP != 80 || f.Prober.HTTPS != 443 || !f.Prober.Addrs[len(f.Prober.Addrs)-1].IsLoopback() ||
		f.Judge != (front.Judge{Agent: netip.MustParseAddrPort("127.0.0.1:0"), Leads: "https://www.pool.example/join"}) {
		t.Errorf("%+v", f)
	}
}

func TestWithAWebrootThereIsNoDoorAndWhatWasLeftIsSweptAtTheStartAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const left = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA"
	leave := func() {
		if err := os.WriteFile(filepath.Join(dir, left), []byte(left+".thumb"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	leave()
	a, c, cfg := http01(t, "  http01: {mode: webroot, webroot: "+dir+"}")
	if len(c.doors) != 0 || len(a.book.addresses(status.ServiceHTTP01)) != 0 {
		t.Errorf("%d doors", len(c.doors))
	}
	if _, err := os.Lstat(filepath.Join(dir, left)); err == nil {
		t.Error("what was left is still there")
	}
	leave()
	if w := a.webroot(&parts{cfg: cfg}, cfg); string(w) != dir {
		t.Errorf("webroot %q", w)
	}
	if _, err := os.Lstat(filepath.Join(dir, left)); err != nil {
		t.Errorf("a reload has taken the proof of an order: %v", err)
	}
	if f := a.front(cfg); f == nil || f.Judge.Webroot != dir {
		t.Errorf("%+v", f)
	}
}

func TestWithPort80OfItsOwnTheAgentAsksNoWebServer(t *testing.T) {
	t.Parallel()
	a, c, cfg := http01(t, `  http01: {listen: ["127.0.0.1:0"]}`)
	if a.front(cfg) != nil || a.webroot(nil, cfg) != "" || !slices.ContainsFunc(c.doors, func(d *door) bool { return d.purpose == status.ServiceHTTP01 }) {
		t.Error("it does not answer by itself")
	}
}

func TestBehindARouterTheAgentAsksHimOnPort443(t *testing.T) {
	t.Parallel()
	for challenges, want := range map[string]front.Judge{
		"[tls-alpn-01]":          {TLS: netip.MustParseAddrPort("127.0.0.1:443")},
		"[http-01, tls-alpn-01]": {TLS: netip.MustParseAddrPort("127.0.0.1:443")}, // port 80 is its own
		"[http-01]":              {},
	} {
		cfg, err := config.Parse("test", []byte("names: [alice.pool.example]\nacme: {agree_to_terms: true, challenges: "+challenges+
			`, tls_alpn01: {mode: proxy, listen: ["127.0.0.1:443", "[::1]:8403"]}}`))
		if err != nil {
			t.Fatal(err)
		}
		f := new(agent).front(cfg)
		if want == (front.Judge{}) {
			if f != nil {
				t.Errorf("%s: %+v", challenges, f)
			}
			continue
		}
		if f == nil || f.Judge != want || f.Prober.HTTPS != 443 || !slices.Contains(f.Prober.Own, want.TLS) {
			t.Errorf("%s: %+v", challenges, f)
		}
	}
}

func TestStrangersAddressesAreAskedBeforeLoopback(t *testing.T) {
	t.Parallel()
	var here, want []netip.Addr
	for _, a := range []string{"127.0.0.1", "::1", "192.0.2.7", "fe80::1%eth0", "2001:db8::7"} {
		here = append(here, netip.MustParseAddr(a))
	}
	for _, a := range []string{"192.0.2.7", "2001:db8::7", "127.0.0.1", "::1"} {
		want = append(want, netip.MustParseAddr(a))
	}
	if got := askable(here); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
