package parts

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAHalfFinishedUnpackIsNeverUsed(t *testing.T) {
	dir := t.TempDir()
	// An earlier call was killed while it unpacked, and now apt cannot help.
	if err := os.MkdirAll(filepath.Join(dir, "work/root/usr/sbin"), 0o755); err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	fakeApt := "#!/bin/sh\necho 'E: no network' >&2\nexit 100\n"
	if err := os.WriteFile(filepath.Join(bin, "apt-get"), []byte(fakeApt), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	root, err := unpack(context.Background(), dir, Debian12, "chrony")
	if err == nil {
		t.Fatalf("unpack gave %s without a working apt", root)
	}
	if text := err.Error(); strings.Contains(text, "\n") || !strings.Contains(text, "unpack Debian 12's chrony") {
		t.Errorf("the reason is not one clear line: %q", text)
	}
	for _, left := range []string{"bookworm/chrony", "work"} {
		if _, err := os.Stat(filepath.Join(dir, left)); err == nil {
			t.Errorf("%s is left behind", left)
		}
	}
}

func TestNamesThatAreNotPackagesAreRefused(t *testing.T) {
	for _, name := range []string{"", "-y", "../chrony", "a b", "$(id)"} {
		if root, err := unpack(context.Background(), t.TempDir(), Debian12, name); err == nil {
			t.Errorf("unpack %q gave %s", name, root)
		}
	}
}

func TestRepoDirNeedsAGoMod(t *testing.T) {
	if dir, err := RepoDir("/proc"); err == nil {
		t.Errorf("/proc is in the repository %s", dir)
	}
}
