package main

import (
	"fmt"
	"os"
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
	c, err := startChild("sleep", cpus{}, exec.Command("sleep", "60"), filepath.Join(t.TempDir(), "log"))
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

func TestAChronydWithoutOneOfItsSocketsIsNotTaken(t *testing.T) {
	for log, want := range map[string]string{
		"chronyd version 4.3 starting\n": "",
		"chronyd version 4.3 starting\nCould not open NTS-KE socket on 127.0.0.1:24461\n": "chronyd lacks a socket; it said last: Could not open NTS-KE socket on 127.0.0.1:24461",
	} {
		c := &child{name: "chronyd", log: filepath.Join(t.TempDir(), "log"), ended: make(chan struct{})}
		if err := os.WriteFile(c.log, []byte(log), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := c.hasItsPorts(); fmt.Sprint(err) != want && (err != nil || want != "") {
			t.Errorf("%v, want %q", err, want)
		}
		close(c.ended)
		if c.hasItsPorts() == nil {
			t.Error("one that has ended is taken")
		}
	}
}
