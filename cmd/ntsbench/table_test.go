package main

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"ntsagent/cmd/ntsbench/load"
)

func TestSummariesAreMedianMinAndMax(t *testing.T) {
	for name, tt := range map[string]struct {
		figures []float64
		want    summary
	}{
		"one":  {[]float64{3}, summary{3, 3, 3}},
		"odd":  {[]float64{9, 1, 2}, summary{2, 1, 9}},
		"even": {[]float64{4, 1, 3, 2}, summary{2.5, 1, 4}},
	} {
		if got := summarize(tt.figures); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
	if got := summarize(nil); !math.IsNaN(got.median) {
		t.Errorf("no figures: %v", got)
	}
	figures := []float64{3, 1, 2}
	if summarize(figures); !slices.Equal(figures, []float64{3, 1, 2}) {
		t.Errorf("the rounds' order is lost: %v", figures)
	}
}

func TestRatiosArePairedRoundByRound(t *testing.T) {
	// A machine that gets twice as slow: both medians and all ratios say 2.
	if got, want := ratios([]float64{2, 4, 8}, []float64{1, 2, 4}), []float64{2, 2, 2}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestFiguresAreJudgedAsTheyArePrinted(t *testing.T) {
	l := limits{bar: 1.15, goal: 1.05}
	for v, want := range map[float64][2]string{
		1.00: {"PASS", "met"}, 1.05: {"PASS", "met"}, 1.0549: {"PASS", "met"}, 1.056: {"PASS", "not met"},
		1.15: {"PASS", "not met"}, 1.154: {"PASS", "not met"}, 1.156: {"MISS", "not met"},
		math.NaN(): {"MISS", "not met"}, math.Inf(1): {"MISS", "not met"},
	} {
		if verdict, met := l.judge(v); verdict != want[0] || met != want[1] {
			t.Errorf("%v: %s, %s, want %v", v, verdict, met, want)
		}
	}
}

func TestAComparisonJudgesTheMedianOfRatios(t *testing.T) {
	c := comparison{what: "w", of: agentColumn, to: floorColumn, limits: &limits{1.15, 1.05}}
	c.micros[agentColumn], c.micros[floorColumn] = []float64{110, 240, 90}, []float64{100, 200, 100}
	want := row{what: "w", cells: [columns]string{"110.0 µs", none, "100.0 µs"}, ratio: "1.10 [0.90–1.20]",
		bar: "≤ 1.15", goal: "≤ 1.05", verdict: "PASS", met: "not met"}
	if got := c.row(); got != want {
		t.Errorf("%+v\nwant %+v", got, want)
	}
	c.limits = nil
	if got := c.row(); got.verdict != none || got.bar != none || got.met != none {
		t.Errorf("information is judged: %+v", got)
	}
}

func TestAnAmountJudgesTheAgents(t *testing.T) {
	a := amount{what: "w", unit: "s", values: unmeasured(), limits: &limits{5, 3}}
	a.values[agentColumn], a.values[chronydColumn] = 3.02, math.Inf(1)
	want := row{what: "w", cells: [columns]string{"3.02 s", "never", none}, ratio: none,
		bar: "≤ 5 s", goal: "≤ 3 s", verdict: "PASS", met: "not met"}
	if got := a.row(); got != want {
		t.Errorf("%+v\nwant %+v", got, want)
	}
	a.values[agentColumn] = math.Inf(1)
	if got := a.row(); got.verdict != "MISS" {
		t.Errorf("connections that stay for ever: %+v", got)
	}
}

func TestNewClientsMustAllBeServedInTime(t *testing.T) {
	for name, tt := range map[string]struct {
		agent   crowd
		verdict string
		met     string
	}{
		"all at once":           {crowd{probes: load.Probes{Served: 20, Of: 20, Slowest: 9 * time.Millisecond}, open: 100}, "PASS", "met"},
		"all, slowly":           {crowd{probes: load.Probes{Served: 20, Of: 20, Slowest: 49 * time.Millisecond}, open: 100}, "PASS", "not met"},
		"all, too slowly":       {crowd{probes: load.Probes{Served: 20, Of: 20, Slowest: 51 * time.Millisecond}, open: 100}, "MISS", "not met"},
		"all but one":           {crowd{probes: load.Probes{Served: 19, Of: 20, Slowest: time.Millisecond}, open: 100}, "MISS", "not met"},
		"all, but idle dropped": {crowd{probes: load.Probes{Served: 20, Of: 20, Slowest: time.Millisecond}, open: 99}, "MISS", "not met"},
		"none":                  {crowd{probes: load.Probes{Of: 20}, open: 100}, "MISS", "not met"},
	} {
		b := beside{what: "w", held: 100, limits: promptly}
		b.crowds[agentColumn] = &tt.agent
		if got := b.row(); got.verdict != tt.verdict || got.met != tt.met {
			t.Errorf("%s: %+v", name, got)
		}
	}
	c := crowd{probes: load.Probes{Served: 20, Of: 20, Slowest: 1230 * time.Microsecond}, open: 7}
	if got := c.cell(); got != "20/20, 1.23 ms (7 held)" {
		t.Error(got)
	}
}

func TestTheTableHasColumns(t *testing.T) {
	var b strings.Builder
	if err := printTable(&b, []row{newRow("a long name"), newRow("b")}); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(lines) != 3 {
		t.Fatalf("%d lines:\n%s", len(lines), &b)
	}
	at := len([]rune(lines[0][:strings.Index(lines[0], "agent")]))
	for _, line := range lines[1:] {
		if r := []rune(line); string(r[at]) != none || r[at-1] != ' ' {
			t.Errorf("%q has nothing in column %d", line, at)
		}
	}
}
