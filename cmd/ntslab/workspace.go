package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// workspace is the folder that holds everything of one lab.
type workspace struct {
	dir       string // absolute
	socketDir string // for the agent's control socket
	daemonDir string // for the daemon's command socket
	lock      *os.File
	remove    []string // at the end
}

// A unix socket's path has at most 107 octets. The longest name in a socket's
// folder is that of the agent's own, on which it hears chronyd's replies.
const longestSocketDir = 107 - len("/ntsagent.0123456789abcdef.sock")

// openWorkspace makes the folder or takes over one that an earlier lab left:
// what that lab wrote is removed. A folder with a running lab, or with files of
// someone else, is refused. dir "" is a temporary folder.
func openWorkspace(dir string) (*workspace, error) {
	w := &workspace{dir: dir}
	if err := w.open(); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

func (w *workspace) open() error {
	var err error
	if w.dir == "" {
		if w.dir, err = os.MkdirTemp("", "ntslab-"); err != nil {
			return fmt.Errorf("make a temporary folder: %w", err)
		}
		w.remove = append(w.remove, w.dir)
	}
	if w.dir, err = filepath.Abs(w.dir); err != nil {
		return fmt.Errorf("find the lab's folder: %w", err)
	}
	if strings.ContainsAny(w.dir, " \t\n\"'#!%;") {
		return fmt.Errorf("lab folder %q: a daemon's configuration cannot hold such a path; choose one without blanks and quotes", w.dir)
	}
	if err := os.MkdirAll(w.dir, 0o700); err != nil {
		return fmt.Errorf("make the lab's folder: %w", err)
	}
	if err := w.take(); err != nil {
		return err
	}
	short := w.dir
	if len(w.path("daemon")) > longestSocketDir {
		if short, err = os.MkdirTemp("", "ntslab-"); err != nil {
			return fmt.Errorf("make a folder with a short path for sockets: %w", err)
		}
		w.remove = append(w.remove, short)
	}
	w.socketDir, w.daemonDir = short, filepath.Join(short, "daemon")
	for _, d := range []string{w.path("daemon"), w.daemonDir, w.path("state"), w.path("log")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return fmt.Errorf("make the lab's folder: %w", err)
		}
	}
	return nil
}

const lockName = "lab.lock"

// take locks the folder and clears what an earlier lab left in it.
func (w *workspace) take() error {
	entries, err := os.ReadDir(w.dir)
	if err != nil {
		return fmt.Errorf("read the lab's folder: %w", err)
	}
	ours := len(entries) == 0
	for _, e := range entries {
		ours = ours || e.Name() == lockName
	}
	if !ours {
		return fmt.Errorf("lab folder %s: it holds files but no lab; choose another or an empty one", w.dir)
	}
	if w.lock, err = os.OpenFile(w.path(lockName), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return fmt.Errorf("lock the lab's folder: %w", err)
	}
	err = syscall.Flock(int(w.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return fmt.Errorf("lab folder %s: a lab is running in it; choose another or end that one", w.dir)
	}
	if err != nil {
		return fmt.Errorf("lock the lab's folder: %w", err)
	}
	for _, name := range []string{envName, "ca.pem", "acme-ca.pem", "ntsagent.yaml", "control.sock", "daemon", "state", "log"} {
		if err := os.RemoveAll(w.path(name)); err != nil {
			return fmt.Errorf("clear what an earlier lab left: %w", err)
		}
	}
	return nil
}

func (w *workspace) path(elem ...string) string {
	return filepath.Join(append([]string{w.dir}, elem...)...)
}

func (w *workspace) close() {
	for _, d := range w.remove {
		_ = os.RemoveAll(d) // temporary; nothing to do about it at the end
	}
	if w.lock != nil {
		w.lock.Close()
	}
}
