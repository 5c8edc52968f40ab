package openntpdtest

import (
	"context"
	_ "embed"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"ntsagent/agent/daemon/daemontest"
	"ntsagent/ntske/client"
	"ntsagent/packaging/parts"
	"ntsagent/packaging/parts/partstest"
)

//go:embed testdata/hurry.c
var hurry []byte

// StartSynchronised is Start with a chronyd to take the time from. OpenNTPD
// believes that it sets the clock, and waits for nothing as long as it means to:
// else it would take two minutes to say that it is synchronised. It needs gcc.
func StartSynchronised(t testing.TB) *Server {
	t.Helper()
	s := newServer(t, usual)
	source := daemontest.NewProcess(t)
	root, dir := partstest.Chrony(t, parts.Debian12), t.TempDir()
	conf := filepath.Join(dir, "chrony.conf")
	text := fmt.Sprintf("bindaddress %s\nlocal stratum 8\nallow\ncmdport 0\nbindcmdaddress /\npidfile %s/pid\n", sourceAddr, dir)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	err := preload(t, s)
	if err == nil {
		s.Do(func() {
			err = source.Run(func(ctx context.Context) *exec.Cmd {
				return daemontest.WithoutClock(root.Command(ctx, "chronyd", "-U", "-x", "-d", "-u", "root", "-f", conf))
			}, func() bool { return answers(netip.AddrPortFrom(sourceAddr, Addr.Port())) })
		})
	}
	if err != nil {
		t.Fatalf("a time source and haste for OpenNTPD: %v\n%s", err, source.Log())
	}
	s.Restart()
	return s
}

// sourceAddr is that of its chronyd.
var sourceAddr = netip.MustParseAddr("127.0.0.2")

func answers(addr netip.AddrPort) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	_, err := client.Plain(ctx, addr)
	return err == nil
}

// preload compiles hurry.c into the server's root folder, for all programs there.
func preload(t testing.TB, s *Server) error {
	const library = "lib/hurry.so"
	if err := s.put("etc/ld.so.preload", []byte("/"+library+"\n"), 0o644); err != nil {
		return err
	}
	source := filepath.Join(t.TempDir(), "hurry.c")
	if err := os.WriteFile(source, hurry, 0o600); err != nil {
		return err
	}
	path := filepath.Join(s.root, library)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	// Without a library of this machine's, which may be newer than that in the root.
	out, err := exec.CommandContext(t.Context(), "gcc", "-shared", "-fPIC", "-O1", "-nostdlib", "-o", path, source).CombinedOutput()
	if err != nil {
		return fmt.Errorf("compile hurry.c with gcc: %w: %s", err, out)
	}
	return nil
}
