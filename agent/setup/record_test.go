package setup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"ntsagent/acme/disk"
	"ntsagent/packaging/parts"
)

// planted is a record that would have a file made and a command run.
const planted = `{"version": 1, "files": [{"path": "/etc/cron.d/x", "before": "%s", "after": "", "mode": 493, "uid": 0, "gid": 0, "block": false, "pair": false, "made_dir": false}],
"restart": [["/bin/sh", "-c", "id >ran"]]}`

func TestARecordThatOthersCanHaveWrittenIsNotGoneBy(t *testing.T) {
	cron := "* * * * * root id\n"
	for sentence, c := range map[string]struct {
		dir    string // of the record
		change func(root string) error
		fix    string
	}{
		"in the state, which belongs to another user": {"/state/setup", func(root string) error {
			return errors.Join(os.Chown(filepath.Join(root, "state"), 65534, 65534), os.Chown(filepath.Join(root, "state/setup"), 65534, 65534))
		}, "as root: cp -r "},
		"in the state, in a folder that was root's and was moved": {"/state/setup", func(root string) error { return os.Chown(filepath.Join(root, "state"), 65534, 65534) }, "as root: cp -r "},
		"in the state, which others may write to":                 {"/state/setup", func(root string) error { return os.Chmod(filepath.Join(root, "state"), 0o777) }, "as root: cp -r "},
		"beside it, in a folder others may write to":              {"/state-setup", func(root string) error { return os.Chmod(filepath.Join(root, "state-setup"), 0o777) }, "let it, and all folders above it"},
		"beside it, in a folder of another user":                  {"/state-setup", func(root string) error { return os.Chown(filepath.Join(root, "state-setup"), 65534, 65534) }, "let it, and all folders above it"},
		"beside it, a file of another user": {"/state-setup", func(root string) error {
			return os.Chown(filepath.Join(root, "state-setup", recordName), 65534, 65534)
		}, "let it, and all folders above it"},
	} {
		t.Run(sentence, func(t *testing.T) {
			h := image(t, map[string]string{"/etc/cron.d/": "", "/state/": "", "/usr/sbin/chronyd": "", "/etc/chrony.conf": "", "/var/lib/chrony/": "",
				c.dir + "/" + recordName: fmt.Sprintf(planted, checksum([]byte(cron))), c.dir + "/" + checksum([]byte(cron)): cron})
			if err := c.change(h.Root); err != nil {
				t.Fatalf("this test needs root: it gives files away: %v", err)
			}
			u, err := PlanRevert(h, "/state")
			if !errors.Is(err, ErrInTheWay) || !errors.Is(err, disk.ErrUntrusted) || !strings.Contains(err.Error(), c.fix) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v", err)
			}
			if len(u.Changes)+len(u.Restart) > 0 {
				t.Errorf("%+v", u)
			}
			before := snapshot(t, h)
			p, err := PlanFor(h, h.installed(), Options{})
			if err != nil {
				t.Fatal(err)
			}
			if err := Apply(h, p, "/state", time.Now()); !errors.Is(err, disk.ErrUntrusted) {
				t.Errorf("apply: %v", err)
			}
			if snapshot(t, h) != before {
				t.Error("something was written")
			}
		})
	}
}

func TestTheRecordOfAnOlderVersionIsGoneByWhereOnlyWeCanHaveWrittenIt(t *testing.T) {
	h := asShipped(t, NTPDRS, parts.Debian13)
	before := snapshot(t, h)
	p, _ := story(t, h, Options{})
	if err := Apply(h, p, "/state", time.Now()); err != nil {
		t.Fatal(err)
	}
	old, now := filepath.Join(h.Root, "state/setup"), filepath.Join(h.Root, "state-setup")
	if err := errors.Join(os.Mkdir(filepath.Dir(old), 0o755), os.Rename(now, old)); err != nil {
		t.Fatal(err)
	}
	v2 := read(t, filepath.Join(old, recordName))
	v1 := strings.NewReplacer(`"version": 2`, `"version": 1`, `"unit": "ntpd-rs.service",`, `"restart": [["systemctl", "daemon-reload"], ["systemctl", "restart", "ntpd-rs.service"]],`,
		`"reload": true`, `"reload": false`).Replace(v2)
	if strings.Contains(v1, `"unit"`) || strings.Contains(v1, "true,\n  \"restart") {
		t.Fatalf("this is not what version 1 wrote:\n%s", v1)
	}
	write(t, filepath.Join(old, recordName), v1)
	u, err := PlanRevert(h, "/state")
	if err != nil || !reflect.DeepEqual(u.Restart, p.Restart) || len(u.Restart) != 2 {
		t.Fatalf("%+v, %v", u.Restart, err)
	}
	revert(t, h, "/state")
	if err := os.RemoveAll(filepath.Dir(old)); err != nil {
		t.Fatal(err)
	}
	if after := snapshot(t, h); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
}

func TestARecordNamesNoCommandAndNoOtherUnit(t *testing.T) {
	for text, want := range map[string]string{ // "refused", or what is restarted
		`{"version": 1, "restart": [["systemctl", "restart", "chrony.service"]]}`:                                  "[[systemctl restart chrony.service]]",
		`{"version": 1, "restart": [["systemctl", "daemon-reload"], ["systemctl", "restart", "ntpd-rs.service"]]}`: "[[systemctl daemon-reload] [systemctl restart ntpd-rs.service]]",
		`{"version": 1, "restart": [["/bin/sh", "-c", "id"]]}`:                                                     "[]",
		`{"version": 1, "restart": [["/tmp/systemctl", "restart", "chrony.service"]]}`:                             "[]",
		`{"version": 1, "restart": [["systemctl", "restart", "sshd.service"]]}`:                                    "[]",
		`{"version": 1, "restart": [["systemctl", "restart", "-H.service"]]}`:                                      "[]",
		`{"version": 2, "unit": "ntpsec.service", "reload": true}`:                                                 "[[systemctl daemon-reload] [systemctl restart ntpsec.service]]",
		`{"version": 2}`:                           "[]",
		`{"version": 2, "unit": "sshd.service"}`:   "refused",
		`{"version": 2, "unit": "--root=/x"}`:      "refused",
		`{"version": 2, "restart": [["/bin/sh"]]}`: "refused",
		`{"version": 3}`:                           "refused",
		`{}`:                                       "refused",
	} {
		r, err := parseRecord([]byte(text))
		got := fmt.Sprint(restartCommands(r.Unit, r.Reload))
		if err != nil {
			got = "refused"
		}
		if got != want {
			t.Errorf("%s: %s, want %s (%v)", text, got, want, err)
		}
	}
}

// A unit's name comes from a process, and nothing is restarted for that alone.
func TestAUnitWeDoNotKnowIsLeftToTheOperator(t *testing.T) {
	h := asShipped(t, Chrony, parts.Debian12)
	d := h.installed()
	for unit, want := range map[string]string{"": "[[systemctl restart chrony.service]]", "chronyd.service": "[[systemctl restart chronyd.service]]", "mine.service": "[]"} {
		d.Unit = unit
		p, err := PlanFor(h, d, Options{})
		if err != nil || fmt.Sprint(p.Restart) != want || strings.Contains(fmt.Sprint(p.Notes), "chronyd runs as mine.service") != (want == "[]") {
			t.Errorf("%q: %v, %v, %v", unit, p.Restart, p.Notes, err)
		}
	}
}
