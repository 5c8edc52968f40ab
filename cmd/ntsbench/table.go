package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"ntsagent/cmd/ntsbench/load"
)

// The columns of servers in the table.
const (
	agentColumn = iota
	chronydColumn
	floorColumn
	columns
)

// none is a cell nobody measured.
const none = "–"

// row is one line of the table, ready to print.
type row struct {
	what    string
	cells   [columns]string
	ratio   string
	bar     string
	goal    string
	verdict string // PASS or MISS; none for information
	met     string // met or not; none for information
}

// limits are what a figure must not exceed, and what it should not.
type limits struct{ bar, goal float64 }

// judge compares a figure as it is printed, with two decimals.
func (l limits) judge(v float64) (verdict, met string) {
	v = math.Round(v*100) / 100
	verdict, met = "MISS", "not met"
	if v <= l.bar { // never true of NaN
		verdict = "PASS"
	}
	if v <= l.goal {
		met = "met"
	}
	return verdict, met
}

// summary is of one figure per round.
type summary struct{ median, min, max float64 }

// summarize is NaN all over for no figures.
func summarize(figures []float64) summary {
	if len(figures) == 0 {
		return summary{math.NaN(), math.NaN(), math.NaN()}
	}
	s := slices.Sorted(slices.Values(figures))
	n := len(s)
	return summary{median: (s[(n-1)/2] + s[n/2]) / 2, min: s[0], max: s[n-1]}
}

// ratios pairs what two servers came to in the same round.
func ratios(of, to []float64) []float64 {
	list := make([]float64, min(len(of), len(to)))
	for i := range list {
		list[i] = of[i] / to[i]
	}
	return list
}

// comparison is of two columns' CPU-µs.
type comparison struct {
	what   string
	micros [columns][]float64 // one per round
	of, to int                // columns
	limits *limits            // nil: information
}

func (c comparison) row() row {
	r := newRow(c.what)
	for i, m := range c.micros {
		if len(m) > 0 {
			r.cells[i] = figure(summarize(m).median) + " µs"
		}
	}
	s := summarize(ratios(c.micros[c.of], c.micros[c.to]))
	r.ratio = fmt.Sprintf("%.2f [%.2f–%.2f]", s.median, s.min, s.max)
	if c.limits != nil {
		r.bar, r.goal = fmt.Sprintf("≤ %.2f", c.limits.bar), fmt.Sprintf("≤ %.2f", c.limits.goal)
		r.verdict, r.met = c.limits.judge(s.median)
	}
	return r
}

// amount is one figure per server, of which the agent's is judged.
type amount struct {
	what   string
	unit   string
	values [columns]float64 // NaN: not measured
	limits *limits
}

// unmeasured are values nobody has measured yet.
func unmeasured() (values [columns]float64) {
	for i := range values {
		values[i] = math.NaN()
	}
	return values
}

func (a amount) row() row {
	r := newRow(a.what)
	for i, v := range a.values {
		switch {
		case math.IsInf(v, 1):
			r.cells[i] = "never"
		case !math.IsNaN(v):
			r.cells[i] = figure(v) + " " + a.unit
		}
	}
	if a.limits != nil {
		r.bar, r.goal = fmt.Sprintf("≤ %g %s", a.limits.bar, a.unit), fmt.Sprintf("≤ %g %s", a.limits.goal, a.unit)
		r.verdict, r.met = a.limits.judge(a.values[agentColumn])
	}
	return r
}

// crowd is how new clients fared beside idle connections.
type crowd struct {
	probes load.Probes
	open   int // idle connections that were there when the last probe had ended
	grown  int // octets the server's memory had grown by before the first
}

func (c crowd) cell() string {
	s := fmt.Sprintf("%d/%d", c.probes.Served, c.probes.Of)
	if c.probes.Served > 0 {
		s += ", " + figure(milliseconds(c.probes.Slowest)) + " ms"
	}
	return s + fmt.Sprintf(" (%d held)", c.open)
}

// beside is a row of crowds.
type beside struct {
	what   string
	crowds [columns]*crowd
	held   int // idle connections the agent must have kept
	limits limits
}

func (b beside) row() row {
	r := newRow(b.what)
	for i, c := range b.crowds {
		if c != nil {
			r.cells[i] = c.cell()
		}
	}
	all := b.crowds[agentColumn].probes.Of
	r.bar, r.goal = fmt.Sprintf("%d/%d, ≤ %g ms", all, all, b.limits.bar), fmt.Sprintf("≤ %g ms", b.limits.goal)
	r.verdict, r.met = "MISS", "not met"
	if a := b.crowds[agentColumn]; a.probes.Served == all && a.open >= b.held {
		r.verdict, r.met = b.limits.judge(milliseconds(a.probes.Slowest))
	}
	return r
}

func newRow(what string) row {
	r := row{what: what, ratio: none, bar: none, goal: none, verdict: none, met: none}
	for i := range r.cells {
		r.cells[i] = none
	}
	return r
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func microseconds(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// figure has two decimals below ten and one above, as our noise allows.
func figure(v float64) string {
	if math.Abs(v) < 10 {
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.1f", v)
}

// printTable writes the rows in columns.
func printTable(w io.Writer, rows []row) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(cells ...string) { fmt.Fprintln(t, strings.Join(cells, "\t")) }
	line("what", "agent", "chronyd 4.3", "floor", "ratio [min–max]", "bar", "goal", "verdict", "goal")
	for _, r := range rows {
		line(r.what, r.cells[agentColumn], r.cells[chronydColumn], r.cells[floorColumn], r.ratio, r.bar, r.goal, r.verdict, r.met)
	}
	return t.Flush()
}
