package front_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"

	"ntsagent/acme/challenge"
	"ntsagent/acme/front"
	"ntsagent/acme/front/fronttest"
	"ntsagent/hostcheck"
)

const (
	alice    = "alice.pool.example"
	token    = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA"
	expected = token + ".9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI"
)

// stage is an agent with a pending proof, as a listener and in a folder, and the ports of a web server in front of it.
type stage struct {
	name        hostcheck.Name
	agent       netip.AddrPort
	folder      string
	http, https uint16
	cert, key   string
	both        string // in one file, as HAProxy has them
}

func newStage(t *testing.T) *stage {
	t.Helper()
	name, err := hostcheck.ParseName(alice)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{name: name, agent: ln.Addr().(*net.TCPAddr).AddrPort(), folder: t.TempDir(), http: fronttest.FreePort(t), https: fronttest.FreePort(t)}
	s.cert, s.key = fronttest.Certificate(t)
	s.both = together(t, s.cert, s.key)
	if err := os.Chmod(filepath.Dir(s.folder), 0o755); err != nil {
		t.Fatal(err)
	}
	log := hclog.NewNullLogger()
	responder := challenge.New(hostcheck.NewSet([]hostcheck.Name{name}), log)
	if _, err := responder.PresentHTTP01(name, token, expected); err != nil {
		t.Fatal(err)
	}
	remove, err := challenge.Webroot(s.folder).Present(token, expected)
	if err != nil {
		t.Fatal(err)
	}
	srv := challenge.NewHTTPServer(responder, log)
	go srv.Serve(ln)
	t.Cleanup(func() {
		if err := remove(); err != nil {
			t.Error(err)
		}
		srv.Close()
	})
	return s
}

// together is a file with what these hold.
func together(t *testing.T, files ...string) string {
	t.Helper()
	var all []byte
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	path := filepath.Join(t.TempDir(), "all.pem")
	if err := os.WriteFile(path, all, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// faults asks the web server that runs.
func (s *stage) faults(t *testing.T, judge front.Judge) []front.Fault {
	prober := front.Prober{Addrs: []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}, HTTP: s.http, HTTPS: s.https}
	return judge.Faults(prober.Ask(t.Context(), s.name, token, expected))
}

// fill puts this stage's places where a configuration has the usual ones.
func (s *stage) fill(conf string) string {
	return strings.NewReplacer("listen 80", fmt.Sprintf("listen 127.0.0.1:%d", s.http), "listen 443", fmt.Sprintf("listen 127.0.0.1:%d", s.https),
		"bind :80,:::80 v6only", fmt.Sprintf("bind 127.0.0.1:%d,::1:%d", s.http, s.http), "bind :443", fmt.Sprintf("bind 127.0.0.1:%d", s.https), "PEM", s.both,
		"listen [::]:80", fmt.Sprintf("listen [::1]:%d", s.http), "listen [::]:443", fmt.Sprintf("listen [::1]:%d", s.https), "AGENT", s.agent.String(), "FOLDER", s.folder, "CERT", fmt.Sprintf("ssl_certificate %s; ssl_certificate_key %s;", s.cert, s.key)).Replace(conf)
}

// What nginx is told when something is wrong is what mends it: the snippet of each fault, put where the server was, leaves none.
func TestBehindNginxAFaultIsFoundAndItsSnippetMendsIt(t *testing.T) {
	t.Parallel()
	const (
		mute      = "server { listen 443 ssl default_server; ssl_reject_handshake on; } "
		challenge = "location /.well-known/acme-challenge/ "
	)
	for _, c := range []struct {
		name    string
		servers string
		webroot bool
		want    []string // what each fault says
	}{
		{"the Host is passed on", "server { listen 80 default_server; return 444; } server { listen 80; server_name " + alice + "; " + challenge +
			"{ proxy_pass http://AGENT; proxy_set_header Host $host; } location / { return 404; } } " + mute, false, nil},
		{"the Host with its port is passed on", "server { listen 80 default_server; " + challenge + "{ proxy_pass http://AGENT; proxy_set_header Host $http_host; } location / { return 421; } }", false, nil},
		{"the Host is nginx's own", "server { listen 80 default_server; " + challenge + "{ proxy_pass http://AGENT; } location / { return 404; } }", false,
			[]string{"does not pass the Host " + alice + " on"}},
		{"the Host is that of an upstream", "upstream nts_agent { server AGENT; } server { listen 80; " + challenge + "{ proxy_pass http://nts_agent; } location / { return 404; } }", false,
			[]string{"does not pass the Host " + alice + " on"}},
		{"the agent is sought elsewhere", "server { listen 80; " + challenge + "{ proxy_pass http://127.0.0.1:1; proxy_set_header Host $host; } location / { return 404; } }", false,
			[]string{"does not find the agent at "}},
		{"a web site that knows nothing of it", "server { listen 80; location / { return 200 'Welcome to nginx!'; } }", false,
			[]string{"with something else than the proof", "port 80 shows browsers"}},
		{"all is led to https, the challenge too", "server { listen 80; return 301 https://$host$request_uri; } server { listen 443 ssl; CERT " + challenge +
			"{ proxy_pass http://AGENT; proxy_set_header Host $host; } location / { return 404; } }", false, nil},
		{"IPv6 is left to the web site", "server { listen 80; server_name " + alice + "; " + challenge + "{ proxy_pass http://AGENT; proxy_set_header Host $host; } " +
			"location / { return 404; } } server { listen [::]:80; location / { return 404; } }", false, []string{"with 404, by IPv6 alone"}},
		{"a shop at 443 for whoever comes", "server { listen 80; " + challenge + "{ proxy_pass http://AGENT; proxy_set_header Host $host; } location / { return 404; } } " +
			"server { listen 443 ssl; CERT location / { add_header Set-Cookie session=1; return 200 'the shop'; } }", false, []string{"port 443 shows browsers"}},

		{"a folder for the name alone", "server { listen 80 default_server; return 444; } server { listen 80; server_name " + alice + "; " + challenge +
			"{ alias FOLDER/; } location / { return 404; } }", true, nil},
		{"a folder for everybody", "server { listen 80 default_server; " + challenge + "{ alias FOLDER/; } location / { return 404; } }", true,
			[]string{"whoever asks by another Host"}},
		{"another folder", "server { listen 80 default_server; " + challenge + "{ root FOLDER; } location / { return 404; } }", true, []string{"with 404"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			judge := front.Judge{Agent: s.agent}
			if c.webroot {
				judge = front.Judge{Webroot: s.folder}
			}
			stop := fronttest.Nginx(t, s.fill(c.servers))
			faults := s.faults(t, judge)
			if len(faults) != len(c.want) {
				t.Fatalf("faults %+v, want %q", faults, c.want)
			}
			var snippet string
			for i, f := range faults {
				if !strings.Contains(f.What, c.want[i]) || f.HAProxy != "" { // nginx has said who it is
					t.Errorf("%q, want %q, and nothing for HAProxy: %q", f.What, c.want[i], f.HAProxy)
				}
				if !strings.Contains(snippet, f.Nginx) {
					snippet += f.Nginx + "\n"
				}
			}
			if snippet == "" {
				return
			}
			stop()
			if !strings.Contains(snippet, "listen 80") { // the fault was that of the other port
				snippet += c.servers[:strings.Index(c.servers, "server { listen 443")]
			}
			fronttest.Nginx(t, s.fill(snippet))
			if left := s.faults(t, judge); len(left) > 0 {
				t.Errorf("the snippet\n%s\nleaves %+v", snippet, left)
			}
		})
	}
}

func TestNobodyAtPort80IsTold(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	if faults := s.faults(t, front.Judge{Agent: s.agent}); len(faults) != 1 || !faults[0].Fatal || !strings.Contains(faults[0].What, "nobody listens") {
		t.Errorf("%+v", faults)
	}
}
