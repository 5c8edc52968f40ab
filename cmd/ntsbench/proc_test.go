package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestCPUTimeIsReadFromAnyCommandName(t *testing.T) {
	for name, tt := range map[string]struct {
		line string
		want stat
	}{
		"plain":                    {"7 (chronyd) S 3 7 7 0 -1 4194560 1 2 3 4 10 20 30 40 20 0 1 0 9 9 9", stat{3, time.Second}},
		"blanks and parentheses":   {"7 (a) S 9 ) R 3 7 7 0 -1 4194560 1 2 3 4 1 0 0 0 20 0 1 0\n", stat{3, 10 * time.Millisecond}},
		"nothing used by now":      {"7 (x) S 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20", stat{1, 0}},
		"children waited for only": {"7 (x) S 1 7 7 0 -1 0 0 0 0 0 0 0 5 6 20", stat{1, 110 * time.Millisecond}},
	} {
		if got, err := parseStat([]byte(tt.line)); err != nil || got != tt.want {
			t.Errorf("%s: %v, %v, want %v", name, got, err, tt.want)
		}
	}
	for name, line := range map[string]string{
		"empty": "", "no name": "7 S 3 7", "too short": "7 (x) S 1 7 7 0 -1 0 0 0 0 0 1 2 3",
		"a parent that is no number": "7 (x) S y 7 7 0 -1 0 0 0 0 0 1 2 3 4 20", "times that are none": "7 (x) S 1 7 7 0 -1 0 0 0 0 0 1 2 - 4 20",
	} {
		if got, err := parseStat([]byte(line)); err == nil {
			t.Errorf("%s: %v was read from it", name, got)
		}
	}
}

func TestMemoryIsReadInKiB(t *testing.T) {
	got, err := parseRSS([]byte("Name:\tx\nVmPeak:\t  9999 kB\nVmHWM:\t    3000 kB\nVmRSS:\t    2000 kB\nThreads:\t3\n"))
	if err != nil || got != 2000<<10 {
		t.Errorf("%v, %v, want %v", got, err, 2000<<10)
	}
	for name, text := range map[string]string{
		"empty": "", "a kernel thread's": "Name:\tx\n", "another": "VmHWM:\t2000 kB\n",
		"another unit": "VmRSS:\t2 MB\n", "no number": "VmRSS:\tx kB\n",
	} {
		if got, err := parseRSS([]byte(text)); err == nil {
			t.Errorf("%s: %v was read from it", name, got)
		}
	}
}

func TestAFamilyIsAllThatDescends(t *testing.T) {
	parents := map[int]int{1: 0, 10: 1, 11: 10, 12: 10, 13: 11, 20: 1, 21: 20}
	got := family(10, parents)
	slices.Sort(got)
	if want := []int{10, 11, 12, 13}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := family(21, parents); !slices.Equal(got, []int{21}) {
		t.Errorf("%v has no children", got)
	}
}

func TestAProcessIsCountedWithItsLivingChildren(t *testing.T) {
	parent := exec.Command("sh", "-c", "cat; exit 0") // not cat in its place
	in, err := parent.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	defer parent.Wait()
	defer in.Close()
	if _, err := in.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 1)); err != nil { // cat runs, and both wait
		t.Fatal(err)
	}
	pids, _, err := tree(parent.Process.Pid)
	if err != nil || len(pids) != 2 || pids[0] != parent.Process.Pid {
		t.Fatalf("%v (%v), want %d and its child", pids, err, parent.Process.Pid)
	}
	for what, of := range map[string]func(int) (int, error){"memory": memoryOf, "open files": openFiles} {
		child, err := of(pids[1])
		if err != nil || child <= 0 {
			t.Errorf("%s of the child: %d, %v", what, child, err)
		}
		if both, err := of(pids[0]); err != nil || both <= child {
			t.Errorf("%s of both: %d, %v; of the child %d", what, both, err, child)
		}
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pids[0]))
	if err != nil {
		t.Fatal(err)
	}
	alone, err := parseRSS(b)
	if err != nil {
		t.Fatal(err)
	}
	if both, err := memoryOf(pids[0]); err != nil || both <= alone {
		t.Errorf("memory of both: %d, %v; of the parent alone %d", both, err, alone)
	}
}

func TestCPUTimeGrowsWithWork(t *testing.T) {
	before, err := cpuOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for s := ""; ; s = strings.Repeat("x", 1000) + s[:min(len(s), 1000)] {
		now, err := cpuOf(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		if now > before {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("10 s of work cost no CPU time")
		}
	}
}

func TestAProcessThatIsGoneIsAnError(t *testing.T) {
	const nobody = 1 << 30
	if _, err := cpuOf(nobody); err == nil {
		t.Error("CPU time of nobody")
	}
	if _, err := memoryOf(nobody); err == nil {
		t.Error("memory of nobody")
	}
	if _, err := openFiles(nobody); err == nil {
		t.Error("files of nobody")
	}
}
