package agent

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
	"strings"
	"syscall"
	"testing"

	"github.com/hashicorp/go-hclog"

	"ntsagent/agent/config"
	"ntsagent/agent/daemon/chronytest"
	"ntsagent/agent/daemon/ntpdrstest"
	"ntsagent/agent/daemon/ntpsectest"
	"ntsagent/agent/daemon/openntpdtest"
	"ntsagent/agent/setup"
	"ntsagent/agent/status"
	debian "ntsagent/packaging/parts"
)

// machine is the one the test runs on, whose daemons are those of the parts.
var machine = setup.Host{Root: "/", Proc: "/proc", Invoked: debian.Invoked}

func TestAutoIsTheDaemonThatHoldsThePort(t *testing.T) {
	t.Parallel()
	check := func(c *choice, kind, why string) {
		t.Helper()
		if c.kind != kind || !c.found || !strings.Contains(c.why, why) || strings.Contains(c.why, "\n") {
			t.Errorf("%+v, want %s because of %q", c, kind, why)
		}
	}
	chronyd := chronytest.Start(t, chronytest.Options{})
	check(choose(t.Context(), machine, chronyd.Addr), config.KindChrony, fmt.Sprintf("holds UDP port %d", chronyd.Addr.Port()))
	rs := ntpdrstest.Start(t, ntpdrstest.Options{})
	check(choose(t.Context(), machine, rs.Addr), config.KindNTPDRS, "ntp-daemon 1.4.0 (pid ")

	ntpsec := ntpsectest.Start(t, ntpsectest.Options{})
	ntpsec.Do(func() { check(choose(t.Context(), machine, ntpsectest.Addr), config.KindNTPsec, "ntpd 1.2.2 (pid ") })
	openntpd := openntpdtest.Start(t)
	openntpd.Do(func() {
		check(choose(t.Context(), machine, openntpdtest.Addr), config.KindGateway, "holds UDP port 123; OpenNTPD has no NTS")
	})

	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	check(choose(t.Context(), machine, c.LocalAddr().(*net.UDPAddr).AddrPort()), config.KindGateway, fmt.Sprintf("(pid %d) holds UDP port ", os.Getpid()))
}

// A process of another user that is called chronyd and holds the port is no reason
// to run it, to ask it for the time, or to stop looking.
func TestAutoDoesNotFallForAnotherUsersProcess(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root: it runs a program as another user")
	}
	dir, err := os.MkdirTemp("", "stranger")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	shell, err := os.ReadFile("/bin/sh")
	path := filepath.Join(dir, "chronyd")
	if err := errors.Join(err, os.WriteFile(path, shell, 0o755), os.Chown(path, 65534, 65534), os.Chown(dir, 65534, 65534)); err != nil {
		t.Fatal(err)
	}
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	addr := c.LocalAddr().(*net.UDPAddr).AddrPort()
	socket, err := c.File()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "-c", "echo ready; read x", "sh", "-f", "/etc/passwd")
	cmd.ExtraFiles, cmd.Dir = []*os.File{socket}, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(cmd.Start(), socket.Close(), c.Close()); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	if _, err := io.ReadFull(out, make([]byte, len("ready\n"))); err != nil {
		t.Fatal(err)
	}
	h := machine
	h.Run = func(_ context.Context, argv ...string) ([]byte, error) {
		if strings.HasPrefix(argv[0], dir) {
			t.Errorf("%q was run", argv)
		}
		return nil, errors.New("nothing is run")
	}
	got := choose(t.Context(), h, addr)
	if pid := fmt.Sprintf("(pid %d)", cmd.Process.Pid); got.found || got.kind == config.KindGateway || strings.Contains(got.why, pid+" holds") || strings.Contains(got.why, pid+" runs") {
		t.Errorf("%+v", got)
	}
}

// hostWith is one with these files; those of proc are below its /proc, which
// there is if there are any.
func hostWith(t *testing.T, files, proc map[string]string) setup.Host {
	t.Helper()
	h := setup.Host{Root: t.TempDir()}
	if proc != nil {
		h.Proc = t.TempDir()
	}
	for dir, all := range map[string]map[string]string{h.Root: files, h.Proc: proc} {
		for path, text := range all {
			full := filepath.Join(dir, path)
			if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(full, []byte(text), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	return h
}

func TestAutoSaysWhatItGuessesFrom(t *testing.T) {
	const held = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n" +
		"  1: 00000000:007B 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 7 2 0 0\n"
	table, some := "thread-self/net/udp", map[string]string{"usr/sbin/chronyd": ""}
	chronyd := map[string]string{"812/stat": "812 (chronyd) S 1 1 1 0", "812/cmdline": "/usr/sbin/chronyd\x00-F\x001\x00", "812/status": "Uid:\t0\t0\t0\t0\n", table: held}
	hidden := hostWith(t, map[string]string{"usr/bin/ntp-daemon": ""}, nil)
	hidden.Proc = filepath.Join(hidden.Root, "usr/bin/ntp-daemon")
	for name, row := range map[string]struct {
		host  setup.Host
		addr  string
		kind  string
		found bool
		why   string
	}{
		"nothing": {hostWith(t, nil, nil), "127.0.0.1:123", config.KindChrony, false, "no NTP server runs here, and none that we know is installed"},
		"chrony, which has not started yet": {hostWith(t, some, map[string]string{table: ""}),
			"127.0.0.1:123", config.KindChrony, false, "chronyd is installed but does not run"},
		"ntpd-rs, which has not started yet, and a client": {
			hostWith(t, map[string]string{"usr/bin/ntp-daemon": ""}, map[string]string{"9/stat": "9 (systemd-timesyn) S 1 1 1 0", "9/cmdline": "/lib/systemd/systemd-timesyncd\x00", "9/status": "Uid:\t0\t0\t0\t0\n"}),
			"127.0.0.1:123", config.KindNTPDRS, false, "ntp-daemon is installed but does not run"},
		"OpenNTPD, which has not started yet": {hostWith(t, map[string]string{"usr/sbin/ntpd": "", "etc/openntpd/ntpd.conf": ""}, nil),
			"127.0.0.1:123", config.KindGateway, false, "ntpd is installed but does not run"},
		"a client": {hostWith(t, map[string]string{"usr/lib/systemd/systemd-timesyncd": ""}, map[string]string{"9/stat": "9 (systemd-timesyn) S 1 1 1 0", "9/cmdline": "/lib/systemd/systemd-timesyncd\x00", "9/status": "Uid:\t0\t0\t0\t0\n"}),
			"127.0.0.1:123", config.KindChrony, false, "there is only systemd-timesyncd"},
		"a daemon at another port":        {hostWith(t, some, chronyd), "127.0.0.1:1123", config.KindChrony, false, "runs, though not at UDP port 1123"},
		"a host that hides all processes": {hidden, "127.0.0.1:123", config.KindNTPDRS, false, "ntp-daemon is installed but does not run; look at the "},
		"a port held by one of a container": {hostWith(t, map[string]string{"usr/bin/ntp-daemon": ""}, map[string]string{"5/stat": "5 (sh) S 1 1 1 0", table: held}),
			"127.0.0.1:123", config.KindNTPDRS, false, "ntp-daemon is installed but does not run; UDP port 123 is held by a process that is not to be seen here"},
		"another host": {hostWith(t, some, chronyd), "192.0.2.7:123", config.KindChrony, false, "daemon.address 192.0.2.7:123 is not of this host"},
	} {
		c := choose(t.Context(), row.host, netip.MustParseAddrPort(row.addr))
		if c.kind != row.kind || c.found != row.found || !strings.Contains(c.why, row.why) || strings.Contains(c.why, "\n") {
			t.Errorf("%s: %+v, want %s because of %q", name, c, row.kind, row.why)
		}
	}
}

func TestAutoTakesWhoRunsForWhoHoldsAPortOfSomebodyHidden(t *testing.T) {
	d := setup.Daemon{Kind: setup.NTPD, Program: "ntpd", Version: "4.2.8p18", PID: 5, Serves: true, Assumed: true, Mode: setup.Gateway, Why: "it has no NTS"}
	c := chosen(d, 123)
	led := chosen(setup.Daemon{Kind: setup.NTPsec, Program: "ntpd", PID: 5, Serves: true, Mode: setup.Follow, Why: "the agent reads its keys"}, 123)
	if want := "ntpd (pid 5) holds UDP port 123"; led.kind != config.KindNTPsec || !led.found || led.why != want {
		t.Errorf("%+v, want %q, which was seen, and no more", led, want)
	}
	if want := "ntpd 4.2.8p18 (pid 5) runs and somebody holds UDP port 123, who is not shown to this user; it has no NTS"; c.kind != config.KindGateway || !c.found || c.why != want {
		t.Errorf("%+v, want %q", c, want)
	}
}

func TestAGuessIsMadeAgainAndAFindIsNot(t *testing.T) {
	rs := ntpdrstest.Start(t, ntpdrstest.Options{})
	a := &agent{Options: Options{ConfigPath: "file", Log: hclog.NewNullLogger(), Host: machine}}
	cfg := config.Default()
	cfg.Daemon.Address = rs.Addr
	for name, row := range map[string]struct {
		before *choice
		kind   string
	}{
		"the first time":          {nil, config.KindNTPDRS},
		"after a guess":           {&choice{addr: rs.Addr, kind: config.KindChrony}, config.KindNTPDRS},
		"after a find":            {&choice{addr: rs.Addr, kind: config.KindNTPsec, found: true}, "refused: ke.listen"},
		"after one at other port": {&choice{addr: netip.MustParseAddrPort("127.0.0.1:1"), kind: config.KindNTPsec, found: true}, config.KindNTPDRS},
	} {
		got, c, err := a.resolve(t.Context(), cfg, row.before)
		if wrong := (*config.Error)(nil); errors.As(err, &wrong) && "refused: "+wrong.Key == row.kind && strings.HasPrefix(err.Error(), "daemon.kind: auto is ntpsec here: file: ke.listen: ") {
			continue // a find stays, and what the file says is held against it
		}
		if err != nil || got.Daemon.Kind != row.kind || c.kind != row.kind {
			t.Errorf("%s: %+v, %v, want %s", name, c, err, row.kind)
		}
	}
	cfg.Daemon.Kind = config.KindGateway
	if got, c, err := a.resolve(t.Context(), cfg, &choice{kind: config.KindChrony, found: true}); err != nil || c != nil || got != cfg {
		t.Errorf("a kind that is named becomes %+v, %+v (%v)", got.Daemon.Kind, c, err)
	}
}

func TestAnAgentFindsItsDaemon(t *testing.T) {
	t.Parallel()
	rs := ntpdrstest.Start(t, ntpdrstest.Options{})
	lines := func(kind string) string {
		return fmt.Sprintf("daemon: {%saddress: %q, ntpd_rs: {keys_file: %s}}\n", kind, rs.Addr, rs.KeysFile)
	}
	f := newFollowing(t, rs, lines(""))
	d := f.whole()
	if d.Daemon.Kind != "ntpd-rs" || d.Daemon.Auto == nil || !d.Daemon.Auto.Found || !strings.Contains(status.Text(d), "auto: ntpd-rs on "+rs.Addr.String()) {
		t.Errorf("status %+v, %+v\n%s", d.Daemon, d.Daemon.Auto, status.Text(d))
	}
	rs.Stop() // and it stays what it was
	f.configure("1s", 7)
	if err := f.reload(); err != nil {
		t.Fatalf("reload without the daemon: %v", err)
	}
	rs.Restart()
	f.daemon = lines("kind: ntpd-rs, ")
	f.configure("1s", 8)
	if err := f.reload(); err != nil {
		t.Fatalf("reload with the kind: %v", err)
	}
	if d := f.whole(); d.Daemon.Kind != "ntpd-rs" || d.Daemon.Auto != nil {
		t.Errorf("status %+v, %+v", d.Daemon, d.Daemon.Auto)
	}
	f.daemon = lines("kind: chrony, ")
	f.configure("1s", 8)
	if err := f.reload(); err == nil || !strings.Contains(err.Error(), "daemon.kind: has changed, which takes a restart") {
		t.Errorf("reload with another kind: %v", err)
	}
}
