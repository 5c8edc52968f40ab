package status

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"
)

// fronting is a good document of a gateway.
func fronting() Document {
	d := good()
	d.Daemon = Daemon{
		Kind: "gateway", Address: "127.0.0.1:123", Seen: now.Add(-time.Second), Known: true, Synchronised: true, Stratum: 2, OffsetMS: 0.003,
		Opens: []uint16{15, 30},
		Gateway: &Gateway{
			Mode: "mirror", Condition: "good", OffsetUS: 3.2, UncertaintyUS: 12.4, Served: 5_123_456, NAK: 12,
			Silent: map[string]uint64{"too many requests": 1200}, RequestsDay: 1_234_567, SilentDay: 1234,
		},
	}
	d.Keys.Mode, d.Keys.Next = "own", Key{}
	d.Listeners = append([]Listener{{Service: ServiceNTP, Address: "[::]:4123", Open: true}, {Service: ServiceNTP, Address: "0.0.0.0:4123", Open: true}}, d.Listeners...)
	return d
}

func TestAGatewayIsTold(t *testing.T) {
	got := Text(fronting().Judged(now))
	want, err := os.ReadFile("testdata/gateway.txt")
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	b, err := json.MarshalIndent(fronting().Judged(now).Daemon, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if want, err = os.ReadFile("testdata/gateway.json"); err != nil || string(b)+"\n" != string(want) {
		t.Errorf("got\n%s\nwant\n%s, %v", b, want, err)
	}
}

func TestWhatAilsAGatewayIsTold(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Document)
		state  State
		says   []string // in the text
	}{
		{"the daemon behind is silent", func(d *Document) {
			d.Keys.State, d.Keys.Why, d.Daemon.Gateway.Condition = KeysUnseen, "the NTP server gives no time any more", "stale"
		}, Unhealthy, []string{"the gateway does not answer: the NTP server gives no time any more", ", stale"}},
		{"the daemon behind has just fallen silent", func(d *Document) { d.Daemon.Gateway.Condition = "stale" }, Unhealthy,
			[]string{"the gateway answers nobody: the time of the NTP server behind is stale"}},
		{"the time of the daemon behind is not known well enough", func(d *Document) {
			d.Keys.State, d.Keys.Why, d.Daemon.Gateway.Condition = KeysUnseen, "its time is not known to 10ms", "uncertain"
		}, Unhealthy, []string{"the gateway does not answer: its time is not known"}},
		{"the gateway cannot be asked from here", func(d *Document) { d.Keys.State, d.Keys.Why = KeysUnseen, "a firewall" }, Degraded,
			[]string{"the gateway does not answer: a firewall"}},
		{"the daemon behind is not synchronised", func(d *Document) {
			d.Daemon.Synchronised, d.Daemon.Stratum, d.Daemon.Gateway.Condition = false, 0, "unsynchronised"
		}, NotSynchronised, []string{"stratum 0, offset +3 µs ± 12 µs, unsynchronised"}},
		{"the daemon behind has never answered", func(d *Document) {
			d.Daemon.Known, d.Daemon.Seen, d.Keys.State, d.Keys.Why = false, time.Time{}, KeysStarting, "it does not answer"
		}, Unhealthy, []string{"no answer yet", "not proven yet: it does not answer"}},
		{"another program answers", func(d *Document) { d.Keys.State = KeysRefused }, Unhealthy, []string{"refused by the gateway"}},
		{"its port is taken", func(d *Document) {
			d.Listeners = d.Listeners[1:]
			d.Listeners[0].Open, d.Listeners[0].Reason, d.Keys.State = false, "address already in use", KeysUnseen
		}, Unhealthy, []string{"gateway for 127.0.0.1:123 closed", "listener ntp 0.0.0.0:4123 is closed: address already in use"}},
		{"it serves a clock that is far off", func(d *Document) {
			d.Daemon.Gateway.OffsetUS, d.Daemon.Gateway.UncertaintyUS = -2.5e6, 1500
			d.Daemon.Gateway.FarSince, d.Daemon.Gateway.JumpedAt = now.Add(-5*time.Minute), now.Add(-time.Minute)
		}, Degraded, []string{"offset -2.50 s ± 1.50 ms", "Notices       the NTP server at 127.0.0.1:123 has been 2.50 s behind this host's clock for 5m, and the gateway serves that: see"}},
		{"its clock has jumped back to where it was", func(d *Document) {
			d.Daemon.Gateway.JumpUS, d.Daemon.Gateway.JumpedAt = -3600e6, now.Add(-12*time.Minute)
		}, Degraded, []string{"the NTP server at 127.0.0.1:123 jumped by -3600.00 s against this host's clock 12m ago: look"}},
		{"it relays", func(d *Document) { d.Daemon.Gateway.Mode = "relay" }, Healthy, []string{", good, asked for each request"}},
		{"nobody has asked", func(d *Document) { *d.Daemon.Gateway = Gateway{Condition: "good"} }, Healthy, []string{"\n              0 requests/24h\n"}},
	} {
		d := fronting()
		c.change(&d)
		d = d.Judged(now)
		if d.State != c.state {
			t.Errorf("%s: %s, %q", c.name, d.State, d.Reasons)
		}
		for _, s := range c.says {
			if text := Text(d); !strings.Contains(text, s) {
				t.Errorf("%s: no %q in\n%s", c.name, s, text)
			}
		}
	}
}

func TestADayOfAGrowingTotal(t *testing.T) {
	var d Daily
	for _, c := range []struct {
		after       time.Duration
		total, want uint64
	}{
		{0, 10, 10}, {time.Minute, 15, 15}, {time.Hour, 100, 100}, {23 * time.Hour, 200, 200}, {24*time.Hour + 59*time.Minute, 210, 210},
		{25 * time.Hour, 220, 120}, // the first hour, of 100 at its end, is over
		{26 * time.Hour, 230, 30},
		{100 * time.Hour, 300, 0},
		{101 * time.Hour, 301, 1},
		{90 * time.Hour, 302, 2}, // a clock that is set back
	} {
		if got := d.Day(now.Add(c.after), c.total); got != c.want {
			t.Errorf("%s, %d: %d, want %d", c.after, c.total, got, c.want)
		}
	}
}
