package main

import (
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

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

func TestARoundWithoutOperationsHasNoRatio(t *testing.T) {
	if got, want := ratios([]float64{math.NaN(), 4}, []float64{1, 2}), []float64{2}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestFiguresAreJudgedAsTheyArePrinted(t *testing.T) {
	for _, tt := range []struct {
		limits limits
		v      float64
		text   string
		want   string
	}{
		{limits{1.15, 1.05}, 1.00, "1.00", passGoal}, {limits{1.15, 1.05}, 1.05, "1.05", passGoal}, {limits{1.15, 1.05}, 1.0549, "1.05", passGoal},
		{limits{1.15, 1.05}, 1.056, "1.06", pass}, {limits{1.15, 1.05}, 1.154, "1.15", pass}, {limits{1.15, 1.05}, 1.156, "1.16", miss},
		{limits{48, 40}, 48.04, "48.0", pass}, {limits{48, 40}, 48.06, "48.1", miss}, {limits{48, 40}, 40.04, "40.0", passGoal},
		{limits{50, 10}, 9.996, "10.0", passGoal}, {limits{50, 10}, 10.04, "10.0", passGoal}, {limits{50, 10}, 10.06, "10.1", pass},
		{limits{5, 3}, 999.96, "1000", miss}, {limits{5000, 3000}, 3000.4, "3000", passGoal}, {limits{5, 3}, math.NaN(), "NaN", miss}, {limits{5, 3}, math.Inf(1), "+Inf", miss},
	} {
		if got, text := tt.limits.judge(tt.v), figure(tt.v); got != tt.want || text != tt.text {
			t.Errorf("%v: %s is printed and is a %s, want %s and %s", tt.v, text, got, tt.text, tt.want)
		}
	}
}

// figuresOf is a series of these rounds.
func figuresOf(name string, micros ...float64) *series { return &series{name: name, micros: micros} }

func TestAComparisonJudgesTheMedianOfRatios(t *testing.T) {
	all := [columns]*series{agentColumn: figuresOf("ntsagent", 110, 240, 90), floorColumn: figuresOf("the floor", 100, 200, 100)}
	want := newRow("w")
	want.cells = [columns]string{"110.0 µs", none, "100.0 µs"}
	want.ratio, want.bar, want.goal, want.result = "1.10 (0.90–1.20)", "≤ 1.15", "≤ 1.05", pass
	if got := compare("w", all, agentColumn, floorColumn, &limits{1.15, 1.05}); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
	want.bar, want.goal, want.result = none, none, none
	if got := compare("w", all, agentColumn, floorColumn, nil); !reflect.DeepEqual(got, want) {
		t.Errorf("information: %+v\nwant %+v", got, want)
	}
}

func TestAFailedKeyExchangeOfTheAgentIsAMiss(t *testing.T) {
	agent := figuresOf("ntsagent", 100)
	agent.failed, agent.tried, agent.firstErr = 3, 41000, errLoad
	all := [columns]*series{agentColumn: agent, floorColumn: figuresOf("the floor", 100)}
	got := compare("w", all, agentColumn, floorColumn, &limits{1.15, 1.05})
	if got.result != miss || got.missing || got.ratio != "1.00 (1.00–1.00)" || !slices.Equal(got.notes, []string{"3 of 41000 failed: no cookies"}) {
		t.Errorf("%+v", got)
	}
	agent.micros = []float64{math.NaN()} // all have failed
	if got := compare("w", all, agentColumn, floorColumn, &limits{1.15, 1.05}); got.result != miss || got.missing || got.ratio != none {
		t.Errorf("all failed: %+v", got)
	}
}

func TestACompetitorThatCannotBeMeasuredTakesOnlyItsRow(t *testing.T) {
	chronyd, floor := figuresOf("chronyd"), figuresOf("the floor", 100)
	chronyd.err = errLoad
	floor.repeated, floor.repeatErr = 1, errLoad
	all := [columns]*series{figuresOf("ntsagent", 100), chronyd, floor}
	if got := compare("w", all, agentColumn, chronydColumn, &limits{1, 1}); !got.missing || got.result != none || !slices.Equal(got.notes, []string{"not measured: no cookies"}) {
		t.Errorf("%+v", got)
	}
	if got := compare("w", all, agentColumn, floorColumn, &limits{1, 1}); got.missing || got.result != passGoal || !slices.Equal(got.notes, []string{"1 round of the floor repeated: no cookies"}) {
		t.Errorf("%+v", got)
	}
}

func TestAComparisonMayBeOfOtherFigures(t *testing.T) {
	agent, chronyd := figuresOf("ntsagent", 9), figuresOf("chronyd", 1)
	agent.offset, chronyd.offset = []float64{3, math.NaN(), 5}, []float64{2, 2, 2}
	got := compareBy("w", [columns]*series{agentColumn: agent, chronydColumn: chronyd}, agentColumn, chronydColumn, offsets, &limits{2, 1.2})
	if got.ratio != "2.00 (1.50–2.50)" || got.result != pass || got.cells != [columns]string{"4.00 µs", "2.00 µs", none} {
		t.Errorf("%+v", got)
	}
}

func TestAReadingOfRoundsJudgesItsMedianAndShowsLeastAndGreatest(t *testing.T) {
	agent, chronyd := figuresOf("ntsagent"), figuresOf("chronyd")
	agent.offset, chronyd.offset = []float64{41, 3, 9}, []float64{500}
	all := [columns]*series{agentColumn: agent, chronydColumn: chronyd}
	want := newRow("w")
	want.cells = [columns]string{"9.00 µs", "500.0 µs", none}
	want.ratio, want.bar, want.goal, want.result = "agent 3.00–41.0 µs", "≤ 40 µs", "≤ 10 µs", passGoal
	if got := reading("w", all, offsets, "µs", &limits{40, 10}); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
	agent.failed, agent.tried, agent.firstErr = 1, 100, errLoad
	if got := reading("w", all, offsets, "µs", &limits{40, 10}); got.result != miss || len(got.notes) != 1 {
		t.Errorf("a query failed: %+v", got)
	}
	agent.offset = nil
	if got := reading("w", all, offsets, "µs", &limits{40, 10}); got.result != miss || got.ratio != none {
		t.Errorf("no figures: %+v", got)
	}
	agent.err = errLoad
	if got := reading("w", all, offsets, "µs", nil); !got.missing {
		t.Errorf("not measured: %+v", got)
	}
}

func TestNoAllocationIsTheOnlyGoodNumberOfThem(t *testing.T) {
	for v, want := range map[float64]string{0: passGoal, 0.004: passGoal, 0.006: miss, 1: miss} {
		m := readings{what: "w", values: unmeasured(), limits: &limits{0, 0}}
		m.values[agentColumn] = v
		if got := m.row(); got.result != want || got.bar != "≤ 0" || strings.Contains(got.cells[agentColumn], " ") {
			t.Errorf("%v: %+v, want %s", v, got, want)
		}
	}
}

func TestDatagramsOfOtherLengthsThanTheEchosAreTold(t *testing.T) {
	g, e := figuresOf("ntsagent"), figuresOf("the floor")
	all := [columns]*series{agentColumn: g, floorColumn: e}
	g.result, e.result = load.Result{Done: 1, Request: 228, Reply: 84}, load.Result{Done: 1, Request: 228, Reply: 84}
	if got := sizes(all); got != nil {
		t.Errorf("the same: %q", got)
	}
	g.result.Reply = 88
	if got := sizes(all); !slices.Equal(got, []string{"datagrams of 228 and 88 octets, of the echo 228 and 84"}) {
		t.Errorf("%q", got)
	}
}

func TestReadingsJudgeTheAgents(t *testing.T) {
	a := readings{what: "w", unit: "s", values: unmeasured(), limits: &limits{5, 3}}
	a.values[agentColumn], a.values[chronydColumn] = 3.02, math.Inf(1)
	want := newRow("w")
	want.cells = [columns]string{"3.02 s", "never", none}
	want.bar, want.goal, want.result = "≤ 5 s", "≤ 3 s", pass
	if got := a.row(); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
	a.values[agentColumn] = math.Inf(1)
	if got := a.row(); got.result != miss {
		t.Errorf("connections that stay for ever: %+v", got)
	}
}

func TestNewClientsMustAllBeServedInTime(t *testing.T) {
	served := func(n int, slowest time.Duration) load.Probes {
		return load.Probes{Served: n, Of: 20, Slowest: slowest}
	}
	for name, tt := range map[string]struct {
		agent  crowd
		all    bool
		result string
		cell   string
	}{
		"at once":                    {crowd{probes: served(20, 9*time.Millisecond), held: 100}, true, passGoal, "9.00 ms"},
		"slowly":                     {crowd{probes: served(20, 49*time.Millisecond), held: 100}, true, pass, "49.0 ms"},
		"too slowly":                 {crowd{probes: served(20, 51*time.Millisecond), held: 100}, true, miss, "51.0 ms"},
		"all but one":                {crowd{probes: served(19, time.Millisecond), held: 100}, true, miss, "19/20"},
		"idle ones dropped":          {crowd{probes: served(20, time.Millisecond), held: 99}, true, miss, "1.00 ms"},
		"idle ones dropped, allowed": {crowd{probes: served(20, time.Millisecond), held: 99}, false, passGoal, "1.00 ms"},
		"none":                       {crowd{probes: served(0, 0), held: 100}, true, miss, "0/20"},
	} {
		c := newClients{what: "w", asked: 100, all: tt.all, limits: newClientLimits}
		c.crowds[agentColumn] = &tt.agent
		if got := c.row(); got.result != tt.result || got.cells[agentColumn] != tt.cell {
			t.Errorf("%s: %+v, want %s, %s", name, got, tt.result, tt.cell)
		}
	}
}

func TestItIsSaidWhoHeldFewerAndWhoWasNotServed(t *testing.T) {
	c := newClients{what: "w", asked: 100, limits: newClientLimits}
	c.crowds[agentColumn] = &crowd{probes: load.Probes{Served: 20, Of: 20}, held: 100}
	if got := c.row(); len(got.notes) != 0 {
		t.Errorf("all is well: %q", got.notes)
	}
	c.crowds[chronydColumn] = &crowd{probes: load.Probes{Served: 18, Of: 20, FirstErr: errLoad}, held: 7}
	if got, want := c.row().notes, []string{"chronyd: 2 of 20 not served: no cookies", "held: 7 of 100 by chronyd"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// wide is a row with cells as long as they get.
func wide(what string) row {
	r := newRow(what)
	r.cells = [columns]string{"999.9 µs", "999.9 µs", "999.9 µs"}
	r.ratio, r.bar, r.goal, r.result = "1.00 (1.00–1.00)", "≤ 48 KiB", "≤ 40 KiB", passGoal
	return r
}

func TestTheTableHasThreeBlocksOfAlignedColumns(t *testing.T) {
	names := namesOf(mostIdle)
	var rows []row
	for _, what := range names.all() {
		rows = append(rows, wide(what))
	}
	rows[1].notes = []string{"a note"}
	slices.Reverse(rows)
	var b strings.Builder
	if err := printTable(&b, rows, names, 3); err != nil {
		t.Fatal(err)
	}
	table := b.String()
	for _, words := range []string{"JUDGED: the agent against its bars (3 rounds)\nwhat ", "\n    a note\n" + rowKEDefaultFloor,
		"\nverdicts need 9 rounds, this run had 3\n\nFOR INFORMATION: not judged\nwhat ", "TCP connections  999.9", "\n  the same at the default ke.max_sessions (oldest evicted)  "} {
		if !strings.Contains(table, words) {
			t.Errorf("no %q in\n%s", words, table)
		}
	}
	judged, information, _ := strings.Cut(table, "FOR INFORMATION")
	judged, gateway, _ := strings.Cut(judged, "GATEWAY: the agent in front of a daemon without NTS, against its bars (3 rounds)\n")
	for _, block := range []string{judged, gateway, information} {
		at := -1
		for line := range strings.Lines(block) {
			if n := utf8.RuneCountInString(line) - 1; n > 140 {
				t.Errorf("%d columns: %s", n, line)
			}
			if !strings.Contains(line, "999.9 µs") {
				continue
			}
			if i := utf8.RuneCountInString(line[:strings.Index(line, "999")]); at >= 0 && i != at {
				t.Errorf("a column begins at %d and at %d: %s", at, i, line)
			} else {
				at = i
			}
		}
		if at < 0 {
			t.Errorf("no rows in %q", block)
		}
	}
	if strings.Count(judged, "999.9 µs") != 3*len(names.judged) || strings.Count(gateway, "999.9 µs") != 3*len(names.gateway) || strings.Contains(information, passGoal) {
		t.Errorf("not every row is in its block:\n%s", table)
	}

	b.Reset()
	lone := namesOf(5).judged[6]
	if err := printTable(&b, []row{wide(lone)}, namesOf(5), 9); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), "\n"+strings.TrimSuffix(lone, evicting)+"\n  the same") || strings.Contains(b.String(), "verdicts need") || strings.Contains(b.String(), "INFORMATION") {
		t.Errorf("one row of nine rounds:\n%s", &b)
	}
}
