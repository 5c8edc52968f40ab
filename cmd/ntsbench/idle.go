package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"ntsagent/cmd/ntsbench/load"
)

// agentRoom has the agent hold all of the idle connections, long enough to look
// at them.
const agentRoom = ", max_sessions: 10000, timeout: 30s"

const (
	mostIdle   = 9000 // well below what agentRoom and chronydRoom allow
	probes     = 20
	probeMost  = time.Second // one probe
	closedMost = 30 * time.Second
	spareFiles = 256 // besides the idle connections
	eachKind   = 20  // idle connections, as any server has room for
)

// newClientLimits are of a new client beside idle connections, in ms.
var newClientLimits = limits{50, 10}

// idleGroups are those that hold n idle connections.
func idleGroups(n int) []group {
	room := group{rows: []string{rowPerSession}, run: (*bench).roomForAll, idle: true}
	limit := group{run: (*bench).defaultLimit, idle: true}
	for _, k := range load.Kinds {
		room.rows = append(room.rows, rowNewClients(k, n))
		limit.rows = append(limit.rows, rowNewClients(k, n)+evicting)
	}
	limit.rows = append(limit.rows, rowClosed)
	return []group{room, limit}
}

// enoughFiles says before anything starts that n idle connections, which the
// flag has asked for, cannot be had.
func enoughFiles(todo []group, flag string, n, files int) error {
	if files >= n+spareFiles || !slices.ContainsFunc(todo, func(g group) bool { return g.idle }) {
		return nil
	}
	return fmt.Errorf("%d idle connections cannot be had: the hard limit of open files is %d; raise it to %d (ulimit -Hn) or hold fewer with %s",
		n, files, n+spareFiles, flag)
}

// roomForAll holds all connections on an agent and a chronyd of its own.
func (b *bench) roomForAll(ctx context.Context) ([]row, error) {
	agent, daemon, err := b.servers.startAgent(ctx, agentRoom)
	if err != nil {
		return nil, err
	}
	defer daemon.stop()
	defer agent.stop()
	chronyd, err := b.servers.startServing(ctx, b.servers.chrony, chronydRoom)
	if err != nil {
		return nil, err
	}
	defer chronyd.stop()

	var rows []row
	// Finished first: the memory is of servers that have done nothing else.
	for _, k := range []load.Kind{load.Finished, load.TCP, load.HalfHello} {
		onAgent, err := b.holdAndDrain(ctx, agent, k)
		if err != nil {
			return rows, err
		}
		r := newClients{what: rowNewClients(k, b.o.idle), asked: b.o.idle, all: true, limits: newClientLimits}
		r.crowds[agentColumn] = onAgent
		r.crowds[chronydColumn], r.notes = b.competitor(ctx, chronyd, k)
		rows = append(rows, r.row())
		if k == load.Finished {
			rows = append(rows, perSession(r.crowds))
		}
	}
	return rows, ctx.Err()
}

// perSession is the memory of finished handshakes.
func perSession(crowds [columns]*crowd) row {
	m := readings{what: rowPerSession, unit: "KiB", values: unmeasured(), limits: &limits{48, 40}}
	for i, c := range crowds {
		if c != nil && c.open > 0 {
			m.values[i] = float64(c.grown) / 1024 / float64(c.open)
		}
	}
	if math.IsNaN(m.values[agentColumn]) {
		return notMeasured(rowPerSession, errors.New("the agent held no connection"))
	}
	return m.row()
}

// competitor is holdAndDrain for another server than the agent. If that fails
// the row has no cell for it, but a note.
func (b *bench) competitor(ctx context.Context, s server, k load.Kind) (*crowd, []string) {
	c, err := b.holdAndDrain(ctx, s, k)
	if err != nil {
		return nil, []string{fmt.Sprintf("%s not measured: %v", s.name, err)}
	}
	return c, nil
}

// defaultLimit opens all connections of one kind after another on the agent of
// the other rows, which must evict most of them, and waits until the rest is closed.
// The chronyd beside it is a new one at its own default limit.
func (b *bench) defaultLimit(ctx context.Context) ([]row, error) {
	if err := b.keServers(ctx); err != nil {
		return nil, err
	}
	chronyd, err := b.servers.startServing(ctx, b.servers.chrony, "")
	if err != nil {
		return nil, err
	}
	defer chronyd.stop()
	var rows []row
	var onAgent []*load.Idle
	defer func() { closeAll(onAgent) }()
	for _, k := range load.Kinds {
		h, err := b.hold(ctx, b.agent, k)
		if err != nil {
			return rows, err
		}
		onAgent = append(onAgent, h.idle)
		r := newClients{what: rowNewClients(k, b.o.idle) + evicting, asked: b.o.idle, limits: newClientLimits}
		r.crowds[agentColumn] = &h.crowd
		r.crowds[chronydColumn], r.notes = b.competitor(ctx, chronyd, k)
		rows = append(rows, r.row())
	}
	closed := readings{what: rowClosed, unit: "s", values: unmeasured(), limits: &limits{5, 3}}
	b.say("wait until silent connections are closed")
	onChronyd, err := holdEachKind(ctx, chronyd)
	defer closeAll(onChronyd)
	if err != nil {
		closed.notes = []string{fmt.Sprintf("%s not measured: %v", chronyd.name, err)}
	}
	closed.values[agentColumn] = closedAfter(ctx, onAgent)
	if err == nil {
		closed.values[chronydColumn] = closedAfter(ctx, onChronyd)
	}
	if ctx.Err() != nil {
		return rows, ctx.Err()
	}
	return append(rows, closed.row()), nil
}

// holdEachKind holds a few connections of each kind.
func holdEachKind(ctx context.Context, s server) ([]*load.Idle, error) {
	var all []*load.Idle
	for _, k := range load.Kinds {
		idle, err := load.Hold(ctx, s.ke, k, eachKind)
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

// closedAfter waits for the server to close them all and returns how many seconds
// the longest was open; infinity if we had to give up.
func closedAfter(ctx context.Context, all []*load.Idle) float64 {
	var longest time.Duration
	for _, idle := range all {
		life, err := idle.Gone(ctx, closedMost)
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
	b.say("%d connections (%s) on %s", b.o.idle, k, s.name)
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
	s.settle(ctx)
	open := h.idle.Open()
	after, err := memoryOf(s.pid)
	if err == nil {
		h.crowd = crowd{open: open, grown: after - before, probes: load.Probe(ctx, s.ke, probes, probeMost)}
		h.crowd.held = h.idle.Open()
		err = errors.Join(ctx.Err(), s.gone())
	}
	if err != nil {
		h.idle.Close()
	}
	return h, err
}

// settle waits until the server has taken what was opened, which shows in its CPU
// time standing still, but not longer than connections of 3 s allow.
func (s server) settle(ctx context.Context) {
	const (
		window = 30 * time.Millisecond // of which a busy server takes three ticks
		most   = 20                    // windows
	)
	before, err := cpuOf(s.pid)
	for range most {
		select {
		case <-ctx.Done():
			return
		case <-time.After(window):
		}
		var now time.Duration
		if err == nil {
			now, err = cpuOf(s.pid)
		}
		if err != nil || now == before {
			return // an error shows at the next reading
		}
		before = now
	}
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
