package clienttest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"math/bits"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"ntsagent/agent/daemon/daemontest"
	"ntsagent/ntske/aead"
	"ntsagent/packaging/parts"
	"ntsagent/packaging/parts/partstest"
)

// Chrony runs the release's chronyd as a client of servers, whose certificates
// those in the file ca have signed. Servers with an address are known to it alone.
func Chrony(t testing.TB, r parts.Release, ca string, servers []Server) *Client {
	t.Helper()
	root, dir := partstest.Chrony(t, r), folder(t)
	socket := filepath.Join(dir, "chronyd.sock")
	lines := []string{
		"port 0", "cmdport 0", "bindcmdaddress " + socket, "pidfile " + filepath.Join(dir, "pid"),
		"nosystemcert", "ntstrustedcerts " + ca,
	}
	var hosts []string
	for _, s := range servers {
		lines = append(lines, fmt.Sprintf("server %s nts ntsport %d iburst %s", s.Name, s.Port, cmp.Or(s.Poll, "minpoll 0 maxpoll 0")))
		if s.Addr.IsValid() {
			hosts = append(hosts, s.Addr.String()+" "+s.Name)
		}
	}
	conf := write(t, dir, "chrony.conf", lines)
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	as, wrap := me.Username, func(_ context.Context, cmd *exec.Cmd) *exec.Cmd { return cmd }
	if len(hosts) > 0 {
		file := write(t, dir, "hosts", hosts)
		as, wrap = "root", func(ctx context.Context, cmd *exec.Cmd) *exec.Cmd { return withHosts(ctx, file, cmd) }
	}
	p := daemontest.NewProcess(t)
	c := &Client{Name: "chrony " + r.Chrony, Log: p.Log}
	err = p.Run(func(ctx context.Context) *exec.Cmd {
		return wrap(ctx, daemontest.WithoutClock(root.Command(ctx, "chronyd", "-U", "-x", "-d", "-u", as, "-f", conf)))
	}, func() bool {
		_, err := os.Lstat(socket)
		return err == nil
	})
	if err != nil {
		t.Fatalf("%s as a client: %v\n%s", c.Name, err, c.Log())
	}
	ask := func(ctx context.Context, what string) ([][]string, error) {
		out, err := root.Command(ctx, "chronyc", "-h", socket, "-N", "-c", what).Output()
		if err != nil {
			return nil, fmt.Errorf("chronyc %s: %w: %s", what, err, out)
		}
		read := csv.NewReader(bytes.NewReader(out))
		read.FieldsPerRecord = -1
		return read.ReadAll()
	}
	c.Said = func(ctx context.Context) (map[string]Said, error) {
		auth, err := ask(ctx, "authdata")
		if err != nil {
			return nil, err
		}
		sources, err := ask(ctx, "sources")
		if err != nil {
			return nil, err
		}
		return chronySaid(auth, sources)
	}
	return c
}

// withHosts gives a program its own /etc/hosts, in a mount namespace.
func withHosts(ctx context.Context, hosts string, cmd *exec.Cmd) *exec.Cmd {
	args := append([]string{"-m", "sh", "-c", `mount --bind "$1" /etc/hosts && shift && exec "$@"`, "sh", hosts}, cmd.Args...)
	if os.Geteuid() != 0 {
		args = append([]string{"-r"}, args...)
	}
	in := exec.CommandContext(ctx, "unshare", args...)
	in.Err = cmd.Err
	return in
}

// chronySaid reads `chronyc -N -c authdata` (name, mode, key, type, key length,
// last, attempts, NAKs, cookies, cookie length) and `sources` (mode, state, name,
// stratum, poll, reach in octal).
func chronySaid(auth, sources [][]string) (map[string]Said, error) {
	all := map[string]Said{}
	for _, f := range auth {
		if len(f) != 10 {
			return nil, fmt.Errorf("authdata: %q", f)
		}
		typ, errType := strconv.Atoi(f[3]) // 0 until there are keys
		naks, errNAKs := strconv.Atoi(f[7])
		cookies, errCookies := strconv.Atoi(f[8])
		if err := errors.Join(errType, errNAKs, errCookies); err != nil {
			return nil, fmt.Errorf("authdata: %q: %w", f, err)
		}
		last, _ := strconv.Atoi(f[5]) // "-": none yet
		length, _ := strconv.Atoi(f[9])
		all[f[0]] = Said{AEAD: aead.ID(typ), Cookies: cookies, NAKs: naks, Length: length, Since: time.Duration(last) * time.Second}
	}
	for _, f := range sources {
		if len(f) < 6 {
			return nil, fmt.Errorf("sources: %q", f)
		}
		s := all[f[2]]
		reach, err := strconv.ParseUint(f[5], 8, 8)
		if err != nil {
			return nil, fmt.Errorf("sources: %q: %w", f, err)
		}
		s.Times, s.Words = bits.OnesCount64(reach), "reach "+f[5]
		s.Reached = s.Times > 2
		all[f[2]] = s
	}
	return all, nil
}
