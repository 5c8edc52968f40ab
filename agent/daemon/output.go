package daemon

import (
	"errors"
	"os/exec"
	"time"
)

// MaxOutput is how many octets Output keeps.
const MaxOutput = 64 << 10

// Output runs a program with nothing of ours but what cmd names, its arguments
// above all, and returns the beginning of what it prints. It waits for the program,
// and not for one that this has left running with the same output, as what restarts
// a daemon may.
func Output(cmd *exec.Cmd) ([]byte, error) {
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	cmd.WaitDelay = time.Second
	var out limited
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) { // instead of nil
		err = nil
	}
	return out.b, err
}

// limited keeps the beginning of what is written.
type limited struct{ b []byte }

func (l *limited) Write(p []byte) (int, error) {
	l.b = append(l.b, p[:min(len(p), MaxOutput-len(l.b))]...)
	return len(p), nil
}
