package setup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// fakeProcess is one of a /proc that cannot be had here.
type fakeProcess struct {
	pid, parent  int
	comm, argv   string // words of argv are split at |
	exe, unit    string
	socket       int // its inode; 0 = none
	uid          int
	otherNetwork bool
}

// fakeProc makes a /proc in which the sockets with the given inodes are at UDP port 123.
func fakeProc(t *testing.T, inodes []int, all ...fakeProcess) string {
	t.Helper()
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(filepath.Join(dir, "thread-self/net"), 0o755))
	must(os.MkdirAll(filepath.Join(dir, "thread-self/ns"), 0o755))
	must(os.Symlink("net:[1]", filepath.Join(dir, "thread-self/ns/net")))
	table := "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	for _, inode := range inodes {
		table += fmt.Sprintf("  1: 00000000:007B 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 %d 2 0 0\n", inode)
	}
	write(t, filepath.Join(dir, "thread-self/net/udp"), table)
	for _, p := range all {
		d := filepath.Join(dir, fmt.Sprint(p.pid))
		must(os.MkdirAll(filepath.Join(d, "fd"), 0o755))
		must(os.MkdirAll(filepath.Join(d, "ns"), 0o755))
		write(t, filepath.Join(d, "stat"), fmt.Sprintf("%d (%s) S %d 1 1 0", p.pid, p.comm, p.parent))
		write(t, filepath.Join(d, "status"), fmt.Sprintf("Name:\t%s\nUid:\t%d\t%d\t%d\t%d\n", p.comm, p.uid, p.uid, p.uid, p.uid))
		write(t, filepath.Join(d, "cmdline"), strings.ReplaceAll(p.argv, "|", "\x00")+"\x00")
		write(t, filepath.Join(d, "cgroup"), "0::/system.slice/"+p.unit+"\n")
		network := "net:[1]"
		if p.otherNetwork {
			network = "net:[2]"
		}
		must(os.Symlink(network, filepath.Join(d, "ns/net")))
		if p.exe != "" {
			must(os.Symlink(p.exe, filepath.Join(d, "exe")))
		}
		must(os.Symlink("/dev/null", filepath.Join(d, "fd/0")))
		if p.socket != 0 {
			must(os.Symlink(fmt.Sprintf("socket:[%d]", p.socket), filepath.Join(d, "fd/3")))
		}
	}
	return dir
}

func TestTheHolderOfThePortIsFoundAmongAllProcesses(t *testing.T) {
	openntpd := []fakeProcess{
		{pid: 423, parent: 1, comm: "ntpd", argv: "/usr/sbin/ntpd|-f|/etc/openntpd/ntpd.conf", exe: "/usr/sbin/ntpd", unit: "openntpd.service"},
		{pid: 431, parent: 423, comm: "ntpd", argv: "ntpd: ntp engine||||", exe: "/usr/sbin/ntpd", unit: "openntpd.service", socket: 7},
	}
	timesyncd := fakeProcess{pid: 90, parent: 1, comm: "systemd-timesyn", argv: "/lib/systemd/systemd-timesyncd", exe: "/lib/systemd/systemd-timesyncd", unit: "systemd-timesyncd.service"}
	chronyd := fakeProcess{pid: 812, parent: 1, comm: "chronyd", argv: "/usr/sbin/chronyd|-F|1", exe: "/usr/sbin/chronyd", unit: "chrony.service", socket: 7}
	systemd := fakeProcess{pid: 1, comm: "systemd", argv: "/sbin/init", exe: "/usr/lib/systemd/systemd", socket: 7}
	contained := chronyd
	contained.otherNetwork = true
	idle := chronyd
	idle.socket = 0
	for name, c := range map[string]struct {
		inodes []int
		all    []fakeProcess
		kind   Kind
		pid    int
		config string
		mode   Mode
		says   string // in what is in the way; "" = nothing is
	}{
		"OpenNTPD's engine, with its parent's command line": {[]int{7}, openntpd, OpenNTPD, 423, "/etc/openntpd/ntpd.conf", Gateway, ""},
		"the ntpd of ntp.org":                               {[]int{7}, []fakeProcess{{pid: 5, comm: "ntpd", argv: "ntpd|-g|-c|/etc/ntp.conf", exe: "/usr/sbin/ntpd", socket: 7}}, NTPD, 5, "/etc/ntp.conf", Gateway, ""},
		"busybox":                                           {[]int{7}, []fakeProcess{{pid: 5, comm: "ntpd", argv: "ntpd|-l", exe: "/bin/busybox", socket: 7}}, Busybox, 5, "", Gateway, ""},
		"chronyd beside systemd":                            {[]int{7}, []fakeProcess{systemd, timesyncd, chronyd}, Chrony, 812, "/etc/chrony/chrony.conf", Lead, "not set up"},
		"systemd, for a service that is down":               {[]int{7}, []fakeProcess{systemd}, None, 0, "", "", "systemd for ntp.socket"},
		"timesyncd alone":                                   {nil, []fakeProcess{timesyncd}, Timesyncd, 90, "", NoMode, "serves no time"},
		"nginx":                                             {[]int{7}, []fakeProcess{{pid: 9, comm: "nginx", argv: "nginx: master", exe: "/usr/sbin/nginx", socket: 7}}, None, 0, "", "", "nginx (pid 9) answers there"},
		"nobody, and a chronyd in a container":              {nil, []fakeProcess{contained}, None, 0, "", "", ""},
		"somebody in a container":                           {[]int{7}, []fakeProcess{timesyncd, contained}, Timesyncd, 90, "", NoMode, "not to be seen here"},
		"a chronyd that serves nobody":                      {nil, []fakeProcess{timesyncd, idle}, Chrony, 812, "/etc/chrony/chrony.conf", Lead, "nothing of it listens"},
	} {
		h := image(t, map[string]string{"/etc/chrony/chrony.conf": "", "/etc/systemd/system/ntp.socket": "[Socket]\nListenDatagram=0.0.0.0:123\n", "/var/lib/chrony/": ""})
		h.Proc = fakeProc(t, c.inodes, c.all...)
		h.Run = func(context.Context, ...string) ([]byte, error) { return nil, errors.New("no such program here") }
		d, err := Detect(t.Context(), h, Ports{NTP: 123, KE: 4460}, Options{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if d.Kind != c.kind || d.PID != c.pid || d.Config != c.config || d.Mode != c.mode {
			t.Errorf("%s: %+v", name, d)
		}
		if said := fmt.Sprint(d.InWay); !strings.Contains(said, c.says) || c.says == "" && len(d.InWay) > 0 {
			t.Errorf("%s: in the way: %s", name, said)
		}
	}
}

func TestAProgramSomebodyElseCouldWriteIsNotRun(t *testing.T) {
	path := filepath.Join(t.TempDir(), "chronyd")
	write(t, path, "#!/bin/sh\n")
	for mode, want := range map[os.FileMode]bool{0o755: true, 0o775: false, 0o757: false} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		ran := false
		h := Host{Run: func(context.Context, ...string) ([]byte, error) {
			ran = true
			return []byte("chronyd (chrony) version 4.3 (+NTS)\n"), nil
		}}
		b := h.ask(t.Context(), process{exe: path, in: invocation{path: path}})
		if ran != want || (b.version == "4.3") != want {
			t.Errorf("mode %o: ran %v, %+v", mode, ran, b)
		}
	}
}

func TestOurRestartNamesWhatFailed(t *testing.T) {
	var ran []string
	h := Host{Run: func(_ context.Context, argv ...string) ([]byte, error) {
		ran = append(ran, strings.Join(argv, " "))
		if len(ran) == 2 {
			return []byte("Job failed.\nSee it.\n"), errors.New("exit status 1")
		}
		return nil, nil
	}}
	err := Restart(t.Context(), h, [][]string{{"systemctl", "daemon-reload"}, {"systemctl", "restart", "a.service"}, {"never"}})
	if err == nil || len(ran) != 2 || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "a.service") {
		t.Errorf("%v, %q", err, ran)
	}
}

// asNobody calls f with another user's access to files. It needs root.
func asNobody(t *testing.T, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root: it becomes another user")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for ever: the thread ends with this goroutine
		if _, err := unix.SetfsuidRetUid(65534); err != nil {
			t.Error(err)
			return
		}
		f()
	}()
	<-done
}

func TestWithoutRootWhoRunsIsTakenForTheHolderIfThereIsOneServer(t *testing.T) {
	chronyd := fakeProcess{pid: 812, parent: 1, comm: "chronyd", argv: "/usr/sbin/chronyd|-F|1", unit: "chrony.service", socket: 7}
	helper := fakeProcess{pid: 813, parent: 812, comm: "chronyd", argv: "/usr/sbin/chronyd|-F|1", unit: "chrony.service"}
	ntpd := fakeProcess{pid: 423, parent: 1, comm: "ntpd", argv: "/usr/sbin/ntpd|-p|/run/ntpd.pid", unit: "ntpsec.service"}
	client := fakeProcess{pid: 90, parent: 1, comm: "systemd-timesyn", argv: "/lib/systemd/systemd-timesyncd"}
	for name, c := range map[string]struct {
		all  []fakeProcess
		kind Kind
		says string // in the error
	}{
		"chronyd, its helper and a client": {[]fakeProcess{client, helper, chronyd}, Chrony, ""},
		"chronyd and ntpd":                 {[]fakeProcess{chronyd, ntpd}, None, "find who holds UDP port 123 among chronyd (pid 812), ntpd (pid 423): not permitted"},
		"a client":                         {[]fakeProcess{client}, None, "find who holds UDP port 123: not permitted"},
	} {
		h := image(t, map[string]string{"/etc/chrony/chrony.conf": "", "/var/lib/chrony/": ""})
		h.Proc = fakeProc(t, []int{7}, c.all...)
		h.Run = func(context.Context, ...string) ([]byte, error) { return nil, errors.New("no such program here") }
		if err := os.Chmod(filepath.Dir(h.Proc), 0o755); err != nil { // the test's own folder is for root alone
			t.Fatal(err)
		}
		for _, p := range c.all {
			if err := os.Chmod(filepath.Join(h.Proc, fmt.Sprint(p.pid), "fd"), 0); err != nil {
				t.Fatal(err)
			}
		}
		asNobody(t, func() {
			d, err := Detect(t.Context(), h, Ports{NTP: 123, KE: 4460}, Options{})
			if c.says != "" {
				if !errors.Is(err, ErrNotPermitted) || !strings.Contains(err.Error(), c.says) {
					t.Errorf("%s: %v, want %q", name, err, c.says)
				}
				return
			}
			if err != nil || d.Kind != c.kind || !d.Serves || !d.Assumed || d.PID != 812 {
				t.Errorf("%s: %+v, %v", name, d, err)
			}
		})
	}
}

func TestAProgramIsAskedByItsDescriptorAndWithoutTheProcessesWords(t *testing.T) {
	path := filepath.Join(t.TempDir(), "chronyd")
	write(t, path, "#!/bin/sh\necho \"chronyd (chrony) version 4.3 (+NTS) $0 $*\"; pwd; env >&2\n")
	if err := os.Chmod(path, 0o755); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(filepath.Dir(path), "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	p := process{uid: os.Geteuid(), exe: path, in: invocation{path: link, args: []string{"-f", "/c"}}}
	if b := (Host{Root: "/"}).ask(t.Context(), p); b.version != "4.3" {
		t.Errorf("%+v", b)
	}
	for sentence, change := range map[string]func(){
		"it is not the process of root or us": func() { p.uid = 12345 },
		"what it runs is hidden":              func() { p.exe = "" },
		"a path that is not absolute":         func() { p.in.path = "chronyd" },
	} {
		was := p
		change()
		if b := (Host{Root: "/"}).ask(t.Context(), p); b != (build{}) {
			t.Errorf("%s: %+v", sentence, b)
		}
		p = was
	}
	if b := (Host{Root: filepath.Dir(path)}).ask(t.Context(), p); b != (build{}) {
		t.Errorf("a program of an image was run: %+v", b)
	}
}
