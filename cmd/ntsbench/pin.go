package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// pinEnv tells the program that it has been started again, pinned.
const pinEnv = "NTSBENCH_CPUS"

// cpus says who runs where. Without two CPUs nobody is pinned.
type cpus struct {
	generator, servers int
	pinned             bool
}

// choose takes the first and the last of the CPUs we may use: where two are one
// core's threads they are mostly neighbours.
func choose(allowed []int) cpus {
	if len(allowed) < 2 {
		return cpus{}
	}
	return cpus{generator: allowed[0], servers: allowed[len(allowed)-1], pinned: true}
}

// String is for pinEnv.
func (c cpus) String() string { return fmt.Sprintf("%d,%d,%t", c.generator, c.servers, c.pinned) }

func parseCPUs(s string) (cpus, error) {
	var c cpus
	if _, err := fmt.Sscanf(s, "%d,%d,%t", &c.generator, &c.servers, &c.pinned); err != nil {
		return cpus{}, fmt.Errorf("%s=%q: %w", pinEnv, s, err)
	}
	return c, nil
}

// text says it to the reader of a table.
func (c cpus) text() string {
	if !c.pinned {
		return "not pinned, for want of a second CPU"
	}
	return fmt.Sprintf("servers on CPU %d, generator on CPU %d", c.servers, c.generator)
}

// pin puts this program on the generator's CPU by starting it again there, so
// that its runtime counts one CPU. It does not return the first time, unless
// there is nothing to pin.
func pin() (cpus, error) {
	if s, ok := os.LookupEnv(pinEnv); ok {
		return parseCPUs(s)
	}
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return cpus{}, fmt.Errorf("ask which CPUs to use: %w", err)
	}
	c := choose(members(&set))
	if !c.pinned {
		return c, nil
	}
	self, err := os.Executable()
	if err != nil {
		return cpus{}, fmt.Errorf("start again on CPU %d: %w", c.generator, err)
	}
	runtime.LockOSThread() // the new program inherits this thread's CPUs
	if err := setCPU(c.generator); err != nil {
		return cpus{}, err
	}
	err = syscall.Exec(self, os.Args, append(os.Environ(), pinEnv+"="+c.String()))
	return cpus{}, fmt.Errorf("start again on CPU %d: %w", c.generator, err)
}

func members(set *unix.CPUSet) []int {
	var list []int
	for cpu := range len(set) * strconv.IntSize {
		if set.IsSet(cpu) {
			list = append(list, cpu)
		}
	}
	return list
}

// setCPU moves the calling thread, and the processes it starts from now on.
func setCPU(cpu int) error {
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("move to CPU %d: %w", cpu, err)
	}
	return nil
}

// onServers calls start, which starts a server, while the calling thread is on
// the servers' CPU. It must be the main thread, locked.
func (c cpus) onServers(start func() error) error {
	if !c.pinned {
		return start()
	}
	if err := setCPU(c.servers); err != nil {
		return err
	}
	err := start()
	if back := setCPU(c.generator); err == nil {
		err = back
	}
	return err
}

// raiseFiles lets this program and what it starts have as many open files as
// the hard limit allows, which it returns.
func raiseFiles() (int, error) {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0, fmt.Errorf("ask for the limit of open files: %w", err)
	}
	l.Cur = l.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0, fmt.Errorf("raise the limit of open files to %d: %w", l.Max, err)
	}
	return int(min(l.Max, 1<<30)), nil
}
