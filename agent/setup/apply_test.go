package setup

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ntsagent/acme/disk"
	"ntsagent/packaging/parts"
	"ntsagent/packaging/parts/partstest"
)

// image is a file system of a host that does not run.
func image(t *testing.T, files map[string]string) Host {
	t.Helper()
	root := t.TempDir()
	for path, text := range files {
		full := filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(path, "/") {
			if err := os.MkdirAll(full, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		write(t, full, text)
	}
	return Host{Root: root}
}

// asShipped is the image of a Debian with that daemon and nothing else.
func asShipped(t *testing.T, kind Kind, r parts.Release) Host {
	t.Helper()
	from := func(root parts.Root, path string) string { return read(t, filepath.Join(string(root), path)) }
	switch kind {
	case Chrony:
		return image(t, map[string]string{"/usr/sbin/chronyd": "", "/var/lib/chrony/": "", "/etc/chrony/conf.d/": "",
			"/etc/chrony/chrony.conf": from(partstest.Chrony(t, r), "usr/share/chrony/chrony.conf")})
	case NTPsec:
		root := partstest.NTPsec(t, r)
		return image(t, map[string]string{"/usr/sbin/ntpd": "", "/var/lib/ntpsec/": "", "/etc/ntpsec/ntp.conf": from(root, "etc/ntpsec/ntp.conf"),
			"/etc/apparmor.d/usr.sbin.ntpd": from(root, "etc/apparmor.d/usr.sbin.ntpd")})
	case NTPDRS:
		root := partstest.NTPDRS(t, r)
		return image(t, map[string]string{"/usr/bin/ntp-daemon": "", "/etc/ntpd-rs/ntp.toml": from(root, "etc/ntpd-rs/ntp.toml"), "/etc/systemd/system/": "",
			"/usr/lib/systemd/system/ntpd-rs.service": from(root, "usr/lib/systemd/system/ntpd-rs.service")})
	}
	root := partstest.OpenNTPD(t, r)
	return image(t, map[string]string{"/usr/sbin/ntpd": "", "/etc/openntpd/ntpd.conf": from(root, "etc/openntpd/ntpd.conf"),
		"/var/lib/dpkg/status": "Package: ntpsec\nVersion: 1.2.2-1\n\nPackage: openntpd\nStatus: install ok installed\nVersion: 1:6.2p3-4.2\n"})
}

// story is all that a user is told of a plan.
func story(t *testing.T, h Host, o Options) (Plan, string) {
	t.Helper()
	d, err := Detect(t.Context(), h, Ports{NTP: 123, KE: 4460}, o)
	if err != nil {
		t.Fatal(err)
	}
	p, err := PlanFor(h, d, o)
	if err != nil {
		t.Fatal(err)
	}
	text := "mode: " + string(d.Mode) + "\n" + p.Diff()
	for _, n := range p.Notes {
		text += "note: " + n + "\n"
	}
	for _, w := range p.Warnings {
		text += "warn: " + w.What + "\n fix: " + w.Fix + "\n"
	}
	for _, argv := range p.Restart {
		text += "next: " + strings.Join(argv, " ") + "\n"
	}
	return p, text
}

const (
	debianNTP = "driftfile /var/lib/ntp/ntp.drift\npool 0.debian.pool.ntp.org iburst\n" +
		"restrict -4 default kod notrap nomodify nopeer noquery limited\nrestrict -6 default kod notrap nomodify nopeer noquery limited\n"
	debianNTPLocal = "restrict 127.0.0.1\nrestrict ::1\nrestrict source notrap nomodify noquery\n"
)

// TestTheDistributionsFilesGetExactlyTheseLines holds the diffs against
// testdata; UPDATE=1 writes them anew.
func TestTheDistributionsFilesGetExactlyTheseLines(t *testing.T) {
	for name, h := range map[string]Host{
		"chrony-4.3":     asShipped(t, Chrony, parts.Debian12),
		"chrony-4.6.1":   asShipped(t, Chrony, parts.Debian13),
		"ntpsec-1.2.2":   asShipped(t, NTPsec, parts.Debian12),
		"ntpsec-1.2.3":   asShipped(t, NTPsec, parts.Debian13),
		"ntpd-rs-1.4.0":  asShipped(t, NTPDRS, parts.Debian13),
		"openntpd-6.2p3": asShipped(t, OpenNTPD, parts.Debian12),
		"chrony-rhel": image(t, map[string]string{"/usr/sbin/chronyd": "", "/var/lib/chrony/": "",
			"/etc/chrony.conf": "pool 2.rhel.pool.ntp.org iburst\nsourcedir /run/chrony-dhcp\ndriftfile /var/lib/chrony/drift\nntsdumpdir /var/lib/chrony\n"}),
		"chrony-live": image(t, map[string]string{"/usr/sbin/chronyd": "", "/var/lib/chrony/": "", "/etc/chrony/conf.d/": "",
			"/etc/chrony/chrony.conf": "confdir /etc/chrony/conf.d\nallow\nntsserverkey /k\nntsservercert /c\nntsrotate 604800\nntsdumpdir /var/lib/chrony\n"}),
		// As Debian 11 shipped ntp 4.2.8p15, and the same without the lines for the host itself.
		"ntp.org-debian":  image(t, map[string]string{"/usr/sbin/ntpd": "", "/lib/systemd/system/ntp.service": "", "/etc/ntp.conf": debianNTP + debianNTPLocal}),
		"ntp.org-limited": image(t, map[string]string{"/usr/sbin/ntpd": "", "/usr/lib/systemd/system/ntpd.service": "", "/etc/ntp.conf": debianNTP}),
		"ntp.org-refused": image(t, map[string]string{"/usr/sbin/ntpd": "", "/etc/ntp.conf": "restrict default ignore\nrestrict 127.0.0.0 mask 255.0.0.0\nrestrict 127.0.0.1 limited kod\ninterface ignore all\n"}),
		"ntp.org":         image(t, map[string]string{"/usr/sbin/ntpd": "", "/etc/ntp.conf": "driftfile /var/lib/ntp/drift\n"}),
	} {
		t.Run(name, func(t *testing.T) {
			_, got := story(t, h, Options{})
			golden := filepath.Join("testdata", name+".txt")
			if os.Getenv("UPDATE") != "" {
				write(t, golden, got)
			}
			if want := read(t, golden); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func TestRevertLeavesNothingBehind(t *testing.T) {
	for name, h := range map[string]Host{
		"chrony": asShipped(t, Chrony, parts.Debian12), "ntpsec": asShipped(t, NTPsec, parts.Debian12), "ntpd-rs": asShipped(t, NTPDRS, parts.Debian13),
		"OpenNTPD": asShipped(t, OpenNTPD, parts.Debian12),
		"ntp.org":  image(t, map[string]string{"/usr/sbin/ntpd": "", "/etc/ntp.conf": debianNTP}),
	} {
		before := snapshot(t, h)
		p, _ := story(t, h, Options{})
		if err := Apply(h, p, "/state", time.Now()); err != nil {
			t.Fatal(err)
		}
		if again, text := story(t, h, Options{}); len(again.Changes) > 0 {
			t.Errorf("%s: applying twice changes\n%s", name, text)
		}
		if during := snapshot(t, h); during == before {
			t.Errorf("%s: nothing was changed", name)
		}
		revert(t, h, "/state")
		if after := snapshot(t, h); after != before {
			t.Errorf("%s: before\n%s\nafter\n%s", name, before, after)
		}
		if _, err := PlanRevert(h, "/state"); !errors.Is(err, ErrNotApplied) {
			t.Errorf("%s: reverting twice: %v", name, err)
		}
		left, err := os.ReadDir(filepath.Join(h.Root, "state-setup"))
		if err != nil || len(left) != 1 {
			t.Errorf("%s: %v is left, %v", name, left, err)
		}
	}
}

// snapshot is every file but our state: name, mode, owner and checksum.
func snapshot(t *testing.T, h Host) string {
	t.Helper()
	var out strings.Builder
	err := filepath.WalkDir(h.Root, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel := strings.TrimPrefix(path, h.Root)
		if rel == "/state-setup" {
			return filepath.SkipDir
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		sum := ""
		if d.Type().IsRegular() {
			sum = checksum([]byte(read(t, path)))
		}
		out.WriteString(strings.Join([]string{rel, os.FileMode(st.Mode).String(), sum}, " "))
		out.WriteString(" " + string(rune('0'+st.Uid%10)) + "\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestOwnersAndModesAreKept(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root: it gives files away")
	}
	h := asShipped(t, NTPsec, parts.Debian13)
	conf := filepath.Join(h.Root, "etc/ntpsec/ntp.conf")
	if err := errors.Join(os.Chown(conf, 0, 4321), os.Chmod(conf, 0o604), os.Chown(filepath.Join(h.Root, "var/lib/ntpsec"), 1234, 4321)); err != nil {
		t.Fatal(err)
	}
	p, _ := story(t, h, Options{})
	if err := Apply(h, p, "/state", time.Now()); err != nil {
		t.Fatal(err)
	}
	mustBe := func(path string, mode uint32, uid, gid uint32) {
		t.Helper()
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(h.Root, path), &st); err != nil {
			t.Fatal(err)
		}
		if st.Mode&0o7777 != mode || st.Uid != uid || st.Gid != gid {
			t.Errorf("%s: mode %o of %d:%d, want %o of %d:%d", path, st.Mode&0o7777, st.Uid, st.Gid, mode, uid, gid)
		}
	}
	mustBe("etc/ntpsec/ntp.conf", 0o604, 0, 4321)
	mustBe("etc/ntpsec/key.pem", 0o640, 0, 4321)
	mustBe("etc/ntpsec/cert-chain.pem", 0o644, 0, 0)
	mustBe("state-setup", 0o700, 0, 0)
	revert(t, h, "/state")
	mustBe("etc/ntpsec/ntp.conf", 0o604, 0, 4321)
}

func TestWhatWasChangedSinceIsNotReverted(t *testing.T) {
	h := asShipped(t, NTPsec, parts.Debian13)
	p, _ := story(t, h, Options{})
	if err := Apply(h, p, "/state", time.Now()); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(h.Root, "etc/ntpsec/ntp.conf")
	applied := read(t, conf)
	write(t, conf, strings.Replace(applied, "tos maxclock 11", "tos maxclock 7", 1))
	before := snapshot(t, h)
	u, err := PlanRevert(h, "/state")
	if !errors.Is(err, ErrChanged) || len(u.Changes) != 0 || strings.Contains(err.Error(), "\n") {
		t.Fatalf("%v, %d changes", err, len(u.Changes))
	}
	if !strings.Contains(u.Changed, "-tos maxclock 11\n+tos maxclock 7\n") || strings.Contains(u.Changed, "PRIVATE KEY") {
		t.Errorf("what changed:\n%s", u.Changed)
	}
	if snapshot(t, h) != before {
		t.Error("something was reverted all the same")
	}
	// Taken out by hand, as the fix says, the rest is reverted.
	mine, err := removeBlocks([]byte(read(t, conf)))
	if err != nil {
		t.Fatal(err)
	}
	write(t, conf, string(mine))
	revert(t, h, "/state")
	if got := read(t, conf); got != string(mine) {
		t.Errorf("the operator's file became\n%s", got)
	}
	if exists(filepath.Join(h.Root, "etc/ntpsec/key.pem")) {
		t.Error("the key is still there")
	}
}

func TestApplyingAgainAfterAnEditRevertsToTheEdit(t *testing.T) {
	h := asShipped(t, NTPDRS, parts.Debian13)
	p, _ := story(t, h, Options{})
	if err := Apply(h, p, "/state", time.Now()); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(h.Root, "etc/ntpd-rs/ntp.toml")
	edited := strings.Replace(read(t, conf), "count = 4", "count = 5", 1)
	edited = strings.Replace(edited, "listen = \"[::]:123\"\n"+blockEnd, "listen = \"[::]:1123\"\n"+blockEnd, 1) // ours, too
	write(t, conf, edited)
	p, text := story(t, h, Options{})
	if len(p.Changes) != 1 {
		t.Fatalf("%s", text)
	}
	if err := Apply(h, p, "/state", time.Now()); err != nil {
		t.Fatal(err)
	}
	revert(t, h, "/state")
	if got := read(t, conf); !strings.Contains(got, "count = 5") || hasBlock([]byte(got)) {
		t.Errorf("after revert:\n%s", got)
	}
}

func TestFilesThatAreNotAsTheyMustBeAreRefused(t *testing.T) {
	link := asShipped(t, NTPsec, parts.Debian13)
	conf := filepath.Join(link.Root, "etc/ntpsec/ntp.conf")
	if err := errors.Join(os.Rename(conf, conf+".real"), os.Symlink("ntp.conf.real", conf)); err != nil {
		t.Fatal(err)
	}
	meanwhile := asShipped(t, NTPsec, parts.Debian13)
	locked := asShipped(t, NTPsec, parts.Debian13)
	for name, c := range map[string]struct {
		h    Host
		do   func(h Host)
		want error
		says string
	}{
		"a symbolic link":          {link, func(Host) {}, ErrInTheWay, "symbolic link to ntp.conf.real"},
		"a file written meanwhile": {meanwhile, func(h Host) { write(t, filepath.Join(h.Root, "etc/ntpsec/ntp.conf"), "x\n") }, ErrChanged, "daemon diff"},
		"somebody else at it": {locked, func(h Host) {
			unlock, err := h.store("/state").lock()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(unlock)
		}, disk.ErrLocked, "locked"},
	} {
		p, _ := story(t, c.h, Options{})
		c.do(c.h)
		before := snapshot(t, c.h)
		err := Apply(c.h, p, "/state", time.Now())
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
		if snapshot(t, c.h) != before {
			t.Errorf("%s: something was written", name)
		}
	}
	for name, files := range map[string]map[string]string{
		"a marker without its end": {"/usr/sbin/chronyd": "", "/etc/chrony.conf": blockBegin + "\n"},
		"half a pair":              {"/usr/sbin/chronyd": "", "/etc/chrony/chrony.conf": "", "/etc/chrony/ntsagent.key": "x"},
		"a key without a cert":     {"/usr/sbin/ntpd": "", "/etc/ntpsec/ntp.conf": "nts key /k\n"},
		"an inline keyset":         {"/usr/bin/ntp-daemon": "", "/etc/ntpd-rs/ntp.toml": "keyset = { stale-key-count = 7 }\n"},
		"includes that go round":   {"/usr/sbin/chronyd": "", "/etc/chrony.conf": "include /etc/chrony.c*f\n"},
	} {
		h := image(t, files)
		if p, err := PlanFor(h, h.installed(), Options{}); !errors.Is(err, ErrInTheWay) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, %s", name, err, p.Diff())
		}
	}
}

func TestWhoIsServedIsJudgedAsChronydDoes(t *testing.T) {
	for conf, want := range map[string]bool{
		"allow": true, "allow all": true, "deny all": false, "": false, "allow 10.0.0.0/8": false, "allow 127.0.0.1": true,
		"allow\ndeny 127.0.0.0/8": false, "deny\nallow 127.0.0.0/8": true, "allow 127.0.0.1\ndeny all": false, "allow 127.0.0.1\ndeny": true,
		"allow example.com": false,
	} {
		h := image(t, map[string]string{"/etc/chrony.conf": conf + "\n"})
		c, err := h.files().chronyConf("/etc/chrony.conf")
		if err != nil {
			t.Fatal(err)
		}
		if got := c.serves(netip.MustParseAddr("127.0.0.1")); got != want {
			t.Errorf("%q: %v", conf, got)
		}
	}
}

// The agent sees by the loopback address of each family whether it is answered.
func TestTheLoopbackOfEachFamilyThatIsServedIsAllowed(t *testing.T) {
	for _, c := range []struct {
		conf, addr string
		also       string
		want       string // the allows that are lacking
	}{
		{"allow", "127.0.0.1:123", "", ""},
		{"allow 192.0.2.0/24", "127.0.0.1:123", "", "127.0.0.1"},
		{"allow 192.0.2.0/24\nallow 2001:db8::/32", "127.0.0.1:123", "", "127.0.0.1 ::1"},
		{"allow 2001:db8::/32", "[::1]:123", "", "::1"},
		{"allow 0/0\nallow 0.0.0.0/0", "127.0.0.1:123", "::/0", "::1 ::/0"},
		{"allow 2001:db8::/32", "192.0.2.1:123", "", "192.0.2.1"},
		{"allow 192.0.2.0/24", "127.0.0.1:123", "::1/128", "127.0.0.1 ::1/128"},
		{"", "127.0.0.1:123", "127.0.0.1/32 192.0.2.0/24 192.0.2.0/24", "127.0.0.1/32 192.0.2.0/24"},
	} {
		h := image(t, map[string]string{"/etc/chrony.conf": c.conf + "\n"})
		conf, err := h.files().chronyConf("/etc/chrony.conf")
		if err != nil {
			t.Fatal(err)
		}
		o := Options{Address: netip.MustParseAddrPort(c.addr)}
		for _, also := range strings.Fields(c.also) {
			o.Allow = append(o.Allow, netip.MustParsePrefix(also))
		}
		var got []string
		for _, line := range conf.lacking(o.withDefaults(), pair{}) {
			if who, ok := strings.CutPrefix(line, "allow "); ok {
				got = append(got, who)
			}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%q asked at %s: lacks %q, want %q", c.conf, c.addr, got, c.want)
		}
	}
}

func TestKeysTheAgentMayNotReadAreTold(t *testing.T) {
	for name, c := range map[string]struct {
		group string
		mode  os.FileMode
		told  bool
	}{
		"ntp-daemon's own mode":          {"ntsagent:x:0:\n", 0o600, true},
		"another group":                  {"ntsagent:x:99:\n", 0o640, true},
		"a group that may":               {"ntsagent:x:0:\n", 0o640, false},
		"an agent that is not installed": {"root:x:0:\n", 0o600, false},
	} {
		h := image(t, map[string]string{"/usr/bin/ntp-daemon": "", "/etc/ntpd-rs/ntp.toml": "", "/etc/group": c.group, "/var/lib/ntpd-rs/keys": "x"})
		keys := filepath.Join(h.Root, "var/lib/ntpd-rs/keys")
		if err := errors.Join(os.Chmod(keys, c.mode), os.Chown(keys, -1, 0)); err != nil {
			t.Fatal(err)
		}
		p, _ := story(t, h, Options{})
		if told := len(p.Warnings) == 1; told != c.told {
			t.Errorf("%s: %+v", name, p.Warnings)
		}
	}
}

func TestApplyingAgainTakesNobodyAway(t *testing.T) {
	h := asShipped(t, Chrony, parts.Debian12)
	p, _ := story(t, h, Options{Allow: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}})
	if err := Apply(h, p, "/state", time.Now()); err != nil {
		t.Fatal(err)
	}
	if p, text := story(t, h, Options{}); len(p.Changes) > 0 {
		t.Error(text)
	}
}
