// Package chronytest runs a real, unmodified chronyd for tests: a server with
// NTS on the loopback, with keys managed from outside (`ntsrotate 0`), never
// touching the host's clock (`-x`). It needs no root,
// Options.User apart.
package chronytest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ntsagent/agent/daemon/daemontest"
	"ntsagent/ntske/client"
	"ntsagent/packaging/parts"
	"ntsagent/packaging/parts/partstest"
)

// Options change the chronyd that Start starts.
type Options struct {
	// Release is whose chronyd runs; zero = parts.Debian12.
	Release parts.Release
	// User is the one chronyd drops to, who then owns Dir; "" = the user running
	// the test. Another one needs root.
	User string
	// NoAllow leaves out `allow 127.0.0.0/8`: chronyd then answers nobody.
	NoAllow bool
	// ExtraConf are further lines, last so that they win.
	ExtraConf []string
}

// Server is a running chronyd.
type Server struct {
	Addr      netip.AddrPort // where it answers NTP, 127.0.0.1
	Dir       string
	Conf      string         // its configuration file
	KeysFile  string         // its ntskeys; not there until something installs it
	Socket    string         // its command socket
	Roots     *x509.CertPool // who its certificate for Name is good to
	CA        string         // the same as a file
	t         testing.TB
	root      parts.Root
	stop      func()
	process   *os.Process
	log       syncBuffer
	ntsPort   uint16
	options   Options
	certFiles [2]string
}

// Name is the one chronyd's certificate is for.
const Name = "chronyd.test"

const confName = "chrony.conf"

// tries is how often a start is repeated when somebody has its port after all:
// chronyd cannot be handed a socket.
const tries = 5

// Start runs a chronyd until the test ends.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	if o.Release == (parts.Release{}) {
		o.Release = parts.Debian12
	}
	// Not t.TempDir: the names of sockets are limited to 107 octets.
	dir, err := os.MkdirTemp("", "chrony")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &Server{t: t, root: partstest.Chrony(t, o.Release), Dir: dir, options: o}
	s.Conf = filepath.Join(s.Dir, confName)
	s.KeysFile = filepath.Join(s.Dir, "ntskeys")
	s.Socket = filepath.Join(s.Dir, "chronyd.sock")
	s.writeCertificate()
	s.chown()
	t.Cleanup(s.Stop)
	for range tries {
		s.Addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), daemontest.FreePort(t, "udp"))
		s.ntsPort = daemontest.FreePort(t, "tcp")
		s.writeConf()
		if s.run(lookEvery, s.ready) == nil {
			return s
		}
	}
	t.Fatalf("chronyd does not start:\n%s", s.Log())
	return nil
}

// KE is where chronyd answers NTS-KE, 127.0.0.1.
func (s *Server) KE() netip.AddrPort { return netip.AddrPortFrom(s.Addr.Addr(), s.ntsPort) }

// Log is what chronyd has printed.
func (s *Server) Log() string { return s.log.String() }

// Stop ends chronyd and waits for it. It may be called again.
func (s *Server) Stop() {
	if s.stop != nil {
		s.stop()
		s.stop = nil
	}
}

// Freeze stops chronyd's process, sockets open, until the func it returns or
// the end of the test.
func (s *Server) Freeze() (thaw func()) {
	s.t.Helper()
	p := s.process
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		s.t.Fatal(err)
	}
	thaw = func() { _ = p.Signal(syscall.SIGCONT) } // it may have ended
	s.t.Cleanup(thaw)
	return thaw
}

// Dropped is how many NTP packets chronyd received and how many of them it
// dropped for its rate limit.
func (s *Server) Dropped() (received, dropped int) {
	s.t.Helper()
	n := s.counters("NTP packets received", "NTP packets dropped")
	return n[0], n[1]
}

// Authenticated is how many queries chronyd has answered with NTS.
func (s *Server) Authenticated() int {
	s.t.Helper()
	return s.counters("Authenticated NTP packets")[0]
}

// counters are those of `chronyc serverstats` with these names.
func (s *Server) counters(names ...string) []int {
	s.t.Helper()
	out, err := s.root.Command(s.t.Context(), "chronyc", "-h", s.Socket, "serverstats").Output()
	if err != nil {
		s.t.Fatalf("ask chronyd for its counters: %v", err)
	}
	values := map[string]string{}
	for line := range strings.Lines(string(out)) {
		name, value, _ := strings.Cut(line, ":")
		values[strings.TrimSpace(name)] = strings.TrimSpace(value)
	}
	var all []int
	for _, name := range names {
		n, err := strconv.Atoi(values[name])
		if err != nil {
			s.t.Fatalf("no counter %s: %s", name, out)
		}
		all = append(all, n)
	}
	return all
}

// RestartFrozen is Restart, but freezes chronyd as soon as it has its command
// socket, when it has answered little or nothing, until the func it returns.
func (s *Server) RestartFrozen() (thaw func()) {
	s.t.Helper()
	s.Stop()
	s.again(100*time.Microsecond, func() bool {
		_, err := os.Lstat(s.Socket)
		return err == nil && s.process.Signal(syscall.SIGSTOP) == nil
	})
	return s.Freeze()
}

// Restart stops and starts chronyd with the same files and ports.
func (s *Server) Restart() {
	s.t.Helper()
	s.Reconfigure(s.options)
}

// Reconfigure is Restart with other options, the chronyd of another release
// maybe; User stays.
func (s *Server) Reconfigure(o Options) {
	s.t.Helper()
	s.Stop()
	s.reconfigure(o)
	s.again(lookEvery, s.ready)
}

// StartAgain is Restart with the configuration as somebody may have changed it.
func (s *Server) StartAgain() {
	s.t.Helper()
	s.Stop()
	s.again(lookEvery, s.ready)
}

func (s *Server) reconfigure(o Options) {
	s.t.Helper()
	o.User = s.options.User
	if o.Release == (parts.Release{}) {
		o.Release = s.options.Release
	}
	s.root = partstest.Chrony(s.t, o.Release)
	s.options = o
	s.writeConf()
}

// again starts chronyd where it was.
func (s *Server) again(every time.Duration, ready func() bool) {
	s.t.Helper()
	var err error
	for range tries {
		if err = s.run(every, ready); err == nil {
			return
		}
	}
	s.t.Fatalf("chronyd does not start again: %v\n%s", err, s.Log())
}

// lookEvery is how often it is looked whether chronyd is ready.
const lookEvery = 10 * time.Millisecond

// run starts chronyd and waits until it is ready, looking that often.
func (s *Server) run(every time.Duration, ready func() bool) error {
	name := s.options.User
	if name == "" {
		me, err := user.Current()
		if err != nil {
			return err
		}
		name = me.Username
	}
	os.Remove(s.Socket)
	said := len(s.Log())
	ctx, cancel := context.WithCancel(context.Background())
	cmd := s.root.Command(ctx, "chronyd", "-U", "-x", "-d", "-u", name, "-f", s.Conf)
	cmd.Stdout, cmd.Stderr = &s.log, &s.log
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 20 * time.Second
	if err := cmd.Start(); err != nil {
		cancel()
		return err
	}
	s.process = cmd.Process
	loose, err := daemontest.Leash(cmd.Process.Pid)
	if err != nil {
		cmd.Process.Kill()
		cmd.Wait() // it was killed
		cancel()
		return err
	}
	exited := make(chan struct{})
	go func() { cmd.Wait(); loose(); close(exited) }()
	s.stop = func() { cancel(); <-exited }

	tick := time.NewTicker(every)
	defer tick.Stop()
	timeout := time.After(time.Minute)
	for {
		select {
		case <-exited:
			s.Stop()
			return fmt.Errorf("chronyd exited: %v", cmd.ProcessState)
		case <-timeout:
			s.Stop()
			return fmt.Errorf("chronyd is not ready in a minute")
		case <-tick.C:
			if log := s.Log()[said:]; strings.Contains(log, "Could not") && strings.Contains(log, "socket") {
				s.Stop()
				return fmt.Errorf("chronyd has no socket: %s", log)
			}
			if ready() {
				return nil
			}
		}
	}
}

// ready tells that the command socket is there and, unless chronyd is told to
// answer nobody, a query is answered. It does not query where that would use up a
// rate limit or be in vain: the command socket opens after the NTP sockets.
func (s *Server) ready() bool {
	if _, err := os.Lstat(s.Socket); err != nil {
		return false
	}
	if s.options.NoAllow || len(s.options.ExtraConf) > 0 {
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	_, err := client.Plain(ctx, s.Addr)
	return err == nil
}

// chown gives the folder to the user chronyd drops to, who reads the pair in it.
func (s *Server) chown() {
	s.t.Helper()
	if s.options.User == "" {
		return
	}
	if os.Geteuid() != 0 {
		s.t.Fatalf("this test needs root: its chronyd runs as user %s", s.options.User)
	}
	u, err := user.Lookup(s.options.User)
	if err != nil {
		s.t.Fatal(err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	for _, path := range []string{s.Dir, s.certFiles[0], s.certFiles[1]} {
		if err := os.Chown(path, uid, gid); err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s *Server) writeConf() {
	lines := []string{
		fmt.Sprintf("port %d", s.Addr.Port()),
		"local stratum 8",
		"cmdport 0",
		"bindcmdaddress " + s.Socket,
		"pidfile " + filepath.Join(s.Dir, "pid"),
		"ntsdumpdir " + s.Dir,
		"ntsserverkey " + s.certFiles[1],
		"ntsservercert " + s.certFiles[0],
		fmt.Sprintf("ntsport %d", s.ntsPort),
		"ntsrotate 0",
	}
	if !s.options.NoAllow {
		lines = append(lines, "allow 127.0.0.0/8")
	}
	lines = append(lines, s.options.ExtraConf...)
	s.write(confName, []byte(strings.Join(lines, "\n")+"\n"))
}

// writeCertificate: chronyd wants one to have NTS at all, and clients of KE trust it by Roots.
func (s *Server) writeCertificate() {
	s.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour), DNSNames: []string{Name}}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		s.t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(cert)
	if err != nil {
		s.t.Fatal(err)
	}
	s.Roots = x509.NewCertPool()
	s.Roots.AddCert(parsed)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		s.t.Fatal(err)
	}
	s.certFiles = [2]string{
		s.write("cert.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})),
		s.write("key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})),
	}
	s.CA = s.certFiles[0]
}

func (s *Server) write(name string, data []byte) string {
	s.t.Helper()
	path := filepath.Join(s.Dir, name)
	mode := os.FileMode(0o600)
	if name == confName {
		mode = 0o644
	}
	if err := os.WriteFile(path, data, mode); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// syncBuffer collects output of a process while a test reads it.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
