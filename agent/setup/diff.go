package setup

import (
	"bytes"
	"fmt"
	"strings"
)

// diffContext is how many lines around a change are shown.
const diffContext = 3

// maxDiffCells bounds the work of finding what two files have in common; beyond
// it all that differs is shown as replaced.
const maxDiffCells = 4 << 20

// edit is one line of both files (' '), of the old one ('-') or of the new one ('+').
type edit struct {
	op   byte
	line string // with its newline, if it has one
}

// unifiedDiff is what `diff -u` would print; "" = no difference. The names stand
// for the files: "/dev/null" for one that is not there.
func unifiedDiff(oldName, newName string, a, b []byte) string {
	if bytes.Equal(a, b) {
		return ""
	}
	var out strings.Builder
	fmt.Fprintf(&out, "--- %s\n+++ %s\n", oldName, newName)
	edits := editsOf(splitLines(a), splitLines(b))
	oldLine, newLine := 1, 1
	for i := 0; i < len(edits); {
		if edits[i].op == ' ' {
			i, oldLine, newLine = i+1, oldLine+1, newLine+1
			continue
		}
		back := min(diffContext, i)
		first := i - back
		end := hunkEnd(edits, i)
		writeHunk(&out, edits[first:end], oldLine-back, newLine-back)
		for ; i < end; i++ {
			if edits[i].op != '+' {
				oldLine++
			}
			if edits[i].op != '-' {
				newLine++
			}
		}
		// The context behind this hunk is never the one before the next: hunkEnd joins those.
	}
	return out.String()
}

// hunkEnd is behind the last line of the hunk whose first change is at i. Changes
// no further apart than two contexts are one hunk.
func hunkEnd(edits []edit, i int) int {
	last := i
	for j := i; j < len(edits) && j-last <= 2*diffContext; j++ {
		if edits[j].op != ' ' {
			last = j
		}
	}
	return min(last+1+diffContext, len(edits))
}

func writeHunk(out *strings.Builder, hunk []edit, oldLine, newLine int) {
	olds, news := 0, 0
	for _, e := range hunk {
		if e.op != '+' {
			olds++
		}
		if e.op != '-' {
			news++
		}
	}
	if olds == 0 {
		oldLine--
	}
	if news == 0 {
		newLine--
	}
	fmt.Fprintf(out, "@@ -%d,%d +%d,%d @@\n", oldLine, olds, newLine, news)
	for _, e := range hunk {
		out.WriteByte(e.op)
		out.WriteString(e.line)
		if !strings.HasSuffix(e.line, "\n") {
			out.WriteString("\n\\ No newline at end of file\n")
		}
	}
}

func splitLines(b []byte) []string {
	var lines []string
	for line := range bytes.Lines(b) {
		lines = append(lines, string(line))
	}
	return lines
}

// editsOf turns a into b by a longest common subsequence of lines.
func editsOf(a, b []string) []edit {
	var head, tail []edit
	for len(a) > 0 && len(b) > 0 && a[0] == b[0] {
		head = append(head, edit{' ', a[0]})
		a, b = a[1:], b[1:]
	}
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] {
		tail = append(tail, edit{' ', a[len(a)-1]})
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	head = append(head, middle(a, b)...)
	for i := len(tail) - 1; i >= 0; i-- {
		head = append(head, tail[i])
	}
	return head
}

func middle(a, b []string) []edit {
	var out []edit
	i, j := 0, 0
	if len(a)*len(b) > 0 && len(a)*len(b) <= maxDiffCells {
		common := commonLengths(a, b)
		for i < len(a) && j < len(b) {
			switch {
			case a[i] == b[j]:
				out = append(out, edit{' ', a[i]})
				i, j = i+1, j+1
			case common[i+1][j] >= common[i][j+1]:
				out = append(out, edit{'-', a[i]})
				i++
			default:
				out = append(out, edit{'+', b[j]})
				j++
			}
		}
	}
	for ; i < len(a); i++ {
		out = append(out, edit{'-', a[i]})
	}
	for ; j < len(b); j++ {
		out = append(out, edit{'+', b[j]})
	}
	return out
}

// commonLengths[i][j] is how many lines a[i:] and b[j:] have in common, in order.
func commonLengths(a, b []string) [][]int32 {
	table := make([][]int32, len(a)+1)
	for i := range table {
		table[i] = make([]int32, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				table[i][j] = table[i+1][j+1] + 1
			} else {
				table[i][j] = max(table[i+1][j], table[i][j+1])
			}
		}
	}
	return table
}
