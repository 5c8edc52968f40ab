package agent

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/hashicorp/go-hclog"

	"ntsagent/ntske/keyring"
)

func TestWhatIsNoFileOfOurKeysIsPutAside(t *testing.T) {
	for _, c := range []struct {
		name, says string
		place      func(path string) error
	}{
		{"a file that is too large", "octets", func(path string) error { return os.WriteFile(path, make([]byte, maxKeyFile+1), 0o600) }},
		{"a FIFO", "no regular file", func(path string) error { return syscall.Mkfifo(path, 0o600) }},
		{"a folder", "no regular file", func(path string) error { return os.Mkdir(path, 0o700) }},
		{"a folder where damaged files go", "octets", func(path string) error {
			return errors.Join(os.MkdirAll(filepath.Join(path+".damaged", "full"), 0o700), os.WriteFile(path, make([]byte, maxKeyFile+1), 0o600))
		}},
	} {
		f := ringFile(filepath.Join(t.TempDir(), "gateway"))
		if err := c.place(string(f)); err != nil {
			t.Fatal(err)
		}
		if _, err := f.loadOwn(hclog.NewNullLogger()); !errors.Is(err, keyring.ErrDamaged) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.name, err)
		}
		kept, err := f.aside()
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if _, err := os.Lstat(kept); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if _, err := f.loadOwn(hclog.NewNullLogger()); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s, put aside: %v", c.name, err)
		}
		if err := f.save([]byte("new")); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestAFileOfOurKeysThatIsOpenToOthersIsClosed(t *testing.T) {
	f := ringFile(filepath.Join(t.TempDir(), "gateway"))
	if err := errors.Join(f.save([]byte("keys")), os.Chmod(string(f), 0o666)); err != nil {
		t.Fatal(err)
	}
	var told strings.Builder
	b, err := f.loadOwn(hclog.New(&hclog.LoggerOptions{Output: &told}))
	if string(b) != "keys" || err != nil || !strings.Contains(told.String(), "-rw-rw-rw-") {
		t.Errorf("%q, %v, told %q", b, err, told.String())
	}
	if info, err := os.Stat(string(f)); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func TestAFileOfOurKeysIsTheAgents(t *testing.T) {
	me := uint32(os.Geteuid())
	for owner, ours := range map[uint32]bool{me: true, 0: true, me + 71: true, me + 72: false} {
		if why := unfit(0o600, 600, owner, me+71); (why == "") != ours {
			t.Errorf("of user %d in the folder of user %d, read by %d: %q", owner, me+71, me, why)
		}
	}
}
