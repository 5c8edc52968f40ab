package feed

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ntpd is the program that is told: SIGHUP ends most others.
const ntpd = "ntpd"

// hangUp sends SIGHUP to the ntpd whose number is in the file. It is sure to be
// an ntpd: the process is held by a descriptor before it is looked at, so that
// another one with its number cannot take its place meanwhile.
func hangUp(pidFile string) error {
	what := "send SIGHUP to ntpd"
	gone := func(err error) error {
		return &Failure{What: what, Kind: ErrNotThere, Err: err,
			Fix: "start ntpd, and see that pid_file in certificate.export is the file of its option -p; the files are written"}
	}
	b, err := readUpTo(pidFile, 32)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return gone(err)
	case err != nil:
		return fmt.Errorf("%s: read its number: %w", what, err)
	}
	pid, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 31)
	if err != nil || pid < 2 {
		return gone(fmt.Errorf("%s holds no number of a process", pidFile))
	}
	fd, err := unix.PidfdOpen(int(pid), 0)
	if errors.Is(err, unix.ESRCH) {
		return gone(fmt.Errorf("process %d of %s has ended", pid, pidFile))
	}
	if err != nil {
		return fmt.Errorf("%s: process %d: %w", what, pid, err)
	}
	defer unix.Close(fd)
	if err := isProgram(int(pid), ntpd); err != nil {
		return gone(fmt.Errorf("process %d of %s: %w", pid, pidFile, err))
	}
	// Had it ended before it was looked at, no signal would reach it.
	switch err := unix.PidfdSendSignal(fd, unix.SIGHUP, nil, 0); {
	case errors.Is(err, unix.ESRCH):
		return gone(fmt.Errorf("process %d of %s has ended", pid, pidFile))
	case errors.Is(err, unix.EPERM):
		return &Failure{What: what, Kind: ErrNotPermitted, Err: err, Fix: "run `ntsagent feed certificate` as root; the files are written"}
	case err != nil:
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// ErrNotThere says that ntpd is not.
var ErrNotThere = errors.New("ntpd is not there")

// isProgram tells by its name, or by its arguments where a loader runs it, that a
// process runs the program. Its exe may be closed to all but root.
func isProgram(pid int, name string) error {
	dir := fmt.Sprintf("/proc/%d", pid)
	comm, err := os.ReadFile(filepath.Join(dir, "comm"))
	if err != nil {
		return err
	}
	comm = bytes.TrimSpace(comm)
	if string(comm) == name {
		return nil
	}
	if bytes.HasPrefix(comm, []byte("ld-linux")) {
		argv, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil {
			return err
		}
		for arg := range bytes.SplitSeq(argv, []byte{0}) {
			if filepath.IsAbs(string(arg)) && filepath.Base(string(arg)) == name {
				return nil
			}
		}
	}
	return fmt.Errorf("it is %q, not %s", comm, name)
}
