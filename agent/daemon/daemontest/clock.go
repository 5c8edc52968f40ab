package daemontest

import (
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// PretendClock calls start on a thread whose children, and theirs, may set the
// clock as they like: the kernel tells them that it was done and does nothing.
// For daemons that refuse to run without the right to. start must do what it
// starts itself, in no goroutine of its own.
func PretendClock(start func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for ever: the thread ends with this goroutine, and is never used by another
		err := pretend()
		if err == nil {
			err = start()
		}
		done <- err
	}()
	return <-done
}

// pretend gives this thread a filter of system calls, see seccomp(2), that
// answers those that change the clock with 0.
func pretend() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	calls := []uint32{unix.SYS_ADJTIMEX, unix.SYS_CLOCK_ADJTIME, unix.SYS_CLOCK_SETTIME, unix.SYS_SETTIMEOFDAY}
	filter := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}} // the number of the call is first in seccomp_data
	for i, call := range calls {
		filter = append(filter, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: call, Jt: uint8(len(calls) - i)})
	}
	filter = append(filter,
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO}) // of which the low half is the error: none
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0)
	return os.NewSyscallError("prctl seccomp", err)
}
