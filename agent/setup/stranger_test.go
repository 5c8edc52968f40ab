package setup

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMain makes a copy of this binary that lies in a folder of a stranger play
// that stranger's daemon.
func TestMain(m *testing.M) {
	if exe, err := os.Executable(); err == nil && exists(filepath.Join(filepath.Dir(exe), "stranger")) {
		playStranger(exe)
		return
	}
	os.Exit(m.Run())
}

// playStranger notes as whom it is asked for its version, or waits to be looked at.
func playStranger(exe string) {
	if slices.Contains(os.Args, "--version") {
		_ = os.WriteFile(filepath.Join(filepath.Dir(exe), "ran"), fmt.Appendf(nil, "as user %d: %q", os.Geteuid(), os.Args), 0o644)
		fmt.Println("chronyd (chrony) version 4.3 (+NTS)")
		return
	}
	if exists(filepath.Join(filepath.Dir(exe), "hides")) {
		_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// strangersUser is that of the stranger, who is not root.
const strangersUser = 65534

// stranger runs a program of another user with these words, who holds a UDP port.
type stranger struct {
	pid  int
	dir  string // of that user
	port uint16
}

func startStranger(t *testing.T, name string, hides bool, argv ...string) stranger {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root: it runs a program as another user")
	}
	dir, err := os.MkdirTemp("", "stranger")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	own, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{name: own, "stranger": nil}
	if hides {
		files["hides"] = nil
	}
	for file, b := range files {
		path := filepath.Join(dir, file)
		if err := os.WriteFile(path, b, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, strangersUser, strangersUser); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(dir, strangersUser, strangersUser); err != nil {
		t.Fatal(err)
	}
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	socket, err := c.File()
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	cmd := exec.Command(filepath.Join(dir, name))
	cmd.Args, cmd.ExtraFiles, cmd.Dir = argv, []*os.File{socket}, dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: strangersUser, Gid: strangersUser}}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("the stranger says %q, %v", line, err)
	}
	return stranger{cmd.Process.Pid, dir, c.LocalAddr().(*net.UDPAddr).AddrPort().Port()}
}

func TestAStrangersProcessIsNeitherRunNorBelieved(t *testing.T) {
	roots := filepath.Join(t.TempDir(), "roots.conf")
	write(t, roots, "")
	for sentence, c := range map[string]struct {
		name  string
		hides bool
		argv  []string
	}{
		"a program called chronyd":                   {"chronyd", false, []string{"/usr/sbin/chronyd", "-f", roots}},
		"one whose folder in /proc belongs to root":  {"chronyd", true, []string{"/usr/sbin/chronyd", "-f", roots}},
		"one called ntpd, of a relative path":        {"ntpd", false, []string{"ntpd", "-c", "ntp.conf"}},
		"a loader that names the program of root":    {"ld-linux-evil", false, []string{"x", "/usr/sbin/chronyd"}},
		"one that names words as our tests' loaders": {"ld-linux-evil", false, []string{"x", "--library-path", "/", "--argv0", "chronyd", "/usr/sbin/chronyd", "-f", roots}},
	} {
		t.Run(sentence, func(t *testing.T) {
			s := startStranger(t, c.name, c.hides, c.argv...)
			d, err := Detect(t.Context(), Host{Root: "/", Proc: "/proc"}, Ports{NTP: s.port, KE: 1}, Options{})
			if err != nil {
				t.Fatal(err)
			}
			if ran, err := os.ReadFile(filepath.Join(s.dir, "ran")); err == nil {
				t.Errorf("what the stranger named was run %s", ran)
			}
			if d.PID == s.pid || d.Serves || d.Stranger != "" || d.Config == roots || strings.HasPrefix(d.Config, s.dir) {
				t.Errorf("the stranger is believed: %+v", d)
			}
			if len(d.InWay) == 0 || !strings.Contains(d.InWay[0].What, fmt.Sprintf("(pid %d) of user ", s.pid)) || !strings.HasSuffix(d.InWay[0].What, ": not asked, not changed") {
				t.Errorf("the stranger is not told of: %+v", d.InWay)
			}
		})
	}
}

func TestWhoseAProcessIsDecidesHowFarItIsBelieved(t *testing.T) {
	const passwd = "root:x:0:0::/:\n_chrony:x:101:101::/:\nmallory:x:1000:1000::/:\n"
	mine := os.Geteuid()
	for sentence, c := range map[string]struct {
		p       fakeProcess
		kind    Kind
		config  string
		asked   string // the program, "" = none
		says    string
		serving bool
	}{
		"root's is believed":                          {fakeProcess{uid: 0, exe: "/opt/sbin/chronyd", argv: "chronyd|-f|/opt/chrony.conf"}, Chrony, "/opt/chrony.conf", "", "/opt/chrony.conf", true},
		"ours is believed":                            {fakeProcess{uid: mine, exe: "/opt/sbin/chronyd", argv: "chronyd|-f|/opt/chrony.conf"}, Chrony, "/opt/chrony.conf", "", "/opt/chrony.conf", true},
		"the daemon's own user names the usual place": {fakeProcess{uid: 101, exe: "/usr/sbin/chronyd", argv: "chronyd|-f|/etc/chrony.conf"}, Chrony, "/etc/chrony.conf", "", "", true},
		"the daemon's own user names none":            {fakeProcess{uid: 101, exe: "/usr/sbin/chronyd", argv: "chronyd|-F|1"}, Chrony, "/etc/chrony/chrony.conf", "", "", true},
		"the daemon's own user names another": {fakeProcess{uid: 101, exe: "/usr/sbin/chronyd", argv: "chronyd|-f|/etc/passwd"}, Chrony, "", "",
			"chronyd (pid 5) of user _chrony names /etc/passwd as its configuration: not read, not changed", true},
		"one of root that hides what it runs": {fakeProcess{uid: 0, argv: "/opt/chronyd|-f|/etc/passwd"}, Chrony, "", "", "chronyd (pid 5) of user root names /etc/passwd", true},
		"another user's":                      {fakeProcess{uid: 1000, exe: "/usr/sbin/chronyd", argv: "/usr/sbin/chronyd"}, None, "", "", "UDP port 123: chronyd (pid 5) of user mallory answers there: not asked, not changed", false},
		"another user's that hides":           {fakeProcess{uid: 1000, argv: "/usr/sbin/chronyd"}, None, "", "", "of user mallory answers there: not asked, not changed", false},
		"one of no single user":               {fakeProcess{uid: mixed, exe: "/usr/sbin/chronyd", argv: "/usr/sbin/chronyd"}, None, "", "", "of no single user answers there: not asked, not changed", false},
		"another daemon's user":               {fakeProcess{uid: 101, comm: "ntpd", exe: "/usr/sbin/ntpd", argv: "/usr/sbin/ntpd"}, None, "", "", "ntpd (pid 5) of user _chrony answers there: not asked, not changed", false},
	} {
		t.Run(sentence, func(t *testing.T) {
			h := image(t, map[string]string{"/etc/passwd": passwd, "/etc/chrony/chrony.conf": "", "/etc/chrony.conf": "", "/var/lib/chrony/": ""})
			c.p.pid, c.p.parent, c.p.socket, c.p.unit = 5, 1, 7, "chrony.service"
			if c.p.comm == "" {
				c.p.comm = "chronyd"
			}
			h.Proc = fakeProc(t, []int{7}, c.p)
			h.Run = func(_ context.Context, argv ...string) ([]byte, error) {
				t.Errorf("%q was run", argv) // the programs are not of this machine
				return nil, nil
			}
			d, err := Detect(t.Context(), h, Ports{NTP: 123, KE: 4460}, Options{})
			if err != nil {
				t.Fatal(err)
			}
			if d.Kind != c.kind || d.Config != c.config || d.Serves != c.serving || d.Stranger != "" || !strings.Contains(fmt.Sprint(d.InWay), c.says) {
				t.Errorf("%+v", d)
			}
		})
	}
}

func TestAServerWeDoNotKnowIsTakenForOneIfRootLetItHaveThePort(t *testing.T) {
	for sentence, c := range map[string]struct {
		uid  int
		free string // the first port that anybody may take
		want string
	}{
		"a user that root gave the port": {65534, "", "sntpd (pid 5)"},
		"root itself":                    {0, "0\n", "sntpd (pid 5)"},
		"where any user may have it":     {65534, "123\n", ""},
		"where only lower ones are kept": {65534, "124\n", "sntpd (pid 5)"},
	} {
		h := image(t, nil)
		h.Proc = fakeProc(t, []int{7}, fakeProcess{pid: 5, parent: 1, uid: c.uid, comm: "sntpd", argv: "sntpd", exe: "/usr/sbin/sntpd", socket: 7})
		if c.free != "" {
			dir := filepath.Join(h.Proc, "sys/net/ipv4")
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(dir, "ip_unprivileged_port_start"), c.free)
		}
		d, err := Detect(t.Context(), h, Ports{NTP: 123, KE: 4460}, Options{})
		if err != nil || d.Stranger != c.want || len(d.InWay) == 0 {
			t.Errorf("%s: %+v, %v", sentence, d, err)
		}
	}
}

func TestTheUserOfAProcessIsRead(t *testing.T) {
	for status, want := range map[string]int{
		"Name:\tx\nUid:\t7\t7\t7\t7\nGid:\t8\t8\t8\t8\n": 7, "Uid:\t0\t0\t0\t0\n": 0, "Uid:\t7\t0\t0\t0\n": mixed, "Uid:\t0\t0\t7\t0\n": mixed, "Uid:\t0\t0\t0\t7\n": mixed,
		"Uid:\t0\t0\t0\n": mixed, "Uid:\t-1\t-1\t-1\t-1\n": mixed, "": mixed,
	} {
		if got := parseUser([]byte(status)); got != want {
			t.Errorf("%q: %d, want %d", status, got, want)
		}
	}
}

// A process may run one program when it is asked whose it is, and another one when
// it is asked what it runs: its words are read from its own memory, which can wait.
func TestAProcessThatBecomesAnotherIsNotBelieved(t *testing.T) {
	for sentence, now := range map[string]fakeProcess{
		"of another user": {uid: 0, exe: "/usr/sbin/chronyd"},
		"another program": {uid: 65534, exe: "/usr/bin/sudo"},
		"the same":        {uid: 65534, exe: "/usr/sbin/chronyd"},
	} {
		now.pid = 5
		was := fakeProcess{pid: 5, uid: 65534, comm: "chronyd", exe: "/usr/sbin/chronyd"}
		dir, then := filepath.Join(fakeProc(t, nil, was), "5"), filepath.Join(fakeProc(t, nil, now), "5")
		words := filepath.Join(dir, "cmdline")
		if err := os.Remove(words); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mkfifo(words, 0o600); err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() {
			f, err := os.OpenFile(words, os.O_WRONLY, 0) // waits for the reader
			if err != nil {
				done <- err
				return
			}
			for _, name := range []string{"status", "exe"} {
				err = errors.Join(err, os.Rename(filepath.Join(then, name), filepath.Join(dir, name)))
			}
			_, writeErr := f.WriteString("chronyd\x00-f\x00/c\x00")
			done <- errors.Join(err, writeErr, f.Close())
		}()
		p, ok := readProcess(dir, 5, nil)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		want := mixed
		if sentence == "the same" {
			want = 65534
		}
		if !ok || p.uid != want || len(p.argv) != 3 {
			t.Errorf("%s: %+v", sentence, p)
		}
	}
}
