// Tally reads the output of `go test -json` and says what happened: the output
// of each test that failed, the tables of those that passed (what they wrote by
// testing.T.Output in lines that start with "|"), one line per package, and as
// its last line
//
//	tests: N passed, 0 failed, 0 skipped, T s
//
// Every test and every subtest counts as one, and so does each committed seed
// of a fuzz target. A package that does not build, or fails outside its tests,
// counts as one failed test. The exit code is 1 unless everything passed:
// a skipped test, or no test at all, is not a pass.
package main

import (
	"fmt"
	"io"
	"os"
	"time"
)

func main() { os.Exit(run(os.Stdin, os.Stdout, time.Now())) }

func run(in io.Reader, out io.Writer, start time.Time) int {
	t, err := read(in, out)
	if err != nil {
		fmt.Fprintf(out, "FAIL read the test output: %v\n", err)
		t.failed++
	}
	fmt.Fprintf(out, "tests: %d passed, %d failed, %d skipped, %.0f s\n", t.passed, t.failed, t.skipped, time.Since(start).Seconds())
	if t.failed > 0 || t.skipped > 0 || t.passed == 0 {
		return 1
	}
	return 0
}
