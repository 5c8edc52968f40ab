package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// event is one line of `go test -json` (see go doc test2json and go help buildjson).
type event struct {
	Action      string
	Package     string
	ImportPath  string // of build-output and build-fail
	Test        string
	Elapsed     float64
	Output      string
	FailedBuild string
}

// tally counts tests and subtests.
type tally struct{ passed, failed, skipped int }

// pkg is a package whose tests have started and not ended.
type pkg struct {
	tally
	output map[string][]string // by test; "" is the package's own
}

// read follows the events to their end and prints each package when it ends.
func read(in io.Reader, out io.Writer) (tally, error) {
	var total tally
	open := map[string]*pkg{}
	builds := map[string][]string{}
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			var e event
			if json.Unmarshal([]byte(line), &e) != nil || e.Action == "" {
				fmt.Fprint(out, line) // the go command speaking for itself
			} else {
				take(e, open, builds, &total, out)
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return total, err
		}
	}
	for name, p := range open {
		fmt.Fprintf(out, "FAIL %s: its tests never ended\n", name)
		total.add(p.tally)
		total.failed++
	}
	return total, nil
}

func take(e event, open map[string]*pkg, builds map[string][]string, total *tally, out io.Writer) {
	if e.Action == "build-output" {
		builds[e.ImportPath] = append(builds[e.ImportPath], e.Output)
		return
	}
	if e.Package == "" {
		return
	}
	p := open[e.Package]
	if p == nil {
		p = &pkg{output: map[string][]string{}}
		open[e.Package] = p
	}
	switch e.Action {
	case "output":
		if e.Test != "" && (strings.HasPrefix(e.Output, "=== ") || strings.HasPrefix(strings.TrimLeft(e.Output, " "), "--- ")) {
			return // that it runs, pauses, goes on and ends is no reason
		}
		p.output[e.Test] = append(p.output[e.Test], e.Output)
		return
	case "pass", "fail", "skip":
	default:
		return
	}
	if e.Test != "" {
		p.end(e, out)
		return
	}
	delete(open, e.Package)
	if e.Action == "fail" {
		for _, text := range builds[e.FailedBuild] {
			fmt.Fprint(out, text)
		}
		if p.failed == 0 {
			p.failed++
			fmt.Fprint(out, strings.Join(p.output[""], ""))
			for test, text := range p.output {
				if test != "" { // a test that a panic or os.Exit cut off
					fmt.Fprintf(out, "--- %s\n%s", test, strings.Join(text, ""))
				}
			}
		}
	}
	fmt.Fprintln(out, p.line(e))
	total.add(p.tally)
}

// end counts a test and prints why it failed or did not run, or what it measured.
func (p *pkg) end(e event, out io.Writer) {
	text := strings.Join(p.output[e.Test], "")
	delete(p.output, e.Test)
	switch e.Action {
	case "pass":
		p.passed++
		fmt.Fprint(out, rows(text))
		return
	case "fail":
		p.failed++
	case "skip":
		p.skipped++
	}
	fmt.Fprintf(out, "--- %s %s %s\n%s", strings.ToUpper(e.Action), e.Package, e.Test, text)
}

// rows are the lines of a table that a test wrote: those that start with "|".
func rows(text string) string {
	var found strings.Builder
	for line := range strings.Lines(text) {
		if row := strings.TrimLeft(line, " \t"); strings.HasPrefix(row, "|") {
			found.WriteString(strings.TrimRight(row, "\n") + "\n")
		}
	}
	return found.String()
}

func (p *pkg) line(e event) string {
	switch {
	case p.failed > 0 || e.Action == "fail":
		return fmt.Sprintf("FAIL %-36s %4d passed, %d failed, %d skipped, %.1f s", e.Package, p.passed, p.failed, p.skipped, e.Elapsed)
	case p.skipped > 0:
		return fmt.Sprintf("SKIP %-36s %4d passed, %d skipped, %.1f s", e.Package, p.passed, p.skipped, e.Elapsed)
	case p.passed == 0:
		return fmt.Sprintf("-    %-36s no tests", e.Package)
	}
	return fmt.Sprintf("ok   %-36s %4d passed, %.1f s", e.Package, p.passed, e.Elapsed)
}

func (t *tally) add(o tally) {
	t.passed += o.passed
	t.failed += o.failed
	t.skipped += o.skipped
}
