package setup

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// process is what /proc says of one.
type process struct {
	pid, parent int
	uid         int // whose it is; mixed = of no single user
	comm        string
	argv        []string // empty when it may not be read or there is none
	exe         string   // "" when it may not be read
	cwd         string   // the same
	unit        string   // of systemd; "" = none
	inodes      map[uint64]bool
	hidden      bool // its sockets may not be seen

	in  invocation
	own bool // a daemon we know, of root, of us or of that daemon's own user
}

// mixed is the user of a process that is changing its own, or that runs setuid.
const mixed = -1

// processes lists those of our network, with those of the sockets that they hold.
func processes(proc string, sockets map[uint64]bool) ([]process, error) {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil, err
	}
	var all []process
	here, _ := os.Readlink(filepath.Join(proc, "thread-self/ns/net")) // "" = not to be told
	self, _ := os.Readlink(filepath.Join(proc, "self"))
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		net, err := os.Readlink(filepath.Join(proc, e.Name(), "ns/net"))
		if err == nil && here != "" && net != here && e.Name() != self { // of threads it tells the first alone
			continue // in a network of its own, of a container perhaps
		}
		if p, ok := readProcess(filepath.Join(proc, e.Name()), pid, sockets); ok {
			all = append(all, p)
		}
	}
	return all, nil
}

// readProcess reads one; false = it has ended, or is the kernel's.
func readProcess(dir string, pid int, sockets map[uint64]bool) (process, bool) {
	p := process{pid: pid}
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return p, false
	}
	if p.comm, p.parent, err = parseStat(stat); err != nil {
		return p, false
	}
	p.uid, p.exe = whoRuns(dir)
	cmdline, _ := os.ReadFile(filepath.Join(dir, "cmdline")) // what cannot be read says nothing
	p.argv = parseCmdline(cmdline)
	p.cwd, _ = os.Readlink(filepath.Join(dir, "cwd"))
	if uid, exe := whoRuns(dir); uid != p.uid || exe != p.exe {
		p.uid = mixed // it has become another program, and the words may be of either
	}
	cgroup, _ := os.ReadFile(filepath.Join(dir, "cgroup"))
	p.unit = parseUnit(cgroup)
	if len(sockets) > 0 {
		p.inodes, p.hidden = heldSockets(filepath.Join(dir, "fd"), sockets)
	}
	return p, true
}

// whoRuns is the user of a process and the file it runs, as the kernel says. Who
// owns the folder in /proc says nothing: any process can give its own to root.
func whoRuns(dir string) (uid int, exe string) {
	status, _ := os.ReadFile(filepath.Join(dir, "status")) // what cannot be read says nothing
	exe, _ = os.Readlink(filepath.Join(dir, "exe"))
	return parseUser(status), exe
}

// parseUser reads the user of a process from its status. One that has several, as
// setuid programs do, has none for us.
func parseUser(status []byte) int {
	for line := range bytes.Lines(status) {
		ids, ok := bytes.CutPrefix(line, []byte("Uid:"))
		if !ok {
			continue
		}
		f := bytes.Fields(ids) // real, effective, saved, of the file system
		if len(f) != 4 {
			return mixed
		}
		uid, err := strconv.ParseUint(string(f[0]), 10, 31)
		if err != nil || !bytes.Equal(f[0], f[1]) || !bytes.Equal(f[0], f[2]) || !bytes.Equal(f[0], f[3]) {
			return mixed
		}
		return int(uid)
	}
	return mixed
}

// heldSockets are those of sockets that the folder of file descriptors names.
func heldSockets(dir string, sockets map[uint64]bool) (held map[uint64]bool, hidden bool) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, errors.Is(err, fs.ErrPermission)
	}
	for _, e := range entries {
		link, err := os.Readlink(filepath.Join(dir, e.Name()))
		if errors.Is(err, fs.ErrPermission) {
			return nil, true
		}
		if inode, ok := parseSocketLink(link); ok && sockets[inode] {
			if held == nil {
				held = map[uint64]bool{}
			}
			held[inode] = true
		}
	}
	return held, false
}

// parseSocketLink reads "socket:[4711]".
func parseSocketLink(link string) (inode uint64, ok bool) {
	s, ok := strings.CutPrefix(link, "socket:[")
	if !ok {
		return 0, false
	}
	s, ok = strings.CutSuffix(s, "]")
	inode, err := strconv.ParseUint(s, 10, 64)
	return inode, ok && err == nil
}

// parseStat reads the name and the parent from "PID (NAME) STATE PPID …"; a name
// may hold anything, also parentheses.
func parseStat(b []byte) (comm string, parent int, err error) {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return "", 0, errors.New("no name in parentheses")
	}
	f := bytes.Fields(b[end+1:])
	if len(f) < 2 {
		return "", 0, errors.New("no parent")
	}
	if strings.Contains("ZXx", string(f[0])) { // dead; a zombie only waits for its parent to ask
		return "", 0, errors.New("it has ended")
	}
	parent, err = strconv.Atoi(string(f[1]))
	return printable(string(b[open+1 : end])), parent, err
}

// parseCmdline splits at NUL, as the kernel joins.
func parseCmdline(b []byte) []string {
	b = bytes.TrimRight(b, "\x00")
	if len(b) == 0 {
		return nil
	}
	return strings.Split(string(b), "\x00")
}

// parseUnit finds the unit of the system in /proc/PID/cgroup, in the line of
// systemd's own hierarchy. What is below it, and below other slices, others than
// root may have named.
func parseUnit(b []byte) string {
	for line := range bytes.Lines(b) {
		f := strings.SplitN(strings.TrimSpace(string(line)), ":", 3)
		if len(f) != 3 || f[1] != "" && f[1] != "name=systemd" {
			continue
		}
		rest, ok := strings.CutPrefix(f[2], "/system.slice/")
		if !ok {
			continue
		}
		for part := range strings.SplitSeq(rest, "/") {
			if strings.HasSuffix(part, ".service") && printable(part) == part {
				return part
			}
			if !strings.HasSuffix(part, ".slice") {
				break
			}
		}
	}
	return ""
}

// printable replaces what could do harm in a terminal; anybody may name a process.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

// String is how a process is told to people.
func (p process) String() string { return fmt.Sprintf("%s (pid %d)", p.comm, p.pid) }
