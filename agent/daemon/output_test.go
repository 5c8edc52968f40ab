package daemon

import (
	"context"
	"os/exec"
	"testing"
	"time"
)

func TestAProgramThatLeavesAnotherRunningHasEndedWell(t *testing.T) {
	t.Parallel()
	if out, err := Output(exec.CommandContext(t.Context(), "sh", "-c", "sleep 5 & echo started")); err != nil {
		t.Errorf("%q, %v", out, err)
	}
}

func TestAProgramThatFailsOrIsEndedHasNotEndedWell(t *testing.T) {
	t.Parallel()
	if out, err := Output(exec.CommandContext(t.Context(), "sh", "-c", "sleep 5 & echo no; exit 3")); err == nil {
		t.Errorf("%q, %v", out, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if out, err := Output(exec.CommandContext(ctx, "sleep", "100")); err == nil {
		t.Errorf("%q, %v", out, err)
	}
}
