package disk

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// way is DIR/a/b/file, with links to all of it.
func way(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	b := filepath.Join(dir, "a", "b")
	err := errors.Join(os.MkdirAll(b, 0o755), os.WriteFile(filepath.Join(b, "file"), []byte("good"), 0o644), os.Symlink("a/../a", filepath.Join(dir, "link")),
		os.Symlink(filepath.Join(b, "file"), filepath.Join(b, "named")), os.Symlink("round", filepath.Join(b, "round")))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestATrustedPathIsOneThatOthersCannotLeadElsewhere(t *testing.T) {
	chmod := func(path string, mode os.FileMode) func(string) error {
		return func(dir string) error { return os.Chmod(filepath.Join(dir, path), mode) }
	}
	for sentence, c := range map[string]struct {
		change func(dir string) error
		path   string
		says   string // "" = it is read
	}{
		"nothing is wrong":                       {chmod("a", 0o755), "a/b/file", ""},
		"over links of ours":                     {chmod("a", 0o755), "link/b/named", ""},
		"a folder on the way is sticky":          {chmod("a", 0o777|os.ModeSticky), "a/b/file", ""},
		"others may write to the file":           {chmod("a/b/file", 0o646), "a/b/file", "others may write to "},
		"the group may write to the file":        {chmod("a/b/file", 0o664), "a/b/file", "others may write to "},
		"others may write to its folder":         {chmod("a/b", 0o757), "a/b/file", "others may write to "},
		"others may write above":                 {chmod("a", 0o777), "link/b/named", "others may write to "},
		"the file is a folder":                   {chmod("a", 0o755), "a/b", "is no regular file"},
		"a folder is a file":                     {chmod("a", 0o755), "a/b/file/x", "is no folder"},
		"links go round":                         {chmod("a", 0o755), "a/b/round", "too many links"},
		"the folder of the file alone is sticky": {chmod("a/b", 0o777|os.ModeSticky), "a/b/file", ""}, // the file is ours, and stays
	} {
		t.Run(sentence, func(t *testing.T) {
			dir := way(t)
			if err := c.change(dir); err != nil {
				t.Fatal(err)
			}
			b, err := ReadTrusted(filepath.Join(dir, c.path), 4)
			if c.says == "" && (err != nil || string(b) != "good") || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("%q, %v", b, err)
			}
		})
	}
	dir := way(t)
	if _, err := ReadTrusted(filepath.Join(dir, "a/b/file"), 3); err == nil || !strings.Contains(err.Error(), "larger than 3 bytes") {
		t.Errorf("a large file: %v", err)
	}
	if _, err := ReadTrusted(filepath.Join(dir, "a/b/none"), 3); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestWhatBelongsToSomebodyElseIsNotTrusted(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root: it gives files away")
	}
	for _, theirs := range []string{"a", "a/b", "a/b/file", "link", "a/b/named"} {
		dir := way(t)
		if err := os.Lchown(filepath.Join(dir, theirs), 65534, 65534); err != nil {
			t.Fatal(err)
		}
		_, err := ReadTrusted(filepath.Join(dir, "link/b/named"), 4)
		if !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), "belongs to user 65534") {
			t.Errorf("%s: %v", theirs, err)
		}
	}
}

func TestAFolderIsMadeOnlyWhereOthersMakeNone(t *testing.T) {
	dir := way(t)
	made := filepath.Join(dir, "link/b/c/d")
	r, err := MkdirTrusted(made, 0o700)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if info, err := r.Stat("."); err != nil || info.Mode() != fs.ModeDir|0o700 {
		t.Errorf("%v, %v", info, err)
	}
	again, err := OpenTrusted(made)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
	for _, mode := range []os.FileMode{0o777, 0o777 | os.ModeSticky} {
		if err := os.Chmod(filepath.Join(dir, "a"), mode); err != nil {
			t.Fatal(err)
		}
		if _, err := MkdirTrusted(filepath.Join(dir, "a/x/y"), 0o700); !errors.Is(err, ErrUntrusted) {
			t.Errorf("mode %v: %v", mode, err)
		}
		if _, err := os.Lstat(filepath.Join(dir, "a/x")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("mode %v: something was made: %v", mode, err)
		}
	}
}

func TestASecretIsForItsOwnerAndItsGroupAlone(t *testing.T) {
	for mode, says := range map[os.FileMode]string{0o400: "", 0o600: "", 0o640: "", 0o440: "", 0o644: "everybody may read ", 0o604: "everybody may read ",
		0o601: "everybody may read ", 0o660: "others may write to "} {
		path := filepath.Join(way(t), "a/b/file")
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		b, err := ReadSecret(path, 4)
		if says == "" && (err != nil || string(b) != "good") || says != "" && (err == nil || !strings.Contains(err.Error(), says) || b != nil) {
			t.Errorf("mode %04o: %q, %v", mode, b, err)
		}
	}
	if _, err := ReadSecret(filepath.Join(way(t), "a/b/file"), 4); !errors.Is(err, ErrExposed) {
		t.Errorf("%v, want ErrExposed", err)
	}
}
