package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"time"

	"ntsagent/cmd/ntsbench/floor"
	"ntsagent/cmd/ntsbench/load"
	"ntsagent/ntske/client"
	"ntsagent/ntske/record"
)

// agentRuns starts the agent most rows are of, unless it runs. One
// that fails to start is tried again by the next rows.
func (b *bench) agentRuns(ctx context.Context) error {
	if b.agent.child != nil {
		return nil
	}
	agent, daemon, err := b.servers.startAgent(ctx, "")
	if err == nil {
		b.agent, b.daemon = agent, daemon
	}
	return err
}

// chronydRuns starts the chronyd 4.3 that serves NTS itself, unless it runs.
func (b *bench) chronydRuns(ctx context.Context) error {
	if b.chronyd.child != nil {
		return nil
	}
	chronyd, err := b.servers.startServing(ctx, b.servers.chrony, chronydRoom)
	if err == nil {
		b.chronyd = chronyd
	}
	return err
}

// keServers starts what KE rows compare.
func (b *bench) keServers(ctx context.Context) error {
	if err := b.agentRuns(ctx); err != nil {
		return err
	}
	if err := b.chronydRuns(ctx); err != nil {
		return err
	}
	if b.tlsFloor.child == nil {
		octets, err := answerOctets(ctx, b.agent.ke)
		if err != nil {
			return err
		}
		tlsFloor, err := b.servers.startTLSFloor(octets)
		if err != nil {
			return err
		}
		b.tlsFloor = tlsFloor
	}
	return nil
}

// answerOctets is how long the agent's answer to a key exchange is.
func answerOctets(ctx context.Context, t load.KETarget) (int, error) {
	res, err := client.KeyExchange(ctx, client.Config{Addr: t.Addr, Name: t.Name, Roots: t.Roots})
	if err != nil {
		return 0, fmt.Errorf("see how long an answer is: %w", err)
	}
	return len(answerOf(res)), nil
}

// answerOf writes again what the client has read.
func answerOf(res client.Result) []byte {
	r := record.Response{Protocols: []record.Protocol{record.NTPv4}, Server: res.Server, Cookies: res.Cookies}
	r.AEADs = append(r.AEADs, res.Keys.AEAD)
	if res.Port != record.NTPPort {
		r.Port = res.Port
	}
	return r.AppendTo(nil)
}

// idleMemory is of servers that have just started.
func (b *bench) idleMemory(ctx context.Context) ([]row, error) {
	if err := b.keServers(ctx); err != nil {
		return nil, err
	}
	m := readings{what: rowIdleMemory, unit: "MB", limits: &limits{30, 15}}
	for i, s := range [columns]server{b.agent, b.chronyd, b.tlsFloor} {
		octets, err := memoryOf(s.pid)
		if err != nil {
			return nil, err
		}
		m.values[i] = float64(octets) / 1e6
	}
	return []row{m.row()}, nil
}

func (b *bench) keX25519(ctx context.Context) ([]row, error) {
	all, err := b.ke(ctx, "KE X25519", []tls.CurveID{tls.X25519}, agentColumn, chronydColumn, floorColumn)
	if err != nil {
		return nil, err
	}
	return []row{
		compare(rowKEFloor, all, agentColumn, floorColumn, &limits{1.15, 1.05}),
		compare(rowKEChronyd, all, agentColumn, chronydColumn, &limits{1.00, 0.85}),
		medianTime(rowKETime, all),
	}, nil
}

func (b *bench) keDefault(ctx context.Context) ([]row, error) {
	all, err := b.ke(ctx, "KE X25519MLKEM768", nil, agentColumn, floorColumn)
	if err != nil {
		return nil, err
	}
	return []row{
		compare(rowKEDefaultFloor, all, agentColumn, floorColumn, &limits{1.15, 1.05}),
		medianTime(rowKEDefaultTime, all),
	}, nil
}

// medianTime is of the servers that could be measured.
func medianTime(what string, all [columns]*series) row {
	if err := all[agentColumn].err; err != nil {
		return notMeasured(what, err)
	}
	m := readings{what: what, unit: "ms", values: unmeasured()}
	for i, s := range all {
		switch {
		case s == nil:
		case s.err != nil:
			m.notes = append(m.notes, "not measured: "+s.err.Error())
		case s.result.Done > 0:
			m.values[i] = milliseconds(s.result.Latency.Quantile(0.5))
		}
	}
	return m.row()
}

// ke measures key exchanges with these groups on the servers of these columns.
func (b *bench) ke(ctx context.Context, name string, groups []tls.CurveID, which ...int) (all [columns]*series, err error) {
	if err := b.keServers(ctx); err != nil {
		return all, err
	}
	answer, err := answerOctets(ctx, b.agent.ke)
	if err != nil {
		return all, err
	}
	servers := [columns]server{b.agent, b.chronyd, b.tlsFloor}
	var list []contestant
	for _, column := range which {
		s := servers[column]
		s.ke.Groups = groups
		run := func(ctx context.Context, d time.Duration, begin func()) (load.Result, error) {
			begin()
			return load.KE(ctx, s.ke, keClients, d), nil
		}
		if column == floorColumn {
			run = func(ctx context.Context, d time.Duration, begin func()) (load.Result, error) {
				begin()
				return load.TLSFloor(ctx, s.ke, floor.Answer(answer), keClients, d), nil
			}
		}
		list = append(list, contestant{server: s, column: column, load: run, judged: column == agentColumn})
	}
	return b.alternate(ctx, name, list)
}

// alternate tells the rounds as they begin and returns the columns' series.
func (b *bench) alternate(ctx context.Context, name string, list []contestant) (all [columns]*series, err error) {
	return b.alternateFor(ctx, name, b.o.schedule, list)
}

// alternateFor is alternate with another schedule than that of the flags.
func (b *bench) alternateFor(ctx context.Context, name string, plan schedule, list []contestant) (all [columns]*series, err error) {
	series, err := alternate(ctx, plan, list, func(round int) {
		b.say("%s, round %d of %d", name, round, b.o.rounds)
	})
	for i := range series {
		all[list[i].column] = &series[i]
	}
	return all, err
}
