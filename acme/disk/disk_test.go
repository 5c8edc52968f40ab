package disk

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// entries lists the names in dir.
func entries(t testing.TB, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

func mustRead(t testing.TB, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func mustWrite(t testing.TB, path, data string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestWriteFileReplacesWithExactModeWhateverTheUmask(t *testing.T) {
	for _, umask := range []int{0, 0o022, 0o077, 0o777} {
		for _, perm := range []os.FileMode{0o600, 0o640, 0o644} {
			path := filepath.Join(t.TempDir(), "key")
			mustWrite(t, path, "old")
			before := unix.Umask(umask)
			err := WriteFile(path, []byte("new"), perm)
			unix.Umask(before)
			if err != nil {
				t.Fatal(err)
			}
			info, err := os.Lstat(path)
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode() != perm || mustRead(t, path) != "new" {
				t.Errorf("umask %o, perm %o: file has mode %o", umask, perm, info.Mode())
			}
			if got := entries(t, filepath.Dir(path)); len(got) != 1 {
				t.Errorf("left behind: %q", got)
			}
		}
	}
}

func TestWriteFileReplacesASymlinkAndNeverItsTarget(t *testing.T) {
	dir := t.TempDir()
	victim := filepath.Join(dir, "victim")
	mustWrite(t, victim, "precious")
	for name, target := range map[string]string{"to a file": victim, "dangling": filepath.Join(dir, "nowhere"), "to itself": "to itself"} {
		path := filepath.Join(dir, name)
		if err := os.Symlink(target, path); err != nil {
			t.Fatal(err)
		}
		if err := WriteFile(path, []byte("new"), 0o600); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	if mustRead(t, victim) != "precious" {
		t.Error("written through a symbolic link")
	}
	if _, err := os.Lstat(filepath.Join(dir, "nowhere")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("created through a symbolic link")
	}
}

func TestWriteFileSaysWhatFailedAndLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	mustWrite(t, filepath.Join(dir, "file"), "old")
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "missing", "key"): "no such file or directory",
		filepath.Join(dir, "file", "key"):    "not a directory",
		filepath.Join(dir, "sub"):            "file exists",
		filepath.Join(dir, "sub") + "/":      "names no file",
		"":                                   "names no file",
		dir + "/..":                          "names no file",
	} {
		err := WriteFile(path, []byte("new"), 0o600)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "write file "+path+": ") {
			t.Errorf("WriteFile(%q): %v; want %q", path, err, want)
		}
	}
	if got := entries(t, dir); len(got) != 2 || mustRead(t, filepath.Join(dir, "file")) != "old" {
		t.Errorf("left behind: %q", got)
	}
}

func TestSymlinkSwapsAtomically(t *testing.T) {
	dir := t.TempDir()
	current := filepath.Join(dir, "current")
	for _, target := range []string{"generation-1", "generation-2"} {
		if err := Symlink(target, current); err != nil {
			t.Fatal(err)
		}
		if got, err := os.Readlink(current); err != nil || got != target {
			t.Fatalf("current is %q, %v", got, err)
		}
	}
	if got := entries(t, dir); len(got) != 1 {
		t.Errorf("left behind: %q", got)
	}
	if err := Symlink("x", filepath.Join(dir, "missing", "current")); err == nil {
		t.Error("no error for a missing directory")
	}
}

func TestSweepRemovesOurTempFilesAndNothingElse(t *testing.T) {
	dir := t.TempDir()
	keep := []string{".ntsagent-tmp", ".ntsagent-tmp-directory", ".other-tmp-1", "key", "tmp-.ntsagent-tmp-x"}
	for _, name := range append([]string{tempPrefix + "AAAA", tempPrefix}, keep...) {
		if name == ".ntsagent-tmp-directory" {
			if err := MkdirAll(filepath.Join(dir, name, tempPrefix+"below"), 0o700); err != nil {
				t.Fatal(err)
			}
			continue
		}
		mustWrite(t, filepath.Join(dir, name), "x")
	}
	if err := os.Symlink("key", filepath.Join(dir, tempPrefix+"LINK")); err != nil {
		t.Fatal(err)
	}
	if err := Sweep(dir); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(entries(t, dir), " "); got != strings.Join(keep, " ") {
		t.Errorf("left: %s", got)
	}
	if err := Sweep(dir); err != nil {
		t.Errorf("second sweep: %v", err)
	}
	if err := Sweep(filepath.Join(dir, "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing directory: %v", err)
	}
}

func TestReadFileReadsRegularFilesUpToTheLimit(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "cert.pem")
	mustWrite(t, path, "12345678")
	if err := os.Symlink("cert.pem", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{path, filepath.Join(dir, "link")} {
		if got, err := ReadFile(p, 8); err != nil || string(got) != "12345678" {
			t.Errorf("ReadFile(%s) = %q, %v", p, got, err)
		}
	}
	if got, err := ReadFile(path, 7); err == nil || got != nil || !strings.Contains(err.Error(), "larger than 7 bytes") {
		t.Errorf("over the limit: %q, %v", got, err)
	}
}

func TestReadFileRefusesWhatIsNoRegularFile(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	if err := unix.Mkfifo(path("fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("fifo", path("link to fifo")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("loop", path("loop")); err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]string{
		path("fifo"):         "is not a regular file",
		path("link to fifo"): "is not a regular file",
		path("loop"):         "too many levels of symbolic links",
		path("missing"):      "no such file or directory",
		dir:                  "is a directory",
		"/dev/zero":          "is not a regular file",
	} {
		got, err := ReadFile(p, 10)
		if err == nil || got != nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), p) {
			t.Errorf("ReadFile(%s) = %q, %v; want %q", p, got, err, want)
		}
	}
	huge, err := os.Create(path("huge"))
	if err != nil {
		t.Fatal(err)
	}
	defer huge.Close()
	if err := huge.Truncate(1 << 40); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadFile(path("huge"), 1<<20); err == nil {
		t.Error("read a terabyte")
	}
}

func TestMkdirAllMakesEveryParentWithTheMode(t *testing.T) {
	dir := t.TempDir()
	before := unix.Umask(0o077)
	err := MkdirAll(filepath.Join(dir, "a", "b", "c"), 0o750)
	unix.Umask(before)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"a", "a/b", "a/b/c"} {
		if info, err := os.Stat(filepath.Join(dir, p)); err != nil || info.Mode() != fs.ModeDir|0o750 {
			t.Errorf("%s: %v, %v", p, info.Mode(), err)
		}
	}
	if err := MkdirAll(filepath.Join(dir, "a", "b")+"/", 0o700); err != nil {
		t.Errorf("existing: %v", err)
	}
	if info, err := os.Stat(filepath.Join(dir, "a", "b")); err != nil || info.Mode().Perm() != 0o750 {
		t.Errorf("an existing directory changed its mode to %v, %v", info.Mode(), err)
	}
	mustWrite(t, filepath.Join(dir, "file"), "x")
	for _, p := range []string{"file", "file/below"} {
		if err := MkdirAll(filepath.Join(dir, p), 0o700); err == nil {
			t.Errorf("%s: no error", p)
		}
	}
}

func TestLockHasOneHolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(path); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), path) {
		t.Fatalf("second holder: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

// A process that is just being started holds what we hold until it runs.
func TestUnlockFreesWhatAnotherProcessStillHolds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	f, err := Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	held, err := unix.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(held)
	if err := Unlock(f); err != nil {
		t.Error(err)
	}
	again, err := Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := Unlock(again); err != nil {
		t.Error(err)
	}
}

func TestLockRefusesPlantedEntries(t *testing.T) {
	dir := t.TempDir()
	victim := filepath.Join(dir, "victim")
	if err := os.Symlink("victim", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"link", "fifo", "missing/lock", "."} {
		if f, err := Lock(filepath.Join(dir, name)); err == nil {
			f.Close()
			t.Errorf("%s: locked", name)
		}
	}
	if _, err := os.Lstat(victim); !errors.Is(err, fs.ErrNotExist) {
		t.Error("created through a symbolic link")
	}
}

func TestWriteFileWritesAllOfALargeFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "large")
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	if err := WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := ReadFile(path, int64(len(data)))
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
}
