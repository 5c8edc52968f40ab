package main

import (
	"context"
	"time"

	"ntsagent/cmd/ntsbench/load"
)

// ntsOctets is the length of an NTS query with AEAD 15, one of chrony's cookies
// and no placeholder, and of its answer (RFC 8915 §5.7): header 48, unique
// identifier 4+32, cookie 4+100, authenticator 4+4+16+16.
const ntsOctets = 228

// plainOctets is the length of an NTP query without extension fields.
const plainOctets = 48

// ntpServers starts what NTP rows compare.
func (b *bench) ntpServers(ctx context.Context) error {
	if err := b.agentRuns(ctx); err != nil {
		return err
	}
	return b.echoRuns()
}

// echoRuns starts the echo of whole datagrams, unless it runs.
func (b *bench) echoRuns() error {
	if b.udpFloor.child != nil {
		return nil
	}
	udpFloor, err := b.servers.startUDPFloor(0)
	if err == nil {
		b.udpFloor = udpFloor
	}
	return err
}

// nts compares NTS queries on the chronyd the agent feeds with an echo.
func (b *bench) nts(ctx context.Context) ([]row, error) {
	if err := b.ntpServers(ctx); err != nil {
		return nil, err
	}
	return b.queries(ctx, "NTS queries", [3]string{rowNTS, rowNTSTime, rowNTSOffset}, ntsOctets, func(ctx context.Context, d time.Duration, begin func()) (load.Result, error) {
		return load.NTS(ctx, load.NTSConfig{NTP: b.daemon.ntp, KE: b.agent.ke, Sockets: ntpSockets, Window: ntpWindow, For: d, Begin: begin})
	})
}

// plain compares NTP queries without NTS on the same chronyd with an echo.
func (b *bench) plain(ctx context.Context) ([]row, error) {
	if err := b.ntpServers(ctx); err != nil {
		return nil, err
	}
	return b.queries(ctx, "plain NTP queries", [3]string{rowPlain, rowPlainTime, rowPlainOffset}, plainOctets, func(ctx context.Context, d time.Duration, begin func()) (load.Result, error) {
		begin()
		return load.Plain(ctx, load.PlainConfig{NTP: b.daemon.ntp, Sockets: ntpSockets, Window: ntpWindow, For: d})
	})
}

// queries alternates the daemon under ask with an echo of datagrams as long.
// The rows are of CPU time, latency and clock offset.
func (b *bench) queries(ctx context.Context, name string, rows [3]string, octets int, ask func(context.Context, time.Duration, func()) (load.Result, error)) ([]row, error) {
	echo := func(ctx context.Context, d time.Duration, begin func()) (load.Result, error) {
		begin()
		return load.Echo(ctx, load.PlainConfig{NTP: b.udpFloor.ntp, Sockets: ntpSockets, Window: ntpWindow, Octets: octets, For: d})
	}
	all, err := b.alternate(ctx, name, []contestant{
		{server: b.daemon, column: chronydColumn, load: ask}, {server: b.udpFloor, column: floorColumn, load: echo},
	})
	if err != nil {
		return nil, err
	}
	cpu := compare(rows[0], all, chronydColumn, floorColumn, nil)
	if err := all[chronydColumn].err; err != nil {
		return []row{cpu, notMeasured(rows[1], err), notMeasured(rows[2], err)}, nil
	}
	latency := readings{what: rows[1], unit: "µs", values: unmeasured()}
	for i, s := range all {
		if s != nil && s.err == nil {
			latency.values[i] = microseconds(s.result.Latency.Quantile(0.99))
		}
	}
	offset := readings{what: rows[2], unit: "µs", values: unmeasured()}
	offset.values[chronydColumn] = microseconds(all[chronydColumn].result.Offset.Quantile(0.5))
	return []row{cpu, latency.row(), offset.row()}, nil
}
