package challenge

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"ntsagent/acme/disk"
)

func TestAProofIsAFileForTheWorldWhileItIsPending(t *testing.T) {
	old := unix.Umask(0o077) // no test beside this one makes files that others read
	defer unix.Umask(old)
	dir := t.TempDir()
	remove, err := Webroot(dir).Present(token, keyAuth)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(filepath.Join(dir, token))
	if err != nil || info.Mode() != 0o644 {
		t.Errorf("%v, %v", info, err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, token)); err != nil || string(b) != keyAuth {
		t.Errorf("%q, %v", b, err)
	}
	again, err := Webroot(dir).Present(token, keyAuth)
	if err != nil {
		t.Fatalf("the same proof again: %v", err)
	}
	for range 2 {
		if err := errors.Join(remove(), again()); err != nil && !errors.Is(err, fs.ErrClosed) {
			t.Errorf("remove: %v", err)
		}
	}
	mustHold(t, dir)
}

// CVE-2026-40611 (lego before 4.34.0): a token with ../ was written outside of the webroot.
func TestCVE_2026_40611_ATokenIsNeverAPath(t *testing.T) {
	t.Parallel()
	above := t.TempDir()
	dir := filepath.Join(above, "webroot")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"", ".", "..", "../x", "..%2fx", "/x", "x/y", `..\x`, "x\x00", "x.", "é", "x y", strings.Repeat("x", 129), strings.Repeat("x", 10<<10)} {
		if _, err := Webroot(dir).Present(bad, bad+".thumb"); err == nil {
			t.Errorf("token %.20q was written", bad)
		}
	}
	for _, bad := range []string{"", token, "other.thumb", token + ".", token + ".a b", token + ".x\n"} {
		if _, err := Webroot(dir).Present(token, bad); err == nil {
			t.Errorf("key authorization %q was written", bad)
		}
	}
	mustHold(t, above, "webroot")
	mustHold(t, dir)
}

func TestWhatStandsInTheWebrootStays(t *testing.T) {
	t.Parallel()
	dir, outside := t.TempDir(), filepath.Join(t.TempDir(), "file")
	put(t, outside, keyAuth)
	put(t, filepath.Join(dir, token), "somebody else's")
	if err := os.Symlink(outside, filepath.Join(dir, bobs)); err != nil {
		t.Fatal(err)
	}
	for _, taken := range []string{token, bobs} {
		if _, err := Webroot(dir).Present(taken, taken+".thumb"); !errors.Is(err, fs.ErrExist) {
			t.Errorf("%s: %v", taken, err)
		}
	}
	if b, err := os.ReadFile(outside); err != nil || string(b) != keyAuth {
		t.Errorf("what the link leads to: %q, %v", b, err)
	}
	mustHold(t, dir, bobs, token)
}

func TestAWebrootThatOthersWriteToIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, token), keyAuth)
	if _, err := Webroot(dir).Present(token, keyAuth); !errors.Is(err, disk.ErrUntrusted) {
		t.Errorf("present: %v", err)
	}
	if err := Webroot(dir).Sweep(); !errors.Is(err, disk.ErrUntrusted) {
		t.Errorf("sweep: %v", err)
	}
	if _, err := Webroot(filepath.Join(dir, "none")).Present(token, keyAuth); err == nil {
		t.Error("a folder that is not there")
	}
	mustHold(t, dir, token)
}

func TestASweepTakesLeftProofsAndNothingElse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	begun := strings.Repeat("a", 22)
	for name, text := range map[string]string{
		token: keyAuth, begun: "", "README": "served by nginx", "index.html": "", "empty": "", "an-empty-file-with-a-long-name.html": "", "other": token + ".thumb", strings.Repeat("b", 30): "notes",
	} {
		put(t, filepath.Join(dir, name), text)
	}
	if err := os.Mkdir(filepath.Join(dir, strings.Repeat("c", 30)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := Webroot(dir).Sweep(); err != nil {
		t.Fatal(err)
	}
	mustHold(t, dir, "README", "an-empty-file-with-a-long-name.html", strings.Repeat("b", 30), strings.Repeat("c", 30), "empty", "index.html", "other")
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func mustHold(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if slices.Sort(want); !slices.Equal(got, want) {
		t.Errorf("%s holds %q, want %q", dir, got, want)
	}
}
