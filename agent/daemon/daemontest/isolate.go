package daemontest

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// isolatedEnv names the test that runs in a process made by Isolated.
const isolatedEnv = "DAEMONTEST_ISOLATED"

// Isolated runs the calling test, which must not be a subtest, once more as a
// process of its own: with a network that has a loopback device and nothing
// else, so that all ports are free, and with a hosts file that gives these names
// these addresses. It needs root. In that process it returns true at once. In the
// first one it returns false when that process has ended, and has passed on what
// its test wrote and whether it failed.
func Isolated(t *testing.T, hosts map[string]netip.Addr) bool {
	t.Helper()
	if os.Getenv(isolatedEnv) == t.Name() {
		if err := settle(t, hosts); err != nil {
			t.Fatalf("settle in a network of our own: %v", err)
		}
		return true
	}
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root: it gets a network and a hosts file of its own")
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=4m")
	cmd.Env = append(os.Environ(), isolatedEnv+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	loose, err := Leash(cmd.Process.Pid)
	if err != nil {
		_ = cmd.Process.Kill()
		loose = func() {}
		t.Error(err)
	}
	ended := cmd.Wait()
	loose()
	if ended != nil {
		t.Fatalf("the test in a network of its own: %v\n%s", ended, said.String())
	}
	for line := range strings.Lines(said.String()) {
		if row := strings.TrimSpace(line); strings.HasPrefix(row, "|") {
			fmt.Fprintln(t.Output(), row)
		}
	}
	return false
}

// settle changes nothing outside of this process's own mount namespace.
func settle(t *testing.T, hosts map[string]netip.Addr) error {
	if err := linkUp("lo"); err != nil {
		return err
	}
	b := []byte("127.0.0.1 localhost\n")
	for name, addr := range hosts {
		b = fmt.Appendf(b, "%s %s\n", addr, name)
	}
	file := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(file, b, 0o644); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return os.NewSyscallError("mount", err)
	}
	if err := unix.Mount(file, "/etc/hosts", "", unix.MS_BIND, ""); err != nil {
		return os.NewSyscallError("mount hosts", err)
	}
	return nil
}
