package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"ntsagent/cmd/ntsbench/load"
)

// The rows of memory and idle connections.
const (
	rowIdleMemory = "idle RSS, just started"
	rowPerSession = "RSS per idle finished TLS session"
	rowGone       = "idle connections gone after"
)

func rowRoomy(k load.Kind, n int) string {
	return fmt.Sprintf("new clients beside %d idle, %s, room for all", n, k)
}

func rowFull(k load.Kind, n int) string {
	return fmt.Sprintf("new clients beside %d idle, %s, default limit", n, k)
}

// roomy is room for all of the idle connections, long enough to look at them.
const roomy = ", max_sessions: 10000, timeout: 30s"

const (
	mostIdle   = 9000 // well below what roomy has room for
	probes     = 20
	probeMost  = time.Second // one probe
	goneMost   = 30 * time.Second
	spareFiles = 256 // besides the idle connections
)

// promptly are the limits of a new client beside idle ones, in ms.
var promptly = limits{50, 10}

// idleGroups are those that hold n idle connections.
func idleGroups(n int) []group {
	room, full := group{rows: []string{rowPerSession}, run: (*bench).roomForAll}, group{run: (*bench).defaultLimit}
	for _, k := range load.Kinds {
		room.rows = append(room.rows, rowRoomy(k, n))
		full.rows = append(full.rows, rowFull(k, n))
	}
	full.rows = append(full.rows, rowGone)
	room.idle, full.idle = true, true
	return []group{room, full}
}

// enoughFiles says before anything starts that the idle rows cannot be had.
func enoughFiles(todo []group, n, files int) error {
	for _, g := range todo {
		if g.idle && files < n+spareFiles {
			return fmt.Errorf("%d idle connections cannot be had: the hard limit of open files is %d; raise it to %d (ulimit -Hn), hold fewer with --idle, or choose other rows with --only",
				n, files, n+spareFiles)
		}
	}
	return nil
}

// roomForAll holds all connections on an agent and a chronyd of its own.
func (b *bench) roomForAll(ctx context.Context) ([]row, error) {
	agent, daemon, err := b.stable.startAgent(ctx, roomy)
	if err != nil {
		return nil, err
	}
	defer daemon.stop()
	defer agent.stop()
	chronyd, err := b.stable.startServing(ctx, plenty)
	if err != nil {
		return nil, err
	}
	defer chronyd.stop()

	memory := amount{what: rowPerSession, unit: "KiB", values: unmeasured(), limits: &limits{48, 40}}
	perKind := make(map[load.Kind]row)
	// Finished first: the memory is of servers that have done nothing else.
	for _, k := range []load.Kind{load.Finished, load.TCP, load.HalfHello} {
		r := beside{what: rowRoomy(k, b.o.idle), held: b.o.idle, limits: promptly}
		for column, s := range [...]server{agentColumn: agent, chronydColumn: chronyd} {
			if r.crowds[column], err = b.holdAndDrain(ctx, s, k); err != nil {
				return nil, err
			}
			if c := r.crowds[column]; k == load.Finished && c.open > 0 {
				memory.values[column] = float64(c.grown) / 1024 / float64(c.open)
			}
		}
		perKind[k] = r.row()
	}
	rows := []row{memory.row()}
	for _, k := range load.Kinds {
		rows = append(rows, perKind[k])
	}
	return rows, nil
}

// defaultLimit opens all connections of one kind after another on the agent of
// the other rows, which must evict most of them, and waits until the rest is gone.
// The chronyd beside it is a new one at its own default limit.
func (b *bench) defaultLimit(ctx context.Context) ([]row, error) {
	if err := b.keServers(ctx); err != nil {
		return nil, err
	}
	chronyd, err := b.stable.startServing(ctx, "")
	if err != nil {
		return nil, err
	}
	defer chronyd.stop()
	var rows []row
	var onAgent []*load.Idle
	defer func() { closeAll(onAgent) }()
	for _, k := range load.Kinds {
		r := beside{what: rowFull(k, b.o.idle), limits: promptly}
		h, err := b.hold(ctx, b.agent, k)
		if err != nil {
			return nil, err
		}
		onAgent = append(onAgent, h.idle)
		r.crowds[agentColumn] = &h.crowd
		if r.crowds[chronydColumn], err = b.holdAndDrain(ctx, chronyd, k); err != nil {
			return nil, err
		}
		rows = append(rows, r.row())
	}
	onChronyd, err := few(ctx, chronyd)
	defer closeAll(onChronyd)
	if err != nil {
		return nil, err
	}
	gone := amount{what: rowGone, unit: "s", values: unmeasured(), limits: &limits{5, 3}}
	gone.values[agentColumn] = goneAfter(ctx, onAgent)
	gone.values[chronydColumn] = goneAfter(ctx, onChronyd)
	return append(rows, gone.row()), ctx.Err()
}

// few holds as many connections of each kind as any server has room for.
func few(ctx context.Context, s server) ([]*load.Idle, error) {
	const each = 20
	var all []*load.Idle
	for _, k := range load.Kinds {
		idle, err := load.Hold(ctx, s.ke, k, each)
		if err != nil {
			return all, err
		}
		all = append(all, idle)
	}
	return all, nil
}

func closeAll(all []*load.Idle) {
	for _, idle := range all {
		idle.Close()
	}
}

// goneAfter waits for the server to close them all and returns how many seconds
// the longest was open; infinity if we had to give up.
func goneAfter(ctx context.Context, all []*load.Idle) float64 {
	var longest time.Duration
	for _, idle := range all {
		life, err := idle.Gone(ctx, goneMost)
		if err != nil {
			return math.Inf(1)
		}
		longest = max(longest, life)
	}
	return longest.Seconds()
}

// held is what hold has seen.
type held struct {
	idle  *load.Idle
	crowd crowd
	files int // the server's, without the connections
}

// hold opens the connections, looks at the server's memory and lets new clients
// try. The caller closes the connections.
func (b *bench) hold(ctx context.Context, s server, k load.Kind) (held, error) {
	var h held
	var err error
	if h.files, err = openFiles(s.pid); err != nil {
		return h, err
	}
	before, err := memoryOf(s.pid)
	if err != nil {
		return h, err
	}
	if h.idle, err = load.Hold(ctx, s.ke, k, b.o.idle); err != nil {
		return h, err
	}
	after, err := memoryOf(s.pid)
	if err == nil {
		h.crowd = crowd{probes: load.Probe(ctx, s.ke, probes, probeMost), open: h.idle.Open(), grown: after.now - before.now}
		err = errors.Join(ctx.Err(), s.gone())
	}
	if err != nil {
		h.idle.Close()
	}
	return h, err
}

// holdAndDrain closes the connections and waits until the server has, too.
func (b *bench) holdAndDrain(ctx context.Context, s server, k load.Kind) (*crowd, error) {
	h, err := b.hold(ctx, s, k)
	if err != nil {
		return nil, err
	}
	h.idle.Close()
	return &h.crowd, s.drained(ctx, h.files)
}

// drained waits until the server has closed what it had open beyond files.
func (s server) drained(ctx context.Context, files int) error {
	const slack = 8 // of its own doings
	return s.wait(ctx, "to close idle connections", func(context.Context) error {
		n, err := openFiles(s.pid)
		if err == nil && n > files+slack {
			err = fmt.Errorf("it has %d open files, and had %d", n, files)
		}
		return err
	})
}
