package task

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Socket is one that the service manager has opened for this process.
type Socket struct {
	Name string // FileDescriptorName= of its .socket unit
	FD   int    // closed on exec
}

// Inherited is what the service manager has handed over at the start.
type Inherited struct {
	Sockets []Socket // of any kind: whoever takes one looks at it first
	Problem error    // why nothing was taken though something is there; what to do is said
}

// firstFD is SD_LISTEN_FDS_START.
const firstFD = 3

// maxSockets is far beyond what any unit has.
const maxSockets = 64

// listenVariables are those of sd_listen_fds(3).
var listenVariables = []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"}

// Inherit takes over what the service manager has opened for this process (sd_listen_fds(3)), so that no child
// inherits it: the descriptors are closed on exec and the variables unset. Call it once, before anything else is
// opened or run.
func Inherit() Inherited {
	names, err := parseListen(os.Getenv, os.Getpid())
	for _, v := range listenVariables {
		_ = os.Unsetenv(v) // fails for malformed names alone
	}
	if err != nil {
		return Inherited{Problem: err}
	}
	in := Inherited{}
	for i, name := range names {
		unix.CloseOnExec(firstFD + i)
		in.Sockets = append(in.Sockets, Socket{Name: name, FD: firstFD + i})
	}
	return in
}

// unnamed is what sd_listen_fds_with_names(3) calls descriptors without LISTEN_FDNAMES.
const unnamed = "unknown"

// parseListen gives the names of the descriptors from firstFD on that env hands to the process pid. Those for another
// process, which has left its variables to us, are none.
func parseListen(env func(string) string, pid int) ([]string, error) {
	forPID, count := env("LISTEN_PID"), env("LISTEN_FDS")
	if forPID == "" || forPID != strconv.Itoa(pid) {
		return nil, nil
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 1 || n > maxSockets || count != strconv.Itoa(n) {
		return nil, fmt.Errorf("LISTEN_FDS is %.40q, not a number from 1 to %d: have systemd start the agent by its .socket units", count, maxSockets)
	}
	list := env("LISTEN_FDNAMES")
	if list == "" {
		return strings.Split(strings.Repeat(":"+unnamed, n)[1:], ":"), nil
	}
	names := strings.Split(list, ":")
	if len(names) != n {
		return nil, errors.New("LISTEN_FDNAMES has " + strconv.Itoa(len(names)) + " names for LISTEN_FDS " + count +
			": have systemd start the agent by its .socket units, or name each descriptor")
	}
	return names, nil
}
