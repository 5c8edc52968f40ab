package partstest

import (
	"context"
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

func TestTheOtherDaemonsAreUnpackedInTheVersionsThatWereMeasured(t *testing.T) {
	for _, root := range []parts.Root{
		NTPsec(t, parts.Debian12), NTPsec(t, parts.Debian13), NTPDRS(t, parts.Debian13), OpenNTPD(t, parts.Debian12),
	} {
		if _, err := os.Stat(string(root)); err != nil {
			t.Error(err)
		}
	}
}

func TestADaemonOfAnotherVersionIsRefused(t *testing.T) {
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	repo, err := parts.RepoDir(wd)
	if err != nil {
		t.Fatal(err)
	}
	other := parts.Debian12
	other.NTPsec, other.OpenNTPD, other.Chrony = "1.2.1", "6.2", "4.2"
	for name, unpack := range map[string]func(context.Context, string, parts.Release) (parts.Root, error){
		"chrony": parts.UnpackChrony, "ntpsec": parts.UnpackNTPsec, "openntpd": parts.UnpackOpenNTPD,
	} {
		root, err := unpack(t.Context(), repo, other)
		if err == nil || !strings.Contains(err.Error(), "remove it") {
			t.Errorf("%s of another version: %s, %v", name, root, err)
		}
	}
	if root, err := parts.UnpackNTPDRS(t.Context(), repo, parts.Debian12); err == nil {
		t.Errorf("an ntpd-rs that Debian 12 does not have: %s", root)
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
