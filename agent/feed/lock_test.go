package feed_test

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"ntsagent/agent/feed"
)

// Whoever may read a folder may lock it, and the file in it that others may not open
// is what a helper waits for.
func TestNobodyWhoReadsAFolderHoldsUpWhatIsWrittenThere(t *testing.T) {
	t.Parallel()
	needRoot(t)
	pair := newPair(t, exportedName)
	for sentence, prepare := range map[string]func(t *testing.T) (dir string, feeds func(context.Context) error){
		"the folder of a certificate": func(t *testing.T) (string, func(context.Context) error) {
			o := feed.CertificateOptions{Export: exportTo(t, t.TempDir(), ""), Pair: pair}
			return filepath.Dir(o.Cert), func(ctx context.Context) error { return feed.Certificate(ctx, o) }
		},
		"the folder of the record of restarts": func(t *testing.T) (string, func(context.Context) error) {
			record := feed.RestartRecord(filepath.Join(t.TempDir(), "state"))
			must(t, os.Mkdir(filepath.Dir(record), 0o755))
			o := feed.CertificateOptions{Export: exportTo(t, t.TempDir(), ", then: restart, command: [/bin/true]"), Pair: pair,
				KE: netip.MustParseAddrPort("127.0.0.1:1"), Record: record}
			return filepath.Dir(record), func(ctx context.Context) error { return feed.Certificate(ctx, o) }
		},
		"the folder of a copy for the agent": func(t *testing.T) (string, func(context.Context) error) {
			o := exporting(t)
			put(t, o.From, ntpsecKeys("aa"))
			must(t, os.Chmod(filepath.Dir(o.To), 0o755|os.ModeSetgid))
			return filepath.Dir(o.To), func(ctx context.Context) error { return feed.NTPsec(ctx, o) }
		},
	} {
		t.Run(sentence, func(t *testing.T) {
			t.Parallel()
			dir, feeds := prepare(t)
			open(t, dir)
			holds(t, dir)
			for range 2 { // the second time the lock file is there
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				if err := feeds(ctx); err != nil && !strings.Contains(err.Error(), "less than a day ago") {
					t.Fatal(err)
				}
			}
			var st syscall.Stat_t
			must(t, syscall.Stat(filepath.Join(dir, ".ntsagent.lock"), &st))
			if st.Uid != 0 || st.Mode != syscall.S_IFREG|0o600 {
				t.Errorf("the lock file belongs to %d, mode %o", st.Uid, st.Mode)
			}
		})
	}
}

// holds has another user lock a folder until the test is over.
func holds(t *testing.T, dir string) {
	t.Helper()
	cmd := exec.Command("flock", dir, "sh", "-c", "echo locked; exec cat")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err, cmd.Start())
	t.Cleanup(func() { must(t, in.Close(), cmd.Wait()) })
	if _, err := out.Read(make([]byte, 7)); err != nil {
		t.Fatalf("user 65534 does not get the lock of %s: %v", dir, err)
	}
}

func TestALockFileThatOthersCouldHoldIsRefused(t *testing.T) {
	t.Parallel()
	needRoot(t)
	pair := newPair(t, exportedName)
	for sentence, c := range map[string]struct {
		made func(t *testing.T, path string)
		says string
	}{
		"it belongs to somebody else": {func(t *testing.T, path string) { put(t, path, ""); give(t, path, other, other) }, "belongs to user"},
		"others may open it":          {func(t *testing.T, path string) { put(t, path, ""); must(t, os.Chmod(path, 0o644)) }, "mode 0644"},
		"it is a link": {func(t *testing.T, path string) {
			put(t, path+".to", "")
			must(t, os.Symlink(filepath.Base(path)+".to", path))
		}, ""},
		"it is a pipe": {func(t *testing.T, path string) { must(t, syscall.Mkfifo(path, 0o600)) }, "not a regular file"},
	} {
		t.Run(sentence, func(t *testing.T) {
			t.Parallel()
			e := exportTo(t, t.TempDir(), "")
			path := filepath.Join(filepath.Dir(e.Cert), ".ntsagent.lock")
			c.made(t, path)
			err := feed.Certificate(t.Context(), feed.CertificateOptions{Export: e, Pair: pair})
			if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "; remove it") {
				t.Errorf("error %v", err)
			}
			if content(t, e.Cert) != "" {
				t.Error("it was written")
			}
			must(t, os.Remove(path))
			if err := feed.Certificate(t.Context(), feed.CertificateOptions{Export: e, Pair: pair}); err != nil {
				t.Errorf("without it: %v", err)
			}
		})
	}
}
