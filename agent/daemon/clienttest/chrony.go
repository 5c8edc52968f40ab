package clienttest

import (
	"bytes"
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

	"ntsagent/agent/daemon/daemontest"
	"ntsagent/ntske/aead"
	"ntsagent/packaging/parts"
	"ntsagent/packaging/parts/partstest"
)

// Chrony runs the release's chronyd as a client of servers, whose certificates
// those in the file ca have signed.
func Chrony(t testing.TB, r parts.Release, ca string, servers []Server) *Client {
	t.Helper()
	root, dir := partstest.Chrony(t, r), folder(t)
	socket := filepath.Join(dir, "chronyd.sock")
	lines := []string{
		"port 0", "cmdport 0", "bindcmdaddress " + socket, "pidfile " + filepath.Join(dir, "pid"),
		"nosystemcert", "ntstrustedcerts " + ca,
	}
	for _, s := range servers {
		lines = append(lines, fmt.Sprintf("server %s nts ntsport %d iburst minpoll 0 maxpoll 0", s.Name, s.Port))
	}
	conf := write(t, dir, "chrony.conf", lines)
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	p := daemontest.NewProcess(t)
	c := &Client{Name: "chrony " + r.Chrony, Log: p.Log}
	err = p.Run(func(ctx context.Context) *exec.Cmd {
		return daemontest.WithoutClock(root.Command(ctx, "chronyd", "-U", "-x", "-d", "-u", me.Username, "-f", conf))
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
		all[f[0]] = Said{AEAD: aead.ID(typ), Cookies: cookies, NAKs: naks}
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
		s.Reached, s.Words = bits.OnesCount64(reach) > 2, "reach "+f[5]
		all[f[2]] = s
	}
	return all, nil
}
