package main

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"ntsagent/cmd/ntsbench/load"
)

// pretender is a contestant that needs no server: each load is noted and does work.
func pretender(name string, notes *[]string, work func(d time.Duration) load.Result) contestant {
	c := &child{name: name, pid: os.Getpid(), ended: make(chan struct{})}
	return contestant{server: server{child: c}, load: func(_ context.Context, d time.Duration) (load.Result, error) {
		*notes = append(*notes, name+" "+d.String())
		return work(d), nil
	}}
}

func done(time.Duration) load.Result { return load.Result{Done: 10} }

func TestServersTakeTurnsAndTheOrderRotates(t *testing.T) {
	var notes []string
	s := schedule{rounds: 3, measure: 2, warm: 1}
	all, err := alternate(t.Context(), s, []contestant{pretender("a", &notes, done), pretender("b", &notes, done)})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"a 1ns", "a 2ns", "b 1ns", "b 2ns", "b 1ns", "b 2ns", "a 1ns", "a 2ns", "a 1ns", "a 2ns", "b 1ns", "b 2ns"}
	if !slices.Equal(notes, want) {
		t.Errorf("%q\nwant %q", notes, want)
	}
	for i, s := range all {
		if len(s.micros) != 3 || s.result.Done != 30 {
			t.Errorf("contestant %d: %d rounds, %d operations, want 3 and 30 without the warm-up", i, len(s.micros), s.result.Done)
		}
	}
	if got := order(3, 4); !slices.Equal(got, []int{1, 2, 0}) {
		t.Errorf("round 5 of three: %v", got)
	}
}

func TestWhatCannotBeMeasuredSaysWhy(t *testing.T) {
	boom := errors.New("no cookies")
	for name, tt := range map[string]struct {
		work  func(time.Duration) load.Result
		words string
	}{
		"one failed":   {func(time.Duration) load.Result { return load.Result{Done: 9, Failed: 1, FirstErr: boom} }, "1 of 10 operations on a failed; the first: no cookies"},
		"nothing done": {func(time.Duration) load.Result { return load.Result{} }, "a did nothing"},
		"failed later": {failsAfter(3, boom), "round 2"},
	} {
		var notes []string
		_, err := alternate(t.Context(), schedule{rounds: 3, measure: 2, warm: 1}, []contestant{pretender("a", &notes, tt.work)})
		if err == nil || !strings.Contains(err.Error(), tt.words) {
			t.Errorf("%s: %v, want %q in it", name, err, tt.words)
		}
	}

	var notes []string
	gone := pretender("a", &notes, done)
	gone.log, gone.err = os.DevNull, errors.New("killed")
	close(gone.ended)
	if _, err := alternate(t.Context(), schedule{rounds: 1}, []contestant{gone}); err == nil || !strings.Contains(err.Error(), "a: killed") {
		t.Errorf("a server that is gone: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := alternate(ctx, schedule{rounds: 1}, []contestant{pretender("a", &notes, done)}); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}

func failsAfter(good int, err error) func(time.Duration) load.Result {
	return func(time.Duration) load.Result {
		if good--; good < 0 {
			return load.Result{Failed: 1, FirstErr: err}
		}
		return load.Result{Done: 1}
	}
}

func TestCPUTimeIsPerOperation(t *testing.T) {
	if got := perOperation(3*time.Millisecond, 10); got != 300 {
		t.Errorf("%v µs, want 300", got)
	}
}

func TestOnlyPicksGroupsByTheirRows(t *testing.T) {
	for word, want := range map[string]int{"": len(groups(1)), "KE X25519": 1, "X25519": 2, "query": 2, "chronyd": 3, "idle": 3, "nonsense": 0} {
		if got := selected(groups(1), word); len(got) != want {
			t.Errorf("%q picks %d groups, want %d", word, len(got), want)
		}
	}
}
