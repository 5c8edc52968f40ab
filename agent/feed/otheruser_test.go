package feed_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"ntsagent/agent/daemon/chronytest"
	"ntsagent/agent/feed"
	"ntsagent/ntske/keyring"
)

// This binary plays `ntsagent feed …`, as which feed runs itself again.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "feed" {
		os.Exit(map[string]func([]string) int{"chrony": feedVerb, "ntpsec": exportVerb, "certificate": certificateVerb}[os.Args[2]](os.Args[3:]))
	}
	os.Exit(m.Run())
}

func feedVerb(args []string) int {
	o := feed.Options{Stdin: os.Stdin}
	flags := flag.NewFlagSet("feed chrony", flag.ContinueOnError)
	flags.StringVar(&o.From, "from", "", "")
	flags.StringVar(&o.KeysFile, "keys-file", "", "")
	flags.StringVar(&o.CommandSocket, "command-socket", "", "")
	flags.StringVar(&o.ChronyConf, "chrony-conf", "", "")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := feed.Chrony(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// other is the user chronyd drops to in the tests that need root.
const other = "nobody"

func needRoot(t *testing.T) (uid, gid int) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root: it runs chronyd and the helper as user " + other)
	}
	u, err := user.Lookup(other)
	if err != nil {
		t.Fatal(err)
	}
	uid, _ = strconv.Atoi(u.Uid)
	gid, _ = strconv.Atoi(u.Gid)
	return uid, gid
}

func TestRootFeedsAChronydOfAnotherUserAsThatUser(t *testing.T) {
	t.Parallel()
	uid, gid := needRoot(t)
	s := chronytest.Start(t, chronytest.Options{User: other})
	l := startLine(t, s, s.Addr, filepath.Join(t.TempDir(), "keys"))
	l.until("proven", provenAndMinting)
	var st syscall.Stat_t
	if err := syscall.Stat(s.KeysFile, &st); err != nil {
		t.Fatal(err)
	}
	if int(st.Uid) != uid || int(st.Gid) != gid || st.Mode&0o777 != 0o640 {
		t.Errorf("key file belongs to %d:%d, mode %o", st.Uid, st.Gid, st.Mode&0o777)
	}
	leftovers(t, s.Dir)

	if err := feed.Rekey(t.Context(), s.Socket); !errors.Is(err, feed.ErrNotPermitted) {
		t.Errorf("REKEY as root beside a chronyd of user %s: %v", other, err)
	}
}

// chronyd read its keyfile as root; on REKEY it would forget it all and read
// nothing, as nobody.
func TestRekeyIsRefusedWhenChronydWouldLoseItsSymmetricKeys(t *testing.T) {
	t.Parallel()
	_, gid := needRoot(t)
	keyfile := filepath.Join(t.TempDir(), "chrony.keys")
	// The folder's path must be open to the other user; the file itself is not.
	for dir := filepath.Dir(keyfile); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(keyfile, []byte("1 SHA1 HEX:000102030405060708090a0b0c0d0e0f10111213\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := chronytest.Start(t, chronytest.Options{User: other, ExtraConf: []string{"keyfile " + keyfile}})
	l := startLine(t, s, s.Addr, filepath.Join(t.TempDir(), "keys"))
	state := l.until("refused", func(s keyring.State) bool { return s.Standing == keyring.Refuses })
	if l.Current() != nil {
		t.Error("minting with keys chronyd never loaded")
	}
	for _, part := range []string{"REKEY not sent", "chmod 0640 " + keyfile, "chown root:"} {
		if !strings.Contains(state.Why, part) {
			t.Errorf("the reason lacks %q: %s", part, state.Why)
		}
	}

	// The fix, as told.
	if err := os.Chown(keyfile, 0, gid); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(keyfile, 0o640); err != nil {
		t.Fatal(err)
	}
	l.until("proven after the fix", provenAndMinting)
}
