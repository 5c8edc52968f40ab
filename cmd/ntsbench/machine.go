package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// machine is one line about where this runs.
func machine() string {
	var u unix.Utsname
	kernel := "unknown"
	if unix.Uname(&u) == nil {
		kernel = unix.ByteSliceToString(u.Release[:])
	}
	info, _ := os.ReadFile("/proc/cpuinfo") // nothing is known without it
	cores, model := parseCPUInfo(string(info))
	return fmt.Sprintf("machine: %d cores (%s), %s, Linux %s, %s\n", cores, model, runtime.GOARCH, kernel, runtime.Version())
}

// loadAverage is the machine's over the last minute, or that nobody knows.
func loadAverage() string {
	b, _ := os.ReadFile("/proc/loadavg") // nothing is known without it
	one, _, ok := strings.Cut(string(b), " ")
	if !ok {
		return "unknown"
	}
	return one
}

// parseCPUInfo counts the processors and names the first one's model, if told.
func parseCPUInfo(s string) (cores int, model string) {
	model = "model unknown"
	for line := range strings.Lines(s) {
		name, value, _ := strings.Cut(line, ":")
		switch strings.TrimSpace(name) {
		case "processor":
			cores++
		case "model name":
			model = strings.TrimSpace(value)
		}
	}
	return cores, model
}
