package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// child is a server's process. It ends with this program, whatever becomes of it.
type child struct {
	name    string
	pid     int
	process *os.Process
	log     string
	ended   chan struct{} // closed when the process is gone
	err     error         // why, once ended is closed
}

// startChild runs cmd on the servers' CPU, with its output appended to log. It
// must be called on the main thread: Pdeathsig fires when the thread that
// started the child ends. A process group of its own keeps Ctrl-C from it, so
// that we decide the order.
func startChild(name string, c cpus, cmd *exec.Cmd, log string) (*child, error) {
	f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the log of %s: %w", name, err)
	}
	defer f.Close()
	cmd.Stdout, cmd.Stderr = f, f
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := c.onServers(cmd.Start); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &child{name: name, pid: cmd.Process.Pid, process: cmd.Process, log: log, ended: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// stop asks the process to end and waits; one that does not is killed. One that
// has ended is left alone: its number may be somebody else's by now.
func (c *child) stop() {
	for _, step := range []struct {
		sign syscall.Signal
		most time.Duration
	}{{syscall.SIGTERM, 3 * time.Second}, {syscall.SIGKILL, startMost}} {
		select {
		case <-c.ended:
			return
		default:
		}
		_ = c.process.Signal(step.sign) // which knows what has been waited for
		select {
		case <-c.ended:
			return
		case <-time.After(step.most):
		}
	}
}

// gone returns why the process ended, or nil while it runs.
func (c *child) gone() error {
	select {
	case <-c.ended:
	default:
		return nil
	}
	err := c.err
	if err == nil {
		err = errors.New("it ended by itself")
	}
	return fmt.Errorf("%s: %w%s", c.name, err, c.said())
}

// said ends an error with the last line the process wrote.
func (c *child) said() string {
	b, err := os.ReadFile(c.log)
	if err != nil {
		return ""
	}
	b = bytes.TrimSpace(b)
	line := string(b[bytes.LastIndexByte(b, '\n')+1:])
	if line == "" {
		return "; it said nothing"
	}
	return "; it said last: " + strings.ToValidUTF8(line, "?")
}
