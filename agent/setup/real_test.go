package setup

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ntsagent/agent/daemon"
	"ntsagent/agent/daemon/chronytest"
	"ntsagent/agent/daemon/daemontest"
	"ntsagent/agent/daemon/ntpdrstest"
	"ntsagent/agent/daemon/ntpsectest"
	"ntsagent/ntske/aead"
	"ntsagent/ntske/client"
	"ntsagent/ntske/cookie"
	"ntsagent/ntske/keyring"
	"ntsagent/packaging/parts"
	"ntsagent/packaging/parts/partstest"
)

// here is the machine the test runs on.
var here = Host{Root: "/", Proc: "/proc", Invoked: parts.Invoked}

func TestRunningDaemonsAreFoundByTheirPort(t *testing.T) {
	check := func(d Daemon, err error, kind Kind, version, config string, mode Mode) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		if d.Kind != kind || d.Version != version || d.Config != config || d.Mode != mode || d.PID == 0 || !d.Serves {
			t.Errorf("%+v, want %s %s with %s, %s", d, kind, version, config, mode)
		}
	}
	for _, r := range []parts.Release{parts.Debian12, parts.Debian13} {
		s := chronytest.Start(t, chronytest.Options{Release: r})
		d, err := Detect(t.Context(), here, Ports{NTP: s.Addr.Port(), KE: s.KE().Port()}, Options{Address: s.Addr, KeysDir: s.Dir})
		check(d, err, Chrony, r.Chrony, s.Conf, Lead)
		if len(d.InWay) == 0 || !strings.Contains(d.InWay[0].What, "exchanges keys there itself") {
			t.Errorf("chronyd %s holds the port of key exchange: %+v", r.Chrony, d.InWay)
		}
	}
	s := ntpdrstest.Start(t, ntpdrstest.Options{})
	d, err := Detect(t.Context(), here, Ports{NTP: s.Addr.Port(), KE: 1}, Options{NTPDRSKeys: s.KeysFile})
	check(d, err, NTPDRS, parts.Debian13.NTPDRS, filepath.Join(s.Dir, "ntp.toml"), Follow)

	for _, r := range []parts.Release{parts.Debian12, parts.Debian13} {
		s := ntpsectest.Start(t, ntpsectest.Options{Release: r})
		s.Do(func() {
			d, err := Detect(t.Context(), here, Ports{NTP: 123, KE: 4460}, Options{NTPsecKeys: s.KeysFile})
			check(d, err, NTPsec, r.NTPsec, filepath.Join(s.Dir, "ntp.conf"), Follow)
			d, err = Detect(t.Context(), here, Ports{NTP: 123, KE: 4460}, Options{NTPsecKeys: s.KeysFile, Kind: "ntpsec", Certificate: true})
			check(d, err, NTPsec, r.NTPsec, filepath.Join(s.Dir, "ntp.conf"), Certificate)
		})
	}
}

func TestAStrangerAtThePortIsNamed(t *testing.T) {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	d, err := Detect(t.Context(), here, Ports{NTP: c.LocalAddr().(*net.UDPAddr).AddrPort().Port(), KE: 1}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if d.Serves || len(d.InWay) == 0 || !strings.Contains(d.InWay[0].What, fmt.Sprintf("(pid %d)", os.Getpid())) {
		t.Errorf("%+v", d)
	}
}

// debianChrony is Debian's own chrony.conf in a folder of the test, as far as a
// chronyd without a network can run it.
func debianChrony(t *testing.T, r parts.Release) (dir, conf string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "chrony") // names of sockets are short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	text := read(t, filepath.Join(string(partstest.Chrony(t, r)), "usr/share/chrony/chrony.conf"))
	for old, now := range map[string]string{
		"/etc/chrony": dir, "/var/lib/chrony": dir, "/var/log/chrony": dir, "/run/chrony-dhcp": dir,
		"pool 2.debian.pool.ntp.org iburst": "local stratum 8", "leapsectz right/UTC": "", "leapseclist /usr/share/zoneinfo/leap-seconds.list": "",
	} {
		text = strings.ReplaceAll(text, old, now)
	}
	conf = filepath.Join(dir, "chrony.conf")
	write(t, conf, text)
	write(t, filepath.Join(dir, "chrony.keys"), "")
	if err := os.Mkdir(filepath.Join(dir, "conf.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir, conf
}

func TestARealChronydOpensOurCookiesAfterApplyAndNotAfterRevert(t *testing.T) {
	for _, r := range []parts.Release{parts.Debian12, parts.Debian13} {
		for name, after := range map[string]string{"with a drop-in": "", "with a block at the end": "ntsrotate 604800\n"} {
			t.Run(r.String()+" "+name, func(t *testing.T) {
				dir, conf := debianChrony(t, r)
				addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), daemontest.FreePort(t, "udp"))
				ke := daemontest.FreePort(t, "tcp")
				write(t, conf, fmt.Sprintf("%sport %d\ncmdport 0\nbindaddress 127.0.0.1\nbindcmdaddress %s/sock\npidfile %s/pid\n%s", read(t, conf), addr.Port(), dir, dir, after))
				original, state := read(t, conf), t.TempDir()
				o := Options{Address: addr, KeysDir: dir, ParkedKEPort: ke}
				p := planned(t, Daemon{Kind: Chrony, Program: "chronyd", Config: conf}, o)
				if err := Apply(here, p, state, time.Now()); err != nil {
					t.Fatal(err)
				}
				if inBlock := hasBlock([]byte(read(t, conf))); inBlock != (after != "") {
					t.Errorf("a block: %v in\n%s", inBlock, read(t, conf))
				}
				accepts(t, r, conf)
				if a := answerOf(t, r, dir, conf, addr); a != keyring.Answered {
					t.Errorf("after apply a cookie is %v", a)
				}
				if again := planned(t, p.Daemon, o); len(again.Changes) > 0 {
					t.Errorf("applying twice changes\n%s", again.Diff())
				}
				revert(t, here, state)
				if now := read(t, conf); now != original {
					t.Errorf("after revert:\n%s", now)
				}
				if a := answerOf(t, r, dir, conf, addr); a == keyring.Answered {
					t.Error("a chronyd that is not set up opens cookies: this test proves nothing")
				}
			})
		}
	}
}

// accepts has chronyd read a configuration and do nothing else.
func accepts(t *testing.T, r parts.Release, conf string) {
	t.Helper()
	out, err := partstest.Chrony(t, r).Command(t.Context(), "chronyd", "-p", "-f", conf).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "ntsrotate 0") {
		t.Errorf("chronyd %s: %v\n%s", r.Chrony, err, out)
	}
}

// answerOf runs chronyd with keys of ours and asks it to open a cookie.
func answerOf(t *testing.T, r parts.Release, dir, conf string, addr netip.AddrPort) keyring.Answer {
	t.Helper()
	keys := make([]byte, 0, 1024)
	keys = append(keys, "NKS0\n15 0.0\n"...)
	for i := range 4 {
		keys = fmt.Appendf(keys, "0000001%d %064x\n", i, i+1)
	}
	ring, err := cookie.Chrony{}.ParseKeys(keys)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "ntskeys"), string(keys))
	os.Remove(filepath.Join(dir, "sock"))
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	p := daemontest.NewProcess(t)
	defer p.Stop()
	err = p.Run(func(ctx context.Context) *exec.Cmd {
		return partstest.Chrony(t, r).Command(ctx, "chronyd", "-U", "-x", "-d", "-u", me.Username, "-f", conf)
	}, func() bool { return exists(filepath.Join(dir, "sock")) }) // it opens behind those for NTP
	if err != nil {
		t.Fatalf("%v\n%s", err, p.Log())
	}
	s := cookie.Session{AEAD: aead.SIVCMAC256, C2S: make([]byte, 32), S2C: make([]byte, 32)}
	c, err := cookie.Chrony{}.Seal(nil, ring.Current(), make([]byte, 16), &s)
	if err != nil {
		t.Fatal(err)
	}
	a := keyring.Silent
	for range 8 { // of 5 s each where it stands still, and none where nobody listens
		if a = daemon.Prove(addr, nil)(t.Context(), c, &s); a != keyring.Silent {
			break
		}
	}
	return a
}

func revert(t *testing.T, h Host, state string) {
	t.Helper()
	u, err := PlanRevert(h, state)
	if err != nil {
		t.Fatal(err)
	}
	if err := Revert(h, u, state); err != nil {
		t.Fatal(err)
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func plain(addr netip.AddrPort) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	_, err := client.Plain(ctx, addr)
	return err == nil
}

// TestTheRealNTPDRSTakesWhatIsApplied has ntp-ctl judge Debian's configuration
// and others after it is set up.
func TestTheRealNTPDRSTakesWhatIsApplied(t *testing.T) {
	root := partstest.NTPDRS(t, parts.Debian13)
	debian := read(t, filepath.Join(string(root), "etc/ntpd-rs/ntp.toml"))
	for name, text := range map[string]string{
		"Debian's":               debian,
		"one with a keyset":      debian + "[keyset]\nstale-key-count = 9\n[[server]]\nlisten = \"127.0.0.1:123\"\n",
		"one with no newline":    strings.TrimSuffix(debian, "\n"),
		"one with nothing to do": debian + "[keyset]\nkey-storage-path = \"/var/lib/ntpd-rs/keys\"\n[[server]]\nlisten = \"127.0.0.1:123\"\n",
	} {
		t.Run(name, func(t *testing.T) {
			conf, state := filepath.Join(t.TempDir(), "ntp.toml"), t.TempDir()
			write(t, conf, text)
			d := Daemon{Kind: NTPDRS, Program: "ntp-daemon", Unit: "not-there.service", Config: conf}
			p := planned(t, d, Options{})
			if nothing := name == "one with nothing to do"; nothing != (len(p.Changes) == 0) {
				t.Errorf("changes:\n%s", p.Diff())
			}
			if err := Apply(here, p, state, time.Now()); err != nil {
				t.Fatal(err)
			}
			out, err := root.Command(t.Context(), "ntp-ctl", "validate", "-c", conf).CombinedOutput()
			if err != nil || !strings.Contains(string(out), "looks good") {
				t.Errorf("%v: %s\n%s", err, out, read(t, conf))
			}
			tables := parseTOML([]byte(read(t, conf)))
			found := 0
			for _, tb := range tables {
				if tb.name == "keyset" && tomlString(tb.keys["key-storage-path"]) == "/var/lib/ntpd-rs/keys" || tb.name == "server" && tb.array {
					found++
				}
			}
			if found != 2 {
				t.Errorf("%d of a place for keys and a server:\n%s", found, read(t, conf))
			}
			if again := planned(t, d, Options{}); len(again.Changes) > 0 {
				t.Errorf("applying twice changes\n%s", again.Diff())
			}
			if len(p.Changes) > 0 {
				revert(t, here, state)
			}
			if now := read(t, conf); now != text {
				t.Errorf("after revert:\n%s", now)
			}
		})
	}
}

// TestTheRealNTPsecExchangesKeysAfterApply runs ntpd with Debian's configuration.
func TestTheRealNTPsecExchangesKeysAfterApply(t *testing.T) {
	for _, r := range []parts.Release{parts.Debian12, parts.Debian13} {
		root := partstest.NTPsec(t, r)
		dir, state := t.TempDir(), t.TempDir()
		conf, keys := filepath.Join(dir, "ntp.conf"), filepath.Join(dir, "nts-keys")
		var text strings.Builder
		for line := range strings.Lines(read(t, filepath.Join(string(root), "etc/ntpsec/ntp.conf"))) {
			if !strings.HasPrefix(line, "pool ") && !strings.HasPrefix(line, "leapfile") { // there is no network
				text.WriteString(strings.ReplaceAll(line, "/var/lib/ntpsec", dir))
			}
		}
		text.WriteString("refclock local\n")
		write(t, conf, text.String())
		d := Daemon{Kind: NTPsec, Program: "ntpd", Config: conf}
		p := planned(t, d, Options{NTPsecKeys: keys})
		if err := Apply(here, p, state, time.Now()); err != nil {
			t.Fatal(err)
		}
		network, process := daemontest.NewNetwork(t), daemontest.NewProcess(t)
		var listens error
		network.Do(func() {
			err := process.Run(func(ctx context.Context) *exec.Cmd {
				return daemontest.WithoutClock(root.Command(ctx, "ntpd", "-n", "-c", conf))
			}, func() bool { return plain(netip.MustParseAddrPort("127.0.0.1:123")) })
			if err != nil {
				t.Errorf("%v\n%s", err, process.Log())
				return
			}
			var c net.Conn
			if c, listens = net.Dial("tcp4", "127.0.0.1:4460"); listens == nil {
				c.Close()
			}
		})
		process.Stop()
		if listens != nil {
			t.Errorf("ntpd %s exchanges no keys: %v\n%s", r.NTPsec, listens, process.Log())
		}
		if b, err := os.ReadFile(keys); err != nil || len(b) == 0 {
			t.Errorf("ntpd %s keeps no keys: %v", r.NTPsec, err)
		}
		if again := planned(t, d, Options{NTPsecKeys: keys}); len(again.Changes) > 0 {
			t.Errorf("applying twice changes\n%s", again.Diff())
		}
		revert(t, here, state)
		if now := read(t, conf); now != text.String() {
			t.Errorf("after revert:\n%s", now)
		}
	}
}

func planned(t *testing.T, d Daemon, o Options) Plan {
	t.Helper()
	p, err := PlanFor(here, d, o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
