package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"ntsagent/agent/config"
	"ntsagent/agent/daemon/chronytest"
	"ntsagent/agent/status"
	"ntsagent/ntske/client"
	"ntsagent/ntske/gateway"
)

func TestAReloadOfTheGatewayLosesNoRequest(t *testing.T) {
	t.Parallel()
	daemon, other := chronytest.Start(t, chronytest.Options{}), chronytest.Start(t, chronytest.Options{})
	f := newFronting(t, daemon.Addr)
	f.start()
	before := f.whole()
	v, at := f.visit(before), gatewayAt(before)
	listen := fmt.Sprintf(`"127.0.0.1:%d", "[::1]:%d"`, at.Port(), at.Port())
	same := "listen: [" + listen + "]"
	asked, unanswered := 0, 0
	f.while(func() {
		for n := range 24 {
			f.addr = daemon.Addr
			switch n % 6 {
			case 0:
				f.configure(same) // nothing new, but at the first time
			case 1:
				f.configure(same + ", plain: true, limits: {per_prefix: 60000/s, burst: 60000}")
			case 2:
				f.configure(same + ", mode: relay")
			case 3:
				f.configure(same, "keys: {rotate_every: 3d, keep: 5}")
			case 4:
				f.addr = other.Addr
				f.configure(same)
			case 5:
				f.configure(fmt.Sprintf(`listen: [%s, "127.0.0.2:%d"]`, listen, at.Port()))
			}
			if err := f.reload(); err != nil {
				t.Error(err)
			}
			f.wait("it serves", func(d status.Document) bool { return provenAndOpen(f.member)(d) && gatewayAt(d) == at })
		}
	}, func() error {
		asked++
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		reply, err := client.Query(ctx, at, v.keys, v.cookies[0], 0)
		if errors.Is(err, client.ErrSilent) {
			unanswered++
			return nil
		}
		if err != nil {
			return err
		}
		v.cookies = reply.Cookies
		return nil
	})
	after := f.whole()
	g := after.Daemon.Gateway
	// A machine that is too busy makes the gateway silent, which it counts: what is
	// lost it does not.
	busy := g.Silent["too late"] + g.Silent["daemon silent"]
	if uint64(unanswered) > busy || g.Served+busy < uint64(asked) || after.Keys.Current != before.Keys.Current {
		t.Errorf("%d asked, %d unanswered: %+v, %+v", asked, unanswered, g, after.Keys)
	}
	t.Logf("%d requests, %d unanswered", asked, unanswered)
}

func TestAReloadOfTheGatewayToATakenPortIsRefused(t *testing.T) {
	t.Parallel()
	taken, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	f := newFronting(t, chronytest.Start(t, chronytest.Options{}).Addr)
	f.start()
	before := f.whole()
	for listen, words := range map[string]string{
		taken.LocalAddr().String(): "another program holds that port: `ss -lunp` names it",
		"192.0.2.9:4123":           "no interface of this host has that address",
		fmt.Sprintf("0.0.0.0:%d", gatewayAt(before).Port()): "the gateway itself holds that port at another address",
	} {
		f.configure(fmt.Sprintf("listen: [%q]", listen))
		if err := f.reload(); err == nil || !strings.Contains(err.Error(), listen) || !strings.Contains(err.Error(), words) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", listen, err)
		}
	}
	f.addr = gatewayAt(before)
	f.configure(fmt.Sprintf("listen: [%q]", f.addr))
	if err := f.reload(); err == nil || !strings.Contains(err.Error(), "is the gateway itself") {
		t.Errorf("a loop: %v", err)
	}
	if err := f.visit(before).ask(gatewayAt(before)); err != nil {
		t.Errorf("after refused reloads: %v", err)
	}
}

func TestTheGatewayWaitsForAPortThatIsTakenAtItsStart(t *testing.T) {
	t.Parallel()
	taken, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	f := newFronting(t, chronytest.Start(t, chronytest.Options{}).Addr)
	f.listen = `"127.0.0.1:0"`
	other := fmt.Sprintf("127.0.0.2:%d", taken.LocalAddr().(*net.UDPAddr).Port)
	f.configure(fmt.Sprintf("listen: [%q, %q]", other, taken.LocalAddr()))
	f.start()
	d := f.wait("it is told", func(d status.Document) bool { return strings.Contains(d.Keys.Why, "does not listen") })
	text := status.Text(d)
	if d.State != status.Unhealthy || f.ke(d).IsValid() || strings.Count(text, "ss -lunp") != 1 ||
		!strings.Contains(text, fmt.Sprintf("listener ntp %s is closed: it waits for %s\n", other, taken.LocalAddr())) {
		t.Errorf("status\n%s", text)
	}
	taken.Close()
	d = f.whole()
	if !slices.ContainsFunc(d.Listeners, func(l status.Listener) bool { return l.Open && l.Address == taken.LocalAddr().String() }) {
		t.Errorf("it listens on %v", d.Listeners)
	}
	f.attends(f.ke(d))
}

func TestTheGatewayIsSilentWithoutItsDaemonAndComesBackByItself(t *testing.T) {
	t.Parallel()
	daemon := chronytest.Start(t, chronytest.Options{})
	f := newFronting(t, daemon.Addr)
	f.start()
	before := f.whole()
	v := f.visit(before)
	daemon.Stop()
	d := f.wait("its silence is told", func(d status.Document) bool { return d.Keys.State == status.KeysUnseen })
	if d.State != status.Unhealthy || !strings.Contains(d.Reasons[0], "gives no time any more, so the gateway is silent: nothing listens there") || f.ke(d) != f.ke(before) {
		t.Errorf("state %s, reasons %q, key exchange %v", d.State, d.Reasons, f.ke(d))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, err := client.Query(ctx, gatewayAt(d), v.keys, v.cookies[0], 0); err == nil {
		t.Error("time is served that nobody has told")
	}
	late := f.visit(d) // whose cookies are good for later
	daemon.Restart()
	f.whole()
	for _, v := range []*visitor{v, late} {
		if err := v.ask(gatewayAt(before)); err != nil {
			t.Errorf("a cookie from before it was back: %v", err)
		}
	}
}

func TestTheGatewayAnswersPlainNTPOnlyWhereItIsAskedTo(t *testing.T) {
	t.Parallel()
	f := newFronting(t, chronytest.Start(t, chronytest.Options{}).Addr)
	f.configure(`listen: ["[::]:0", "0.0.0.0:0"]`)
	f.start()
	d := f.whole()
	at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.3"), gatewayAt(d).Port())
	plain := func(wait time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), wait)
		defer cancel()
		_, err := client.Plain(ctx, at)
		return err
	}
	if err := plain(300 * time.Millisecond); err == nil {
		t.Error("plain NTP is answered")
	}
	f.configure(`listen: ["[::]:0", "0.0.0.0:0"], plain: true`)
	if err := f.reload(); err != nil {
		t.Fatal(err)
	}
	f.until("plain NTP is answered", func() bool { return plain(time.Second) == nil })
	if d := f.whole(); gatewayAt(d).Port() != at.Port() || d.Daemon.Gateway.Silent["plain NTP is off"] != 1 || d.Daemon.Gateway.ServedPlain == 0 {
		t.Errorf("%+v, %v", d.Daemon.Gateway, gatewayAt(d))
	}
}

func TestAGatewayForAnotherDaemonBeginsWhenThatHasAnswered(t *testing.T) {
	t.Parallel()
	a := &agent{Options: Options{Log: hclog.NewNullLogger()}}
	var old *parts
	for range 3 {
		cfg := config.Default()
		cfg.Daemon.Kind, cfg.Daemon.Address = config.KindGateway, chronytest.Start(t, chronytest.Options{}).Addr
		cfg.Daemon.Gateway.Listen = []netip.AddrPort{netip.AddrPortFrom(localhost, 0)}
		g, err := a.newGateway(t.Context(), old, cfg)
		if err != nil {
			t.Fatal(err)
		}
		if old == nil {
			g.relieve(t.Context(), nil)
		} else {
			begun := time.Now()
			g.relieve(t.Context(), old.gateway)
			if took := time.Since(begun); g.behind.Condition() == gateway.Stale && took < answerWithin/2 {
				t.Errorf("it begins while the daemon is %s, after %v", gateway.Stale, took)
			}
			if g.port() != old.gateway.port() {
				t.Errorf("it moves from port %d to %d", old.gateway.port(), g.port())
			}
			old.gateway.release(g)
		}
		old = &parts{gateway: g}
	}
	if err := old.gateway.stop(); err != nil {
		t.Error(err)
	}
}
