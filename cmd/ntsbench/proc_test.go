package main

import (
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
	got, err := parseMemory([]byte("Name:\tx\nVmPeak:\t  9999 kB\nVmHWM:\t    3000 kB\nVmRSS:\t    2000 kB\nThreads:\t3\n"))
	if want := (memory{now: 2000 << 10, most: 3000 << 10}); err != nil || got != want {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
	for name, text := range map[string]string{
		"empty": "", "a kernel thread's": "Name:\tx\n", "half": "VmRSS:\t2000 kB\n",
		"another unit": "VmHWM:\t3 MB\nVmRSS:\t2 MB\n", "no number": "VmHWM:\tx kB\nVmRSS:\t2 kB\n",
	} {
		if got, err := parseMemory([]byte(text)); err == nil {
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
	me := os.Getpid()
	alone, err := memoryOf(me)
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command("cat")
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer child.Wait()
	defer in.Close()
	if _, err := in.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 1)); err != nil { // it runs
		t.Fatal(err)
	}
	pids, _, err := tree(me)
	if err != nil || !slices.Contains(pids, me) || !slices.Contains(pids, child.Process.Pid) {
		t.Errorf("%v (%v), want %d and %d in it", pids, err, me, child.Process.Pid)
	}
	of, err := memoryOf(child.Process.Pid)
	if err != nil || of.now <= 0 || of.now > of.most {
		t.Errorf("memory of the child: %+v, %v", of, err)
	}
	if both, err := memoryOf(me); err != nil || both.most < alone.most+of.most/2 {
		t.Errorf("memory of both: %+v, %v; alone %+v, child %+v", both, err, alone, of)
	}
	if n, err := openFiles(child.Process.Pid); err != nil || n < 3 {
		t.Errorf("the child has %d open files, %v", n, err)
	}
}

func TestCPUTimeGrowsWithWork(t *testing.T) {
	before, err := cpuOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for s := ""; ; s = strings.Repeat("x", 1000) + s[:min(len(s), 1000)] {
		if now, err := cpuOf(os.Getpid()); err != nil || now > before {
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
