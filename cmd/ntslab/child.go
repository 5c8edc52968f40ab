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

// child is a process that ends with the lab, whatever becomes of the lab.
type child struct {
	name    string
	pid     int
	process *os.Process
	logPath string
	ended   chan struct{} // closed when the process is gone
	err     error         // why, once ended is closed
}

// startChild runs cmd with its output appended to logPath. It must be called on
// the main thread: Pdeathsig fires when the thread that started the child ends.
// The child gets a process group of its own, so that Ctrl-C reaches the lab
// alone and the lab decides the order.
func startChild(name string, cmd *exec.Cmd, logPath string) (*child, error) {
	logFile, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the log of %s: %w", name, err)
	}
	defer logFile.Close()
	cmd.Stdout, cmd.Stderr = logFile, logFile
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid, cmd.SysProcAttr.Pdeathsig = true, syscall.SIGKILL
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	c := &child{name: name, pid: cmd.Process.Pid, process: cmd.Process, logPath: logPath, ended: make(chan struct{})}
	go func() {
		c.err = cmd.Wait()
		close(c.ended)
	}()
	return c, nil
}

// How long a child has to end when it is asked to, and when it is killed.
const endsWithin, diesWithin = 5 * time.Second, time.Minute

// stop asks the process to end and waits; one that does not is killed. One that
// has ended is left alone: its number may be somebody else's by now.
func (c *child) stop() {
	within := endsWithin
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		select {
		case <-c.ended:
			return
		default:
		}
		_ = c.process.Signal(s) // which knows what has been waited for
		select {
		case <-c.ended:
			return
		case <-time.After(within):
		}
		within = diesWithin
	}
}

// gone returns why the process ended, with the last lines it wrote, or nil
// while it runs. No process never ends.
func (c *child) gone() error {
	if c == nil {
		return nil
	}
	select {
	case <-c.ended:
	default:
		return nil
	}
	err := c.err
	if err == nil {
		err = errors.New("it ended by itself")
	}
	return fmt.Errorf("%s: %w; %s", c.name, err, c.said("it"))
}

// said ends an error with the last lines the process wrote.
func (c *child) said(who string) string {
	if c == nil {
		return who + " has no log"
	}
	b, err := os.ReadFile(c.logPath)
	if err != nil {
		return fmt.Sprintf("what %s said is lost: %v", who, err)
	}
	return said(who, b)
}

func said(who string, output []byte) string {
	const most = 12
	text := string(bytes.TrimSpace(output))
	if text == "" {
		return who + " said nothing"
	}
	lines := strings.Split(text, "\n")
	return who + " said:\n  " + strings.Join(lines[max(0, len(lines)-most):], "\n  ")
}
