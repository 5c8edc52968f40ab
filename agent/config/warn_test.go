package config

import (
	"net/netip"
	"strings"
	"testing"
)

func TestADoorThatIsLeftOpenIsWarnedOf(t *testing.T) {
	own := []netip.Addr{netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("fe80::7")}
	for _, c := range []struct {
		name, kind, addr string
		free             int
		warns            bool
	}{
		{"the gateway asks at a port that anybody may take", KindGateway, "127.0.0.1:1024", 1024, true},
		{"the gateway asks at one that only root may take", KindGateway, "127.0.0.1:1023", 1024, false},
		{"the host, a container, keeps no port for root", KindGateway, "[::1]:123", 0, true},
		{"an address of this host", KindGateway, "192.0.2.7:14123", 1024, true},
		{"one with a zone", KindGateway, "[fe80::7%eth0]:14123", 1024, true},
		{"another host keeps its own ports", KindGateway, "192.0.2.8:14123", 1024, false},
		{"chronyd proves that it has our keys", KindChrony, "127.0.0.1:14123", 1024, false},
		{"so does ntpd", KindNTPsec, "127.0.0.1:14123", 1024, false},
		{"so does ntpd-rs", KindNTPDRS, "127.0.0.1:14123", 1024, false},
	} {
		cfg := Config{Daemon: Daemon{Kind: c.kind, Address: netip.MustParseAddrPort(c.addr)}}
		got := cfg.Warnings(Host{Unprivileged: c.free, Addrs: own})
		if len(got) > 0 != c.warns {
			t.Errorf("%s: %q", c.name, got)
		}
		if c.warns && (!strings.HasPrefix(got[0], "daemon.address: ") || !strings.Contains(got[0], c.addr)) {
			t.Errorf("%s: %q", c.name, got)
		}
	}
}

func TestClientsThatAreLedAstrayAreWarnedOf(t *testing.T) {
	const base = "names: [alice.example]\ncertificate: {source: files, cert: /c, key: /k}\n"
	h := Host{Unprivileged: 1024, Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.7")}}
	for _, c := range []struct{ name, kind, ntp, warns string }{
		{"nothing is announced but what is", "gateway", "", ""},
		{"the gateway's own port", "gateway", "{port: 4123}", ""},
		{"another port", "gateway", "{port: 124}", "ke.ntp.port: clients are led to UDP port 124, and the gateway listens at 4123; "},
		{"another host", "gateway", "{host: ntp.other.example}", "ke.ntp.host: clients are led to ntp.other.example "},
		{"another address", "gateway", "{host: 192.0.2.8}", "ke.ntp.host: "},
		{"an address of this host", "gateway", "{host: 192.0.2.7}", ""},
		{"the name of this host", "gateway", "{host: alice.example}", ""},
		{"chronyd may have been told elsewhere, too", "chrony", "{port: 124}", ""},
	} {
		text := base + "daemon: {kind: " + c.kind + "}\n"
		if c.ntp != "" {
			text += "ke: {ntp: " + c.ntp + "}\n"
		}
		cfg, err := Parse("test", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if got := cfg.Warnings(h); len(got) > 1 || len(got) > 0 != (c.warns != "") || len(got) == 1 && !strings.HasPrefix(got[0], c.warns) {
			t.Errorf("%s: %q", c.name, got)
		}
	}
}

func TestThisHostHasItsAddresses(t *testing.T) {
	h := ThisHost()
	if !h.owns(netip.MustParseAddr("::ffff:127.0.0.2")) || h.owns(netip.MustParseAddr("192.0.2.1")) || h.Unprivileged < 0 || h.Unprivileged > 65536 {
		t.Errorf("%+v", h)
	}
}

func TestACertificateThatTheDaemonWouldNeverServeIsWarnedOf(t *testing.T) {
	for _, c := range []struct{ name, daemon, then, warns string }{
		{"nobody restarts chronyd", "chrony, mode: certificate", "none", "certificate.export[0].then: chronyd reads its certificate only when it starts, and nobody restarts it for a new one; write then: restart, unit: chrony.service, "},
		{"nobody restarts ntp-daemon", "ntpd-rs, mode: certificate", "none", "certificate.export[0].then: ntp-daemon reads "},
		{"somebody restarts chronyd", "chrony, mode: certificate", "restart, unit: chrony.service", ""},
		{"ntpd is told", "ntpsec, mode: certificate", "sighup", ""},
		{"the copy is for another program", "chrony", "none", ""},
	} {
		cfg, err := Parse("test", []byte("names: [alice.example]\nacme: {agree_to_terms: true}\ndaemon: {kind: "+c.daemon+
			"}\ncertificate: {export: [{name: alice.example, cert: /c, key: /k, then: "+c.then+"}]}\n"))
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(cfg.Warnings(Host{}), "\n"); (got != "") != (c.warns != "") || !strings.HasPrefix(got, c.warns) {
			t.Errorf("%s: %q, want %q", c.name, got, c.warns)
		}
	}
}
