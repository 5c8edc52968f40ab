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
	openWindow = 12 // a late reply must not hold up the next query; a server's socket has room for some 120 datagrams
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
