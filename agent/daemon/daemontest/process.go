// Package daemontest holds what tests need to run a real NTP daemon beside
// them: its process, a certificate, a network of its own. The daemons
// themselves are in ntpsectest and ntpdrstest.
package daemontest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Process is a daemon that is started, watched and ended, once or more.
type Process struct {
	t       testing.TB
	log     syncBuffer
	mu      sync.Mutex // a test may signal from another goroutine
	stop    func()
	process *os.Process
}

// NewProcess returns one that is not started and ends with the test.
func NewProcess(t testing.TB) *Process {
	p := &Process{t: t}
	if hup := make(chan os.Signal, 1); signal.Ignored(syscall.SIGHUP) { // under nohup; a daemon would ignore it as well
		signal.Notify(hup, syscall.SIGHUP)
		t.Cleanup(func() { signal.Stop(hup) })
	}
	t.Cleanup(p.Stop)
	return p
}

// startWithin bounds how long a daemon may take until it is ready.
const startWithin = time.Minute

// Run starts command and waits until ready says so. When that fails the process
// has ended.
func (p *Process) Run(command func(context.Context) *exec.Cmd, ready func() bool) error {
	ctx, cancel := context.WithCancel(context.Background())
	cmd := command(ctx)
	cmd.Stdout, cmd.Stderr = &p.log, &p.log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	if err := cmd.Start(); err != nil {
		cancel()
		return err
	}
	loose, err := Leash(cmd.Process.Pid)
	if err != nil {
		cmd.Process.Kill()
		cmd.Wait() // it was killed
		cancel()
		return err
	}
	exited := make(chan struct{})
	go func() { cmd.Wait(); loose(); close(exited) }()
	p.mu.Lock()
	p.process = cmd.Process
	p.stop = func() { cancel(); <-exited }
	p.mu.Unlock()

	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(startWithin)
	for {
		select {
		case <-exited:
			p.Stop()
			return fmt.Errorf("%s exited: %v", cmd.Path, cmd.ProcessState)
		case <-timeout:
			p.Stop()
			return errors.New("not ready in " + startWithin.String())
		case <-tick.C:
			if ready() {
				return nil
			}
		}
	}
}

// Log is what the daemon has printed.
func (p *Process) Log() string { return p.log.String() }

// Stop ends the daemon and waits for it. It may be called again.
func (p *Process) Stop() {
	p.mu.Lock()
	stop := p.stop
	p.stop, p.process = nil, nil
	p.mu.Unlock()
	if stop != nil {
		stop()
	}
}

// Running says whether it was started and not stopped.
func (p *Process) Running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.process != nil
}

// Signal sends the daemon a signal.
func (p *Process) Signal(s syscall.Signal) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.process == nil {
		p.t.Fatal("the daemon to send a signal to does not run")
	}
	if err := p.process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// Freeze stops the daemon's process, sockets open, until the func it returns or
// the end of the test.
func (p *Process) Freeze() (thaw func()) {
	p.t.Helper()
	p.Signal(syscall.SIGSTOP)
	p.mu.Lock()
	frozen := p.process
	p.mu.Unlock()
	thaw = func() { _ = frozen.Signal(syscall.SIGCONT) } // it may have ended
	p.t.Cleanup(thaw)
	return thaw
}

// WithoutClock returns cmd run without the capability to set the clock.
func WithoutClock(cmd *exec.Cmd) *exec.Cmd {
	if cmd.Err != nil || os.Geteuid() != 0 {
		return cmd // an ordinary user has no right to it
	}
	path, err := exec.LookPath("setpriv")
	if err != nil {
		cmd.Err = err
		return cmd
	}
	cmd.Args = append([]string{"setpriv", "--bounding-set=-sys_time", "--inh-caps=-sys_time", cmd.Path}, cmd.Args[1:]...)
	cmd.Path = path
	return cmd
}

// The files of WriteCertificate.
const (
	CertFile = "cert.pem"
	KeyFile  = "key.pem"
)

// WriteCertificate makes a certificate and its key in dir, readable by all, and
// returns the pool that trusts it.
func WriteCertificate(t testing.TB, dir, name string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour), DNSNames: []string{name}}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(cert)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		KeyFile: {Type: "PRIVATE KEY", Bytes: pkcs8}, CertFile: {Type: "CERTIFICATE", Bytes: cert},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	roots := x509.NewCertPool()
	roots.AddCert(parsed)
	return roots
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
