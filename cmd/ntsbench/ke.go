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

// keServers starts what KE rows compare.
func (b *bench) keServers(ctx context.Context) (err error) {
	if b.agent.child == nil {
		if b.agent, b.daemon, err = b.stable.startAgent(ctx, ""); err != nil {
			return err
		}
	}
	if b.chronyd.child == nil {
		if b.chronyd, err = b.stable.startServing(ctx, plenty); err != nil {
			return err
		}
	}
	if b.tlsFloor.child == nil {
		octets, err := answerOctets(ctx, b.agent.ke)
		if err != nil {
			return err
		}
		if b.tlsFloor, err = b.stable.startTLSFloor(octets); err != nil {
			return err
		}
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
	a := amount{what: rowIdleMemory, unit: "MB", limits: &limits{30, 15}}
	for i, s := range [columns]server{b.agent, b.chronyd, b.tlsFloor} {
		m, err := memoryOf(s.pid)
		if err != nil {
			return nil, err
		}
		a.values[i] = float64(m.now) / 1e6
	}
	return []row{a.row()}, nil
}

func (b *bench) keX25519(ctx context.Context) ([]row, error) {
	micros, latency, err := b.ke(ctx, []tls.CurveID{tls.X25519}, agentColumn, chronydColumn, floorColumn)
	latency.what = rowKELatency
	return []row{
		comparison{what: rowKEFloor, micros: micros, of: agentColumn, to: floorColumn, limits: &limits{1.15, 1.05}}.row(),
		comparison{what: rowKEChronyd, micros: micros, of: agentColumn, to: chronydColumn, limits: &limits{1.00, 0.85}}.row(),
		latency.row(),
	}, err
}

func (b *bench) keDefault(ctx context.Context) ([]row, error) {
	micros, latency, err := b.ke(ctx, nil, agentColumn, floorColumn)
	latency.what = rowKEDefaultLatency
	return []row{
		comparison{what: rowKEDefault, micros: micros, of: agentColumn, to: floorColumn, limits: &limits{1.15, 1.05}}.row(),
		latency.row(),
	}, err
}

// ke measures key exchanges with these groups on the servers of these columns.
func (b *bench) ke(ctx context.Context, groups []tls.CurveID, which ...int) (micros [columns][]float64, p50 amount, err error) {
	if err := b.keServers(ctx); err != nil {
		return micros, p50, err
	}
	answer, err := answerOctets(ctx, b.agent.ke)
	if err != nil {
		return micros, p50, err
	}
	servers := [columns]server{b.agent, b.chronyd, b.tlsFloor}
	var list []contestant
	for _, column := range which {
		s := servers[column]
		s.ke.Groups = groups
		run := func(ctx context.Context, d time.Duration) (load.Result, error) {
			return load.KE(ctx, s.ke, keClients, d), nil
		}
		if column == floorColumn {
			run = func(ctx context.Context, d time.Duration) (load.Result, error) {
				return load.TLSFloor(ctx, s.ke, floor.Answer(answer), keClients, d), nil
			}
		}
		list = append(list, contestant{server: s, column: column, load: run})
	}
	all, err := alternate(ctx, b.o.schedule, list)
	p50 = amount{unit: "ms", values: unmeasured()}
	for i, s := range all {
		micros[list[i].column] = s.micros
		p50.values[list[i].column] = milliseconds(s.result.Latency.Quantile(0.5))
	}
	return micros, p50, err
}
