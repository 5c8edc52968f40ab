// Package fronttest runs real web servers from Debian for tests.
package fronttest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"ntsagent/packaging/parts"
	"ntsagent/packaging/parts/partstest"
)

// FreePort is a TCP port of 127.0.0.1 that the kernel just chose; somebody may take it before a server does.
func FreePort(t testing.TB) uint16 {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort().Port()
}

// Nginx runs nginx with these server blocks until the test ends, or stop is called. It listens at the ports when it returns.
func Nginx(t testing.TB, servers string, ports ...uint16) (stop func()) {
	t.Helper()
	dir := t.TempDir()
	var temp strings.Builder
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&temp, "%s_temp_path %s/%s; ", kind, dir, kind)
	}
	conf := fmt.Sprintf("daemon off; master_process off; pid %s/pid; error_log stderr; events { worker_connections 64; }\nhttp { access_log off; %s\n%s\n}\n",
		dir, temp.String(), servers)
	return run(t, partstest.Nginx(t, parts.Debian12), ports, conf, "nginx", "-p", dir, "-e", "stderr", "-c")
}

// HAProxy is Nginx for haproxy, with these sections besides its timeouts.
func HAProxy(t testing.TB, sections string, ports ...uint16) (stop func()) {
	t.Helper()
	conf := "defaults\n mode http\n timeout connect 5s\n timeout client 5s\n timeout server 5s\n" + sections
	return run(t, partstest.HAProxy(t, parts.Debian12), ports, conf, "haproxy", "-db", "-f")
}

// run starts program, whose last argument is a file that holds conf.
func run(t testing.TB, root parts.Root, ports []uint16, conf, program string, args ...string) (stop func()) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "conf")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var log strings.Builder
	cmd := root.Command(ctx, program, append(args, file)...)
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started, ended := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread() // the server dies with the thread that started it
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // we end it
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		<-ended
		if t.Failed() {
			t.Logf("%s:\n%s", program, log.String())
		}
	})
	await(t, program, ended, ports)
	return func() { cancel(); <-ended }
}

func await(t testing.TB, program string, ended <-chan struct{}, ports []uint16) {
	t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for _, port := range ports {
		for {
			c, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
			if err == nil {
				c.Close()
				break
			}
			select {
			case <-again.C:
			case <-ended:
				t.Fatalf("%s ended", program)
			case <-deadline.C:
				t.Fatalf("%s does not listen at port %d", program, port)
			}
		}
	}
}

// Certificate makes files with a certificate that nobody trusts, and its key.
func Certificate(t testing.TB) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"shop.example"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}
