package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
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
	only  words
	table string // "ke", "gateway" or "all"
	host  netip.Addr
	idle  int // connections held
}

func benchOptions(args []string, stdout io.Writer) (options, error) {
	var o options
	var seconds float64
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.IntVar(&o.rounds, "rounds", verdictRounds, "how often every server is measured, in turn; fewer give no verdicts")
	f.Float64Var(&seconds, "seconds", 2, "how long one measurement of one server takes")
	f.StringVar(&o.agent, "agent", "", "the ntsagent `PROGRAM` (default: the one beside ntsbench)")
	f.Func("only", "measure only rows that contain `WORD`, in any case; may be given more than once", func(word string) error {
		o.only = append(o.only, word)
		return nil
	})
	f.StringVar(&o.table, "table", "all", "measure ke, gateway or all")
	ipv6 := f.Bool("ipv6", false, "have the servers on ::1")
	f.IntVar(&o.idle, "idle", 5000, "how many idle connections are held")
	if err := parse(f, args, stdout); err != nil {
		return o, err
	}
	switch {
	case o.table != "all" && o.table != "ke" && o.table != "gateway":
		return o, fmt.Errorf("%w of bench: --table %q: it is ke, gateway or all", errUsage, o.table)
	case o.rounds < 1:
		return o, fmt.Errorf("%w of bench: --rounds %d: it starts at 1", errUsage, o.rounds)
	case o.idle < 1 || o.idle > mostIdle:
		return o, fmt.Errorf("%w of bench: --idle %d: it is 1 to %d", errUsage, o.idle, mostIdle)
	case !(seconds >= 0.05 && seconds <= 600):
		return o, fmt.Errorf("%w of bench: --seconds %g: it is 0.05 to 600", errUsage, seconds)
	}
	o.host = loopback
	if *ipv6 {
		o.host = loopback6
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
	o       options
	servers *servers
	say     func(format string, args ...any) // tells how far it is

	agent, daemon, chronyd, tlsFloor, udpFloor server

	gateway             agentServer // the agent in front of a daemon without NTS
	chronyd13, nakFloor server      // chronyd 4.6.1, an echo of as few octets as an NTS NAK has
}

// group is what is measured together: the rows it fills and how. What run
// returns with an error is finished all the same.
type group struct {
	rows  []string
	run   func(*bench, context.Context) ([]row, error)
	idle  bool   // it holds idle connections
	table string // "gateway", or "" for that of key exchanges
}

// groups are in the order in which they run.
func groups(idle int) []group {
	return slices.Concat([]group{
		{rows: []string{rowIdleMemory}, run: (*bench).idleMemory},
		{rows: []string{rowKEFloor, rowKEChronyd, rowKETime}, run: (*bench).keX25519},
		{rows: []string{rowKEDefaultFloor, rowKEDefaultTime}, run: (*bench).keDefault},
		{rows: []string{rowNTS, rowNTSTime, rowNTSOffset}, run: (*bench).nts},
		{rows: []string{rowPlain, rowPlainTime, rowPlainOffset}, run: (*bench).plain},
	}, idleGroups(idle), gatewayGroups())
}

// runBench is the verb.
func runBench(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := benchOptions(args, stdout)
	if err != nil {
		return err
	}
	names := namesOf(o.idle)
	todo := selected(groups(o.idle), o.table, o.only)
	if len(todo) == 0 {
		return fmt.Errorf("%w of bench: no row contains %q; the rows are\n  %s", errUsage, o.only, strings.Join(names.all(), "\n  "))
	}
	if o.agent, err = findAgent(o.agent); err != nil {
		return err
	}
	c, err := pin()
	if err != nil {
		return err
	}
	files, err := raiseFiles()
	if err != nil {
		return err
	}
	if err := enoughFiles(todo, "--idle", o.idle, files); err != nil {
		return err
	}
	load := loadAverage()
	rows, versions, err := measure(ctx, o, c, todo, func(format string, args ...any) {
		fmt.Fprintf(stderr, "ntsbench: "+format+"\n", args...)
	})
	if err != nil {
		return err
	}
	missing := count(rows, func(r row) bool { return r.missing })
	if ctx.Err() != nil && missing == len(rows) {
		return ctx.Err() // nothing is finished
	}
	if err := printTable(stdout, rows, names, o.rounds); err != nil {
		return err
	}
	if _, err := io.WriteString(stdout, conditions(o, c, versions, load)); err != nil {
		return err
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case missing > 0:
		return fmt.Errorf("%d of %d rows could not be measured; the table says why", missing, len(rows))
	}
	return nil
}

func count(rows []row, is func(row) bool) int {
	n := 0
	for _, r := range rows {
		if is(r) {
			n++
		}
	}
	return n
}

// measure runs the groups: rows that could not be measured say why. The error is
// of what all of them need. All it started is gone when it returns: who reads
// the table may leave in the middle of it.
func measure(ctx context.Context, o options, c cpus, todo []group, say func(string, ...any)) (rows []row, versions string, err error) {
	s, err := openServers(ctx, c, o.host, o.agent, say)
	if err != nil {
		return nil, "", err
	}
	defer s.close()
	versions = s.versions(ctx)
	b := &bench{o: o, servers: s, say: say}
	for _, g := range todo {
		var got []row
		err := ctx.Err()
		if err == nil {
			got, err = g.run(b, ctx)
		}
		if ctx.Err() != nil {
			err = errors.New("interrupted")
		}
		rows = append(rows, g.complete(got, err, o.only)...)
	}
	return rows, versions, nil
}

// complete returns the chosen rows of the group: those that are finished, and
// why the others are not.
func (g group) complete(got []row, err error, only words) []row {
	var rows []row
	for _, what := range g.rows {
		if !only.choose(what) {
			continue
		}
		i := slices.IndexFunc(got, func(r row) bool { return r.what == what })
		switch {
		case i >= 0:
			rows = append(rows, got[i])
		case err != nil:
			rows = append(rows, notMeasured(what, err))
		default:
			rows = append(rows, notMeasured(what, errors.New("nobody looked"))) // a fault of this program
		}
	}
	return rows
}

// selected are the groups of the table with a chosen row.
func selected(all []group, table string, only words) []group {
	return slices.DeleteFunc(all, func(g group) bool {
		other := table == "ke" && g.table != "" || table == "gateway" && g.table != "gateway"
		return other || !slices.ContainsFunc(g.rows, only.choose)
	})
}

// conditions is what has to be known to read the table.
func conditions(o options, c cpus, versions, load string) string {
	return machine() + fmt.Sprintf(`versions: %s
conditions: %s; load average before the run %s
Rounds: %d; in each, every server is loaded for %v after %v of warm-up, in rotating order; half as long for the
  gateway at saturation. CPU is of the server and its children, from /proc. A ratio is paired within a round: the median of
  the rounds, with the least and the greatest.
Key exchanges: %d clients, every session verified whole; one that fails on the agent is a MISS. Queries: closed loop, %d sockets
  with %d in flight each, every reply verified; a wrong one of the gateway is a MISS. A round in which another server fails, or a
  datagram is lost, is repeated twice at most.
Gateway: CPU and memory are of the agent alone; offsets are ((T2-T1)+(T3-T4))/2 with T4 stamped by the kernel, without their
  signs; 1,000 and 10,000 queries/s are open loops, the rest is closed. chronyd there serves NTS itself.
Silent connections: no rounds. %d are opened; when the server has taken them (its CPU rests), %d new clients come one after
  another; fewer than all served is a MISS. The agent has ke.max_sessions 10000, chronyd maxntsconnections 10000; in rows at
  the default both have their own, chronyd's is 100.
  "closed after" counts from the connect, the longest of all kinds, for chronyd of %d connections per kind.
`, versions, c.text(), load, o.rounds, o.measure, o.warm, keClients, ntpSockets, ntpWindow, o.idle, probes, eachKind)
}
