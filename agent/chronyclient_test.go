package agent

import (
	"context"
	"encoding/csv"
	"fmt"
	"math/bits"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"ntsagent/agent/daemon/daemontest"
	debian "ntsagent/packaging/parts"
	"ntsagent/packaging/parts/partstest"
)

// chronyClient is a real chronyd that takes its time from servers with NTS on the
// loopback. It lives in a mount namespace whose hosts file knows their names.
type chronyClient struct {
	*daemontest.Process
	t      *testing.T
	root   debian.Root
	socket string
}

// source is a server as a client is told of it.
type source struct {
	name string
	ke   netip.AddrPort
	ca   string // path
	poll string // such as "minpoll 0 maxpoll 0"
}

// hostsThenExec gives a program its own /etc/hosts: HOSTS PROGRAM ARG...
const hostsThenExec = `mount --bind "$1" /etc/hosts && shift && exec "$@"`

func startChronyClient(t *testing.T, r debian.Release, servers ...source) *chronyClient {
	t.Helper()
	dir, err := os.MkdirTemp("", "client") // the names of sockets are limited to 107 octets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c := &chronyClient{Process: daemontest.NewProcess(t), t: t, root: partstest.Chrony(t, r), socket: filepath.Join(dir, "sock")}
	lines := []string{"port 0", "cmdport 0", "bindcmdaddress " + c.socket, "pidfile " + filepath.Join(dir, "pid"), "nosystemcert"}
	hosts := ""
	for _, s := range servers {
		lines = append(lines, "ntstrustedcerts "+s.ca, fmt.Sprintf("server %s nts ntsport %d iburst %s", s.name, s.ke.Port(), s.poll))
		hosts += fmt.Sprintf("%s %s\n", s.ke.Addr(), s.name)
	}
	conf, hostsFile := filepath.Join(dir, "chrony.conf"), filepath.Join(dir, "hosts")
	for path, text := range map[string]string{conf: strings.Join(lines, "\n") + "\n", hostsFile: hosts} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	err = c.Run(func(ctx context.Context) *exec.Cmd {
		daemon := c.root.Command(ctx, "chronyd", "-U", "-x", "-d", "-u", "root", "-f", conf)
		args := append([]string{"-m", "sh", "-c", hostsThenExec, "sh", hostsFile}, daemon.Args...)
		if os.Geteuid() != 0 {
			args = append([]string{"-r"}, args...)
		}
		cmd := exec.CommandContext(ctx, "unshare", args...)
		cmd.Err = daemon.Err
		return cmd
	}, func() bool { _, err := os.Lstat(c.socket); return err == nil })
	if err != nil {
		t.Fatalf("a chronyd client in a mount namespace: %v\n%s", err, c.Log())
	}
	return c
}

// authData is what `chronyc authdata` and `ntpdata` say of one server.
type authData struct {
	mode            string
	aead            int           // that cookies are for
	attempts, naks  int           // of key exchange since it last worked, in a row
	cookies, length int           // held, and of how many octets
	reached         int           // of the last eight queries
	since           time.Duration // the last key exchange
	words           string
}

// knows asks the client of its server.
func (c *chronyClient) knows(name string) (a authData, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	ask := func(what string, column int) ([]string, error) {
		out, err := c.root.Command(ctx, "chronyc", "-h", c.socket, "-N", "-c", what).Output()
		if err != nil {
			return nil, fmt.Errorf("chronyc %s: %w: %s", what, err, out)
		}
		rows, err := csv.NewReader(strings.NewReader(string(out))).ReadAll()
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			if len(row) > column && row[column] == name {
				return row, nil
			}
		}
		return nil, fmt.Errorf("chronyc %s tells nothing of %s: %s", what, name, out)
	}
	auth, err := ask("authdata", 0)
	if err != nil {
		return a, err
	}
	sources, err := ask("sources", 2)
	if err != nil {
		return a, err
	}
	if len(auth) != 10 || len(sources) < 6 {
		return a, fmt.Errorf("authdata %q, sources %q", auth, sources)
	}
	reach, _ := strconv.ParseUint(sources[5], 8, 8)
	a = authData{mode: auth[1], reached: bits.OnesCount64(reach), words: fmt.Sprint(auth, sources)}
	for column, n := range map[int]*int{3: &a.aead, 6: &a.attempts, 7: &a.naks, 8: &a.cookies, 9: &a.length} {
		*n, _ = strconv.Atoi(auth[column]) // "-": none yet
	}
	last, _ := strconv.Atoi(auth[5])
	a.since = time.Duration(last) * time.Second
	return a, nil
}

// reaches waits until the client has had so many authentic answers of its last
// eight queries.
func (c *chronyClient) reaches(name string, times int) authData {
	c.t.Helper()
	deadline := time.After(30 * time.Second)
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		a, err := c.knows(name)
		if err == nil && a.mode == "NTS" && a.reached >= times {
			return a
		}
		select {
		case <-again.C:
		case <-deadline:
			c.t.Fatalf("the client does not reach %s %d times: %+v, %v\n%s", name, times, a, err, c.Log())
		}
	}
}
