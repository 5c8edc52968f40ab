package daemon

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ntsagent/agent/config"
	"ntsagent/ntske/cookie"
)

var loopback = netip.MustParseAddrPort("127.0.0.1:123")

func TestTheConfigurationNamesTheDaemonThatIsFollowed(t *testing.T) {
	d := config.Default().Daemon
	d.Kind = config.KindNTPsec
	if f := FollowedOf(d); f.Kind != "ntpsec" || f.KeysFile != "/var/lib/ntpsec/nts-keys" || f.Format != (cookie.NTPsec{}) || f.Behind != 0 || f.Addr != loopback {
		t.Errorf("ntpsec: %+v", f)
	}
	d.Kind = config.KindNTPDRS
	if f := FollowedOf(d); f.Kind != "ntpd-rs" || f.KeysFile != "/var/lib/ntpd-rs/keys" || f.Format != (cookie.NTPDRS{}) || f.Behind == 0 || f.Addr != loopback {
		t.Errorf("ntpd-rs: %+v", f)
	}
}

// Each sentence names what the operator has to look at.
func TestHelpNamesWhatToChange(t *testing.T) {
	ntpsec, rs := NTPsec(loopback, "/k/nts-keys"), NTPDRS(loopback, "/k/keys")
	for _, c := range []struct {
		what, got string
		want      []string
	}{
		{"ntpsec unseen", ntpsec.Help().Unseen, []string{"127.0.0.1:123", "`restrict`", "daemon.address"}},
		{"ntpsec without NTS", ntpsec.Help().NoNTS, []string{"`nts enable`", "`nts cookie`", "/k/nts-keys"}},
		{"ntpd-rs unseen", rs.Help().Unseen, []string{"127.0.0.1:123", "[[server]]", "daemon.address"}},
		{"ntpd-rs refuses", rs.Help().Refused, []string{"/k/keys", "key-storage-path", "restart"}},
		{"ntpsec is not rotated", ntpsec.NoRotation(), []string{"ntpsec rotates its keys itself", "once a day", "`T: 0`"}},
		{"ntpd-rs is not rotated", rs.NoRotation(), []string{"ntpd-rs rotates its keys itself", "key-rotation-interval"}},
		{"ntpsec closed", ntpsec.hint(fs.ErrPermission), []string{"ntpd's user"}},
		{"ntpd-rs closed", rs.hint(fs.ErrPermission), []string{"chmod 640"}},
		{"ntpsec lost", ntpsec.hint(fs.ErrNotExist), []string{"daemon.ntpsec.keys_file", "AppArmor", "/k/nts-keys-tmp"}},
		{"ntpd-rs lost", rs.hint(fs.ErrNotExist), []string{"daemon.ntpd_rs.keys_file", "key-storage-path"}},
	} {
		for _, want := range c.want {
			if !strings.Contains(c.got, want) {
				t.Errorf("%s: no %q in %q", c.what, want, c.got)
			}
		}
	}
}

func TestAKeyFileIsReadWholeOrNotAtAll(t *testing.T) {
	f := NTPsec(loopback, filepath.Join(t.TempDir(), "nts-keys"))
	if _, err := f.ReadKeys(); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "daemon.ntpsec.keys_file") {
		t.Errorf("no file: %v", err)
	}
	write := func(b string) {
		t.Helper()
		if err := os.WriteFile(f.KeysFile, []byte(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	key := func(id, fill string) string { return "I: " + id + "\nK: " + strings.Repeat(fill, 32) + "\n" }
	const head = "T: 0\nL: 32\n"
	write(head + key("2", "bb") + key("1", "aa"))
	b, err := f.ReadKeys()
	if err != nil {
		t.Fatal(err)
	}
	ring, err := f.Format.ParseKeys(b)
	if err != nil {
		t.Fatal(err)
	}
	one := ring.Find(1)
	for _, c := range []struct {
		sentence, file string
		other          bool
	}{
		{"it holds the key", head + key("2", "bb") + key("1", "aa"), false},
		{"it holds the key alone", head + key("1", "aa"), false},
		{"it is half written", head + "I: 2\nK: bb", false},
		{"it is empty", "", false},
		{"it lacks the key", head + key("2", "bb"), true},
		{"another key has its number", head + key("1", "cc"), true},
	} {
		write(c.file)
		if got := f.OtherKeys(one); got != c.other {
			t.Errorf("%s: other keys %v", c.sentence, got)
		}
	}
	write(strings.Repeat("x", maxKeyFile+1))
	if _, err := f.ReadKeys(); err == nil {
		t.Error("a file of any size is read")
	}
	if err := f.Closed(); err != nil {
		t.Errorf("a folder of our own: %v", err)
	}
	f.KeysFile = "/nowhere/at/all"
	if err := f.Closed(); err != nil {
		t.Errorf("a folder that may come: %v", err)
	}
}
