package daemontest

import (
	"fmt"
	"os/exec"
	"strconv"
	"syscall"
)

// Leash has the process killed when this one ends before loose is called, be it
// by SIGKILL: a shell waits for the end of a pipe that only we hold. The signal
// of prctl(2) PR_SET_PDEATHSIG would come as soon as the thread that started the
// process ends, and never to a chronyd that has dropped to another user.
func Leash(pid int) (loose func(), err error) {
	// It is sent a SIGHUP when we end while it is stopped, as by whoever tries us out.
	cmd := exec.Command("/bin/sh", "-c", `trap '' HUP; read -r _; kill -9 "$0"`, strconv.Itoa(pid))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // what ends our group must not end it before us
	hold, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("leash process %d: %w", pid, err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("leash process %d: %w", pid, err)
	}
	return func() {
		_ = cmd.Process.Kill() // before the pipe ends: the number may be another process's by now
		_ = cmd.Wait()         // it was killed
		_ = hold.Close()
	}, nil
}
