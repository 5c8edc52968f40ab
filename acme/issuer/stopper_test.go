package issuer_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Killed at the n-th change of a file: the kernel stops a child before each system call that changes one (seccomp(2), user
// notification) and asks its parent, who lets it go on or kills it. The child's own code knows nothing of it.

// changing are the system calls by which a Go program changes files. A write is one on a socket, too.
var changing = map[uint32]string{
	unix.SYS_OPENAT: "open", unix.SYS_MKDIRAT: "mkdir", unix.SYS_UNLINKAT: "unlink", unix.SYS_SYMLINKAT: "symlink", unix.SYS_LINKAT: "link",
	unix.SYS_RENAMEAT: "rename", unix.SYS_RENAMEAT2: "rename", unix.SYS_FCHMODAT: "chmod", unix.SYS_FCHMODAT2: "chmod", unix.SYS_FCHOWNAT: "chown",
	unix.SYS_FCHMOD: "chmod", unix.SYS_FCHOWN: "chown", unix.SYS_FSYNC: "fsync", unix.SYS_FDATASYNC: "fsync", unix.SYS_FTRUNCATE: "truncate",
	unix.SYS_WRITE: "write", unix.SYS_PWRITE64: "write",
}

// submit puts every thread of this process, now and later, under the eyes of the one at the other end of the socket.
func submit(socket int) error {
	filter := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}} // the number of the call
	for nr := range changing {
		filter = append(filter, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: nr},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF})
	}
	filter = append(filter, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("give up new privileges: %w", err)
	}
	const flags = unix.SECCOMP_FILTER_FLAG_TSYNC | unix.SECCOMP_FILTER_FLAG_TSYNC_ESRCH | unix.SECCOMP_FILTER_FLAG_NEW_LISTENER
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return fmt.Errorf("seccomp with user notification, which takes Linux 5.9 and a sandbox without one of its own: %w", errno)
	}
	return unix.Sendmsg(socket, []byte{0}, unix.UnixRights(int(fd)), nil, 0)
}

// notice is struct seccomp_notif, verdict struct seccomp_notif_resp.
type notice struct {
	id         uint64
	pid, flags uint32
	nr, arch   uint32
	ip         uint64
	args       [6]uint64
}

type verdict struct {
	id         uint64
	val        int64
	err, flags uint32
}

// watch follows a child that submits itself through socket until it is gone, and kills it at its at-th change of something
// below root; 0 lets it live. It returns the changes that were made or, for the last one, prevented.
func watch(child *os.Process, socket int, root string, at int) (changes []string, err error) {
	control := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(socket, make([]byte, 1), control, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil, err
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil || len(messages) != 1 {
		return nil, fmt.Errorf("the child has not submitted itself (%d messages, %v)", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return nil, err
	}
	listener := fds[0]
	defer unix.Close(listener)
	for {
		ready := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}
		if _, err := unix.Poll(ready, -1); errors.Is(err, unix.EINTR) {
			continue
		} else if err != nil {
			return changes, err
		}
		if ready[0].Revents&unix.POLLIN == 0 { // nobody is left to be asked about
			return changes, nil
		}
		var asked notice
		if errno := ioctl(listener, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&asked)); errno == unix.ENOENT || errno == unix.EINTR {
			continue // the call was interrupted, or its thread has died
		} else if errno != 0 {
			return changes, errno
		}
		if what := asked.change(root); what != "" {
			if changes = append(changes, what); len(changes) == at {
				return changes, child.Kill()
			}
		}
		answer := verdict{id: asked.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
		if errno := ioctl(listener, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&answer)); errno != 0 && errno != unix.ENOENT {
			return changes, errno
		}
	}
}

func ioctl(fd int, request uintptr, arg unsafe.Pointer) unix.Errno {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg))
	return errno
}

// change tells what a call is about to do to a file below root, "" when it does nothing to one.
func (n *notice) change(root string) string {
	var path string
	switch n.nr {
	case unix.SYS_OPENAT:
		if n.args[2]&(unix.O_CREAT|unix.O_WRONLY|unix.O_RDWR|unix.O_TRUNC) == 0 {
			return ""
		}
		path = n.path(n.args[0], n.args[1])
	case unix.SYS_SYMLINKAT:
		path = n.path(n.args[1], n.args[2])
	case unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2, unix.SYS_LINKAT:
		path = n.path(n.args[2], n.args[3])
	case unix.SYS_MKDIRAT, unix.SYS_UNLINKAT, unix.SYS_FCHMODAT, unix.SYS_FCHMODAT2, unix.SYS_FCHOWNAT:
		path = n.path(n.args[0], n.args[1])
	default:
		path = n.file(n.args[0])
	}
	rest, below := strings.CutPrefix(path, root+"/")
	if !below && path != root {
		return ""
	}
	return strings.TrimSpace(changing[n.nr] + " " + rest)
}

// path is where the name at address leads from the folder dir.
func (n *notice) path(dir, address uint64) string {
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", n.pid))
	if err != nil {
		return ""
	}
	defer memory.Close()
	name := make([]byte, unix.PathMax)
	read, _ := memory.ReadAt(name, int64(address)) // the end of the mapping may be nearer
	end := bytes.IndexByte(name[:read], 0)
	if end < 0 {
		return ""
	}
	if name := string(name[:end]); filepath.IsAbs(name) {
		return filepath.Clean(name)
	}
	return filepath.Join(n.file(dir), string(name[:end]))
}

// file is what an open file is called, "" when it is none.
func (n *notice) file(fd uint64) string {
	name, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", n.pid, int32(fd)))
	if err != nil || !filepath.IsAbs(name) {
		return ""
	}
	return name
}
