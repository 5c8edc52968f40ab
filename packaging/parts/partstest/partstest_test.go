package partstest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"ntsagent/packaging/parts"
)

func TestChronyIsUnpackedAndRuns(t *testing.T) {
	for _, release := range []parts.Release{parts.Debian12, parts.Debian13} {
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
	root := Chrony(t, parts.Debian12)
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	repo, err := parts.RepoDir(wd)
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
	err := Chrony(t, parts.Debian12).Command(t.Context(), "ntpd").Run()
	if err == nil || !strings.Contains(err.Error(), "has no program ntpd") {
		t.Errorf("running a missing program: %v", err)
	}
}
