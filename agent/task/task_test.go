package task

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
)

func quiet() hclog.Logger { return hclog.NewNullLogger() }

func TestAFailingTaskIsRestartedWithAGrowingJitteredDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGroup(quiet())
		var starts []time.Time
		g.Go(t.Context(), Task{Name: "flaky", Run: func(context.Context) error {
			starts = append(starts, time.Now())
			return errors.New("broken")
		}})
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if err := g.Stop(); err != nil {
			t.Fatal(err)
		}
		want := time.Second
		for i := 1; i < len(starts); i++ {
			gap := starts[i].Sub(starts[i-1])
			if gap < want*8/10 || gap > want*12/10 {
				t.Errorf("restart %d came after %s, want %s give or take a fifth", i, gap, want)
			}
			want = min(2*want, time.Minute)
		}
		if n := len(starts); n < 13 || n > 20 {
			t.Errorf("%d starts in ten minutes, want one a minute after the first minute", n)
		}
	})
}

func TestALongRunForgetsEarlierFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGroup(quiet())
		var starts []time.Time
		g.Go(t.Context(), Task{Name: "flaky", Run: func(ctx context.Context) error {
			starts = append(starts, time.Now())
			if len(starts) == 6 {
				time.Sleep(2 * time.Minute)
			}
			return errors.New("broken")
		}})
		time.Sleep(4 * time.Minute)
		synctest.Wait()
		g.Stop()
		if gap := starts[6].Sub(starts[5]) - 2*time.Minute; gap > 1200*time.Millisecond {
			t.Errorf("restart after a long run came after %s, want about 1s", gap)
		}
	})
}

func TestPolicies(t *testing.T) {
	broken := errors.New("broken")
	for _, c := range []struct {
		name   string
		policy Policy
		result func() error
		runs   int32 // in nine seconds
	}{
		{"restart after an error", Restart, func() error { return broken }, 4},
		{"restart after a panic", Restart, func() error { panic("oh") }, 4},
		{"no restart after a nil", Restart, func() error { return nil }, 1},
		{"once is once", Once, func() error { return broken }, 1},
		{"once survives a panic", Once, func() error { panic("oh") }, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := NewGroup(quiet())
				var runs atomic.Int32
				g.Go(t.Context(), Task{Name: "part", Policy: c.policy, Run: func(context.Context) error {
					runs.Add(1)
					return c.result()
				}})
				time.Sleep(9 * time.Second)
				if err := g.Stop(); err != nil {
					t.Error(err)
				}
				if got := runs.Load(); got != c.runs {
					t.Errorf("%d runs, want %d", got, c.runs)
				}
			})
		})
	}
}

func TestStopGoesBackwardsAndWaitsForEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		g := NewGroup(quiet())
		var order []string
		for _, name := range []string{"first", "second", "third"} {
			g.Go(ctx, Task{Name: name, Run: func(ctx context.Context) error {
				<-ctx.Done()
				time.Sleep(time.Second) // its last work
				order = append(order, name)
				return ctx.Err()
			}})
		}
		cancel() // the caller's context alone stops nothing
		synctest.Wait()
		if len(order) != 0 {
			t.Errorf("%v stopped before Stop", order)
		}
		start := time.Now()
		if err := g.Stop(); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(order, " "); got != "third second first" {
			t.Errorf("stopped in the order %s", got)
		}
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("took %s, want 3s: one after the other", took)
		}
		g.Go(ctx, Task{Name: "late", Run: func(context.Context) error {
			t.Error("a task was started after Stop")
			return nil
		}})
		synctest.Wait()
	})
}

func TestStopIsBoundedAndNamesWhoIsStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGroup(quiet())
		release := make(chan struct{})
		var ended atomic.Bool
		g.Go(t.Context(), Task{Name: "good", Run: func(ctx context.Context) error {
			<-ctx.Done()
			ended.Store(true)
			return nil
		}})
		g.Go(t.Context(), Task{Name: "deaf", Run: func(context.Context) error {
			<-release
			return nil
		}})
		start := time.Now()
		err := g.Stop()
		if took := time.Since(start); took != stopLimit {
			t.Errorf("Stop took %s, want %s", took, stopLimit)
		}
		if err == nil || !strings.Contains(err.Error(), "deaf") {
			t.Errorf("Stop said %v, want the task that is stuck", err)
		}
		close(release)
		synctest.Wait()
		if !ended.Load() {
			t.Error("the task before the stuck one was never told to end")
		}
	})
}

func TestARestartDelayEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGroup(quiet())
		g.Go(t.Context(), Task{Name: "flaky", Run: func(context.Context) error { return errors.New("broken") }})
		synctest.Wait()
		start := time.Now()
		if err := g.Stop(); err != nil || time.Since(start) != 0 {
			t.Errorf("Stop during the delay took %s and said %v", time.Since(start), err)
		}
	})
}
