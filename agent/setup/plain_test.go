package setup

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ntsagent/agent/daemon/openntpdtest"
	"ntsagent/packaging/parts"
)

func TestTheNarrowestRestrictionsCountTogether(t *testing.T) {
	for conf, want := range map[string]string{
		"restrict default limited\n":                                                                                "[limited]",
		"restrict -6 default limited\n":                                                                             "",
		"restrict default ignore\nrestrict 127.0.0.1\n":                                                             "[]",
		"restrict 127.0.0.1\nrestrict default ignore\n":                                                             "[]",
		"restrict 127.0.0.0 mask 255.0.0.0 kod limited\nrestrict default ignore\n":                                  "[kod limited]",
		"restrict 127.0.0.0/8 limited\nrestrict 192.0.2.0 mask 255.255.255.0 ignore\n":                              "[limited]",
		"restrict 127.0.0.0 mask 255.0.255.0 ignore\nrestrict 127.0.0.0 mask ffff:: ignore\n":                       "",
		"restrict 127.0.0.1 kod\nrestrict 127.0.0.1 noserve\n":                                                      "[kod] [noserve]",
		"restrict source limited\nrestrict localhost ignore\nrestrict\nrestrict -4\nserver 127.0.0.1\n# restrict x": "",
	} {
		all, err := image(t, map[string]string{"/etc/ntp.conf": conf}).files().directives("/etc/ntp.conf", ntpGrammar())
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range restricted(all, netip.MustParseAddr("127.0.0.1")) {
			got = append(got, fmt.Sprint(r.flags))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q: %v, want %s", conf, got, want)
		}
	}
}

func TestOpenNTPDListensWhereItIsAsked(t *testing.T) {
	for conf, want := range map[string]string{
		"":                                     "listen on 127.0.0.1",
		"# listen on *\n":                      "listen on 127.0.0.1",
		"listen on ::1\nlisten on 192.0.2.1\n": "listen on 127.0.0.1",
		"listen on * rtable 4\n":               "",
		"listen on 127.0.0.1\n":                "",
		"listen on localhost # here\n":         "",
	} {
		h := image(t, map[string]string{"/usr/sbin/ntpd": "", "/etc/openntpd/ntpd.conf": conf})
		p, text := story(t, h, Options{})
		if got := strings.Join(p.lines, "\n"); got != want {
			t.Errorf("%q gets %q, want %q:\n%s", conf, got, want, text)
		}
	}
	h := image(t, map[string]string{"/usr/sbin/ntpd": "", "/etc/openntpd/ntpd.conf": ""})
	p, text := story(t, h, Options{Address: netip.MustParseAddrPort("[::1]:1123")})
	if len(p.lines) != 1 || p.lines[0] != "listen on ::1" || !strings.Contains(text, "serves at UDP port 123 alone") {
		t.Errorf("%s", text)
	}
}

func TestAChronydWithoutNTSIsToldOfAndNotChanged(t *testing.T) {
	h := image(t, map[string]string{"/etc/chrony/chrony.conf": "pool 2.debian.pool.ntp.org iburst\nratelimit interval 3\n"})
	p, err := PlanFor(h, Daemon{Kind: Chrony, Program: "chronyd", Version: "3.5", Mode: Gateway, Config: "/etc/chrony/chrony.conf"}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	said := fmt.Sprint(p.Warnings)
	if len(p.Changes) > 0 || !strings.Contains(said, "add `allow 127.0.0.1`") || !strings.Contains(said, "chrony.conf:2: `ratelimit interval 3`") {
		t.Errorf("%+v", p)
	}
}

func TestADaemonWithoutNTSAndWithoutAConfigurationIsToldOf(t *testing.T) {
	for _, d := range []Daemon{{Kind: Busybox, Program: "busybox ntpd", Mode: Gateway}, {Kind: NTPD, Program: "ntpd", Mode: Gateway, Config: "/nowhere"}} {
		p, err := PlanFor(image(t, nil), d, Options{})
		if err != nil || len(p.Changes)+len(p.Warnings) > 0 || !strings.Contains(fmt.Sprint(p.Notes), "see that it answers this host at 127.0.0.1:123") {
			t.Errorf("%s: %+v, %v", d.Kind, p, err)
		}
	}
}

// Start waits until it answers, which as shipped it never does.
func TestARealOpenNTPDAnswersAfterApply(t *testing.T) {
	h := asShipped(t, OpenNTPD, parts.Debian12)
	p, _ := story(t, h, Options{})
	if err := Apply(h, p, "/state", time.Now()); err != nil {
		t.Fatal(err)
	}
	openntpdtest.StartWith(t, read(t, filepath.Join(h.Root, "etc/openntpd/ntpd.conf")))
}
