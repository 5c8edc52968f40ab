package agent

import (
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"ntsagent/agent/daemon/chronytest"
	"ntsagent/agent/status"
	"ntsagent/ntske/gateway"
	"ntsagent/ntske/packet"
)

func TestHowFarOffTheTimeBehindTheGatewayIs(t *testing.T) {
	type look struct {
		after     time.Duration // the first
		offset    time.Duration
		condition gateway.Condition
		far       bool
		jump      time.Duration // told
	}
	for name, looks := range map[string][]look{
		"a clock that is right":                         {{}, {after: time.Second, offset: time.Millisecond}},
		"a leap second apart":                           {{offset: time.Second}, {after: time.Second, offset: -time.Millisecond}},
		"far off from the start":                        {{offset: -time.Hour, far: true}, {after: time.Minute, offset: -time.Hour, far: true}},
		"one that is uncertain for a poll":              {{offset: time.Hour, far: true}, {condition: gateway.Uncertain, far: true}, {jump: -time.Hour}, {offset: time.Hour, condition: gateway.Uncertain, jump: -time.Hour}},
		"one that is about the bound":                   {{offset: 1200 * time.Millisecond, far: true}, {offset: 900 * time.Millisecond, far: true}, {offset: 400 * time.Millisecond}, {offset: 900 * time.Millisecond}},
		"one that jumps and comes back":                 {{}, {after: time.Second, offset: time.Hour, far: true, jump: time.Hour}, {after: time.Minute, jump: -time.Hour}, {after: time.Hour, jump: -time.Hour}, {after: 62 * time.Minute}},
		"one that is silent meanwhile":                  {{}, {offset: time.Hour, condition: gateway.Stale}, {offset: 3 * time.Second, condition: gateway.RelayWanted, far: true, jump: 3 * time.Second}},
		"one that admits to have none":                  {{}, {offset: time.Hour, condition: gateway.Unsynchronised}, {}},
		"one that is told of no more when it is silent": {{offset: time.Hour, far: true}, {offset: time.Hour, condition: gateway.Stale}},
	} {
		start := time.Now()
		d := drift{}.look(gateway.Report{Condition: gateway.Stale}, start) // it has not answered yet
		for n, l := range looks {
			d = d.look(gateway.Report{Known: true, Condition: l.condition, Offset: l.offset}, start.Add(l.after))
			if d.farSince.IsZero() == l.far || d.jump != l.jump || d.jumpedAt.IsZero() != (l.jump == 0) {
				t.Errorf("%s, look %d: %+v", name, n, d)
			}
		}
	}
}

// lie answers as an NTP server at addr whose clock is that much ahead.
func lie(t *testing.T, addr netip.AddrPort, ahead time.Duration) (stop func()) {
	t.Helper()
	var conn *net.UDPConn
	eventually(t, "the port is free", func() (free bool) { // a client's socket may have it for a moment
		var err error
		conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
		return err == nil
	})
	done := make(chan struct{})
	go func() { // ends with conn
		defer close(done)
		b := make([]byte, 512)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			q, err := packet.ParseHeader(b[:n])
			if err != nil {
				continue
			}
			now := packet.FromTime(time.Now().Add(ahead))
			h := packet.Header{Version: 4, Mode: packet.ModeServer, Stratum: 1, Precision: -20, RefTime: now, Origin: q.Transmit, Receive: now, Transmit: now}
			_, _ = conn.WriteToUDPAddrPort(h.AppendTo(nil), from)
		}
	}()
	stop = sync.OnceFunc(func() { conn.Close(); <-done })
	t.Cleanup(stop)
	return stop
}

func TestAStrangerAtThePortOfTheDaemonIsTold(t *testing.T) {
	t.Parallel()
	s := chronytest.Start(t, chronytest.Options{})
	f := newFronting(t, s.Addr)
	f.start()
	f.whole()
	s.Stop()
	end := lie(t, s.Addr, time.Hour)
	d := f.wait("his time is told of", func(d status.Document) bool { return d.State == status.Degraded && !d.Daemon.Gateway.FarSince.IsZero() })
	if text := status.Text(d); !strings.Contains(text, "the NTP server at "+s.Addr.String()+" has been ") || !strings.Contains(text, " s ahead of this host's clock for ") {
		t.Error(text)
	}
	end()
	s.Restart()
	d = f.wait("it is over", func(d status.Document) bool {
		return d.Daemon.Gateway.FarSince.IsZero() && d.Daemon.Gateway.JumpUS < 0
	})
	if text := status.Text(d); d.State != status.Degraded || !strings.Contains(text, "the NTP server at "+s.Addr.String()+" jumped by -") {
		t.Error(text)
	}
}
