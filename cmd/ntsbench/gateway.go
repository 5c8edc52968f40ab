package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"ntsagent/agent/status"
	"ntsagent/cmd/ntsbench/load"
	"ntsagent/ntske/aead"
	"ntsagent/packaging/parts"
)

// The rows of the gateway in front of a daemon without NTS.
const (
	rowGateway          = "CPU per query, AEAD 15, to chronyd 4.3"
	rowGatewayEcho      = "CPU per query, AEAD 15, to UDP echo"
	rowGatewayMany      = "CPU per query, AEAD 15, 7 placeholders, to chronyd 4.3"
	rowGatewayGCM       = "CPU per query, AEAD 30, to chronyd 4.6.1"
	rowGatewayOffset    = "median |clock offset| at saturation"
	rowGatewayQuiet     = "median |clock offset| at 1,000 queries/s, to chronyd 4.3"
	rowGatewayRate      = "CPU per query at 10,000 queries/s, to chronyd 4.3"
	rowGatewayNAK       = "CPU per NTS NAK (unknown cookie key), to UDP echo"
	rowGatewayAllocated = "objects allocated per packet"
	rowGatewayMemory    = "memory after load (RSS)"
	rowGatewayLeast     = "gateway: CPU per UDP echo as long, to chronyd 4.3"
	rowGatewaySpeed     = "gateway: queries answered per second, AEAD 15"
	rowGatewayBusy      = "gateway: share of a CPU that the server uses meanwhile"
	rowGatewayLatency   = "gateway: 99 % of queries answered within"
)

// gatewayRows are the judged ones, in the order in which they are printed.
var gatewayRows = []string{
	rowGateway, rowGatewayEcho, rowGatewayMany, rowGatewayGCM, rowGatewayOffset, rowGatewayQuiet, rowGatewayRate,
	rowGatewayNAK, rowGatewayAllocated, rowGatewayMemory,
}

// The open loops.
const (
	quietRate  = 1_000
	steadyRate = 10_000
	openWindow = 2 * ntpWindow // a late reply must not hold up the next query
)

// nakOctets is the length of an NTS NAK: header 48, unique identifier 4+32.
const nakOctets = 84

// gatewayGroups are in the order in which they run.
func gatewayGroups() []group {
	return []group{
		{table: "gateway", rows: []string{rowGateway, rowGatewayEcho, rowGatewayOffset, rowGatewayLeast, rowGatewaySpeed, rowGatewayBusy, rowGatewayLatency}, run: (*bench).gatewayFull},
		{table: "gateway", rows: []string{rowGatewayMany}, run: (*bench).gatewayMany},
		{table: "gateway", rows: []string{rowGatewayGCM}, run: (*bench).gatewayGCM},
		{table: "gateway", rows: []string{rowGatewayQuiet}, run: (*bench).gatewayQuiet},
		{table: "gateway", rows: []string{rowGatewayRate}, run: (*bench).gatewayRate},
		{table: "gateway", rows: []string{rowGatewayNAK}, run: (*bench).gatewayNAK},
		{table: "gateway", rows: []string{rowGatewayMemory}, run: (*bench).gatewayMemory},
		{table: "gateway", rows: []string{rowGatewayAllocated}, run: (*bench).gatewayAllocated},
	}
}

// gatewayRuns starts the agent with its gateway, unless it runs.
func (b *bench) gatewayRuns(ctx context.Context) error {
	if b.gateway.child != nil {
		return nil
	}
	a, err := b.servers.startGateway(ctx)
	if err == nil {
		b.gateway = a
	}
	return err
}

// saturated is the schedule of closed loops: at their rates half the time tells as much.
func (b *bench) saturated() schedule {
	s := b.o.schedule
	s.measure /= 2
	s.warm = max(s.warm/2, 50*time.Millisecond)
	return s
}

// asks is a load with NTS queries on a server.
func asks(s server, c load.NTSConfig) func(context.Context, time.Duration, func()) (load.Result, error) {
	c.NTP, c.KE, c.Sockets = s.ntp, s.ke, ntpSockets
	if c.Window = ntpWindow; c.Rate > 0 {
		c.Window = openWindow
	}
	return func(ctx context.Context, d time.Duration, begin func()) (load.Result, error) {
		c.For, c.Begin = d, begin
		return load.NTS(ctx, c)
	}
}

// echoes is a load with datagrams of so many octets on an echo.
func echoes(s server, octets, reply int) func(context.Context, time.Duration, func()) (load.Result, error) {
	c := load.PlainConfig{NTP: s.ntp, Sockets: ntpSockets, Window: ntpWindow, Octets: octets, Reply: reply}
	return func(ctx context.Context, d time.Duration, begin func()) (load.Result, error) {
		c.For = d
		begin()
		return load.Echo(ctx, c)
	}
}

// gatewayTurn is the gateway among contestants, loaded so.
func (b *bench) gatewayTurn(c load.NTSConfig) contestant {
	return contestant{server: b.gateway.server, column: agentColumn, load: asks(b.gateway.server, c), behind: b.gateway.daemon.child, judged: true, lossy: true}
}

// against alternates the gateway with chronyd 4.3 under the same load.
func (b *bench) against(ctx context.Context, name string, plan schedule, c load.NTSConfig) (all [columns]*series, err error) {
	if err := b.gatewayRuns(ctx); err != nil {
		return all, err
	}
	if err := b.chronydRuns(ctx); err != nil {
		return all, err
	}
	return b.gatewayRounds(ctx, name, plan, []contestant{
		b.gatewayTurn(c), {server: b.chronyd, column: chronydColumn, load: asks(b.chronyd, c)},
	})
}

// gatewayRounds is alternateFor. Where queries failed or were lost on the gateway
// it says why the gateway was silent.
func (b *bench) gatewayRounds(ctx context.Context, name string, plan schedule, list []contestant) (all [columns]*series, err error) {
	before, err := b.gateway.silent(ctx)
	if err != nil {
		return all, err
	}
	if all, err = b.alternateFor(ctx, name, plan, list); err != nil {
		return all, err
	}
	g := all[agentColumn]
	if g.failed+g.repeated == 0 || g.err != nil {
		return all, nil
	}
	after, err := b.gateway.silent(ctx)
	if err != nil {
		return all, err
	}
	why := "the gateway was silent for: " + reasons(before, after)
	if g.failed > 0 {
		g.firstErr = fmt.Errorf("%w; %s", g.firstErr, why)
	} else {
		g.repeatErr = fmt.Errorf("%w; %s", g.repeatErr, why)
	}
	return all, nil
}

// offersGCM says why the agent does not offer AEAD 30.
func (a *agentServer) offersGCM(ctx context.Context) error {
	doc, err := status.NewClient(a.socket).Status(ctx)
	if err == nil && !slices.Contains(doc.Daemon.Opens, uint16(aead.GCMSIV128)) {
		err = fmt.Errorf("it offers only AEAD %v", doc.Daemon.Opens)
	}
	return err
}

// silent is how many queries the gateway has not answered so far, by reason.
func (a *agentServer) silent(ctx context.Context) (map[string]uint64, error) {
	doc, err := status.NewClient(a.socket).Status(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask the agent why it is silent: %w", err)
	}
	if doc.Daemon.Gateway == nil {
		return nil, errors.New("ask the agent why it is silent: it is no gateway")
	}
	return doc.Daemon.Gateway.Silent, nil
}

// reasons are what has been counted between before and after.
func reasons(before, after map[string]uint64) string {
	var list []string
	for _, why := range slices.Sorted(maps.Keys(after)) {
		if n := after[why] - before[why]; n > 0 {
			list = append(list, fmt.Sprintf("%s %d", why, n))
		}
	}
	if len(list) == 0 {
		return "nothing that it knows of"
	}
	return strings.Join(list, ", ")
}

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

func micros(s *series) []float64  { return s.micros }
func offsets(s *series) []float64 { return s.offset }
func shares(s *series) []float64  { return s.busy }
func rates(s *series) []float64   { return s.rate }

// fullShare is what a server at saturation uses of its CPU at least, in percent.
const fullShare = 75

// unsaturated says when others took the CPU that a closed loop should fill.
func (s *series) unsaturated() []string {
	if m := summarize(numbers(s.busy)).median; m < fullShare {
		return []string{fmt.Sprintf("no saturation: %s got %s %% of its CPU; others used the machine", s.name, figure(m))}
	}
	return nil
}

// behindNote says what the daemon behind a gateway used besides.
func (s *series) behindNote() []string {
	if m := summarize(numbers(s.behind)); !math.IsNaN(m.median) {
		return []string{fmt.Sprintf("the daemon behind the agent used %s µs per query besides", figure(m.median))}
	}
	return nil
}
