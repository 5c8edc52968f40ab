package parts

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestChronyIsUnpackedAndRuns(t *testing.T) {
	for _, release := range []Release{Debian12, Debian13} {
		root := Chrony(t, release)
		for program, wants := range map[string][]string{
			"chronyd": {"chronyd (chrony) version " + release.Chrony + " ", "+NTS"},
			"chronyc": {"chronyc (chrony) version " + release.Chrony + " "},
		} {
			out, err := root.Command(t.Context(), program, "--version").CombinedOutput()
			if err != nil {
				t.Fatalf("%s --version: %v: %s", program, err, out)
			}
			for _, want := range wants {
				if !strings.Contains(string(out), want) {
					t.Errorf("%s says %q, want %q in it", program, out, want)
				}
			}
		}
	}
}

func TestEverythingStaysInTheIgnoredFolder(t *testing.T) {
	root := Chrony(t, Debian12)
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	repo, err := RepoDir(wd)
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(repo, ".parts") + "/"; !strings.HasPrefix(string(root), want) {
		t.Errorf("chrony is at %s, want it below %s", root, want)
	}
	out, err := exec.CommandContext(t.Context(), "git", "-C", repo, "check-ignore", string(root)).CombinedOutput()
	if err != nil {
		t.Errorf("git does not ignore %s: %v: %s", root, err, out)
	}
}

func TestAProgramThatIsNotThereIsNamed(t *testing.T) {
	err := Chrony(t, Debian12).Command(t.Context(), "ntpd").Run()
	if err == nil || !strings.Contains(err.Error(), "has no program ntpd") {
		t.Errorf("running a missing program: %v", err)
	}
}

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
