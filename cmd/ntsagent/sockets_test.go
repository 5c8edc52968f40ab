package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"ntsagent/agent/daemon/chronytest"
	"ntsagent/agent/daemon/daemontest"
	"ntsagent/agent/status"
	"ntsagent/ntske/client"
	"ntsagent/packaging/parts"
	"ntsagent/packaging/parts/partstest"
)

const socketsName = "alice.pool.test"

// host is where an agent of a test lives: its folder, program and configuration.
type host struct {
	t                    *testing.T
	dir, program, socket string
}

func newHost(t *testing.T) *host {
	t.Helper()
	dir, err := os.MkdirTemp("", "host") // the names of sockets are limited to 107 octets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	h := &host{t: t, dir: dir, program: filepath.Join(dir, "ntsagent"), socket: filepath.Join(dir, "control.sock")}
	self, err := os.Executable()
	if err == nil {
		err = copyFile(h.program, self) // which testscript takes for the program of that name
	}
	if err = errors.Join(err, os.Chmod(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	return h
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// configure writes the configuration; lines are those beside what the folder decides.
func (h *host) configure(lines string) (path string) {
	h.t.Helper()
	path = filepath.Join(h.dir, "ntsagent.yaml")
	text := fmt.Sprintf("observe: {socket: %s, self_check: 1s}\nstate_dir: %s\n%s", h.socket, filepath.Join(h.dir, "state"), lines)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		h.t.Fatal(err)
	}
	return path
}

// given is how systemd starts the agent: with these sockets as the first
// descriptors after the standard ones, by these names.
func (h *host) given(names string, sockets ...*os.File) *exec.Cmd {
	cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`, h.program, "run", "--config", filepath.Join(h.dir, "ntsagent.yaml"))
	cmd.Env = append(os.Environ(), fmt.Sprint("LISTEN_FDS=", len(sockets)), "LISTEN_FDNAMES="+names)
	cmd.ExtraFiles = sockets
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	return cmd
}

// start runs cmd until stop, which has it end as systemd does, or the end of the test.
func (h *host) start(cmd *exec.Cmd) (stop func()) {
	h.t.Helper()
	log := logOf(h.t)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	loose, err := daemontest.Leash(cmd.Process.Pid)
	if err != nil {
		h.t.Error(err)
		loose = func() {}
	}
	stop = sync.OnceFunc(func() {
		loose()
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			h.t.Errorf("the agent ended: %v\n%s", err, log)
		}
	})
	h.t.Cleanup(stop)
	return stop
}

// wait polls the status until what is wanted is there.
func (h *host) wait(what string, ok func(status.Document) bool) status.Document {
	h.t.Helper()
	deadline := time.After(90 * time.Second)
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
		d, err := status.NewClient(h.socket).Status(ctx)
		cancel()
		if err == nil && ok(d) {
			return d
		}
		select {
		case <-again.C:
		case <-deadline:
			h.t.Fatalf("waited in vain until %s; status is %+v, error %v", what, d, err)
		}
	}
}

// log shows what a process says where a test fails.
type log struct {
	mu sync.Mutex
	b  strings.Builder
}

func logOf(t *testing.T) *log {
	l := &log{}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(l.String())
		}
	})
	return l
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// hold opens a socket as a service manager does, and gives what a child inherits.
func hold(t *testing.T, network, addr string) (*os.File, netip.AddrPort) {
	t.Helper()
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f, l.Addr().(*net.TCPAddr).AddrPort()
}

// ask sends one request for / by that Host and gives the status, 0 where the
// connection ends without one.
func ask(addr netip.AddrPort, name string) (int, error) {
	c, err := net.DialTimeout("tcp", addr.String(), 20*time.Second)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", name); err != nil {
		return 0, err
	}
	b, err := io.ReadAll(c)
	code := 0
	if _, scan := fmt.Sscanf(string(b), "HTTP/1.1 %d", &code); scan != nil {
		return 0, errors.Join(err, scan)
	}
	return code, nil
}

// askUntilAnswered asks until there is a status: an agent hangs up on who takes 5 s, and a
// busy machine may stand still for as long. A port where nobody listens is told at once.
func askUntilAnswered(addr netip.AddrPort, name string) (int, error) {
	for deadline := time.Now().Add(time.Minute); ; {
		code, err := ask(addr, name)
		if code != 0 || errors.Is(err, syscall.ECONNREFUSED) || time.Now().After(deadline) {
			return code, err
		}
	}
}

// beforeAnything is a configuration whose CA, DNS and NTP server are not there: the
// challenge doors are open all the same.
const beforeAnything = `names: [` + socketsName + `]
acme: {directory: "https://127.0.0.1:1/", resolvers: ["127.0.0.1:1"], agree_to_terms: true}
daemon: {kind: gateway, address: 127.0.0.1:1, gateway: {listen: ["127.0.0.1:0"]}}
`

func open(d status.Document, service string) string {
	for _, l := range d.Listeners {
		if l.Service == service && l.Open {
			return l.Address
		}
	}
	return ""
}

func TestAnAgentWithoutPrivilegesServesPortsBelow1024ThatAreGivenToIt(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root: another user has the sockets given")
	}
	const nobody = 65534
	h := newHost(t)
	h.configure(beforeAnything)
	if err := errors.Join(os.Mkdir(filepath.Join(h.dir, "state"), 0o711), os.Chown(filepath.Join(h.dir, "state"), nobody, nobody), os.Chown(h.dir, nobody, nobody)); err != nil {
		t.Fatal(err)
	}
	network := daemontest.NewNetwork(t) // nobody else has its ports
	var stop func()
	var cmd *exec.Cmd
	network.Do(func() {
		var sockets []*os.File
		for _, addr := range []string{"[::]:80", "[::]:443", "[::]:4460"} {
			f, _ := hold(t, "tcp", addr)
			sockets = append(sockets, f)
		}
		cmd = h.given("http-01:tls-alpn-01:ntske", sockets...)
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
		stop = h.start(cmd)
	})
	h.wait("the challenge doors are open", func(d status.Document) bool {
		return open(d, status.ServiceHTTP01) == "[::]:80" && open(d, status.ServiceTLSALPN01) == "[::]:443"
	})
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	if err != nil || !strings.Contains(string(b), "\nCapEff:\t0000000000000000\n") || !strings.Contains(string(b), "\nUid:\t65534\t65534\t65534\t65534\n") {
		t.Fatalf("%v:\n%s", err, b)
	}
	network.Do(func() {
		for _, addr := range []string{"127.0.0.1:80", "[::1]:80"} {
			for name, want := range map[string]int{socketsName: 404, strings.ToUpper(socketsName) + ".:80": 404, "evil.example": 421, addr: 421} {
				if code, err := askUntilAnswered(netip.MustParseAddrPort(addr), name); err != nil || code != want {
					t.Errorf("%s, Host %s: %d, %v; want %d", addr, name, code, err, want)
				}
			}
		}
		if code, err := ask(netip.MustParseAddrPort("127.0.0.1:4460"), socketsName); code != 0 || err == nil {
			t.Errorf("the key exchange, which is not ready, says %d, %v", code, err)
		}
	})
	stop()
}

func TestASocketThatIsNoUseIsToldOfAndTheOthersServe(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.configure(strings.Replace(beforeAnything, "agree_to_terms", "challenges: [http-01], agree_to_terms", 1) + "ke: {listen: [\"127.0.0.1:0\"]}\n")
	useful, at := hold(t, "tcp4", "127.0.0.1:0")
	odd, oddAt := hold(t, "tcp4", "127.0.0.1:0")
	idle, idleAt := hold(t, "tcp4", "127.0.0.1:0")
	stop := h.start(h.given("http-01:ntsagent.socket:tls-alpn-01", useful, odd, idle))
	d := h.wait("the door is open", func(d status.Document) bool { return open(d, status.ServiceHTTP01) == at.String() })
	for _, want := range []string{oddAt.String() + " is for nothing known here", idleAt.String() + ", for which this configuration has no use"} {
		if !slices.ContainsFunc(d.Warnings, func(w string) bool { return strings.Contains(w, want) }) {
			t.Errorf("%q does not say %q", d.Warnings, want)
		}
	}
	if code, err := askUntilAnswered(at, socketsName); err != nil || code != 404 {
		t.Errorf("%d, %v", code, err)
	}
	if code, err := ask(idleAt, socketsName); code != 0 || errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("where nothing is served: %d, %v", code, err)
	}
	stop()
}

// As systemd does it, but for systemd itself, which does not run here.
func TestSystemdsOwnToolStartsTheAgent(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	conf := h.configure(strings.Replace(beforeAnything, "agree_to_terms", "challenges: [http-01], agree_to_terms", 1) + "ke: {listen: [\"127.0.0.1:0\"]}\n")
	at := netip.MustParseAddrPort("[::1]:80")
	network := daemontest.NewNetwork(t) // nobody else has that port
	log := logOf(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd := partstest.Systemd(t, parts.Debian12).Command(ctx, "systemd-socket-activate", "--listen="+at.String(), "--fdname=http-01", h.program, "run", "--config", conf)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	var err error
	network.Do(func() { err = cmd.Start() })
	if err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cancel()
	code, deadline := 0, time.Now().Add(90*time.Second)
	for {
		network.Do(func() { code, err = ask(at, socketsName) })
		if code != 0 || time.Now().After(deadline) {
			break
		}
		<-time.After(10 * time.Millisecond) // until the tool listens, and an agent that starts slowly
	}
	if err != nil || code != 404 { // whoever comes first has it started, and waits
		t.Fatalf("%d, %v", code, err)
	}
	d := h.wait("the door is open", func(d status.Document) bool { return open(d, status.ServiceHTTP01) == at.String() })
	if len(d.Warnings) > 0 {
		t.Errorf("%q", d.Warnings)
	}
}

// The same for a CA, whom the agent answers as soon as it runs.
func TestNoCAIsRefusedWhileTheAgentRestarts(t *testing.T) {
	t.Parallel()
	const restarts = 10
	h := newHost(t)
	h.configure(beforeAnything)
	web, webAt := hold(t, "tcp", "[::]:0")
	tls, _ := hold(t, "tcp", "[::]:0")
	webAt = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), webAt.Port())
	run := func() (stop func()) {
		stop = h.start(h.given("http-01:tls-alpn-01", web, tls))
		h.wait("it listens", func(d status.Document) bool { return open(d, status.ServiceHTTP01) != "" })
		return stop
	}
	stop := run()
	var answered, lost atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	defer clients.Wait()
	defer cancel()
	for range 2 {
		clients.Go(func() {
			for ctx.Err() == nil {
				switch code, err := ask(webAt, socketsName); {
				case code == 404:
					answered.Add(1)
				case errors.Is(err, syscall.ECONNREFUSED):
					t.Errorf("refused: %v", err)
					return
				default: // by an agent that is slow to start
					lost.Add(1)
					t.Log(code, err)
				}
			}
		})
	}
	for range restarts {
		stop()
		stop = run()
		if code, err := askUntilAnswered(webAt, socketsName); code != 404 {
			t.Errorf("after a restart: %d, %v", code, err)
		}
	}
	cancel()
	clients.Wait()
	t.Logf("%d restarts: %d requests answered, %d not, 0 refused", restarts, answered.Load(), lost.Load())
	if answered.Load() == 0 {
		t.Error("nobody was answered: nothing was tested")
	}
}

// The promise of socket activation: the sockets outlive the agent.
func TestNobodyIsRefusedWhileTheAgentRestarts(t *testing.T) {
	t.Parallel()
	const restarts = 5
	h := newHost(t)
	roots := daemontest.WriteCertificate(t, h.dir, socketsName)
	if err := os.Chmod(filepath.Join(h.dir, daemontest.KeyFile), 0o600); err != nil {
		t.Fatal(err)
	}
	chronyd := chronytest.Start(t, chronytest.Options{})
	h.configure(fmt.Sprintf(`names: [%s]
certificate: {source: files, cert: %s, key: %s}
daemon:
  kind: chrony
  address: %s
  chrony: {keys_file: %s, command_socket: %s, config_file: %s}
`, socketsName, filepath.Join(h.dir, daemontest.CertFile), filepath.Join(h.dir, daemontest.KeyFile), chronyd.Addr, chronyd.KeysFile, chronyd.Socket, chronyd.Conf))
	socket, at := hold(t, "tcp", "[::]:0")
	at = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), at.Port())
	listens := func(d status.Document) bool { return open(d, status.ServiceKE) != "" }
	stop := h.start(h.given("ntske", socket))
	h.wait("it listens", listens)

	var connects, served, hungUp atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	defer clients.Wait()
	defer cancel()
	exchange := func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		_, err := client.KeyExchange(ctx, client.Config{Addr: at, Name: socketsName, Roots: roots})
		return err
	}
	for range 2 {
		clients.Go(func() {
			for ctx.Err() == nil {
				connects.Add(1)
				switch err := exchange(); {
				case err == nil:
					served.Add(1)
				case errors.Is(err, syscall.ECONNREFUSED):
					t.Errorf("refused: %v", err)
					return
				default: // by an agent that is slow to start
					hungUp.Add(1)
					t.Log(err)
				}
			}
		})
	}
	for range restarts {
		stop()
		stop = h.start(h.given("ntske", socket))
		h.wait("it listens again", listens)
		err := exchange()
		for deadline := time.Now().Add(time.Minute); err != nil && !errors.Is(err, syscall.ECONNREFUSED) && time.Now().Before(deadline); {
			t.Log(err) // it hangs up on who is slow
			err = exchange()
		}
		if err != nil {
			t.Errorf("after a restart: %v", err)
		}
	}
	cancel()
	clients.Wait()
	t.Logf("%d restarts, %d connections: %d served, %d hung up on, 0 refused", restarts, connects.Load(), served.Load(), hungUp.Load())
	if served.Load() == 0 {
		t.Error("nobody was served: nothing was tested")
	}
}
