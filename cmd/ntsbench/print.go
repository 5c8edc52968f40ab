package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// verdictRounds is how many rounds a verdict needs (README, "make bench").
const verdictRounds = 9

// printTable writes the rows in three blocks, in the order of names.
func printTable(w io.Writer, rows []row, names rowNames, rounds int) error {
	var b strings.Builder
	for _, t := range []struct {
		title string
		names []string
	}{
		{"JUDGED: the agent against its bars", names.judged},
		{"GATEWAY: the agent in front of a daemon without NTS, against its bars", names.gateway},
	} {
		list := pick(rows, t.names)
		if len(list) == 0 {
			continue
		}
		fmt.Fprintf(&b, "%s (%s)\n", t.title, times(rounds, "round"))
		block(&b, list, true)
		if rounds < verdictRounds {
			fmt.Fprintf(&b, "verdicts need %d rounds, this run had %d\n", verdictRounds, rounds)
		}
		b.WriteByte('\n')
	}
	if list := pick(rows, names.information); len(list) > 0 {
		b.WriteString("FOR INFORMATION: not judged\n")
		block(&b, list, false)
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// times counts a thing.
func times(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// pick returns the rows with these names, in the names' order.
func pick(rows []row, names []string) []row {
	var list []row
	for _, name := range names {
		if i := slices.IndexFunc(rows, func(r row) bool { return r.what == name }); i >= 0 {
			list = append(list, rows[i])
		}
	}
	return list
}

// block writes a header and the rows in columns, each row's notes below it.
func block(b *strings.Builder, rows []row, judged bool) {
	lines := [][]string{{"what", "agent", "chronyd", "floor", "ratio (min–max)"}}
	if judged {
		lines[0] = append(lines[0], "bar", "goal", "result")
	}
	notes := [][]string{nil}
	above := ""
	for _, r := range rows {
		if like, ok := strings.CutSuffix(r.what, evicting); ok {
			if like != above {
				lines, notes = append(lines, []string{like}), append(notes, nil)
			}
			r.what = "  the same" + evictingText
		}
		above = r.what
		line := append([]string{r.what}, r.cells[:]...)
		line = append(line, r.ratio)
		if judged {
			line = append(line, r.bar, r.goal, r.result)
		}
		lines, notes = append(lines, line), append(notes, r.notes)
	}
	widths := make([]int, len(lines[0]))
	for _, line := range lines {
		for i, cell := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for n, line := range lines {
		var text string
		for i, cell := range line {
			text += cell + strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2)
		}
		b.WriteString(strings.TrimRight(text, " ") + "\n")
		for _, note := range notes[n] {
			b.WriteString("    " + note + "\n")
		}
	}
}
