package main

import (
	"fmt"
	"os/exec"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// clockVerb is how the lab calls itself to start a daemon that must not touch
// the clock: ntslab with-the-clock-held PROGRAM ARG...
const clockVerb = "with-the-clock-held"

// settersOfTheClock are the system calls that set the clock or steer it.
var settersOfTheClock = []uint32{unix.SYS_ADJTIMEX, unix.SYS_CLOCK_ADJTIME, unix.SYS_CLOCK_SETTIME, unix.SYS_SETTIMEOFDAY}

// execWithTheClockHeld becomes the program.
func execWithTheClockHeld(args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("%s is for the lab itself: it needs a program", clockVerb)
	}
	path, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	if err := holdTheClock(); err != nil {
		return err
	}
	return fmt.Errorf("start %s: %w", path, syscall.Exec(path, args, syscall.Environ()))
}

// holdTheClock makes the calls that set the clock do nothing and say that they
// did it, for this thread and all that it starts, for good. A daemon that
// disciplines a clock then works as if it had one, whoever runs it: ntpd-rs
// does not start as a client without the right to.
func holdTheClock() error {
	program := clockFilter()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("keep a daemon from the clock: %w", err)
	}
	filter := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&filter)), 0, 0); err != nil {
		return fmt.Errorf("keep a daemon from the clock: %w; the lab needs a kernel with seccomp filters for it", err)
	}
	return nil
}

// clockFilter is the seccomp(2) program. Calls of another architecture than the
// lab's own, whose numbers mean other things, end the process.
func clockFilter() []unix.SockFilter {
	const number, arch = 0, 4 // offsets in struct seccomp_data
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	unless := func(value uint32) unix.SockFilter { // if equal the next, else the one after
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: value, Jf: 1}
	}
	end := func(action uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: action}
	}
	own := uint32(unix.AUDIT_ARCH_X86_64)
	if runtime.GOARCH == "arm64" { // the packages of parts are for these two
		own = unix.AUDIT_ARCH_AARCH64
	}
	program := []unix.SockFilter{
		load(arch), {Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: own, Jt: 1}, end(unix.SECCOMP_RET_KILL_PROCESS),
		load(number),
	}
	for _, call := range settersOfTheClock {
		program = append(program, unless(call), end(unix.SECCOMP_RET_ERRNO)) // number 0: success
	}
	return append(program, end(unix.SECCOMP_RET_ALLOW))
}
