// Package ntpdrstest runs a real, unmodified ntp-daemon of ntpd-rs for tests: a
// server with NTS on the loopback that rotates its keys itself. It has no time
// sources unless it is given one, and no right to touch the host's clock. It
// needs no root.
package ntpdrstest

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"ntsagent/agent/daemon/daemontest"
	"ntsagent/ntske/client"
	"ntsagent/packaging/parts"
	"ntsagent/packaging/parts/partstest"
)

// Options change the ntp-daemon that Start starts.
type Options struct {
	// RotateEvery and StaleKeys are its key-rotation-interval, in whole seconds,
	// and stale-key-count; 0 = a day and 7, as ntpd-rs has them.
	RotateEvery time.Duration
	StaleKeys   int
	// KeyFile is what it finds as key file at its first start; nil = none.
	KeyFile []byte
	// Host is where it answers; zero = 127.0.0.1.
	Host netip.Addr
	// Source is what it takes its time from, believing that it may set the clock;
	// zero = none, and it is not synchronised. It takes none from 127.0.0.1, which
	// it knows to be itself.
	Source netip.AddrPort
	// OwnPorts makes it answer at ports 123 and 4460, as clients expect that are
	// told no others, instead of two that are free.
	OwnPorts bool
	// Deny makes it answer nobody.
	Deny bool
}

// Server is a running ntp-daemon.
type Server struct {
	*daemontest.Process
	Addr     netip.AddrPort // where it answers NTP
	KE       netip.AddrPort // where it answers NTS-KE
	Dir      string
	KeysFile string         // its key-storage-path
	Roots    *x509.CertPool // who its certificate for Name is good to
	socket   string         // where it is asked for its counters
	t        testing.TB
	root     parts.Root
	options  Options
}

// Name is the one its certificate is for.
const Name = "ntpdrs.test"

const confName = "ntp.toml"

// tries is how often a start is repeated when somebody has its port after all.
const tries = 5

// Start runs the ntp-daemon of Debian 13 until the test ends.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s := &Server{t: t, root: partstest.NTPDRS(t, parts.Debian13), Dir: dir, KeysFile: filepath.Join(dir, "keys"), options: o}
	s.Process = daemontest.NewProcess(t)
	short, err := os.MkdirTemp("", "ntpdrs") // the names of sockets are limited to 107 octets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(short) })
	s.socket = filepath.Join(short, "observe")
	s.Roots = daemontest.WriteCertificate(t, dir, Name)
	if o.KeyFile != nil {
		s.WriteKeys(o.KeyFile)
	}
	host := o.Host
	if !host.IsValid() {
		host = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	for range tries {
		s.Addr, s.KE = netip.AddrPortFrom(host, 123), netip.AddrPortFrom(host, 4460)
		if !o.OwnPorts {
			s.Addr, s.KE = netip.AddrPortFrom(host, daemontest.FreePort(t, "udp")), netip.AddrPortFrom(host, daemontest.FreePort(t, "tcp"))
		}
		s.writeConf()
		if s.run() == nil {
			return s
		}
	}
	t.Fatalf("ntp-daemon does not start:\n%s", s.Log())
	return nil
}

// Restart stops and starts it with the same files and ports.
func (s *Server) Restart() {
	s.t.Helper()
	s.Stop()
	var err error
	for range tries {
		if err = s.run(); err == nil {
			return
		}
	}
	s.t.Fatalf("ntp-daemon does not start again: %v\n%s", err, s.Log())
}

// Reconfigure is Restart with other options; Host stays.
func (s *Server) Reconfigure(o Options) {
	s.t.Helper()
	s.Stop()
	s.options = o
	s.writeConf()
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

// WriteKeys replaces its key file, which it reads only at a start.
func (s *Server) WriteKeys(b []byte) {
	s.t.Helper()
	if err := os.WriteFile(s.KeysFile, b, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// Authenticated is how many queries it has answered with NTS.
func (s *Server) Authenticated() int {
	s.t.Helper()
	out, err := s.root.Command(s.t.Context(), "ntp-ctl", "status", "-f", "prometheus", "-c", filepath.Join(s.Dir, confName)).Output()
	if err != nil {
		s.t.Fatalf("ask ntp-daemon for its counters: %v: %s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "ntp_server_nts_accepted_packets_total{") {
			n, err := strconv.Atoi(strings.TrimSpace(line[strings.LastIndexByte(strings.TrimSpace(line), ' ')+1:]))
			if err != nil {
				s.t.Fatal(err)
			}
			return n
		}
	}
	s.t.Fatalf("no such counter: %s", out)
	return 0
}

// run starts it and waits until it answers.
func (s *Server) run() error {
	if s.options.Source.IsValid() {
		return daemontest.PretendClock(s.runAsIs)
	}
	return s.runAsIs()
}

func (s *Server) runAsIs() error {
	command := func(ctx context.Context) *exec.Cmd {
		return daemontest.WithoutClock(s.root.Command(ctx, "ntp-daemon", "-c", filepath.Join(s.Dir, confName)))
	}
	return s.Run(command, func() bool {
		if _, err := os.Stat(s.KeysFile); err != nil {
			return false
		}
		if s.options.Deny {
			return true
		}
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		defer cancel()
		_, err := client.Plain(ctx, s.Addr)
		return err == nil
	})
}

func (s *Server) writeConf() {
	s.t.Helper()
	every, stale, filter := s.options.RotateEvery, s.options.StaleKeys, ""
	if every == 0 {
		every = 24 * time.Hour
	}
	if stale == 0 {
		stale = 7
	}
	if s.options.Deny {
		filter = "denylist = { filter = [\"0.0.0.0/0\"], action = \"ignore\" }\n"
	}
	source := ""
	if s.options.Source.IsValid() {
		source = fmt.Sprintf("[synchronization]\nminimum-agreeing-sources = 1\n"+
			"[source-defaults]\npoll-interval-limits = { min = 0, max = 0 }\ninitial-poll-interval = 0\n"+
			"[[source]]\nmode = \"server\"\naddress = \"%s\"\n", s.options.Source)
	}
	conf := fmt.Sprintf(`[observability]
log-level = "warn"
observation-path = "%s"
%s[[server]]
listen = "%s"
%s[[nts-ke-server]]
listen = "%s"
certificate-chain-path = "%s"
private-key-path = "%s"
[keyset]
key-storage-path = "%s"
key-rotation-interval = %d
stale-key-count = %d
`, s.socket, source, s.Addr, filter, s.KE, filepath.Join(s.Dir, daemontest.CertFile), filepath.Join(s.Dir, daemontest.KeyFile),
		s.KeysFile, int(every/time.Second), stale)
	if err := os.WriteFile(filepath.Join(s.Dir, confName), []byte(conf), 0o600); err != nil {
		s.t.Fatal(err)
	}
}
