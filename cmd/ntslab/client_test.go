package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ntsagent/packaging/parts"
	"ntsagent/packaging/parts/partstest"
)

// chronyClient is a real chronyd that takes its time from the lab: it runs in a
// mount namespace whose /etc/hosts knows the lab's name with one address.
type chronyClient struct {
	root   parts.Root
	dir    string
	socket string
	aead   string // its IANA number: what is agreed on
	done   chan struct{}
}

// hostsThenExec gives a program its own /etc/hosts: HOSTS PROGRAM ARG...
const hostsThenExec = `mount --bind "$1" /etc/hosts && shift && exec "$@"`

// unshareArgs makes a mount namespace: as root, else in a user namespace.
func unshareArgs(program ...string) []string {
	args := []string{"-m"}
	if os.Geteuid() != 0 {
		args = []string{"-r", "-m"}
	}
	return append(args, program...)
}

// namespaces is nil where mount namespaces can be made.
var namespaces = sync.OnceValue(func() error {
	args := unshareArgs("mount", "--bind", "/dev/null", "/etc/hosts")
	if out, err := exec.Command("unshare", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("unshare %s: %w: %s", strings.Join(args, " "), err, strings.Join(strings.Fields(string(out)), " "))
	}
	return nil
})

// needNamespaces fails a test at once, with one line, where it cannot have a
// chronyd client.
func needNamespaces(t *testing.T) {
	t.Helper()
	if err := namespaces(); err != nil {
		t.Fatalf("this test needs a mount namespace for its chronyd client: run as root, or allow user namespaces: %v", err)
	}
}

func startChronyClient(t *testing.T, lab *runningLab, release parts.Release, address string) *chronyClient {
	t.Helper()
	dir, err := os.MkdirTemp("", "client-") // short: a socket lives in it
	if err != nil {
		t.Fatal(err)
	}
	_, kePort, _ := strings.Cut(lab.env["KE"], ":")
	c := &chronyClient{aead: "15", root: partstest.Chrony(t, release), dir: dir, socket: filepath.Join(dir, "run/chronyd.sock"), done: make(chan struct{})}
	files := map[string]string{
		"hosts": fmt.Sprintf("%s %s\n", address, lab.env["NAME"]),
		"chrony.conf": fmt.Sprintf(`server %s nts ntsport %s iburst minpoll 0 maxpoll 1
ntstrustedcerts %s
port 0
cmdport 0
bindcmdaddress %s
pidfile %s
`, lab.env["NAME"], kePort, lab.env["CA"], c.socket, filepath.Join(dir, "chronyd.pid")),
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// Inside a user namespace we are root too, so chronyd may stay what it is.
	daemon := c.root.Command(context.Background(), "chronyd", "-U", "-x", "-d", "-u", "root", "-f", filepath.Join(dir, "chrony.conf"))
	if daemon.Err != nil {
		t.Fatal(daemon.Err)
	}
	cmd := exec.Command("unshare", unshareArgs(append([]string{"sh", "-c", hostsThenExec, "sh", filepath.Join(dir, "hosts")}, daemon.Args...)...)...)
	out := &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} // a test run that is cut off leaves nothing behind
	if err := cmd.Start(); err != nil {
		t.Fatalf("start a chronyd client in a mount namespace: %v", err)
	}
	go func() {
		_ = cmd.Wait() // how it ended is in out
		close(c.done)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // gone already if it failed
		<-c.done
		if t.Failed() {
			t.Logf("the chronyd client at %s said:\n%s", address, out)
		}
		os.RemoveAll(dir)
	})
	return c
}

// chronyc asks the client; with -c the answer is comma-separated.
func (c *chronyClient) chronyc(ctx context.Context, args ...string) (string, error) {
	select {
	case <-c.done:
		return "", inVain{errors.New("the chronyd client is gone")}
	default:
	}
	out, err := c.root.Command(ctx, "chronyc", append([]string{"-h", c.socket, "-n"}, args...)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("chronyc %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out)), nil
}

// clientPatience is for a client that missed the server once or twice: it waits 16 s then, and 32 s.
const clientPatience = 2 * time.Minute

// authenticated is nil when the client has a full set of cookies, no refusal,
// and at least this many valid, authenticated answers from the address and port.
func (c *chronyClient) authenticated(ctx context.Context, address, ntpPort string, answers int) error {
	auth, err := c.chronyc(ctx, "-c", "authdata")
	if err != nil {
		return err
	}
	// Name/IP, Mode, KeyID, Type, KLen, Last, Atmp, NAK, Cook, CLen
	f := strings.Split(auth, ",")
	if len(f) != 10 || f[0] != address || f[1] != "NTS" || f[3] != c.aead || f[6] != "0" || f[7] != "0" || f[8] != "8" {
		return fmt.Errorf("authdata is %s", auth)
	}
	data, err := c.chronyc(ctx, "ntpdata")
	if err != nil {
		return err
	}
	values := map[string]string{}
	for line := range strings.Lines(data) {
		key, value, _ := strings.Cut(line, ":")
		values[strings.TrimSpace(key)] = strings.TrimSpace(value)
	}
	var valid int
	if _, err := fmt.Sscan(values["Total valid RX"], &valid); err != nil || valid < answers || values["Authenticated"] != "Yes" ||
		!strings.HasPrefix(values["Remote address"], address+" ") || values["Remote port"] != ntpPort {
		return fmt.Errorf("ntpdata is\n%s", data)
	}
	return nil
}
