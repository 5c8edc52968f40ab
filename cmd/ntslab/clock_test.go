package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// tryVerb has this program try the calls that set a clock, in ways that fail and
// change nothing where they are not held.
const tryVerb = "try-the-clock"

func tryTheClock() {
	var all unix.Timex // Modes 0: it is only read
	_, err := unix.Adjtimex(&all)
	fmt.Println("adjtimex", all.Tick == 0, err)
	var noTime unix.Timespec
	fmt.Println("clock_settime", unix.ClockSettime(unix.CLOCK_MONOTONIC, &noTime)) // which nobody can set
	_, err = unix.ClockAdjtime(unix.CLOCK_MONOTONIC, &all)
	fmt.Println("clock_adjtime", err)
	bad := unix.Timeval{Usec: 2_000_000}
	_, _, errno := unix.Syscall(unix.SYS_SETTIMEOFDAY, uintptr(unsafe.Pointer(&bad)), 0, 0)
	fmt.Println("settimeofday", errno == 0)
}

func TestADaemonIsKeptFromTheClock(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	held := "adjtimex true <nil>\nclock_settime <nil>\nclock_adjtime <nil>\nsettimeofday true\n"
	out, err := exec.CommandContext(t.Context(), self, clockVerb, self, tryVerb).CombinedOutput()
	if err != nil || string(out) != held {
		t.Errorf("held, it says (%v)\n%s, want\n%s", err, out, held)
	}
	if out, err = exec.CommandContext(t.Context(), self, tryVerb).CombinedOutput(); err != nil || strings.Contains(string(out), "clock_settime <nil>") {
		t.Errorf("not held, this test would see no difference (%v):\n%s", err, out)
	}
}

func TestTheLabsOwnVerbsNeedAProgram(t *testing.T) {
	for _, verb := range []string{clockVerb, networkVerb} {
		var out, errs strings.Builder
		if code := run(t.Context(), []string{verb}, &out, &errs); code != 1 || !strings.Contains(errs.String(), "it needs a program") {
			t.Errorf("%s: exit code %d, said %q", verb, code, errs.String())
		}
	}
}
