package daemon

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ntsagent/ntske/keyring"
)

// good is all that chrony.conf must say beside an agent.
const good = "allow\nntsserverkey /k\nntsservercert /c\nntsrotate 0\nntsdumpdir DIR/lib\nbindcmdaddress DIR/run/chronyd.sock\n"

// target reads conf as the chrony.conf of a chronyd at addr, in a folder of its own.
func target(t *testing.T, addr, conf string) (Target, string) {
	t.Helper()
	dir := tree(t, map[string]string{"c": conf, "lib/x": "", "run/x": ""})
	return ChronyTarget(Chronyd{
		Addr: netip.MustParseAddrPort(addr), ConfigFile: dir + "/c",
		KeysFile: dir + "/lib/ntskeys", CommandSocket: dir + "/run/chronyd.sock",
	}), dir
}

func TestHelpNamesTheFix(t *testing.T) {
	for _, c := range []struct {
		sentence, addr, conf string
		text                 func(keyring.Help) string
		parts                []string // DIR is the folder
	}{
		{"no file: allow and our address", "127.0.0.1:123", "include /none\n", unseen, []string{"allow 127.0.0.1", "daemon.address"}},
		{"no file: who manages the keys", "127.0.0.1:123", "include /none\n", refused, []string{"ntsrotate 0", "ntsdumpdir"}},
		{"no file: what NTS needs", "127.0.0.1:123", "include /none\n", noNTS, []string{"ntsserverkey", "ntsservercert", "ntsrotate 0"}},

		{"nothing wrong in it: what is left", "127.0.0.1:123", good, unseen, []string{"allow 127.0.0.1", "daemon.address", "runs"}},
		{"nothing wrong in it: it was not loaded", "127.0.0.1:123", good, refused, []string{"though DIR/c is", "restart", "read DIR/lib/ntskeys"}},
		{"nothing wrong in it: NTS was not loaded", "127.0.0.1:123", good, noNTS, []string{"though DIR/c is", "restart"}},

		{"port 0", "127.0.0.1:123", good + "port 0\n", unseen, []string{"remove `port 0` (DIR/c:7)"}},
		{"another port", "127.0.0.1:123", good + "port 11123\n", unseen, []string{"`port 11123` (DIR/c:7)", "daemon.address to 127.0.0.1:11123"}},
		{"another port by default", "127.0.0.1:11123", good, unseen, []string{"port 123, by default", "daemon.address to 127.0.0.1:123"}},
		{"another address", "127.0.0.1:123", good + "bindaddress ::1\nbindaddress 192.0.2.1\n", unseen,
			[]string{"`bindaddress 192.0.2.1` (DIR/c:8)", "daemon.address to 192.0.2.1:123"}},
		{"another address of IPv6", "[::1]:123", good + "bindaddress 2001:db8::1\n", unseen,
			[]string{"`bindaddress 2001:db8::1` (DIR/c:7)", "daemon.address to [2001:db8::1]:123"}},
		{"nobody is allowed", "127.0.0.1:123", strings.TrimPrefix(good, "allow\n"), unseen, []string{"add `allow 127.0.0.1`", "to DIR/c"}},

		{"keys of its own", "127.0.0.1:123", good + "ntsrotate 604800\n", refused, []string{"`ntsrotate 604800` (DIR/c:7)", "say `ntsrotate 0`"}},
		{"keys of its own by default", "127.0.0.1:123", strings.Replace(good, "ntsrotate 0\n", "", 1), refused, []string{"by default", "let DIR/c say `ntsrotate 0`"}},
		{"another folder", "127.0.0.1:123", good + "ntsdumpdir /v\n", refused, []string{"`ntsdumpdir /v` (DIR/c:7)", "keys_file to /v/ntskeys"}},
		{"no folder", "127.0.0.1:123", strings.Replace(good, "ntsdumpdir DIR/lib\n", "", 1), refused, []string{"add `ntsdumpdir DIR/lib` to DIR/c"}},
		{"no commands", "127.0.0.1:123", good + "bindcmdaddress /\n", refused, []string{"remove that line", "`bindcmdaddress /` (DIR/c:7)"}},
		{"commands elsewhere", "127.0.0.1:123", good + "bindcmdaddress /run/c.sock\n", refused, []string{"at /run/c.sock", "daemon.chrony.command_socket"}},
		{"two things are told together", "127.0.0.1:123", good + "ntsrotate 1\nntsdumpdir /v\n", refused, []string{"ntsrotate 1", "ntsdumpdir /v"}},

		{"no key", "127.0.0.1:123", strings.Replace(good, "ntsserverkey /k\n", "", 1), noNTS, []string{"add `ntsserverkey FILE` to DIR/c"}},
		{"no certificate", "127.0.0.1:123", strings.Replace(good, "ntsservercert /c\n", "", 1), noNTS, []string{"add `ntsservercert FILE` to DIR/c"}},
		{"neither", "127.0.0.1:123", strings.NewReplacer("ntsserverkey /k\n", "", "ntsservercert /c\n", "").Replace(good), noNTS, []string{"add `ntsserverkey FILE` and `ntsservercert FILE` to DIR/c"}},
		{"nothing of ours", "127.0.0.1:123", "allow\nbindcmdaddress DIR/run/chronyd.sock\n", noNTS,
			[]string{"chronyd is not set up for the agent, DIR/c lacks `ntsserverkey`, `ntsservercert`, `ntsrotate 0`, `ntsdumpdir`: ntsagent daemon apply, then restart chronyd"}},
		{"nothing of ours, as Debian has it", "127.0.0.1:123", "ntsdumpdir DIR/lib\n", refused, []string{"`ntsservercert`, `ntsrotate 0`: ntsagent daemon apply"}},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			got, dir := target(t, c.addr, c.conf)
			text := c.text(Help(got))
			for _, part := range c.parts {
				if part = strings.ReplaceAll(part, "DIR", dir); !strings.Contains(text, part) {
					t.Errorf("%q does not say %q", text, part)
				}
			}
			if strings.Contains(text, "\n") {
				t.Errorf("more than a line: %q", text)
			}
		})
	}
}

func unseen(h keyring.Help) string  { return h.Unseen }
func refused(h keyring.Help) string { return h.Refused }
func noNTS(h keyring.Help) string   { return h.NoNTS }

func TestFaultsAreThoseOfAFileThatWasRead(t *testing.T) {
	for _, c := range []struct {
		sentence, conf string
		want           int
	}{
		{"a good one has none", good, 0},
		{"a bare one allows nobody, is not set up and has another socket", "", 3},
		{"what is not set up is one", "allow\nbindcmdaddress DIR/run/chronyd.sock\n", 1},
		{"one that could not be read has none", "include /none\n", 0},
	} {
		if got, _ := target(t, "127.0.0.1:123", c.conf); len(got.Faults()) != c.want {
			t.Errorf("%s: %q", c.sentence, got.Faults())
		}
	}
}

// Distributions have links like /var/run.
func TestALinkToTheFolderIsTheFolder(t *testing.T) {
	got, dir := target(t, "127.0.0.1:123", good)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	got.KeysFile, got.CommandSocket = link+"/lib/ntskeys", link+"/run/chronyd.sock"
	if faults := got.Faults(); len(faults) != 0 {
		t.Errorf("faults %q", faults)
	}
	got.CommandSocket = link + "/run/other.sock"
	if faults := got.Faults(); len(faults) != 1 {
		t.Errorf("faults of another socket there: %q", faults)
	}
	got.KeysFile = link + "/lib/keys"
	if faults := got.Faults(); !slices.ContainsFunc(faults, func(s string) bool { return strings.Contains(s, "must end in") }) {
		t.Errorf("faults of a file of another name: %q", faults)
	}
}
