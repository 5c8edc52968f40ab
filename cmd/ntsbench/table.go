package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
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

var columnNames = [columns]string{"agent", "chronyd", "floor"}

// none is a cell nobody measured.
const none = "–"

// What a judged row comes to.
const (
	miss     = "MISS"
	pass     = "PASS"
	passGoal = "PASS+goal"
)

// row is one line of the table, ready to print.
type row struct {
	what    string
	cells   [columns]string
	ratio   string
	bar     string
	goal    string
	result  string   // miss, pass or passGoal; none for information
	notes   []string // printed below it
	missing bool     // it could not be measured
}

func newRow(what string) row {
	r := row{what: what, ratio: none, bar: none, goal: none, result: none}
	for i := range r.cells {
		r.cells[i] = none
	}
	return r
}

// notMeasured is the row of which nothing is known but why.
func notMeasured(what string, err error) row {
	r := newRow(what)
	r.missing, r.notes = true, []string{"not measured: " + err.Error()}
	return r
}

// limits are what a figure must not exceed, and what it should not.
type limits struct{ bar, goal float64 }

// judge compares a figure as it is printed.
func (l limits) judge(v float64) string {
	switch v = rounded(v); {
	case v <= l.goal:
		return passGoal
	case v <= l.bar:
		return pass
	}
	return miss // NaN too
}

// rounded is v as it is printed and judged.
func rounded(v float64) float64 {
	scale := math.Pow10(decimals(v))
	return math.Round(v*scale) / scale
}

// decimals are two below ten, one above and none from a thousand, as our noise allows.
func decimals(v float64) int {
	switch v = math.Abs(v); {
	case v < 9.995:
		return 2
	case v < 999.95:
		return 1
	}
	return 0
}

// figure prints v as it is judged.
func figure(v float64) string {
	return strconv.FormatFloat(rounded(v), 'f', decimals(v), 64)
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

// numbers are the figures without those that are NaN.
func numbers(figures []float64) []float64 {
	return slices.DeleteFunc(slices.Clone(figures), math.IsNaN)
}

// ratios pairs what two servers came to in the same round. A round in which one
// of them did nothing has none.
func ratios(of, to []float64) []float64 {
	list := make([]float64, min(len(of), len(to)))
	for i := range list {
		list[i] = of[i] / to[i]
	}
	return numbers(list)
}

// compare is the row of two columns' CPU-µs. l is nil for information.
func compare(what string, all [columns]*series, of, to int, l *limits) row {
	return compareBy(what, all, of, to, micros, l)
}

// compareBy is compare by other figures of the rounds, in µs.
func compareBy(what string, all [columns]*series, of, to int, figures func(*series) []float64, l *limits) row {
	for _, column := range []int{of, to} {
		if err := all[column].err; err != nil {
			return notMeasured(what, err)
		}
	}
	r := newRow(what)
	for i, s := range all {
		if s == nil || s.err != nil {
			continue
		}
		if m := numbers(figures(s)); len(m) > 0 {
			r.cells[i] = figure(summarize(m).median) + " µs"
		}
		if i == of || i == to {
			r.notes = append(r.notes, s.notes()...)
		}
	}
	ratio := summarize(ratios(figures(all[of]), figures(all[to])))
	if !math.IsNaN(ratio.median) {
		r.ratio = fmt.Sprintf("%s (%s–%s)", figure(ratio.median), figure(ratio.min), figure(ratio.max))
	}
	if l != nil {
		r.bar, r.goal, r.result = fmt.Sprintf("≤ %.2f", l.bar), fmt.Sprintf("≤ %.2f", l.goal), l.judge(ratio.median)
		if all[of].failed > 0 {
			r.result = miss
		}
	}
	return r
}

// reading is the row of one figure per round of each column, of which the agent's is judged. Its least and
// greatest stand where others have a ratio.
func reading(what string, all [columns]*series, figures func(*series) []float64, unit string, l *limits) row {
	agent := all[agentColumn]
	if agent.err != nil {
		return notMeasured(what, agent.err)
	}
	m := readings{what: what, unit: unit, values: unmeasured(), limits: l}
	if l != nil {
		m.notes = agent.notes()
	}
	for i, s := range all {
		if s != nil && s.err == nil {
			m.values[i] = summarize(numbers(figures(s))).median
		}
	}
	r := m.row()
	if f := numbers(figures(agent)); len(f) > 0 {
		r.ratio = fmt.Sprintf("agent %s–%s %s", figure(slices.Min(f)), figure(slices.Max(f)), unit)
	}
	if l != nil && agent.failed > 0 {
		r.result = miss
	}
	return r
}

// readings is one figure per server, of which the agent's is judged.
type readings struct {
	what   string
	unit   string
	values [columns]float64 // NaN: not measured
	limits *limits          // nil: information
	notes  []string
}

// unmeasured are values nobody has measured yet.
func unmeasured() (values [columns]float64) {
	for i := range values {
		values[i] = math.NaN()
	}
	return values
}

func (a readings) row() row {
	r := newRow(a.what)
	r.notes = a.notes
	for i, v := range a.values {
		switch {
		case math.IsInf(v, 1):
			r.cells[i] = "never"
		case !math.IsNaN(v):
			r.cells[i] = strings.TrimSpace(figure(v) + " " + a.unit)
		}
	}
	if a.limits != nil {
		r.bar, r.goal = strings.TrimSpace(fmt.Sprintf("≤ %g %s", a.limits.bar, a.unit)), strings.TrimSpace(fmt.Sprintf("≤ %g %s", a.limits.goal, a.unit))
		r.result = a.limits.judge(a.values[agentColumn])
	}
	return r
}

// crowd is how new clients fared beside idle connections.
type crowd struct {
	probes load.Probes
	open   int // idle connections when the server's memory was read
	held   int // idle connections when the last probe had ended
	grown  int // octets the server's memory had grown by when it was read
}

// cell is the slowest's time, or how many were served if not all.
func (c crowd) cell() string {
	if c.probes.Served < c.probes.Of {
		return fmt.Sprintf("%d/%d", c.probes.Served, c.probes.Of)
	}
	return figure(milliseconds(c.probes.Slowest)) + " ms"
}

// newClients is the row of a kind of idle connections.
type newClients struct {
	what   string
	crowds [columns]*crowd
	asked  int  // idle connections opened
	all    bool // the agent must have held them all
	limits limits
	notes  []string
}

func (c newClients) row() row {
	r := newRow(c.what)
	r.notes = c.notes
	var fewer []string
	for i, crowd := range c.crowds {
		if crowd == nil {
			continue
		}
		r.cells[i] = crowd.cell()
		if crowd.held < c.asked {
			fewer = append(fewer, fmt.Sprintf("%d of %d by %s", crowd.held, c.asked, columnNames[i]))
		}
		if err := crowd.probes.FirstErr; err != nil {
			r.notes = append(r.notes, fmt.Sprintf("%s: %d of %d not served: %v", columnNames[i], crowd.probes.Of-crowd.probes.Served, crowd.probes.Of, err))
		}
	}
	if len(fewer) > 0 {
		r.notes = append(r.notes, "held: "+strings.Join(fewer, ", "))
	}
	r.bar, r.goal, r.result = fmt.Sprintf("≤ %g ms", c.limits.bar), fmt.Sprintf("≤ %g ms", c.limits.goal), miss
	if a := c.crowds[agentColumn]; a.probes.Served == a.probes.Of && (a.held >= c.asked || !c.all) {
		r.result = c.limits.judge(milliseconds(a.probes.Slowest))
	}
	return r
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func microseconds(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
