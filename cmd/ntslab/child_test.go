package main

import (
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
)

func TestAChildThatHasEndedIsSentNoSignal(t *testing.T) {
	c := &child{ended: make(chan struct{})}
	close(c.ended)
	c.stop() // there is no process to signal: one would panic
}

func TestAChildEndsWhenItIsStopped(t *testing.T) {
	runtime.LockOSThread() // the child dies with its thread
	defer runtime.UnlockOSThread()
	c, err := startChild("sleep", exec.Command("sleep", "60"), filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.gone(); err != nil {
		t.Errorf("it runs, and is said to be gone: %v", err)
	}
	c.stop()
	if c.gone() == nil {
		t.Error("it is not gone")
	}
	if err := syscall.Kill(c.pid, 0); err != syscall.ESRCH {
		t.Errorf("process %d after stop: %v, want %v", c.pid, err, syscall.ESRCH)
	}
	c.stop() // once more does no harm
}
