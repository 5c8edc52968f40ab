package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// How hard everybody is loaded.
const (
	keClients  = 16
	ntpSockets = 8
	ntpWindow  = 8 // requests in flight on each
)

// options are the flags of `ntsbench bench`.
type options struct {
	schedule
	agent string
	only  string
	idle  int // connections held
}

func benchOptions(args []string, stdout io.Writer) (options, error) {
	var o options
	var seconds float64
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.IntVar(&o.rounds, "rounds", 9, "how often every server is measured, in turn")
	f.Float64Var(&seconds, "seconds", 2, "how long one measurement of one server takes")
	f.StringVar(&o.agent, "agent", "", "the ntsagent `PROGRAM` (default: the one beside ntsbench)")
	f.StringVar(&o.only, "only", "", "measure only rows that contain `WORD`")
	f.IntVar(&o.idle, "idle", 5000, "how many idle connections are held")
	if err := parse(f, args, stdout); err != nil {
		return o, err
	}
	if o.rounds < 1 || o.idle < 1 || o.idle > mostIdle || !(seconds >= 0.05 && seconds <= 600) {
		return o, fmt.Errorf("%w of bench: --rounds starts at 1, --idle is 1 to %d, --seconds 0.05 to 600", errUsage, mostIdle)
	}
	o.measure = time.Duration(seconds * float64(time.Second))
	o.warm = max(o.measure/10, 50*time.Millisecond)
	return o, nil
}

// findAgent returns the absolute path of the ntsagent to run.
func findAgent(path string) (string, error) {
	if path == "" {
		self, err := os.Executable()
		if err != nil {
			return "", fmt.Errorf("find ntsagent: %w", err)
		}
		path = filepath.Join(filepath.Dir(self), "ntsagent")
	}
	path, err := filepath.Abs(path)
	if err == nil {
		path, err = exec.LookPath(path)
	}
	if err != nil {
		return "", fmt.Errorf("find ntsagent: %w; run `make build`, or name it with --agent", err)
	}
	return path, nil
}

// bench is one run. Its servers start when they are first needed, and some rows
// need fresh ones, so the order of the groups matters.
type bench struct {
	o      options
	stable *stable

	agent, daemon, chronyd, tlsFloor, udpFloor server
}

// group is what is measured together: the rows it fills and how.
type group struct {
	rows []string
	run  func(*bench, context.Context) ([]row, error)
	idle bool // it holds idle connections
}

// groups are in the order in which they run.
func groups(idle int) []group {
	return append([]group{
		{rows: []string{rowIdleMemory}, run: (*bench).idleMemory},
		{rows: []string{rowKEFloor, rowKEChronyd, rowKELatency}, run: (*bench).keX25519},
		{rows: []string{rowKEDefault, rowKEDefaultLatency}, run: (*bench).keDefault},
		{rows: []string{rowNTS, rowNTSLatency, rowNTSOffset}, run: (*bench).nts},
		{rows: []string{rowPlain, rowPlainLatency, rowPlainOffset}, run: (*bench).plain},
	}, idleGroups(idle)...)
}

// The rows of CPU time and of NTP.
const (
	rowKEFloor          = "KE X25519, CPU per session, agent : floor"
	rowKEChronyd        = "KE X25519, CPU per session, agent : chronyd"
	rowKELatency        = "KE X25519, session p50"
	rowKEDefaultLatency = "KE client default, session p50"
	rowKEDefault        = "KE client default (X25519MLKEM768), CPU per session, agent : floor"
	rowNTS              = "NTS query, CPU per query, chronyd with the agent's keys : UDP echo"
	rowNTSLatency       = "NTS query, latency p99 at saturation"
	rowNTSOffset        = "NTS query, clock offset p50 at saturation"
	rowPlain            = "plain query, CPU per query, chronyd : UDP echo"
	rowPlainLatency     = "plain query, latency p99 at saturation"
	rowPlainOffset      = "plain query, clock offset p50 at saturation"
)

// runBench is the verb.
func runBench(ctx context.Context, args []string, stdout io.Writer) error {
	o, err := benchOptions(args, stdout)
	if err != nil {
		return err
	}
	if o.agent, err = findAgent(o.agent); err != nil {
		return err
	}
	todo := selected(groups(o.idle), o.only)
	if len(todo) == 0 {
		return fmt.Errorf("%w of bench: no row contains %q", errUsage, o.only)
	}
	c, err := pin()
	if err != nil {
		return err
	}
	files, err := raiseFiles()
	if err != nil {
		return err
	}
	if err := enoughFiles(todo, o.idle, files); err != nil {
		return err
	}
	rows, err := measure(ctx, o, c, todo)
	if err != nil {
		return err
	}
	if err := printTable(stdout, rows); err != nil {
		return err
	}
	_, err = io.WriteString(stdout, conditions(o, c))
	return err
}

// measure runs the groups. All it started is gone when it returns: who reads
// the table may leave in the middle of it.
func measure(ctx context.Context, o options, c cpus, todo []group) ([]row, error) {
	s, err := openStable(ctx, c, o.agent)
	if err != nil {
		return nil, err
	}
	defer s.close()
	b := &bench{o: o, stable: s}
	var rows []row
	for _, g := range todo {
		got, err := g.run(b, ctx)
		if err != nil {
			return nil, fmt.Errorf("measure %q: %w", g.rows[0], err)
		}
		for _, r := range got {
			if strings.Contains(r.what, o.only) {
				rows = append(rows, r)
			}
		}
	}
	return rows, nil
}

// selected are the groups with a row that contains the word.
func selected(all []group, word string) []group {
	return slices.DeleteFunc(all, func(g group) bool {
		return !slices.ContainsFunc(g.rows, func(what string) bool { return strings.Contains(what, word) })
	})
}

// conditions is what has to be known to read the table.
func conditions(o options, c cpus) string {
	return machine() + fmt.Sprintf(`conditions: %s; %d rounds, in each of which every server is loaded for %v after %v of warm-up, in rotating order;
ratios are paired within a round: median [min–max]; CPU is of the server and its children, from /proc.
KE: %d clients in flight, every session verified whole; NTP: %d sockets with %d queries in flight each, closed loop, every reply verified.
Idle rows: one server each and no rounds; %d connections, then 20 new clients one after another; "gone after" is from a connection's
connect to its close, the longest of all kinds at the default limit. One failed operation of an alternated row fails the run.
`, c.text(), o.rounds, o.measure, o.warm, keClients, ntpSockets, ntpWindow, o.idle)
}
