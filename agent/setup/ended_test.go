package setup

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// A zombie keeps its name, and of its network and its sockets nothing can be seen.
func TestADaemonThatHasEndedDoesNotRun(t *testing.T) {
	t.Parallel()
	program, err := exec.LookPath("true")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "ntpd")
	if err := os.Symlink(program, path); err != nil {
		t.Fatal(err)
	}
	zombie := exec.Command(path)
	if err := zombie.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = zombie.Wait() }()
	for err = unix.EINTR; errors.Is(err, unix.EINTR); { // it has ended, and nobody is told
		err = unix.Waitid(unix.P_PID, zombie.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	all, err := processes("/proc", nil)
	if err != nil || !slices.ContainsFunc(all, func(p process) bool { return p.pid == os.Getpid() }) {
		t.Fatalf("%d processes without this one: %v", len(all), err)
	}
	if i := slices.IndexFunc(all, func(p process) bool { return p.pid == zombie.Process.Pid }); i >= 0 {
		t.Errorf("%+v counts as running", all[i])
	}
}

func TestAZombieIsNotTakenForTheDaemonOfTheHost(t *testing.T) {
	h := image(t, nil)
	h.Proc = fakeProc(t, nil, fakeProcess{pid: 5, parent: 1, comm: "ntpd", argv: ""})
	write(t, filepath.Join(h.Proc, "5/stat"), "5 (ntpd) Z 1 5 5 0")
	h.Run = func(context.Context, ...string) ([]byte, error) { return nil, errors.New("no such program here") }
	if d, err := Detect(t.Context(), h, Ports{NTP: 123, KE: 4460}, Options{}); err != nil || d.Kind != None {
		t.Errorf("%+v, %v", d, err)
	}
}
