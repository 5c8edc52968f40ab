package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// asProgram in the environment makes the test binary be ntsbench itself, which
// starts itself again on its CPU and as the floors.
const asProgram = "NTSBENCH_TEST_AS_PROGRAM"

// agentProgram is ntsagent as `make build` makes it.
var agentProgram string

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Exit(buildAndTest(m))
}

func buildAndTest(m *testing.M) int {
	dir, err := os.MkdirTemp("", "ntsbench-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	agentProgram = filepath.Join(dir, "ntsagent")
	build := exec.Command("go", "build", "-trimpath", "-o", agentProgram, "ntsagent/cmd/ntsagent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build ntsagent: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// program is a started ntsbench.
type program struct {
	*exec.Cmd
	out, err strings.Builder
	tmp      string // where it keeps its files
}

func newProgram(t *testing.T, args ...string) *program {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	tmp, err := os.MkdirTemp("", "b") // short: sockets live in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(tmp) })
	p := &program{Cmd: exec.Command(self, args...), tmp: tmp}
	p.Stdout, p.Stderr = &p.out, &p.err
	p.Env = append(os.Environ(), asProgram+"=1", "TMPDIR="+tmp)
	p.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	return p
}

// leavesNothing requires its folder to be empty.
func (p *program) leavesNothing(t *testing.T) {
	t.Helper()
	left, err := os.ReadDir(p.tmp)
	if err != nil || len(left) > 0 {
		t.Errorf("it leaves %v behind (%v)", left, err)
	}
}

// TestATinyBenchHasEveryRow runs all of the harness, a part at a time, against
// the real agent and the real chronyd. What it measures in no time is not looked at.
func TestATinyBenchHasEveryRow(t *testing.T) {
	t.Parallel()
	const idle = 40
	names := namesOf(idle)
	tables := make(chan string, 4)
	var going sync.WaitGroup
	for _, part := range [][]string{{"ke", "key exchange"}, {"ke", "query", "QUERIES"}, {"ke", "memory", "new clients", "silent"}, {"gateway"}} {
		args := []string{"bench", "--rounds", "1", "--seconds", "0.2", "--idle", fmt.Sprint(idle), "--agent", agentProgram, "--table", part[0]}
		for _, word := range part[1:] {
			args = append(args, "--only", word)
		}
		p := newProgram(t, args...)
		going.Go(func() {
			if err := p.Run(); err != nil {
				t.Errorf("%v: %s%s", err, &p.out, &p.err)
			}
			p.leavesNothing(t)
			for line := range strings.Lines(p.err.String()) {
				if !strings.HasPrefix(line, "ntsbench: ") {
					t.Errorf("it says %q", line)
				}
			}
			tables <- p.out.String()
		})
	}
	going.Wait()
	close(tables)
	rows := map[string]string{} // lines of the tables, without their notes
	for table := range tables {
		for _, words := range []string{"\nmachine: ", "\nversions: ntsagent devel (go", "; chronyd (chrony) version 4.3\n", "; load average before the run ", "\nRounds: 1; in each, every server is loaded for 200ms "} {
			if !strings.Contains(table, words) {
				t.Errorf("it is not said how this was measured: no %q in\n%s", words, table)
			}
		}
		above := ""
		for line := range strings.Lines(table) {
			if strings.HasPrefix(line, "    ") { // a note
				continue
			}
			what, _, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "  ")
			if strings.HasPrefix(line, "  the same") {
				what = above + evicting
			}
			rows[what], above = line, what
		}
	}
	result := regexp.MustCompile(`  (PASS|PASS\+goal|MISS)$`)
	figure := regexp.MustCompile(`^(-?\d+(\.\d+)?( (µs|ms|MB|KiB|s|/s|%))?|never|\d+/20)$`)
	gap := regexp.MustCompile(`  +`)
	for _, what := range names.all() {
		line := strings.TrimSpace(rows[what])
		judged := slices.Contains(names.judged, what) || slices.Contains(names.gateway, what)
		if line == "" || judged != result.MatchString(line) {
			t.Errorf("no row %q, or without its verdict, or with one too many: %q", what, line)
			continue
		}
		cells := gap.Split(line, -1) // what, agent, chronyd …
		measured := agentColumn
		if strings.Contains(what, "quer") && slices.Contains(names.information, what) {
			measured = chronydColumn
		}
		if len(cells) < 1+columns || !figure.MatchString(cells[1+measured]) {
			t.Errorf("nothing was measured: %q", line)
		}
	}
}

// failed wants exit code 1 and returns what is said last.
func (p *program) failed(t *testing.T) string {
	t.Helper()
	err := p.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("%v, want exit code 1", err)
	}
	lines := strings.Split(strings.TrimSpace(p.err.String()), "\n")
	return lines[len(lines)-1]
}

func TestABenchThatCannotMeasureSaysWhyInItsRows(t *testing.T) {
	p := newProgram(t, "bench", "--only", "X25519,", "--only", "when idle", "--agent", "/bin/false")
	if got := p.failed(t); got != "ntsbench: 3 of 3 rows could not be measured; the table says why" {
		t.Errorf("it says %q", got)
	}
	if got := p.out.String(); strings.Count(got, "    not measured: ntsagent: exit status 1; it said nothing\n") != 3 || !strings.Contains(got, "ntsagent of unknown version") {
		t.Errorf("its table is\n%s", got)
	}
	p.leavesNothing(t)

	p = newProgram(t, "bench", "--table", "gateway", "--only", "AEAD 15, to", "--only", "after load", "--agent", "/bin/false")
	if got := p.failed(t); got != "ntsbench: 3 of 3 rows could not be measured; the table says why" {
		t.Errorf("it says %q", got)
	}
	if got := p.out.String(); strings.Count(got, "    not measured: ntsagent: exit status 1; it said nothing\n") != 3 || !strings.Contains(got, "GATEWAY: ") {
		t.Errorf("its table is\n%s", got)
	}
	p.leavesNothing(t)
}

func TestABenchOutsideTheSourceTreeSaysSo(t *testing.T) {
	p := newProgram(t, "bench", "--only", "memory", "--idle", "5", "--agent", "/bin/false")
	p.Dir = p.tmp
	if got := p.failed(t); got != "ntsbench: ntsbench bench needs its source tree, for chronyd in .parts/; run it from there" {
		t.Errorf("it says %q", got)
	}
}

func TestABenchThatIsInterruptedLeavesNothing(t *testing.T) {
	t.Parallel()
	for name, sign := range map[string]syscall.Signal{"asked to": syscall.SIGINT, "killed": syscall.SIGKILL} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProgram(t, "bench", "--only", "X25519,", "--seconds", "60", "--agent", agentProgram)
			if err := p.Start(); err != nil {
				t.Fatal(err)
			}
			// chronyd and its helper, twice; agent; floor; itself
			var pids []int
			eventually(t, "all servers run", func() bool {
				var err error
				pids, _, err = tree(p.Process.Pid)
				return err == nil && len(pids) == 7
			})
			p.Process.Signal(sign)
			p.Wait()
			if sign == syscall.SIGINT {
				if got := p.err.String(); !strings.HasSuffix(got, "\nntsbench: interrupted\n") || p.ProcessState.ExitCode() != 1 {
					t.Errorf("it says %q and ends with %d", got, p.ProcessState.ExitCode())
				}
				p.leavesNothing(t)
			}
			for _, pid := range pids {
				eventually(t, fmt.Sprintf("process %d is gone", pid), func() bool { return !runs(pid) })
			}
		})
	}
}

// runs is false of a process nobody has waited for yet, too.
func runs(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(b), ") Z ")
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	const patience = 90 * time.Second // any process may stand still for seconds, time and again
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-ctx.Done():
			t.Fatalf("not within %v: %s", patience, what)
		case <-tick.C:
		}
	}
}

func TestWrongUsageIsTold(t *testing.T) {
	const here = "127.0.0.1:1"
	for name, tt := range map[string]struct {
		args  []string
		words string
	}{
		"no such verb":              {[]string{"banch"}, `"banch" is no verb`},
		"no such flag":              {[]string{"bench", "--round", "1"}, "wrong usage of bench"},
		"no rounds":                 {[]string{"bench", "--rounds", "0"}, "--rounds 0"},
		"too many idle":             {[]string{"bench", "--idle", "9001"}, "--idle 9001: it is 1 to 9000"},
		"no such table":             {[]string{"bench", "--table", "odd"}, `--table "odd": it is ke, gateway or all`},
		"no row of the table":       {[]string{"bench", "--table", "ke", "--only", "AEAD 30"}, "no row contains"},
		"no time":                   {[]string{"bench", "--seconds", "NaN"}, "--seconds NaN"},
		"no row":                    {[]string{"bench", "--only", "nonsense"}, "no row contains [\"nonsense\"]; the rows are\n  " + rowKEFloor + "\n"},
		"a name for an address":     {[]string{"ke", "--addr", "localhost:4460"}, `--addr "localhost:4460": want an IP address and port, such as 127.0.0.1:4460`},
		"no address":                {[]string{"ke"}, `--addr ""`},
		"ke without end":            {[]string{"ke", "--addr", here, "--for", "0s"}, "--for 0s"},
		"no clients":                {[]string{"ke", "--addr", here, "--clients", "0"}, "--clients 0"},
		"no such groups":            {[]string{"ke", "--addr", here, "--groups", "odd"}, "--groups"},
		"no such kind":              {[]string{"idle", "--addr", here, "--kind", "odd"}, `--kind "odd": it is tcp, half-hello or finished`},
		"no connections":            {[]string{"idle", "--addr", here, "--n", "0"}, "--n 0"},
		"no time to wait":           {[]string{"idle", "--addr", here, "--for", "-1s"}, "--for -1s"},
		"an argument":               {[]string{"plain", "--addr", here, "more"}, `"more" is not a flag`},
		"no sockets":                {[]string{"plain", "--addr", here, "--sockets", "0"}, "--sockets 0"},
		"no window":                 {[]string{"plain", "--addr", here, "--window", "0"}, "--window 0"},
		"a rate below nothing":      {[]string{"plain", "--addr", here, "--rate", "-1"}, "--rate -1"},
		"a rate of next to nothing": {[]string{"plain", "--addr", here, "--rate", "1e-12"}, "--rate 1e-12"},
		"a rate that is none":       {[]string{"plain", "--addr", here, "--rate", "NaN"}, "--rate NaN"},
		"a time below nothing":      {[]string{"plain", "--addr", here, "--for", "-1s"}, "--for -1s"},
		"no time for a reply":       {[]string{"plain", "--addr", here, "--lost-after", "0s"}, "--lost-after 0s"},
		"no time for a session":     {[]string{"ke", "--addr", here, "--timeout", "0s"}, "--timeout 0s"},
		"no NTP server":             {[]string{"nts", "--ke", here}, `--addr ""`},
		"no key-exchange server":    {[]string{"nts", "--addr", here}, `--ke ""`},
		"too many placeholders":     {[]string{"nts", "--addr", here, "--ke", here, "--placeholders", "8"}, "--placeholders 8: it is 0 to 7"},
		"an AEAD nobody knows":      {[]string{"nts", "--addr", here, "--ke", here, "--aead", "65551"}, "--aead 65551: it is 15, 16, 17 or 30"},
		"a window of NTS queries":   {[]string{"nts", "--addr", here, "--ke", here, "--window", "65537"}, "--window 65537: it is 1 to 65536"},
		"a floor by itself":         {[]string{"floor", "odd"}, "wrong usage of floor"},
		"a floor without a socket":  {[]string{"floor"}, "wrong usage of floor"},
	} {
		p := newProgram(t, tt.args...)
		p.Run()
		if code := p.ProcessState.ExitCode(); code != 2 || !strings.Contains(p.err.String(), tt.words) {
			t.Errorf("%s: exit code %d, %q, want 2 and %q", name, code, p.err.String(), tt.words)
		}
	}
	for _, tt := range []struct {
		args  []string
		words string
	}{
		{nil, "usage: ntsbench"}, {[]string{"--help"}, "usage: ntsbench"}, {[]string{"bench", "--help"}, "usage: ntsbench bench"}, {[]string{"ke", "-h"}, "usage: ntsbench ke"},
		{[]string{"nts", "-h"}, "0: until Ctrl-C"}, {[]string{"plain", "-h"}, "0: until Ctrl-C"},
	} {
		p := newProgram(t, tt.args...)
		if err := p.Run(); err != nil || !strings.Contains(p.out.String(), tt.words) {
			t.Errorf("%q: %v, %q, want %q", tt.args, err, p.out.String(), tt.words)
		}
	}
}
