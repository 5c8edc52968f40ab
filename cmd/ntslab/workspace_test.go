package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestAFolderHoldsOneLab(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "lab")
	first, err := openWorkspace(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(first.path(envName), []byte("NAME=old\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if w, err := openWorkspace(dir); err == nil {
		w.close()
		t.Error("a second lab got the folder of a running one")
	} else if !strings.Contains(err.Error(), "a lab is running in it") {
		t.Errorf("the reason is %v", err)
	}
	first.close()
	second, err := openWorkspace(dir)
	if err != nil {
		t.Fatalf("the folder of a lab that ended is refused: %v", err)
	}
	defer second.close()
	if _, err := os.Stat(second.path(envName)); err == nil {
		t.Error("the new lab shows the old one's lab.env before it is ready")
	}
}

func TestAFolderOfSomeoneElseIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	theirs := filepath.Join(dir, "state")
	if err := os.WriteFile(theirs, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if w, err := openWorkspace(dir); err == nil {
		w.close()
		t.Error("a folder with other files was taken")
	}
	if b, err := os.ReadFile(theirs); err != nil || string(b) != "precious" {
		t.Errorf("the file is now %q (%v)", b, err)
	}
}

func TestATemporaryFolderIsRemoved(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	w, err := openWorkspace("")
	if err != nil {
		t.Fatal(err)
	}
	w.close()
	left, err := os.ReadDir(os.Getenv("TMPDIR"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}

func TestSocketsStayShortInALongFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	w, err := openWorkspace(dir)
	if err != nil {
		t.Fatal(err)
	}
	short := w.socketDir
	if len(w.daemonDir) > longestSocketDir {
		t.Errorf("the daemon's socket would be in %s (%d octets)", w.daemonDir, len(w.daemonDir))
	}
	w.close()
	if _, err := os.Stat(short); err == nil {
		t.Errorf("%s is left behind", short)
	}
	if _, err := os.Stat(dir); err != nil {
		t.Errorf("the lab's own folder is gone: %v", err)
	}
}

func TestAShellReadsTheEnvAsItIs(t *testing.T) {
	e := env{Name: memberName, KE: "127.0.0.1:1", NTP: "127.0.0.1:2", HTTP: "127.0.0.1:3", TLSALPN: "[::1]:4", DNS: "127.0.0.1:5",
		CA: "/it's/$HOME `id`/ca.pem", ACME: "https://127.0.0.1:6/dir", ACMECA: "/a/b", Config: "/c", Socket: "/d", AgentPID: 7}
	path := filepath.Join(t.TempDir(), envName)
	if err := writeFile(path, []byte(e.text())); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "sh", "-c", `. "$1"; printf '%s|' "$NAME" "$KE" "$NTP" "$HTTP" "$TLSALPN" "$DNS" "$CA" "$ACME" "$ACME_CA" "$CONFIG" "$SOCKET" "$AGENT_PID" "${KE##*:}"`, "sh", path).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	want := strings.Join([]string{e.Name, e.KE, e.NTP, e.HTTP, e.TLSALPN, e.DNS, e.CA, e.ACME, e.ACMECA, e.Config, e.Socket, "7", "1", ""}, "|")
	if string(out) != want {
		t.Errorf("a shell reads\n%s, want\n%s", out, want)
	}
}

func TestWrongUsageIsToldInOneLine(t *testing.T) {
	for name, args := range map[string][]string{
		"a challenge that is none":  {"--challenge", "dns-01"},
		"a daemon that is not here": {"--daemon", "openntpd"},
		"a flag that is none":       {"--twice"},
		"a word that is no flag":    {"once"},
	} {
		var out, errs strings.Builder
		if code := run(t.Context(), args, &out, &errs); code != 2 {
			t.Errorf("%s: exit code %d, want 2", name, code)
		}
		if got := errs.String(); strings.Count(got, "\n") != 1 || !strings.HasPrefix(got, "ntslab: ") || out.Len() > 0 {
			t.Errorf("%s: said %q and %q", name, got, out.String())
		}
	}
	var out, errs strings.Builder
	if code := run(t.Context(), []string{"--help"}, &out, &errs); code != 0 || !strings.Contains(errs.String(), "usage: ntslab") {
		t.Errorf("--help: exit code %d, said %q", code, errs.String())
	}
	if code := run(t.Context(), []string{"--agent", "/nowhere/ntsagent"}, &out, &errs); code != 1 || !strings.Contains(errs.String(), "make build") {
		t.Errorf("a missing agent: exit code %d, said %q", code, errs.String())
	}
}
