package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/acme"
	"github.com/letsencrypt/pebble/v2/core"
	"github.com/letsencrypt/pebble/v2/db"

	"ntsagent/agent/config"
	"ntsagent/agent/feed"
	"ntsagent/packaging/parts"
	"ntsagent/packaging/parts/partstest"
)

func TestAReservedPortIsKeptFromOthers(t *testing.T) {
	port, release, err := reserveUDP(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{on4(port), on6(port)} {
		if c, err := net.ListenPacket("udp", addr); err == nil {
			c.Close()
			t.Errorf("%s could be taken while it was reserved", addr)
		}
	}
	release()
	const tries = 10 // for somebody may take a port that is free
	for try := 1; ; try++ {
		c4, err4 := net.ListenPacket("udp", on4(port))
		c6, err6 := net.ListenPacket("udp", on6(port))
		for _, c := range []net.PacketConn{c4, c6} {
			if c != nil {
				c.Close()
			}
		}
		if err4 == nil && err6 == nil {
			return
		}
		if try == tries {
			t.Fatalf("port %d is not free after the release: %v", port, errors.Join(err4, err6))
		}
		if port, release, err = reserveUDP(t.Context()); err != nil {
			t.Fatal(err)
		}
		release()
	}
}

func TestADaemonThatLosesItsPortGetsAnother(t *testing.T) {
	runtime.LockOSThread() // the child dies with its thread
	defer runtime.UnlockOSThread()
	w, err := openWorkspace(filepath.Join(t.TempDir(), "lab"))
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	taken, c4, c6, err := listenUDP(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c4.Close()
	defer c6.Close()
	ports := []func(context.Context) (uint16, error){
		func(context.Context) (uint16, error) { return taken, nil },
		freeUDP,
	}
	d := &daemon{}
	defer d.stop()
	if err := d.startNTPDRS(t.Context(), partstest.NTPDRS(t, parts.Debian13), w, func(ctx context.Context) (uint16, error) {
		next := ports[0]
		ports = ports[len(ports)-1:]
		return next(ctx)
	}); err != nil {
		t.Fatal(err)
	}
	if slices.Contains(d.ntp, on4(taken)) {
		t.Errorf("it serves at %v, which was taken", d.ntp)
	}
}

func TestTheNameServerKnowsOneName(t *testing.T) {
	n, err := startNames(t.Context(), memberName)
	if err != nil {
		t.Fatal(err)
	}
	defer n.stop()
	r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, n.addr)
	}}
	for family, want := range map[string]string{"ip4": loopback4, "ip6": loopback6} {
		ips, err := r.LookupIP(t.Context(), family, memberName+".")
		if err != nil || len(ips) != 1 || ips[0].String() != want {
			t.Errorf("%s of %s is %v (%v), want %s", family, memberName, ips, err, want)
		}
	}
	if ips, err := r.LookupIP(t.Context(), "ip", "bob.pool.test."); err == nil {
		t.Errorf("bob.pool.test is %v, want no address", ips)
	}
}

func TestTheAuthorityLetsAnEarlyClientWait(t *testing.T) {
	a, err := openAuthority(t.Context(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	defer a.stop()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(a.tlsRoot) {
		t.Fatal("the directory's root is no PEM")
	}
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	defer client.CloseIdleConnections()
	answer := make(chan error, 1)
	go func() { // before serve: it must not be refused
		r, err := client.Get(a.directory)
		if err == nil {
			var body []byte
			body, err = io.ReadAll(r.Body)
			r.Body.Close()
			if err == nil && !strings.Contains(string(body), "newOrder") {
				err = io.ErrUnexpectedEOF
			}
		}
		answer <- err
	}()
	var said strings.Builder
	logFile, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer logFile.Close()
	root, err := a.serve("127.0.0.1:1", 1, 1, &narrator{story: newStory(&said), log: logFile})
	if err != nil {
		t.Fatal(err)
	}
	if err := <-answer; err != nil {
		t.Errorf("fetch the directory: %v", err)
	}
	if !x509.NewCertPool().AppendCertsFromPEM(root) {
		t.Error("the authority's root is no PEM")
	}
	if os.Getenv("PEBBLE_VA_NOSLEEP") != "1" {
		t.Error("the authority sleeps before it validates")
	}
}

func TestADaemonServesBothFamiliesAndEndsWithTheLab(t *testing.T) {
	for _, kind := range daemons[1:] { // the first is in this process
		t.Run(kind, func(t *testing.T) {
			runtime.LockOSThread() // the child dies with its thread
			defer runtime.UnlockOSThread()
			w, err := openWorkspace(filepath.Join(t.TempDir(), "lab"))
			if err != nil {
				t.Fatal(err)
			}
			defer w.close()
			d, err := startDaemon(t.Context(), kind, w, newStory(io.Discard))
			if err != nil {
				t.Fatal(err)
			}
			defer d.stop()
			for _, addr := range d.ntp {
				const many, fewer = 40, 20 // all that is lost is lost to a busy machine, or to a limit of the daemon
				answered, lost := 0, 0
				for answered < many && lost < fewer {
					if err := d.tellsTime(t.Context(), addr); err != nil {
						t.Log(err)
						lost++
						continue
					}
					answered++
				}
				if answered < many {
					t.Errorf("%s answered %d queries and not %d", addr, answered, lost)
				}
			}
			if gone := d.gone(); gone != nil {
				t.Errorf("the daemon is gone while it runs: %v", gone)
			}
			d.stop()
			if gone := d.gone(); gone == nil {
				t.Error("the daemon still runs")
			}
			wantGone(t, pidsIn(d.line))
		})
	}
}

// The longest folder a workspace takes for chronyd's socket: the agent's own
// socket beside it has a longer name.
func TestTheAgentReachesChronydInTheLongestFolder(t *testing.T) {
	short, err := os.MkdirTemp("", "lab-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(short)
	pad := longestSocketDir - len(short+"/"+"/daemon")
	w, err := openWorkspace(filepath.Join(short, strings.Repeat("d", pad)))
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	if w.daemonDir != w.path("daemon") || len(w.daemonDir) != longestSocketDir {
		t.Fatalf("the daemon's folder is %s (%d octets)", w.daemonDir, len(w.daemonDir))
	}
	d, err := startDaemon(t.Context(), "chrony", w, newStory(io.Discard))
	if err != nil {
		t.Fatal(err)
	}
	defer d.stop()
	await(t, time.Minute, "an answer of chronyd", func(ctx context.Context) error {
		return feed.Rekey(ctx, filepath.Join(w.daemonDir, "chronyd.sock"))
	})
}

func TestNobodyWaitsForTheDead(t *testing.T) {
	ended := make(chan struct{})
	close(ended)
	gone := &daemon{child: &child{name: "chronyd", logPath: os.DevNull, ended: ended}}
	client := &chronyClient{done: ended}
	for want, try := range map[string]func(context.Context) error{
		"chronyd: it ended by itself; it said nothing": func(ctx context.Context) error { return gone.tellsTime(ctx, on4(9)) },
		"the chronyd client is gone":                   func(ctx context.Context) error { return client.authenticated(ctx, loopback4, "9", 1) },
	} {
		tries := 0
		err := eventually(t.Context(), time.Minute, func(ctx context.Context) error {
			if tries++; tries > 1 {
				return inVain{errors.New("tried again")}
			}
			return try(ctx)
		})
		if err == nil || err.Error() != want {
			t.Errorf("the reason is %v, want %q", err, want)
		}
	}
}

func TestTheStoryTellsHowAChallengeEnded(t *testing.T) {
	store := db.NewMemoryStore()
	for id, c := range map[string]acme.Challenge{
		"good": {Type: "http-01"},
		"bad":  {Type: "tls-alpn-01", Error: &acme.ProblemDetails{Type: "connection", Detail: "nobody listens"}},
	} {
		if _, err := store.AddChallenge(&core.Challenge{ID: id, Challenge: c}); err != nil {
			t.Fatal(err)
		}
	}
	for line, want := range map[string]string{
		"authz 1 set VALID by completed challenge good\n":  "http-01: the authority took the proof from A and was convinced\n",
		"authz 2 set INVALID by completed challenge bad\n": "tls-alpn-01 FAILED: the authority asked for the proof at B and was not convinced: connection :: nobody listens\n",
		"order 3 set INVALID by invalid authz 2\n":         "",
	} {
		var told strings.Builder
		logFile, err := os.Create(filepath.Join(t.TempDir(), "log"))
		if err != nil {
			t.Fatal(err)
		}
		n := &narrator{story: newStory(&told), log: logFile, store: store, proofs: map[string]string{"http-01": "A", "tls-alpn-01": "B"}}
		_, err = n.Write([]byte(line))
		logFile.Close()
		_, got, _ := strings.Cut(told.String(), "challenge    ")
		if err != nil || got != want {
			t.Errorf("%q is told as %q (%v), want %q", line, got, err, want)
		}
	}
}

func TestAChildThatDiesSaysWhy(t *testing.T) {
	c, err := startChild("probe", exec.Command("sh", "-c", "echo the reason; exit 3"), filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	<-c.ended
	if err := c.gone(); err == nil || !strings.Contains(err.Error(), "the reason") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("gone says %v", err)
	}
}

func TestTheAgentAcceptsWhatTheLabWrites(t *testing.T) {
	c := agentConfig{
		name: memberName, directory: "https://127.0.0.1:1/dir", acmeCA: "/a b/acme-ca.pem", challenges: []string{"tls-alpn-01", "http-01"},
		ke: []string{"127.0.0.1:0", "[::1]:0"}, http01: []string{"127.0.0.1:0"}, tlsALPN01: []string{"[::1]:7"},
		resolver: "127.0.0.1:8053", stateDir: "/s", socket: "/s/control.sock",
	}
	for kind, row := range map[string]struct {
		section string
		keys    func(config.Daemon) string
	}{
		"chrony": {section("chrony", on4(1123), "chrony", "keys_file", "/c/it's: #1", "command_socket", "/c/chronyd.sock", "config_file", "/c/chrony.conf"),
			func(d config.Daemon) string { return d.Chrony.KeysFile }},
		"ntpsec":  {section("ntpsec", on4(1123), "ntpsec", "keys_file", "/c/it's: #1"), func(d config.Daemon) string { return d.NTPsec.KeysFile }},
		"ntpd-rs": {section("ntpd-rs", on4(1123), "ntpd_rs", "keys_file", "/c/it's: #1"), func(d config.Daemon) string { return d.NTPDRS.KeysFile }},
		"gateway": {gatewaySection(on4(1123), []string{on4(7), "[::1]:7"}), func(d config.Daemon) string {
			return map[bool]string{true: "/c/it's: #1"}[len(d.Gateway.Listen) == 2]
		}},
	} {
		c.daemon = row.section
		got, err := config.Parse("lab", []byte(c.text()))
		if err != nil {
			t.Fatalf("%s: %v\n%s", kind, err, c.text())
		}
		if got.ACME.CAFile != c.acmeCA || got.Daemon.Kind != kind || got.Daemon.Address.String() != on4(1123) || row.keys(got.Daemon) != "/c/it's: #1" ||
			got.StateDir != c.stateDir || len(got.KE.Listen) != 2 || got.ACME.Challenges[0] != "tls-alpn-01" {
			t.Errorf("%s is read back as %+v", kind, got)
		}
	}
}
