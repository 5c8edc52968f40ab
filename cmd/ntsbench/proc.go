package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// ticksPerSecond is USER_HZ, in which Linux tells CPU time on every platform
// that Go runs on.
const ticksPerSecond = 100

// stat is what we need of /proc/PID/stat (proc(5)).
type stat struct {
	parent int
	cpu    time.Duration // its own and that of the children it has waited for
}

// parseStat reads the one line of /proc/PID/stat. The command's name, in
// parentheses, may hold anything, parentheses and blanks included.
func parseStat(b []byte) (stat, error) {
	i := bytes.LastIndexByte(b, ')')
	if i < 0 {
		return stat{}, errors.New("process status: no command name")
	}
	f := strings.Fields(string(b[i+1:])) // from field 3, the state
	if len(f) < 15 {
		return stat{}, fmt.Errorf("process status: %d fields after the name, want 15 or more", len(f))
	}
	parent, err := strconv.Atoi(f[1])
	if err != nil {
		return stat{}, fmt.Errorf("process status: parent: %w", err)
	}
	s := stat{parent: parent}
	for _, field := range f[11:15] { // utime stime cutime cstime
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return stat{}, fmt.Errorf("process status: CPU time: %w", err)
		}
		s.cpu += time.Duration(ticks) * time.Second / ticksPerSecond
	}
	return s, nil
}

// parseRSS reads how many octets are resident, VmRSS, from /proc/PID/status.
func parseRSS(b []byte) (int, error) {
	for line := range strings.Lines(string(b)) {
		value, ok := strings.CutPrefix(line, "VmRSS:")
		if !ok {
			continue
		}
		kib, ok := strings.CutSuffix(strings.TrimSpace(value), " kB")
		v, err := strconv.Atoi(kib)
		if err != nil || !ok {
			return 0, fmt.Errorf("process status: VmRSS is %q, want a number of kB", value)
		}
		return v << 10, nil
	}
	return 0, errors.New("process status: no VmRSS")
}

// family lists root and all that descend from it.
func family(root int, parents map[int]int) []int {
	pids := []int{root}
	for i := 0; i < len(pids); i++ {
		for pid, parent := range parents {
			if parent == pids[i] {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// processes reads the status of every process there is.
func processes() (map[int]stat, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	all := map[int]stat{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue // it has ended in between
		}
		if all[pid], err = parseStat(b); err != nil {
			return nil, fmt.Errorf("process %d: %w", pid, err)
		}
	}
	return all, nil
}

// tree lists the process and its living descendants.
func tree(pid int) ([]int, map[int]stat, error) {
	all, err := processes()
	if err != nil {
		return nil, nil, err
	}
	if _, ok := all[pid]; !ok {
		return nil, nil, fmt.Errorf("process %d is gone", pid)
	}
	parents := make(map[int]int, len(all))
	for p, s := range all {
		parents[p] = s.parent
	}
	return family(pid, parents), all, nil
}

// cpuOf is the CPU time of a process and all its children, living and waited for.
func cpuOf(pid int) (time.Duration, error) {
	pids, all, err := tree(pid)
	var sum time.Duration
	for _, p := range pids {
		sum += all[p].cpu
	}
	return sum, err
}

// memoryOf is how many octets of a process and its living children are resident.
func memoryOf(pid int) (int, error) {
	pids, _, err := tree(pid)
	sum := 0
	for _, p := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p))
		if err != nil {
			return 0, fmt.Errorf("read memory of process %d: %w", p, err)
		}
		rss, err := parseRSS(b)
		if err != nil {
			return 0, fmt.Errorf("process %d: %w", p, err)
		}
		sum += rss
	}
	return sum, err
}

// openFiles is how many descriptors a process and its living children have.
func openFiles(pid int) (int, error) {
	pids, _, err := tree(pid)
	n := 0
	for _, p := range pids {
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p))
		if err != nil {
			return 0, fmt.Errorf("count open files of process %d: %w", p, err)
		}
		n += len(entries)
	}
	return n, err
}
