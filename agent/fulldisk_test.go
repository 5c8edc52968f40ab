package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ntsagent/agent/daemon/chronytest"
	"ntsagent/agent/daemon/daemontest"
	"ntsagent/agent/status"
)

// What is in place stays, byte for byte, as long as there is no room for the next.
func TestAFullDiskKeepsTheExportedPair(t *testing.T) {
	t.Parallel()
	if !daemontest.Isolated(t, nil) {
		return
	}
	m := newMember(t, time.Hour, chronytest.Options{})
	folder := filepath.Join(m.dir, "elsewhere")
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", folder, "tmpfs", 0, "size=64k,mode=755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(folder, unix.MNT_DETACH) }) // else it goes with this process, and its folder stays
	cert, key, filler := filepath.Join(folder, "cert.pem"), filepath.Join(folder, "key.pem"), filepath.Join(folder, "filler")
	m.configure(fmt.Sprintf("names: [%s]\ncertificate: {source: files, cert: %s, key: %s, export: [{name: %s, cert: %s, key: %s}]}\n",
		memberName, m.cert, m.key, memberName, cert, key))
	m.start()
	files := func() string {
		b, _ := os.ReadFile(cert)
		k, _ := os.ReadFile(key)
		return string(b) + string(k)
	}
	is := func(want []byte) func(status.Document) bool {
		return func(d status.Document) bool {
			return files() == string(want) && len(d.Exports) == 1 && d.Exports[0].Why() == ""
		}
	}
	next := func() []byte {
		t.Helper()
		c, k, _ := m.ca.issue(time.Hour)
		m.write(m.key, k)
		m.write(m.cert, c)
		return append(c, k...)
	}
	m.wait("the first certificate is there", func(d status.Document) bool {
		return len(d.Exports) == 1 && !d.Exports[0].Written.IsZero() && d.Exports[0].Why() == "" && provenAndOpen(m)(d)
	})
	before := files()
	if err := os.WriteFile(filler, make([]byte, 1<<20), 0o600); err == nil {
		t.Fatal("the disk is not full")
	}
	want := next()
	d := m.wait("it is full", func(d status.Document) bool { return d.Exports[0].Failed != "" })
	if d.State != status.Degraded || !strings.Contains(d.Exports[0].Failed, "no space left on device; fix: make room on the file system of "+folder) || files() != before {
		t.Errorf("%s, %+v", d.State, d.Exports)
	}
	m.until("nothing is left of what did not fit", func() bool { // but while it is tried again
		entries, err := os.ReadDir(folder)
		return err == nil && len(entries) == 4 // the pair, the lock and the filler
	})
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	m.wait("it is full no more", is(want))
	before = files()
	if err := unix.Mount("", folder, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	want = next()
	d = m.wait("it is read-only", func(d status.Document) bool { return d.Exports[0].Failed != "" })
	if !strings.Contains(d.Exports[0].Failed, "read-only file system; fix: make the file system of "+folder+" writable") || files() != before {
		t.Errorf("%+v", d.Exports)
	}
	if err := unix.Mount("", folder, "", unix.MS_REMOUNT, ""); err != nil {
		t.Fatal(err)
	}
	m.wait("it is not any more", is(want))
}
