package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
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

// TestATinyBenchHasEveryRow runs all of the harness, a third at a time, against
// the real agent and the real chronyd. What it measures in no time is not looked at.
func TestATinyBenchHasEveryRow(t *testing.T) {
	t.Parallel()
	const idle = 40
	unseen := map[string]bool{}
	for _, g := range groups(idle) {
		for _, what := range g.rows {
			unseen[what] = true
		}
	}
	tables := make(chan string, 3)
	t.Run("part", func(t *testing.T) {
		for _, only := range []string{"X25519", "query", "idle"} {
			t.Run(only, func(t *testing.T) {
				t.Parallel()
				p := newProgram(t, "bench", "--rounds", "1", "--seconds", "0.2", "--idle", fmt.Sprint(idle), "--agent", agentProgram, "--only", only)
				if err := p.Run(); err != nil {
					t.Fatalf("%v: %s%s", err, &p.out, &p.err)
				}
				p.leavesNothing(t)
				tables <- p.out.String()
			})
		}
	})
	close(tables)
	verdict := regexp.MustCompile(`  (PASS|MISS)  +(met|not met)\s*$`)
	figures := regexp.MustCompile(`\d (µs|ms|MB|KiB|s)\b`)
	for table := range tables {
		if !strings.Contains(table, "\nmachine: ") || !strings.Contains(table, "1 rounds, in each of which every server is loaded for 200ms") {
			t.Errorf("it is not said how this was measured:\n%s", table)
		}
		for line := range strings.Lines(table) {
			what, _, _ := strings.Cut(line, "  ")
			if !unseen[what] {
				continue
			}
			delete(unseen, what)
			if strings.Contains(line, "≤") != verdict.MatchString(line) {
				t.Errorf("a bar without a verdict, or the other way round: %q", line)
			}
			if !figures.MatchString(line) || strings.Contains(line, "NaN") {
				t.Errorf("nothing was measured: %q", line)
			}
		}
	}
	delete(unseen, rowKEDefaultLatency) // no word of a part is in it
	for what := range unseen {
		t.Errorf("no row %q", what)
	}
}

func TestABenchThatCannotMeasureSaysWhyInOneLine(t *testing.T) {
	p := newProgram(t, "bench", "--only", "KE X25519", "--agent", "/bin/false")
	err := p.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("%v, want exit code 1", err)
	}
	if got := p.err.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "ntsagent: exit status 1; it said nothing") {
		t.Errorf("it says %q", got)
	}
	p.leavesNothing(t)
}

func TestABenchThatIsInterruptedLeavesNothing(t *testing.T) {
	t.Parallel()
	for name, sign := range map[string]syscall.Signal{"asked to": syscall.SIGINT, "killed": syscall.SIGKILL} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProgram(t, "bench", "--only", "KE X25519", "--seconds", "60", "--agent", agentProgram)
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
				if got := p.err.String(); got != "ntsbench: interrupted\n" || p.ProcessState.ExitCode() != 1 {
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
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-ctx.Done():
			t.Fatalf("not within 20 s: %s", what)
		case <-tick.C:
		}
	}
}

func TestWrongUsageIsTold(t *testing.T) {
	for name, tt := range map[string]struct {
		args  []string
		words string
	}{
		"no such verb":      {[]string{"banch"}, `"banch" is no verb`},
		"no such flag":      {[]string{"bench", "--round", "1"}, "wrong usage of bench"},
		"no rounds":         {[]string{"bench", "--rounds", "0"}, "--rounds starts at 1"},
		"no row":            {[]string{"bench", "--only", "nonsense", "--agent", "/bin/false"}, `no row contains "nonsense"`},
		"no address":        {[]string{"ke", "--addr", "localhost"}, "is no ADDRESS:PORT"},
		"no such kind":      {[]string{"idle", "--addr", "127.0.0.1:1", "--kind", "odd"}, "half-hello"},
		"no such groups":    {[]string{"ke", "--addr", "127.0.0.1:1", "--groups", "odd"}, "--groups"},
		"an argument":       {[]string{"plain", "--addr", "127.0.0.1:1", "more"}, `"more" is not a flag`},
		"no NTP server":     {[]string{"nts", "--ke", "127.0.0.1:1"}, "--addr"},
		"a floor by itself": {[]string{"floor", "odd"}, "wrong usage of floor"},
	} {
		p := newProgram(t, tt.args...)
		p.Run()
		if code := p.ProcessState.ExitCode(); code != 2 || !strings.Contains(p.err.String(), tt.words) {
			t.Errorf("%s: exit code %d, %q, want 2 and %q", name, code, p.err.String(), tt.words)
		}
	}
	for _, args := range [][]string{{}, {"--help"}, {"bench", "--help"}, {"ke", "-h"}} {
		p := newProgram(t, args...)
		if err := p.Run(); err != nil || !strings.Contains(p.out.String(), "usage: ntsbench") {
			t.Errorf("%q: %v, %q", args, err, p.out.String())
		}
	}
}
