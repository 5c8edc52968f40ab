package daemontest

import (
	"os/exec"
	"testing"
	"time"
)

func TestAProcessIsToldThatItHasSetTheClockWhichGoesOn(t *testing.T) {
	set := func() error { // without the right to it
		return WithoutClock(exec.Command("date", "-s", "2001-01-01")).Run()
	}
	if set() == nil {
		t.Fatal("the clock could be set")
	}
	if err := PretendClock(set); err != nil {
		t.Errorf("the clock could not be set in pretence: %v", err)
	}
	if now := time.Now(); now.Year() < 2026 {
		t.Fatalf("it is %v", now)
	}
	if set() == nil {
		t.Error("another thread pretends too")
	}
}
