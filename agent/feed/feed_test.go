package feed

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"ntsagent/ntske/cookie"
)

func newKeys(t testing.TB) []byte {
	t.Helper()
	ring, err := cookie.Chrony{}.NewRing(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return cookie.Chrony{}.AppendKeys(nil, ring)
}

func TestOnlyACompleteKeyFilePasses(t *testing.T) {
	good := newKeys(t)
	for _, c := range []struct {
		sentence string
		source   []byte
		pass     bool
	}{
		{"a key file passes", good, true},
		{"nothing does not", nil, false},
		{"a cut off one does not", good[:len(good)-10], false},
		{"one with a line more does not", append(bytes.Clone(good), good[len(good)-74:]...), false},
		{"one that is too long does not", append(bytes.Clone(good), make([]byte, maxSource)...), false},
		{"some other file does not", []byte("root:x:0:0:root:/root:/bin/sh\n"), false},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			out, err := clean(c.source)
			if (err == nil) != c.pass || (err != nil && !errors.Is(err, ErrSource)) {
				t.Fatalf("clean: %v", err)
			}
			if c.pass && !bytes.Equal(out, good) {
				t.Error("another file came out")
			}
			if err != nil && len(c.source) > 100 && strings.Contains(err.Error(), string(good[30:60])) {
				t.Error("the error shows a key")
			}
		})
	}
}

func TestWhatPassesIsWrittenAnew(t *testing.T) {
	good := newKeys(t)
	lines := bytes.SplitN(bytes.Clone(good), []byte("\n"), 3)
	source := slices.Concat([]byte("NKS0\n15 86399.5\n"), lines[2])
	out, err := clean(source)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out, good) {
		t.Errorf("the age came through:\n%s", out)
	}
}

func TestSourceMustBeAPlainFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "keys")
	if err := os.WriteFile(file, newKeys(t), 0o600); err != nil {
		t.Fatal(err)
	}
	link, fifo := filepath.Join(dir, "link"), filepath.Join(dir, "fifo")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	big := filepath.Join(dir, "big")
	if err := os.WriteFile(big, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		sentence, path string
		pass           bool
	}{
		{"a file is read", file, true},
		{"a link is not followed", link, false},
		{"a pipe is not waited on", fifo, false},
		{"a folder is none", dir, false},
		{"a device is none", "/dev/zero", false},
		{"a big file is not read whole", big, false},
		{"no file is none", filepath.Join(dir, "none"), false},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			if _, err := (Options{From: c.path}).keys(); (err == nil) != c.pass {
				t.Errorf("keys: %v", err)
			}
		})
	}
}

// One octet more than the cap is read, to know that there is more.
func TestASourceIsReadToTheCap(t *testing.T) {
	long := append(newKeys(t), make([]byte, 1<<20)...)
	file := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(file, long, 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := readSource(file); err != nil || len(b) != maxSource+1 {
		t.Errorf("read %d octets of the file, %v; want %d", len(b), err, maxSource+1)
	}
	stdin := bytes.NewReader(long)
	for name, o := range map[string]Options{"a file": {From: file}, "standard input": {From: "-", Stdin: stdin}, "what is handed": {Source: long}} {
		_, err := o.keys()
		if !errors.Is(err, ErrSource) || !strings.Contains(err.Error(), "more than 4096 bytes") {
			t.Errorf("%s that is too long: %v", name, err)
		}
	}
	if read := len(long) - stdin.Len(); read != maxSource+1 {
		t.Errorf("read %d octets of standard input, want %d", read, maxSource+1)
	}
	// A file of just that length is looked at, and found to be none.
	if _, err := clean(long[:maxSource]); !errors.Is(err, ErrSource) || strings.Contains(err.Error(), "more than") {
		t.Errorf("at the cap: %v", err)
	}
}

func TestWhatTheHelperSaidIsNotSaidTwice(t *testing.T) {
	for said, want := range map[string]string{
		"ntsagent: feed ntpsec: x\n":                                "feed ntpsec: x",
		"ntsagent: feed chrony: source is no key file: x; fix: y\n": "source is no key file: x; fix: y",
		"ntsagent: send REKEY to /s: not permitted\n":               "send REKEY to /s: not permitted",
		"panic: x\n\ngoroutine 1\n":                                 "panic: x goroutine 1",
		"\n":                                                        "",
	} {
		if got := helperWords("feed chrony", said); got != want {
			t.Errorf("of %q remains %q, not %q", said, got, want)
		}
	}
}

func TestInstallReplacesALinkAndSweeps(t *testing.T) {
	dir := t.TempDir()
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "ntskeys")
	if err := os.Symlink(victim, path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, ".ntsagent-tmp-old"), []byte("key"), 0o600); err != nil {
		t.Fatal(err)
	}
	keys := newKeys(t)
	if err := install(t.Context(), path, keys); err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() || info.Mode().Perm() != 0o640 {
		t.Errorf("installed as %v, %v", info.Mode(), err)
	}
	if b, _ := os.ReadFile(victim); string(b) != "mine" {
		t.Error("wrote through the link")
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 2 { // the lock is the other
		t.Errorf("left in the folder: %v", entries)
	}
}

func TestKeysAreNeverArguments(t *testing.T) {
	o := Options{Source: newKeys(t), KeysFile: "/k", CommandSocket: "/s", ChronyConf: "/c"}
	got := strings.Join(o.Args(), " ")
	if want := "feed chrony --from - --keys-file /k --command-socket /s --chrony-conf /c"; got != want {
		t.Errorf("Args = %s; want %s", got, want)
	}
}

func TestWithoutRightsKeysAreLeftForTheHelper(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ntskeys")
	keys := newKeys(t)
	if err := leave(path, keys); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, keys) {
		t.Errorf("left %q, %v", b, err)
	}
	if err := leave(path, keys[:40]); !errors.Is(err, ErrSource) {
		t.Errorf("a broken file was left: %v", err)
	}
	if err := leave("", keys); !errors.Is(err, ErrNotPermitted) {
		t.Errorf("with nowhere to leave them: %v", err)
	}
	for _, c := range []struct {
		sentence    string
		euid, owner uint32
		may         bool
	}{
		{"the owner may", 120, 120, true},
		{"root may, as the owner", 0, 120, true},
		{"root may where root owns", 0, 0, true},
		{"another user may not", 1000, 120, false},
	} {
		if got := mayFeed(c.euid, c.owner); got != c.may {
			t.Errorf("%s: %t", c.sentence, got)
		}
	}
}

func TestSymmetricKeysCheck(t *testing.T) {
	dir := t.TempDir()
	conf := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	readable := conf("chrony.keys", "1 MD5 HEX:00\n")
	for _, c := range []struct {
		sentence, conf string
		pass           bool
	}{
		{"no configuration tells of no keyfile", filepath.Join(dir, "none"), true},
		{"no keyfile in it", conf("a", "allow\n"), true},
		{"a keyfile that is not there", conf("b", "keyfile "+dir+"/gone\n"), true},
		{"a keyfile we can read", conf("c", "keyfile "+readable+"\n"), true},
		{"a configuration that cannot be followed", conf("d", "include "+dir+"/d\n"), false},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			err := checkSymmetricKeys(c.conf)
			if (err == nil) != c.pass || (err != nil && !errors.Is(err, ErrSymmetricKeys)) {
				t.Errorf("checkSymmetricKeys: %v", err)
			}
		})
	}
}

// An agent that may not read chronyd's folder takes over nothing: the keys of a
// live server must outlast its first hand-over.
func TestKeysThatChronydHasMadeAreNotWrittenOver(t *testing.T) {
	ours := newKeys(t)
	ring, err := cookie.Chrony{}.ParseKeys(ours)
	if err != nil {
		t.Fatal(err)
	}
	later := ring
	for range 2 {
		if later, err = (cookie.Chrony{}).Next(later, rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	aged := func(keys []byte) []byte { return bytes.Replace(keys, []byte("15 0.0"), []byte("15 86399.5"), 1) }
	for _, c := range []struct {
		sentence string
		there    []byte
		refused  bool
	}{
		{"there are none", nil, false},
		{"others of ours may go", newKeys(t), false},
		{"those of chronyd may not", aged(newKeys(t)), true},
		{"ours as chronyd writes them may", aged(ours), false},
		{"ours that chronyd has rotated on may not", aged(cookie.Chrony{}.AppendKeys(nil, later)), true},
		{"half a file may", aged(newKeys(t))[:100], false},
	} {
		dir := t.TempDir()
		o := Options{From: filepath.Join(dir, "source"), KeysFile: filepath.Join(dir, "ntskeys"), CommandSocket: filepath.Join(dir, "sock")}
		if err := os.WriteFile(o.From, ours, 0o600); err != nil {
			t.Fatal(err)
		}
		if c.there != nil {
			if err := os.WriteFile(o.KeysFile, c.there, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		err := Chrony(t.Context(), o)
		if errors.Is(err, ErrOwnKeys) != c.refused || err == nil { // without chronyd it never ends well
			t.Errorf("%s: %v", c.sentence, err)
		}
		now, readErr := os.ReadFile(o.KeysFile)
		if readErr != nil || bytes.Equal(now, ours) == c.refused || c.refused && !bytes.Equal(now, c.there) {
			t.Errorf("%s: the file is\n%s, %v", c.sentence, now, readErr)
		}
		// What an agent hands on that is root has been compared already.
		o.Source, o.From = ours, ""
		if err := Chrony(t.Context(), o); errors.Is(err, ErrOwnKeys) {
			t.Errorf("%s: an agent that is root: %v", c.sentence, err)
		}
	}
}
