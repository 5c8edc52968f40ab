package main

import (
	"context"
	"errors"
	"fmt"
	"math"
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
	return contestant{server: server{child: c}, load: func(_ context.Context, d time.Duration, begin func()) (load.Result, error) {
		begin()
		*notes = append(*notes, name+" "+d.String())
		return work(d), nil
	}}
}

func done(time.Duration) load.Result { return load.Result{Done: 10} }

func TestServersTakeTurnsAndTheOrderRotates(t *testing.T) {
	var notes []string
	s := schedule{rounds: 3, measure: 2, warm: 1}
	var begun []int
	all, err := alternate(t.Context(), s, []contestant{pretender("a", &notes, done), pretender("b", &notes, done)},
		func(round int) { begun = append(begun, round) })
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"a 1ns", "a 2ns", "b 1ns", "b 2ns", "b 1ns", "b 2ns", "a 1ns", "a 2ns", "a 1ns", "a 2ns", "b 1ns", "b 2ns"}
	if !slices.Equal(notes, want) {
		t.Errorf("%q\nwant %q", notes, want)
	}
	if !slices.Equal(begun, []int{1, 2, 3}) {
		t.Errorf("rounds %v are told, want 1 2 3", begun)
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

func silent(int) {}

var errLoad = errors.New("no cookies")

// fails fails in the loads with these numbers, from 1; warm-ups count.
func fails(numbers ...int) func(time.Duration) load.Result {
	n := 0
	return func(time.Duration) load.Result {
		if n++; slices.Contains(numbers, n) {
			return load.Result{Done: 9, Failed: 1, FirstErr: errLoad}
		}
		return load.Result{Done: 10}
	}
}

func TestARoundIsRepeatedAndThenGivenUpAndTheOthersGoOn(t *testing.T) {
	for name, tt := range map[string]struct {
		work     func(time.Duration) load.Result
		rounds   int // measured
		repeated int
		reason   string // why it is given up
	}{
		"all is well":                       {done, 3, 0, ""},
		"a warm-up fails":                   {fails(1), 3, 1, ""},
		"a measurement fails":               {fails(4), 3, 1, ""},
		"two rounds fail twice":             {fails(1, 2, 5, 6), 3, 4, ""},
		"one fails three times":             {fails(3, 4, 5), 1, 2, "round 2: 1 of 10 operations on a failed: no cookies"},
		"nothing is done, whatever is done": {func(time.Duration) load.Result { return load.Result{} }, 0, 2, "round 1: a did nothing in 1ns"},
	} {
		var notes []string
		all, err := alternate(t.Context(), schedule{rounds: 3, measure: 2, warm: 1},
			[]contestant{pretender("a", &notes, tt.work), pretender("b", &notes, done)}, silent)
		if err != nil {
			t.Fatal(err)
		}
		a := all[0]
		if len(a.micros) != tt.rounds || a.repeated != tt.repeated || a.failed != 0 || a.result.Failed != 0 {
			t.Errorf("%s: %+v, want %d rounds, %d repeated, no failure counted", name, a, tt.rounds, tt.repeated)
		}
		if got := fmt.Sprint(a.err); a.err != nil && got != tt.reason || a.err == nil && tt.reason != "" {
			t.Errorf("%s: %v, want %q", name, got, tt.reason)
		}
		if tt.repeated > 0 && a.repeatErr == nil {
			t.Errorf("%s: it is not said why rounds were repeated", name)
		}
		if b := all[1]; len(b.micros) != 3 || b.err != nil {
			t.Errorf("%s: the other has %d rounds, %v", name, len(b.micros), b.err)
		}
	}
}

func TestWhatFailsOnTheAgentIsCountedAndNotRepeated(t *testing.T) {
	var notes []string
	agent := pretender("a", &notes, fails(1, 4))
	agent.judged = true
	all, err := alternate(t.Context(), schedule{rounds: 3, measure: 2, warm: 1}, []contestant{agent}, silent)
	if err != nil {
		t.Fatal(err)
	}
	if s := all[0]; s.err != nil || len(s.micros) != 3 || s.failed != 2 || s.tried != 60 || s.firstErr != errLoad || s.repeated != 0 {
		t.Errorf("%+v, want 2 of 60 failed and nothing repeated", s)
	}
	if got := all[0].notes(); !slices.Equal(got, []string{"2 of 60 failed: no cookies"}) {
		t.Errorf("%q", got)
	}
}

func TestALostDatagramIsNoVerdictUntilItHappensAgainAndAgain(t *testing.T) {
	loses := func(lost, wrong int, numbers ...int) func(time.Duration) load.Result {
		n := 0
		return func(time.Duration) load.Result {
			if n++; slices.Contains(numbers, n) {
				return load.Result{Done: 8, Failed: lost + wrong, Lost: lost, FirstErr: errLoad}
			}
			return load.Result{Done: 10}
		}
	}
	for name, tt := range map[string]struct {
		work             func(time.Duration) load.Result
		repeated, failed int
	}{
		"in a warm-up":           {loses(2, 0, 1), 1, 0},
		"in a measurement":       {loses(2, 0, 2), 1, 0},
		"twice":                  {loses(1, 0, 2, 4), 2, 0},
		"three times":            {loses(1, 0, 2, 4, 6), 2, 1},
		"and another is wrong":   {loses(1, 1, 2), 1, 1},
		"none, but one is wrong": {loses(0, 1, 2), 0, 1},
		"all is well":            {done, 0, 0},
	} {
		var notes []string
		c := pretender("a", &notes, tt.work)
		c.judged, c.lossy = true, true
		all, err := alternate(t.Context(), schedule{rounds: 2, measure: 2, warm: 1}, []contestant{c}, silent)
		if err != nil {
			t.Fatal(err)
		}
		s := all[0]
		if s.err != nil || len(s.micros) != 2 || s.repeated != tt.repeated || s.failed != tt.failed || (s.firstErr == errLoad) != (tt.failed > 0) {
			t.Errorf("%s: %d rounds, %d repeated, %d failed (%v, %v), want 2, %d and %d", name, len(s.micros), s.repeated, s.failed, s.firstErr, s.err, tt.repeated, tt.failed)
		}
		if n := len(s.notes()); n != min(tt.repeated, 1)+min(tt.failed, 1) {
			t.Errorf("%s: notes %q", name, s.notes())
		}
	}
}

func TestItIsToldWhenOthersHadTheCPU(t *testing.T) {
	s := figuresOf("the gateway")
	for share, want := range map[float64]int{95: 0, 75: 0, 20: 1} {
		s.busy = []float64{share, share}
		if got := s.unsaturated(); len(got) != want {
			t.Errorf("%v %%: %q", share, got)
		}
	}
}

func TestAServerThatIsGoneIsGivenUpAtOnce(t *testing.T) {
	var notes []string
	gone := pretender("a", &notes, done)
	gone.log, gone.err = os.DevNull, errors.New("killed")
	close(gone.ended)
	all, err := alternate(t.Context(), schedule{rounds: 2}, []contestant{gone}, silent)
	if err != nil || all[0].err == nil || !strings.Contains(all[0].err.Error(), "round 1: a: killed") || len(notes) != 1 {
		t.Errorf("%v, %v after %d loads", err, all, len(notes))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := alternate(ctx, schedule{rounds: 1}, []contestant{pretender("a", &notes, done)}, silent); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}

func TestCPUTimeIsPerOperation(t *testing.T) {
	if got := perOperation(3*time.Millisecond, 10); got != 300 {
		t.Errorf("%v µs, want 300", got)
	}
	if got := perOperation(3*time.Millisecond, 0); !math.IsNaN(got) {
		t.Errorf("%v µs for nothing, want NaN", got)
	}
}

func TestTheReasonsOfSilenceAreThoseOfTheRounds(t *testing.T) {
	before := map[string]uint64{"clock stepped": 3, "too late": 1}
	for want, after := range map[string]map[string]uint64{
		"nothing that it knows of": before, "daemon silent 2, too late 4": {"clock stepped": 3, "too late": 5, "daemon silent": 2},
	} {
		if got := reasons(before, after); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestOnlyPicksGroupsByTheirRows(t *testing.T) {
	for name, tt := range map[string]struct {
		table string
		only  words
		want  int
	}{
		"no words": {"all", nil, len(groups(1))}, "one": {"all", words{"key exchange"}, 2}, "in another case": {"all", words{"x25519,"}, 1},
		"several": {"all", words{"nts quer", "plain"}, 2}, "of many": {"ke", words{"memory"}, 2}, "nonsense": {"all", words{"nonsense"}, 0},
		"the gateway": {"gateway", nil, len(gatewayGroups())}, "all but the gateway": {"ke", nil, len(groups(1)) - len(gatewayGroups())},
		"one of the gateway": {"gateway", words{"AEAD 30"}, 1}, "of both tables": {"all", words{"(RSS)"}, 3},
	} {
		if got := selected(groups(1), tt.table, tt.only); len(got) != tt.want {
			t.Errorf("%s: %d groups, want %d", name, len(got), tt.want)
		}
	}
}

func TestARoundIsMeasuredFromWhereTheLoadBegins(t *testing.T) {
	var notes []string
	c := pretender("a", &notes, done)
	offsets := load.Dist{}
	for _, x := range []time.Duration{-3 * time.Microsecond, 1 * time.Microsecond, 2 * time.Microsecond} {
		offsets.Add(x)
	}
	c.behind = c.child
	burn := func() { // CPU time of this process, more than looking at it takes
		for begin, now := time.Duration(0), time.Duration(0); now-begin < 300*time.Millisecond; {
			now, _ = cpuOf(os.Getpid())
			if begin == 0 {
				begin = now
			}
		}
	}
	c.load = func(_ context.Context, _ time.Duration, begin func()) (load.Result, error) {
		burn() // as exchanging keys does
		begin()
		return load.Result{Done: 2_000_000, Took: 2 * time.Second, Offset: offsets}, nil
	}
	all, err := alternate(t.Context(), schedule{rounds: 1}, []contestant{c}, silent)
	if err != nil {
		t.Fatal(err)
	}
	s := all[0]
	if s.micros[0] >= 0.15 || s.behind[0] >= 0.15 {
		t.Errorf("%v and %v µs per operation: what came before was counted", s.micros, s.behind)
	}
	if s.offset[0] != 2 || s.rate[0] != 1e6 {
		t.Errorf("offset %v µs, rate %v/s, want 2 and 1e6", s.offset, s.rate)
	}
}

func TestEveryRowIsMeasuredOnceAndPrintedOnce(t *testing.T) {
	var measured []string
	for _, g := range groups(7) {
		measured = append(measured, g.rows...)
	}
	printed := namesOf(7).all()
	slices.Sort(measured)
	slices.Sort(printed)
	if !slices.Equal(measured, printed) || len(slices.Compact(printed)) != len(measured) {
		t.Errorf("measured %q\nprinted %q", measured, printed)
	}
}

func TestAGroupThatFailsKeepsItsFinishedRows(t *testing.T) {
	g := group{rows: []string{"a", "b", "c"}}
	finished := newRow("b")
	finished.ratio = "1.00"
	got := g.complete([]row{finished}, errLoad, words{"a", "b"})
	if len(got) != 2 || got[0].what != "a" || !got[0].missing || got[0].notes[0] != "not measured: no cookies" || got[1].ratio != "1.00" || got[1].missing {
		t.Errorf("%+v", got)
	}
}
