package setup

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ntsagent/acme/disk"
	"ntsagent/packaging/parts"
)

// Root writes, and reads what it goes by, only where nobody else can lead it astray.
func TestWhatOthersCouldChangeIsNeitherReadNorWritten(t *testing.T) {
	chmod := func(path string, mode os.FileMode) func(string) error {
		return func(root string) error { return os.Chmod(filepath.Join(root, path), mode) }
	}
	chown := func(path string) func(string) error {
		return func(root string) error { return os.Lchown(filepath.Join(root, path), 65534, 65534) }
	}
	cases := map[string]struct {
		change func(root string) error
		says   string
	}{
		"a configuration others write to":        {chmod("etc/chrony/chrony.conf", 0o666), "read /etc/chrony/chrony.conf: "},
		"its folder":                             {chmod("etc/chrony", 0o777), "read /etc/chrony/chrony.conf: "},
		"a folder above":                         {chmod("etc", 0o777), "read /etc/chrony/chrony.conf: "},
		"its folder, sticky":                     {chmod("etc/chrony", 0o777|os.ModeSticky), "read /etc/chrony/chrony.conf: "},
		"the folder of drop-ins":                 {chmod("etc/chrony/conf.d", 0o777), "write /etc/chrony/conf.d/ntsagent.conf: "},
		"a link to a folder others write to":     {func(root string) error { return divert(root, 0o777) }, "write /etc/chrony/conf.d/ntsagent.conf: "},
		"a configuration of another user":        {chown("etc/chrony/chrony.conf"), "read /etc/chrony/chrony.conf: "},
		"its folder belongs to another user":     {chown("etc/chrony"), "read /etc/chrony/chrony.conf: "},
		"the drop-ins belong to another user":    {chown("etc/chrony/conf.d"), "write /etc/chrony/conf.d/ntsagent.conf: "},
		"another user's link to root's drop-ins": {func(root string) error { return errors.Join(divert(root, 0o755), chown("etc/chrony/conf.d")(root)) }, "write /etc/chrony/conf.d/ntsagent.conf: "},
	}
	for sentence, c := range cases {
		t.Run(sentence, func(t *testing.T) {
			h := asShipped(t, Chrony, parts.Debian12)
			if err := c.change(h.Root); err != nil {
				t.Fatalf("this test needs root: it gives files away: %v", err)
			}
			before := snapshot(t, h)
			p, err := PlanFor(h, h.installed(), Options{})
			if err == nil {
				err = Apply(h, p, "/state", time.Now())
			}
			if !errors.Is(err, ErrInTheWay) || !errors.Is(err, disk.ErrUntrusted) || !strings.HasPrefix(err.Error(), c.says) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v", err)
			}
			if snapshot(t, h) != before {
				t.Error("something was written")
			}
		})
	}
}

// divert makes the folder of drop-ins a link to another one.
func divert(root string, mode os.FileMode) error {
	at, to := filepath.Join(root, "etc/chrony/conf.d"), filepath.Join(root, "etc/elsewhere")
	return errors.Join(os.Rename(at, to), os.Chmod(to, mode), os.Symlink("../elsewhere", at))
}

// The name of a folder that is being written to may come to lead elsewhere.
func TestOwnerAndContentGoToTheFolderThatWasOpened(t *testing.T) {
	dir := t.TempDir()
	opened, victims := filepath.Join(dir, "opened"), filepath.Join(dir, "victims")
	if err := errors.Join(os.Mkdir(opened, 0o755), os.Mkdir(victims, 0o755)); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(victims, "shadow"), "root")
	r, err := disk.OpenTrusted(opened)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := errors.Join(os.Rename(opened, opened+".away"), os.Symlink(victims, opened)); err != nil {
		t.Fatal(err)
	}
	uid := os.Geteuid()
	if uid == 0 {
		uid = 65534
	}
	if err := writeAs(r, "shadow", []byte("x"), 0o640, uid, -1); err != nil {
		t.Fatal(err)
	}
	var theirs, ours unix.Stat_t
	if err := errors.Join(unix.Stat(filepath.Join(victims, "shadow"), &theirs), unix.Stat(filepath.Join(opened+".away", "shadow"), &ours)); err != nil {
		t.Fatal(err)
	}
	if read(t, filepath.Join(victims, "shadow")) != "root" || int(theirs.Uid) != os.Geteuid() || int(ours.Uid) != uid || ours.Mode&0o777 != 0o640 {
		t.Errorf("%+v, %+v", theirs, ours)
	}
}
