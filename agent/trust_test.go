package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ntsagent/agent/config"
	"ntsagent/agent/status"
)

func TestRootDoesWhatRootsConfigurationSays(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root: it gives files away")
	}
	const stranger = 65534
	give := func(t *testing.T, path string, err error) {
		t.Helper()
		if err := errors.Join(err, os.Lchown(path, stranger, stranger)); err != nil {
			t.Fatal(err)
		}
	}
	opened := func(t *testing.T, path string, mode os.FileMode) {
		t.Helper()
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	for sentence, c := range map[string]struct {
		change func(t *testing.T, dir, conf string) (path string)
		says   string // of who could change it; "" = nobody but root
	}{
		"a file of root":              {func(_ *testing.T, _, conf string) string { return conf }, ""},
		"a file of somebody else":     {func(t *testing.T, _, conf string) string { give(t, conf, nil); return conf }, "ntsagent.yaml belongs to user 65534"},
		"one that all may write":      {func(t *testing.T, _, conf string) string { opened(t, conf, 0o666); return conf }, "ntsagent.yaml, it has mode 0666"},
		"one that its group may":      {func(t *testing.T, _, conf string) string { opened(t, conf, 0o660); return conf }, "ntsagent.yaml, it has mode 0660"},
		"a folder of another user":    {func(t *testing.T, dir, conf string) string { give(t, dir, nil); return conf }, "etc belongs to user 65534"},
		"a folder that all may write": {func(t *testing.T, dir, conf string) string { opened(t, dir, 0o777); return conf }, "etc, it has mode 0777"},
		"a link of another user, who can have it lead elsewhere": {func(t *testing.T, dir, conf string) string {
			path := filepath.Join(dir, "link.yaml")
			give(t, path, os.Symlink(conf, path))
			return path
		}, "link.yaml belongs to user 65534"},
		"a link in a folder of another user": {func(t *testing.T, dir, conf string) string {
			path := filepath.Join(dir, "theirs", "link.yaml")
			give(t, filepath.Dir(path), errors.Join(os.Mkdir(filepath.Dir(path), 0o755), os.Symlink(conf, path)))
			return path
		}, "theirs belongs to user 65534"},
		"a link of root": {func(t *testing.T, dir, conf string) string {
			path := filepath.Join(dir, "link.yaml")
			if err := os.Symlink(conf, path); err != nil {
				t.Fatal(err)
			}
			return path
		}, ""},
	} {
		for what, export := range map[string]string{
			"nothing is exported": "",
			"a file is":           "export: [{name: alice.example, cert: /nowhere/c, key: /nowhere/k}], ",
		} {
			t.Run(sentence+", "+what, func(t *testing.T) {
				t.Parallel()
				dir := filepath.Join(t.TempDir(), "etc")
				conf := filepath.Join(dir, "ntsagent.yaml")
				if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(conf, fmt.Appendf(nil, "names: [alice.example]\ncertificate: {%ssource: files, cert: /c, key: /k}\n", export), 0o600)); err != nil {
					t.Fatal(err)
				}
				path := c.change(t, dir, conf)
				got, doubt, err := LoadConfig(path)
				switch {
				case c.says == "" || export == "":
					if err != nil || got == nil || (doubt == "") != (c.says == "") || !strings.Contains(doubt, c.says) {
						t.Errorf("taken %v, doubt %q, error %v", got != nil, doubt, err)
					}
				case !errors.Is(err, ErrConfigUntrusted) || got != nil || !strings.HasPrefix(err.Error(), path+": ") ||
					!strings.Contains(err.Error(), c.says+"; fix: chown root ") || strings.Contains(err.Error(), "\n"):
					t.Errorf("taken %v, error %v", got != nil, err)
				}
			})
		}
	}
}

func TestAConfigurationThatRootCannotReadIsToldOfAsEver(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for path, text := range map[string]string{filepath.Join(dir, "none"): "no such file", dir: "not a regular file"} {
		invalid := (*config.Error)(nil)
		if _, _, err := LoadConfig(path); !errors.As(err, &invalid) || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// Whoever could write the file at the moment of a reload must not have root run what he likes.
func TestAReloadOfAFileThatOthersCanWriteChangesNothing(t *testing.T) {
	t.Parallel()
	m := startMember(t, time.Hour, "")
	addr := m.ke(m.wait("it is healthy", func(d status.Document) bool { return d.State == status.Healthy }))
	ran := filepath.Join(m.dir, "ran")
	m.configure(fmt.Sprintf("names: [%s]\ncertificate: {source: files, cert: %s, key: %s, export: [{name: %s, cert: %s, key: %s}]}\n",
		memberName, m.cert, m.key, memberName, ran, ran+".key"))
	if err := os.Chmod(m.conf, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := m.reload(); err == nil || !strings.Contains(err.Error(), m.conf+", it has mode 0666; fix: chown root ") {
		t.Fatalf("reload: %v", err)
	}
	m.serves(addr, "", 8)
	d := m.wait("the status tells of it", func(d status.Document) bool { return strings.Contains(d.Agent.ReloadError, "mode 0666") })
	if len(d.Exports) > 0 {
		t.Errorf("exported %+v", d.Exports)
	}
	m.configure("")
	if err := m.reload(); err != nil {
		t.Fatal(err)
	}
	d = m.wait("without exports it is taken, with a warning", func(d status.Document) bool { return d.Agent.ReloadError == "" })
	if !slices.ContainsFunc(d.Warnings, func(w string) bool { return strings.Contains(w, "it has mode 0666") }) {
		t.Errorf("warnings %q", d.Warnings)
	}
	if err := os.Chmod(m.conf, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.reload(); err != nil {
		t.Fatal(err)
	}
	m.wait("and as root's without", func(d status.Document) bool { return len(d.Warnings) == 0 })
	if _, err := os.Stat(ran); err == nil {
		t.Error("it was exported")
	}
}
