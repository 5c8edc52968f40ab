package agent

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"ntsagent/agent/config"
	"ntsagent/agent/daemon"
	"ntsagent/agent/daemon/chronytest"
	"ntsagent/agent/daemon/daemontest"
	"ntsagent/agent/status"
)

func TestWhoMayExchangeKeys(t *testing.T) {
	conf := filepath.Join(t.TempDir(), "chrony.conf")
	from := func(text string) *access {
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return newAccess(daemon.ChronyTarget(daemon.Chronyd{ConfigFile: conf}), hclog.NewNullLogger())
	}
	listed := config.KE{Allow: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")}}
	elsewhere := config.KE{NTP: config.NTP{Host: "ntp.example"}}
	for _, c := range []struct {
		sentence string
		ke       config.KE
		daemons  *access
		addr     string
		want     bool
	}{
		{"a prefix of ours lets in", listed, nil, "192.0.2.77", true},
		{"a prefix of IPv6 does", listed, nil, "2001:db8::1", true},
		{"nobody else gets in", listed, from("allow"), "198.51.100.1", false},
		{"whatever chronyd's list says", listed, from("deny"), "192.0.2.77", true},
		{"chronyd's list lets in", config.KE{}, from("allow 192.0.2.0/24"), "192.0.2.77", true},
		{"and keeps out", config.KE{}, from("allow 192.0.2.0/24"), "192.0.3.1", false},
		{"an empty one keeps everybody out", config.KE{}, from(""), "192.0.2.77", false},
		{"one with a host name is not judged", config.KE{}, from("allow ntp.example"), "192.0.2.77", true},
		{"one that cannot be read is not judged", config.KE{}, newAccess(daemon.ChronyTarget(daemon.Chronyd{ConfigFile: "/nowhere"}), hclog.NewNullLogger()), "192.0.2.77", true},
		{"another kind of daemon has none", config.KE{}, nil, "192.0.2.77", true},
		{"that of a daemon elsewhere is not known", elsewhere, from("deny"), "192.0.2.77", true},
	} {
		if got := mayExchange(c.ke, c.daemons, netip.MustParseAddr(c.addr)); got != c.want {
			t.Errorf("%s: %v", c.sentence, got)
		}
	}
}

// addAddress gives the loopback device of the test's own network one more address.
func addAddress(t *testing.T, alias string, addr netip.Addr) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq(alias)
	if err == nil {
		octets := addr.As4()
		err = r.SetInet4Addr(octets[:])
	}
	if err == nil {
		err = unix.IoctlIfreq(fd, unix.SIOCSIFADDR, r)
	}
	if err != nil {
		t.Fatalf("add %s: %v", addr, err)
	}
}

// Clients at addresses of their own, in a network of the test's own.
func TestTheKeyExchangeFollowsChronysAccessList(t *testing.T) {
	t.Parallel()
	if !daemontest.Isolated(t, nil) {
		return
	}
	one, two := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.200")
	addAddress(t, "lo:1", one)
	addAddress(t, "lo:2", two)
	m := newMember(t, time.Hour, chronytest.Options{})
	m.configure("ke: {listen: [\"0.0.0.0:0\"]}\n")
	m.start()
	here := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), m.ke(m.wait("it serves", provenAndOpen(m))).Port())
	from := func(addr netip.Addr) error { // who asks at an address of this host asks from it
		_, _, err := m.exchange(netip.AddrPortFrom(addr, here.Port()))
		return err
	}
	if from(one) == nil || from(two) == nil {
		t.Fatal("chronyd serves this host alone, and others got cookies")
	}
	m.serves(here, "", 8)
	d := m.wait("they are counted", func(d status.Document) bool { return d.KeyExchange.Refused["not allowed"] == 2 })
	if d.State != status.Healthy || d.KeyExchange.Allow != "chrony's access list" || !strings.Contains(status.Text(d), "by chrony's access list") {
		t.Errorf("%s: %q", d.State, d.Reasons)
	}
	m.chronyd.Reconfigure(chronytest.Options{ExtraConf: []string{"allow", "deny 198.51.100.128/25"}})
	m.until("whom chronyd serves is served", func() bool { return from(one) == nil })
	if from(two) == nil {
		t.Error("whom chronyd denies got cookies")
	}
	m.configure("ke: {listen: [\"0.0.0.0:0\"], allow: [192.0.2.1]}\n")
	m.chronyd.Reconfigure(chronytest.Options{ExtraConf: []string{"allow"}})
	if err := m.reload(); err != nil {
		t.Fatal(err)
	}
	m.until("one who is listed is served", func() bool { return from(one) == nil }) // chronyd has just been started
	if from(two) == nil {
		t.Error("one who is not listed got cookies")
	}
	m.serves(here, "", 8)
}
