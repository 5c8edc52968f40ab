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
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ntsagent/packaging/parts"
	"ntsagent/packaging/parts/partstest"
)

// FreePort is a TCP port of 127.0.0.1 and ::1 that is kept for a server of this test until it ends: nobody but a server,
// which may take over an address that nobody listens at (SO_REUSEADDR), gets it.
func FreePort(t testing.TB) uint16 {
	t.Helper()
	for {
		port, ok := hold(t, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
		if !ok {
			t.Fatal("no port is free")
		}
		if _, ok := hold(t, &unix.SockaddrInet6{Addr: netip.IPv6Loopback().As16(), Port: int(port)}); ok {
			return port
		}
	}
}

// hold binds a socket until the test ends.
func hold(t testing.TB, at unix.Sockaddr) (port uint16, ok bool) {
	t.Helper()
	family := unix.AF_INET
	if _, is6 := at.(*unix.SockaddrInet6); is6 {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, at); err != nil {
		return 0, false
	}
	bound, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	if b, is4 := bound.(*unix.SockaddrInet4); is4 {
		return uint16(b.Port), true
	}
	return uint16(bound.(*unix.SockaddrInet6).Port), true
}

// Nginx runs nginx with these server blocks until the test ends, or stop is called. It listens everywhere it is to when it returns.
func Nginx(t testing.TB, servers string) (stop func()) {
	t.Helper()
	return NginxRouter(t, "", servers)
}

// NginxRouter is Nginx with a stream block besides.
func NginxRouter(t testing.TB, stream, servers string) (stop func()) {
	t.Helper()
	dir, root := t.TempDir(), partstest.Nginx(t, parts.Debian12)
	var temp strings.Builder
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&temp, "%s_temp_path %s/%s; ", kind, dir, kind)
	}
	module := "" // named before any block
	if stream != "" {
		module = fmt.Sprintf("load_module %s;", filepath.Join(string(root), "usr/lib/nginx/modules/ngx_stream_module.so"))
	}
	conf := fmt.Sprintf("%s daemon off; master_process off; pid %s/pid; error_log stderr; events { worker_connections 64; }\n%s\nhttp { access_log off; %s\n%s\n}\n",
		module, dir, stream, temp.String(), servers)
	return run(t, root, conf, "nginx", "-p", dir, "-e", "stderr", "-c")
}

// HAProxy is Nginx for haproxy, with these sections besides its timeouts.
func HAProxy(t testing.TB, sections string) (stop func()) {
	t.Helper()
	conf := "defaults\n mode http\n timeout connect 5s\n timeout client 5s\n timeout server 5s\n retries 0\n" + sections
	return run(t, partstest.HAProxy(t, parts.Debian12), conf, "haproxy", "-db", "-f")
}

// run starts program, whose last argument is a file that holds conf.
func run(t testing.TB, root parts.Root, conf, program string, args ...string) (stop func()) {
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
	await(t, program, ended, listeners(conf))
	return func() { cancel(); <-ended }
}

// listen is where nginx listens, or HAProxy, in their own words: an address or a port or both, and for HAProxy a list of them.
var listen = regexp.MustCompile(`(?m)(?:\blisten|^ *bind) +([^ ;\n]+)`)

// listeners are all those places, in the words of package net.
func listeners(conf string) (all []string) {
	for _, m := range listen.FindAllStringSubmatch(conf, -1) {
		for place := range strings.SplitSeq(m[1], ",") {
			host, port := "", place
			if colon := strings.LastIndexByte(place, ':'); colon >= 0 {
				host, port = strings.Trim(place[:colon], "[]"), place[colon+1:]
			}
			switch host {
			case "":
				host = "127.0.0.1"
			case "::":
				host = "::1"
			}
			all = append(all, net.JoinHostPort(host, port))
		}
	}
	return all
}

// await returns when program listens at all of those: it goes through them one by one.
func await(t testing.TB, program string, ended <-chan struct{}, places []string) {
	t.Helper()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for _, place := range places {
		for {
			c, err := net.Dial("tcp", place)
			if err == nil {
				c.Close()
				break
			}
			select {
			case <-again.C:
			case <-ended:
				t.Fatalf("%s ended", program)
			case <-deadline.C:
				t.Fatalf("%s does not listen at %s: %v", program, place, err)
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
