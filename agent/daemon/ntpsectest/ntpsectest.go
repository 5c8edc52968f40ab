// Package ntpsectest runs a real, unmodified ntpd of NTPsec for tests: a server
// with NTS that makes and rotates its keys itself. It insists on UDP port 123 and
// TCP port 4460, so each gets a network of its own, which needs root. It has no
// right to touch the host's clock.
package ntpsectest

import (
	"context"
	"crypto/x509"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"ntsagent/agent/daemon/daemontest"
	"ntsagent/ntske/client"
	"ntsagent/packaging/parts"
	"ntsagent/packaging/parts/partstest"
)

// Options change the ntpd that Start starts.
type Options struct {
	// Release is whose ntpd runs; zero = parts.Debian12.
	Release parts.Release
	// KeyFile is what it finds as key file at its first start; nil = none.
	KeyFile []byte
	// User is who ntpd runs as; "" = whoever runs the test. Its key file is in a
	// folder that is closed to all others.
	User string
	// Network is where it runs; nil = one of its own.
	Network *daemontest.Network
	// NoNTS leaves out `nts enable`: it then opens no cookies.
	NoNTS bool
	// ExtraConf are further lines of its configuration.
	ExtraConf []string
}

// Server is a running ntpd.
type Server struct {
	*daemontest.Process
	// Network is where it answers, and only there: see Do.
	*daemontest.Network
	Dir      string
	KeysFile string // its nts-keys
	PIDFile  string
	Roots    *x509.CertPool // who its certificate for Name is good to
	t        testing.TB
	root     parts.Root
	options  Options
}

// Name is the one its certificate is for.
const Name = "ntpsec.test"

// Where it answers NTP and NTS-KE in its network.
var (
	Addr = netip.MustParseAddrPort("127.0.0.1:123")
	KE   = netip.MustParseAddrPort("127.0.0.1:4460")
)

// Start runs an ntpd until the test ends.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	if o.Release == (parts.Release{}) {
		o.Release = parts.Debian12
	}
	dir := t.TempDir()
	s := &Server{t: t, root: partstest.NTPsec(t, o.Release), Dir: dir, PIDFile: filepath.Join(dir, "ntpd.pid"), options: o}
	s.KeysFile = filepath.Join(s.ownDir(), "nts-keys")
	if s.Network = o.Network; s.Network == nil {
		s.Network = daemontest.NewNetwork(t)
	}
	s.Process = daemontest.NewProcess(t)
	s.Roots = daemontest.WriteCertificate(t, dir, Name)
	if o.KeyFile != nil {
		s.WriteKeys(o.KeyFile)
	}
	s.Restart()
	return s
}

// Restart stops ntpd, if it runs, and starts it with the same files.
func (s *Server) Restart() {
	s.t.Helper()
	s.Stop()
	s.writeConf()
	var err error
	s.Do(func() { err = s.run() })
	if err != nil {
		s.t.Fatalf("ntpd does not start: %v\n%s", err, s.Log())
	}
}

// Reconfigure is Restart with other options; no Release = the same.
func (s *Server) Reconfigure(o Options) {
	s.t.Helper()
	if o.Release == (parts.Release{}) {
		o.Release = s.options.Release
	}
	s.root = partstest.NTPsec(s.t, o.Release)
	s.options = o
	s.Restart()
}

// ReadKeys reads its key file as it is now.
func (s *Server) ReadKeys() ([]byte, error) { return os.ReadFile(s.KeysFile) }

// Remove removes its key file.
func (s *Server) Remove() {
	s.t.Helper()
	if err := os.Remove(s.KeysFile); err != nil {
		s.t.Fatal(err)
	}
}

// Authenticated is how many queries ntpd has answered with NTS; its ExtraConf
// must let 127.0.0.1 ask.
func (s *Server) Authenticated() int {
	s.t.Helper()
	const name = "nts_server_recv_good"
	var v map[string]string
	var err error
	s.Do(func() { v, err = daemontest.Variables(Addr, 0, name) })
	if err != nil {
		s.t.Fatalf("ask ntpd for its counters: %v", err)
	}
	n, err := strconv.Atoi(v[name])
	if err != nil {
		s.t.Fatalf("ntpd's counters %q: %v", v, err)
	}
	return n
}

// WriteKeys replaces its key file, which it reads only at a start.
func (s *Server) WriteKeys(b []byte) {
	s.t.Helper()
	if err := os.WriteFile(s.KeysFile, b, 0o600); err != nil {
		s.t.Fatal(err)
	}
	dir, err := os.Stat(filepath.Dir(s.KeysFile))
	if err != nil {
		s.t.Fatal(err)
	}
	if st := dir.Sys().(*syscall.Stat_t); s.options.User != "" {
		if err := os.Chown(s.KeysFile, int(st.Uid), int(st.Gid)); err != nil {
			s.t.Fatal(err)
		}
	}
}

// Rotate brings ntpd to make a new key, as it does every hour when the time in
// its key file is a day old or more: an hour is 3600 of its one-second alarms, and
// those that come faster than it runs are seen as one. KeyFile must have such a time.
func (s *Server) Rotate() {
	s.t.Helper()
	before, err := s.ReadKeys()
	if err != nil {
		s.t.Fatal(err)
	}
	tick := time.NewTicker(100 * time.Microsecond)
	defer tick.Stop()
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); {
		s.Signal(syscall.SIGALRM)
		<-tick.C
		if now, err := s.ReadKeys(); err == nil && string(now) != string(before) {
			return
		}
	}
	s.t.Fatalf("ntpd does not rotate its keys:\n%s", s.Log())
}

// run starts ntpd and waits until it answers.
func (s *Server) run() error {
	command := func(ctx context.Context) *exec.Cmd {
		cmd := s.root.Command(ctx, "ntpd", "-n", "-p", s.PIDFile, "-c", filepath.Join(s.Dir, "ntp.conf"))
		if s.options.User != "" {
			return s.asUser(cmd)
		}
		return daemontest.WithoutClock(cmd)
	}
	return s.Run(command, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		defer cancel()
		_, err := client.Plain(ctx, Addr)
		return err == nil
	})
}

func (s *Server) writeConf() {
	s.t.Helper()
	lines := []string{
		"refclock local",
		"nts cert " + filepath.Join(s.Dir, daemontest.CertFile),
		"nts key " + filepath.Join(s.Dir, daemontest.KeyFile),
		"nts cookie " + s.KeysFile,
		"restrict 127.0.0.1", "restrict ::1", // who is not let in gets some 20 answers at once, and then none for seconds
	}
	if !s.options.NoNTS {
		lines = append(lines, "nts enable")
	}
	lines = append(lines, s.options.ExtraConf...)
	if err := os.WriteFile(filepath.Join(s.Dir, "ntp.conf"), []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		s.t.Fatal(err)
	}
}
