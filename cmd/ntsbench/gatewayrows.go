package main

import (
	"context"
	"fmt"
	"strings"

	"ntsagent/cmd/ntsbench/load"
	"ntsagent/ntske/aead"
	"ntsagent/packaging/parts"
)

// gatewayFull is of closed loops with AEAD 15: CPU time, clock offset and what is to be known of both.
func (b *bench) gatewayFull(ctx context.Context) ([]row, error) {
	if err := b.gatewayRuns(ctx); err != nil {
		return nil, err
	}
	if err := b.chronydRuns(ctx); err != nil {
		return nil, err
	}
	if err := b.echoRuns(); err != nil {
		return nil, err
	}
	c := load.NTSConfig{AEAD: aead.SIVCMAC256}
	all, err := b.gatewayRounds(ctx, "gateway, AEAD 15", b.saturated(), []contestant{
		b.gatewayTurn(c), {server: b.chronyd, column: chronydColumn, load: asks(b.chronyd, c)},
		{server: b.udpFloor, column: floorColumn, load: echoes(b.udpFloor, ntsOctets, ntsOctets)},
	})
	if err != nil {
		return nil, err
	}
	echo := compare(rowGatewayEcho, all, agentColumn, floorColumn, &limits{1.50, 1.30})
	echo.notes = append(echo.notes, sizes(all)...)
	cpu := compare(rowGateway, all, agentColumn, chronydColumn, &limits{0.85, 0.70})
	cpu.notes = append(cpu.notes, all[agentColumn].behindNote()...)
	cpu.notes = append(cpu.notes, all[agentColumn].unsaturated()...)
	offset := reading(rowGatewayOffset, all, offsets, "µs", &limits{40, 10})
	offset.notes = append(offset.notes, farthest(all)...)
	return []row{
		cpu, echo, offset, compare(rowGatewayLeast, all, floorColumn, chronydColumn, nil),
		reading(rowGatewaySpeed, all, rates, "/s", nil), reading(rowGatewayBusy, all, shares, "%", nil), latency99(rowGatewayLatency, all),
	}, nil
}

// farthest says how far off the time is in all but the worst queries.
func farthest(all [columns]*series) []string {
	var list []string
	for i, s := range all {
		if s != nil && s.err == nil && s.result.Offset.Len() > 0 {
			list = append(list, fmt.Sprintf("%s %s µs", columnNames[i], figure(microseconds(s.result.Offset.Magnitudes().Quantile(0.99)))))
		}
	}
	if len(list) == 0 {
		return nil
	}
	return []string{"99 % of them are within: " + strings.Join(list, ", ")}
}

// latency99 is of all rounds together.
func latency99(what string, all [columns]*series) row {
	if err := all[agentColumn].err; err != nil {
		return notMeasured(what, err)
	}
	latency := readings{what: what, unit: "µs", values: unmeasured()}
	for i, s := range all {
		if s != nil && s.err == nil && s.result.Done > 0 {
			latency.values[i] = microseconds(s.result.Latency.Quantile(0.99))
		}
	}
	return latency.row()
}

// sizes says when an echo had other datagrams than the gateway.
func sizes(all [columns]*series) []string {
	g, e := all[agentColumn], all[floorColumn]
	if g.result.Done == 0 || e.result.Done == 0 || g.result.Request == e.result.Request && g.result.Reply == e.result.Reply {
		return nil
	}
	return []string{fmt.Sprintf("datagrams of %d and %d octets, of the echo %d and %d", g.result.Request, g.result.Reply, e.result.Request, e.result.Reply)}
}

func (b *bench) gatewayMany(ctx context.Context) ([]row, error) {
	all, err := b.against(ctx, "gateway, 7 placeholders", b.saturated(), load.NTSConfig{AEAD: aead.SIVCMAC256, Placeholders: 7})
	if err != nil {
		return nil, err
	}
	return []row{compare(rowGatewayMany, all, agentColumn, chronydColumn, &limits{0.80, 0.65})}, nil
}

func (b *bench) gatewayGCM(ctx context.Context) ([]row, error) {
	if err := b.gatewayRuns(ctx); err != nil {
		return nil, err
	}
	if b.chronyd13.child == nil {
		b.say("make chronyd %s ready", parts.Debian13.Chrony)
		root, err := parts.UnpackChrony(ctx, b.servers.repo, parts.Debian13)
		if err != nil {
			return nil, err
		}
		if b.chronyd13, err = b.servers.startServing(ctx, root, chronydRoom); err != nil {
			return nil, err
		}
	}
	// The agent offers what it has tried.
	if err := b.gateway.wait(ctx, "to offer AEAD 30", b.gateway.offersGCM); err != nil {
		return nil, err
	}
	c := load.NTSConfig{AEAD: aead.GCMSIV128}
	all, err := b.gatewayRounds(ctx, "gateway, AEAD 30", b.saturated(), []contestant{
		b.gatewayTurn(c), {server: b.chronyd13, column: chronydColumn, load: asks(b.chronyd13, c)},
	})
	if err != nil {
		return nil, err
	}
	return []row{compare(rowGatewayGCM, all, agentColumn, chronydColumn, &limits{0.95, 0.80})}, nil
}

func (b *bench) gatewayQuiet(ctx context.Context) ([]row, error) {
	all, err := b.against(ctx, "gateway, 1,000 queries/s", b.o.schedule, load.NTSConfig{Rate: quietRate})
	if err != nil {
		return nil, err
	}
	return []row{compareBy(rowGatewayQuiet, all, agentColumn, chronydColumn, offsets, &limits{2.0, 1.2})}, nil
}

func (b *bench) gatewayRate(ctx context.Context) ([]row, error) {
	all, err := b.against(ctx, "gateway, 10,000 queries/s", b.o.schedule, load.NTSConfig{Rate: steadyRate})
	if err != nil {
		return nil, err
	}
	return []row{compare(rowGatewayRate, all, agentColumn, chronydColumn, &limits{1.40, 1.10})}, nil
}

func (b *bench) gatewayNAK(ctx context.Context) ([]row, error) {
	if err := b.gatewayRuns(ctx); err != nil {
		return nil, err
	}
	if b.nakFloor.child == nil {
		floor, err := b.servers.startUDPFloor(nakOctets)
		if err != nil {
			return nil, err
		}
		b.nakFloor = floor
	}
	all, err := b.gatewayRounds(ctx, "gateway, NTS NAKs", b.saturated(), []contestant{
		b.gatewayTurn(load.NTSConfig{UnknownKey: true}),
		{server: b.nakFloor, column: floorColumn, load: echoes(b.nakFloor, ntsOctets, nakOctets)},
	})
	if err != nil {
		return nil, err
	}
	r := compare(rowGatewayNAK, all, agentColumn, floorColumn, &limits{1.25, 1.10})
	r.notes = append(r.notes, sizes(all)...)
	return []row{r}, nil
}

// gatewayMemory is of a gateway under load, or just after it.
func (b *bench) gatewayMemory(ctx context.Context) ([]row, error) {
	if err := b.gatewayRuns(ctx); err != nil {
		return nil, err
	}
	b.say("gateway, memory")
	if _, err := b.gatewayTurn(load.NTSConfig{Placeholders: 7}).run(ctx, b.o.measure, func() {}); err != nil {
		return nil, err
	}
	octets, err := memoryOf(b.gateway.pid)
	if err != nil {
		return nil, err
	}
	m := readings{what: rowGatewayMemory, unit: "MB", values: unmeasured(), limits: &limits{40, 20}}
	m.values[agentColumn] = float64(octets) / 1e6
	return []row{m.row()}, nil
}

// gatewayAllocated counts what the gateway allocates while it answers queries of
// every kind. The agent does not tell that, so the same gateway is measured
// without the agent.
func (b *bench) gatewayAllocated(ctx context.Context) ([]row, error) {
	if err := b.gatewayRuns(ctx); err != nil {
		return nil, err
	}
	h, err := b.servers.startHarness(ctx, b.gateway.daemon.ntp)
	if err != nil {
		return nil, err
	}
	defer h.close()
	b.say("gateway, allocations")
	objects, packets := 0, 0
	for _, c := range []load.NTSConfig{
		{AEAD: aead.SIVCMAC256}, {AEAD: aead.SIVCMAC256, Placeholders: 7}, {AEAD: aead.GCMSIV128}, {UnknownKey: true},
	} {
		begun, err := 0, error(nil)
		r, failed := asks(h.server, c)(ctx, b.o.measure/2, func() { begun, err = h.allocated() })
		switch {
		case failed != nil:
			return nil, failed
		case err != nil:
			return nil, err
		case r.Done == 0:
			return nil, fmt.Errorf("nothing was answered: %w", r.FirstErr)
		}
		now, err := h.allocated()
		if err != nil {
			return nil, err
		}
		objects += now - begun
		packets += r.Done
	}
	m := readings{what: rowGatewayAllocated, values: unmeasured(), limits: &limits{0, 0}}
	m.values[agentColumn] = float64(objects) / float64(packets)
	m.notes = []string{fmt.Sprintf("%d objects in %d packets, those of the daemon's polls included", objects, packets)}
	return []row{m.row()}, nil
}
