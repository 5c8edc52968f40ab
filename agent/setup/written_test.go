package setup

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestTheSocketThatGetsWhatIsSentToTheDaemonCounts(t *testing.T) {
	for sentence, c := range map[string]struct {
		addr, sockets string
		want          []uint64 // their places, from 1
	}{
		"the very address":              {"127.0.0.1", "127.0.0.2 0.0.0.0 127.0.0.1", []uint64{3}},
		"any of its family":             {"127.0.0.1", "127.0.0.2 :: 0.0.0.0", []uint64{3}},
		"any of both families":          {"127.0.0.1", "127.0.0.2 :: ::1", []uint64{2}},
		"never 0.0.0.0 for IPv6":        {"::1", "0.0.0.0 ::", []uint64{2}},
		"an address of IPv4 in IPv6":    {"127.0.0.1", "127.0.0.2 ::ffff:127.0.0.1", []uint64{2}},
		"two that share one":            {"127.0.0.1", "0.0.0.0 0.0.0.0 ::", []uint64{1, 2}},
		"others when there is no other": {"127.0.0.1", "127.0.0.2 ::1", []uint64{1, 2}},
		"none":                          {"127.0.0.1", "", nil},
	} {
		var all []socket
		for i, s := range strings.Fields(c.sockets) {
			all = append(all, socket{local: netip.AddrPortFrom(netip.MustParseAddr(s), 123), inode: uint64(i + 1)})
		}
		if got := reached(all, netip.MustParseAddr(c.addr)); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", sentence, got, c.want)
		}
	}
}

// twoServers is a host with OpenNTPD at 127.0.0.1 and chronyd at 127.0.0.2, both at
// UDP port 123.
func twoServers(t *testing.T) Host {
	h := image(t, map[string]string{"/etc/chrony/chrony.conf": "", "/var/lib/chrony/": "", "/etc/openntpd/ntpd.conf": "listen on 127.0.0.1\n"})
	h.Proc = fakeProc(t, nil,
		fakeProcess{pid: 5, parent: 1, comm: "chronyd", argv: "/usr/sbin/chronyd", exe: "/usr/sbin/chronyd", unit: "chrony.service", socket: 8},
		fakeProcess{pid: 7, parent: 1, comm: "ntpd", argv: "/usr/sbin/ntpd|-f|/etc/openntpd/ntpd.conf", exe: "/usr/sbin/ntpd", unit: "openntpd.service", socket: 9})
	table := "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	for inode, addr := range map[int]string{8: "0200007F", 9: "0100007F"} {
		table += fmt.Sprintf("  1: %s:007B 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 %d 2 0 0\n", addr, inode)
	}
	write(t, filepath.Join(h.Proc, "thread-self/net/udp"), table)
	h.Run = func(context.Context, ...string) ([]byte, error) { return nil, errors.New("no such program here") }
	return h
}

func TestTheConfigurationDecidesAmongTwoServers(t *testing.T) {
	for sentence, c := range map[string]struct {
		addr, kind string
		want       Kind
		mode       Mode
		serves     bool
		says       string // in what is in the way; "" = nothing is
	}{
		"the address, where no kind is written": {"127.0.0.1", "auto", OpenNTPD, Gateway, true, ""},
		"another address":                       {"127.0.0.2", "", Chrony, Lead, true, "not set up for the agent yet"},
		"the gateway is for whoever is there":   {"127.0.0.1", "gateway", OpenNTPD, Gateway, true, ""},
		"also one that has NTS":                 {"127.0.0.2", "gateway", Chrony, Gateway, true, "chronyd does not serve 127.0.0.2"},
		"a kind that is elsewhere":              {"127.0.0.1", "chrony", Chrony, Lead, false, "UDP port 123: ntpd (pid 7) answers at 127.0.0.1, and daemon.kind is chrony"},
		"a kind that is not there":              {"127.0.0.1", "ntpd-rs", NTPDRS, Follow, false, "daemon.kind is ntpd-rs, and ntp-daemon is neither running nor installed"},
	} {
		o := Options{Kind: c.kind, Address: netip.AddrPortFrom(netip.MustParseAddr(c.addr), 123)}
		d, err := Detect(t.Context(), twoServers(t), Ports{NTP: 123, KE: 4460}, o)
		if err != nil {
			t.Fatal(err)
		}
		if said := fmt.Sprint(d.InWay); d.Kind != c.want || d.Mode != c.mode || d.Serves != c.serves || !strings.Contains(said, c.says) || c.says == "" && len(d.InWay) > 0 {
			t.Errorf("%s: %+v", sentence, d)
		}
	}
}

func TestBehindAWrittenGatewayAnyServerIsTheDaemon(t *testing.T) {
	h := image(t, nil)
	h.Proc = fakeProc(t, []int{7}, fakeProcess{pid: 5, parent: 1, comm: "sntpd", argv: "sntpd", exe: "/usr/sbin/sntpd", socket: 7})
	o := Options{Kind: "gateway"}
	d, err := Detect(t.Context(), h, Ports{NTP: 123, KE: 4460}, o)
	if err != nil || d.Kind != Other || d.Program != "sntpd" || d.PID != 5 || d.Mode != Gateway || d.AgentKind() != "gateway" || !d.Serves || len(d.InWay) > 0 {
		t.Errorf("%+v, %v", d, err)
	}
	if p, err := PlanFor(h, d, o); err != nil || len(p.Changes) > 0 || len(p.Notes) != 1 {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestAKindThatADaemonIsTooOldForIsTold(t *testing.T) {
	h := image(t, map[string]string{"/etc/chrony/chrony.conf": ""})
	h.Proc = fakeProc(t, []int{7}, fakeProcess{pid: 5, parent: 1, comm: "chronyd", argv: "/usr/sbin/chronyd", exe: "/usr/sbin/chronyd", socket: 7})
	h.Run = func(context.Context, ...string) ([]byte, error) { return nil, errors.New("no such program here") }
	d := Daemon{Kind: Chrony, Program: "chronyd", Version: "3.5", PID: 5, Serves: true, Config: "/etc/chrony/chrony.conf"}
	o := Options{Kind: "chrony"}
	d.Mode, d.Why = d.mode(o)
	if said := fmt.Sprint(d.obstacles(h.files(), Ports{NTP: 123, KE: 4460}, o.withDefaults())); !strings.Contains(said, "daemon.kind is chrony: chronyd 3.5 has no NTS") {
		t.Error(said)
	}
}
