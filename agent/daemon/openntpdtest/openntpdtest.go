// Package openntpdtest runs a real, unmodified OpenNTPD for tests: a server that
// has no NTS. It insists on UDP port 123 and on a user of its own, so each gets a
// network and a root folder of its own, which needs root. It has no right to
// touch the host's clock, so it never says that it is synchronised, unless it is
// made to believe so.
package openntpdtest

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"ntsagent/agent/daemon/daemontest"
	"ntsagent/packaging/parts"
	"ntsagent/packaging/parts/partstest"
)

// Server is a running OpenNTPD.
type Server struct {
	*daemontest.Process
	// Network is where it answers, and only there: see Do.
	*daemontest.Network
	t    testing.TB
	root string // the folder it takes for /
}

// Addr is where it answers NTP in its network.
var Addr = netip.MustParseAddrPort("127.0.0.1:123")

// Start runs the OpenNTPD of Debian 12 until the test ends.
func Start(t testing.TB) *Server {
	return StartWith(t, usual)
}

// usual is a configuration with a source that answers nobody, but to
// StartSynchronised.
var usual = fmt.Sprintf("listen on 127.0.0.1\nserver %s\n", sourceAddr)

// StartWith is Start with another configuration.
func StartWith(t testing.TB, conf string) *Server {
	t.Helper()
	s := newServer(t, conf)
	s.Restart()
	return s
}

func newServer(t testing.TB, conf string) *Server {
	t.Helper()
	s := &Server{t: t, Network: daemontest.NewNetwork(t), root: t.TempDir()}
	s.Process = daemontest.NewProcess(t)
	if err := s.furnish(partstest.OpenNTPD(t, parts.Debian12), conf); err != nil {
		t.Fatal(err)
	}
	return s
}

// needs are the loader and the libraries of the program, by architecture.
var needs = map[string][]string{
	"amd64": {"lib64/ld-linux-x86-64.so.2", "usr/lib/x86_64-linux-gnu/libc.so.6", "usr/lib/x86_64-linux-gnu/libm.so.6"},
	"arm64": {"lib/ld-linux-aarch64.so.1", "usr/lib/aarch64-linux-gnu/libc.so.6", "usr/lib/aarch64-linux-gnu/libm.so.6"},
}

// furnish puts into the root what OpenNTPD needs there, and nothing else.
func (s *Server) furnish(from parts.Root, conf string) error {
	for path, text := range map[string]string{
		"etc/passwd":    "root:x:0:0::/:\nntpd:x:65123:65123::/var/empty:\n",
		"etc/group":     "root:x:0:\nntpd:x:65123:\n",
		"etc/services":  "ntp 123/udp\n",
		"etc/ntpd.conf": conf,
	} {
		if err := s.put(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	if err := s.put("dev/null", nil, 0o666); err != nil {
		return err
	}
	for _, dir := range []string{"var/empty", "var/lib/openntpd/run", "var/lib/openntpd/db"} {
		if err := os.MkdirAll(filepath.Join(s.root, dir), 0o755); err != nil {
			return err
		}
	}
	files, ok := needs[runtime.GOARCH]
	if !ok {
		return fmt.Errorf("not known what OpenNTPD needs on %s", runtime.GOARCH)
	}
	for _, path := range append(files, "usr/sbin/ntpd") {
		b, err := os.ReadFile(filepath.Join(string(from), path))
		if err != nil {
			return err
		}
		if err := s.put(path, b, 0o755); err != nil {
			return err
		}
	}
	return os.Chmod(s.root, 0o755)
}

func (s *Server) put(path string, b []byte, mode os.FileMode) error {
	path = filepath.Join(s.root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, b, mode)
}

// Restart stops it, if it runs, and starts it.
func (s *Server) Restart() {
	s.t.Helper()
	s.Stop()
	var err error
	s.Do(func() { err = s.run() })
	if err != nil {
		s.t.Fatalf("OpenNTPD does not start: %v\n%s", err, s.Log())
	}
}

// run starts it and waits until it answers.
func (s *Server) run() error {
	command := func(ctx context.Context) *exec.Cmd {
		return daemontest.WithoutClock(exec.CommandContext(ctx, "chroot", s.root, "/usr/sbin/ntpd", "-d", "-f", "/etc/ntpd.conf"))
	}
	return s.Run(command, func() bool { return answers(Addr) })
}
