package agent

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"ntsagent/agent/daemon/chronytest"
	"ntsagent/agent/status"
	"ntsagent/ntske/client"
)

// visitor is a client with its cookies.
type visitor struct {
	at      netip.AddrPort // of the gateway, as the key exchange has told
	keys    client.Keys
	cookies [][]byte
}

// visit exchanges keys.
func (f *fronting) visit(d status.Document) *visitor { return f.visitAt(f.ke(d)) }

func (f *fronting) visitAt(ke netip.AddrPort) *visitor {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := f.keyExchange(ctx, ke)
	if err != nil {
		f.t.Fatal(err)
	}
	return &visitor{netip.AddrPortFrom(ke.Addr(), r.Port), r.Keys, r.Cookies}
}

// attends asserts a key exchange and a query where it leads.
func (f *fronting) attends(ke netip.AddrPort) {
	f.t.Helper()
	v := f.visitAt(ke)
	if err := v.ask(v.at); err != nil || len(v.cookies) != 8 {
		f.t.Errorf("%v: %d cookies, %v", ke, len(v.cookies), err)
	}
}

// gatewayAt is where the gateway answers first.
func gatewayAt(d status.Document) netip.AddrPort {
	for _, l := range d.Listeners {
		if l.Service == status.ServiceNTP && l.Open {
			return netip.MustParseAddrPort(l.Address)
		}
	}
	return netip.AddrPort{}
}

// ask spends a cookie, more than once if need be: where the machine is busy the
// gateway is silent rather than late.
func (v *visitor) ask(at netip.AddrPort) error {
	_, err := v.query(at)
	return err
}

func (v *visitor) query(at netip.AddrPort) (reply client.Reply, err error) {
	for end := time.Now().Add(patience); ; {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		reply, err = client.Query(ctx, at, v.keys, v.cookies[0], 0)
		cancel()
		if !errors.Is(err, client.ErrSilent) || time.Now().After(end) {
			return reply, err
		}
	}
}

func TestTheGatewayOpensCookiesFromBeforeARestart(t *testing.T) {
	t.Parallel()
	f := newFronting(t, chronytest.Start(t, chronytest.Options{}).Addr)
	stop := f.run()
	before := f.whole()
	v := f.visit(before)
	stop()
	info, err := os.Stat(filepath.Join(f.state, "keys", "gateway"))
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("the file of our keys: %v, %v", info.Mode(), err)
	}
	stop = f.run()
	defer func() { stop() }()
	now := f.whole()
	if now.Keys.Current != before.Keys.Current || !now.Keys.NextRotation.Equal(before.Keys.NextRotation) {
		t.Errorf("%+v became %+v", before.Keys, now.Keys)
	}
	if err := v.ask(gatewayAt(now)); err != nil {
		t.Errorf("a cookie from before: %v", err)
	}
	stop()
	damaged := []byte("no keys of ours")
	f.write(filepath.Join(f.state, "keys", "gateway"), damaged)
	stop = f.run()
	now = f.whole()
	if kept, err := os.ReadFile(filepath.Join(f.state, "keys", "gateway.damaged")); err != nil || string(kept) != string(damaged) {
		t.Errorf("the damaged file: %q, %v", kept, err)
	}
	if err := v.ask(gatewayAt(now)); !errors.Is(err, client.ErrNAK) {
		t.Errorf("a cookie of lost keys: %v", err)
	}
	f.attends(f.ke(now))
}

func TestTheGatewayOpensCookiesOfTenRotations(t *testing.T) {
	t.Parallel()
	f := newFronting(t, chronytest.Start(t, chronytest.Options{}).Addr)
	f.start()
	d := f.whole()
	var visitors []*visitor
	for range 10 {
		visitors = append(visitors, f.visit(d))
		if err := f.rotate(); err != nil {
			t.Fatal(err)
		}
		was := d.Keys.Current
		d = f.wait("the new key is proven", func(d status.Document) bool { return provenAndOpen(f.member)(d) && d.Keys.Current != was })
	}
	if len(d.Keys.Held) != 10 || d.Keys.Mode != "own" || !strings.Contains(status.Text(d), "we own") {
		t.Errorf("%+v\n%s", d.Keys, status.Text(d))
	}
	at := gatewayAt(d)
	for n, v := range visitors[1:] {
		if err := v.ask(at); err != nil {
			t.Errorf("a cookie of the key before %d rotations: %v", len(visitors)-n-1, err)
		}
	}
	if err := visitors[0].ask(at); !errors.Is(err, client.ErrNAK) {
		t.Errorf("a cookie of a key that is not kept: %v", err)
	}
	again := f.visit(d)
	if err := again.ask(at); err != nil {
		t.Errorf("after a new key exchange: %v", err)
	}
	d = f.wait("all is counted", func(d status.Document) bool { return d.Daemon.Gateway.NAK > 0 })
	if g := d.Daemon.Gateway; g.Served < 10 || g.RequestsDay < g.Served+1 {
		t.Errorf("counted %+v", g)
	}
}

func TestAGatewayThatIsKilledWhileItRotatesLosesNoCookie(t *testing.T) {
	t.Parallel()
	f := newFronting(t, chronytest.Start(t, chronytest.Options{}).Addr)
	f.configure("", "keys: {keep: 64}")
	kill := f.child()
	defer func() { kill() }()
	v := f.visit(f.whole())
	for range 5 {
		at := gatewayAt(f.whole())
		var rotated atomic.Int64
		ahead, killed, ended := make(chan struct{}, 16), make(chan struct{}), make(chan struct{})
		go func() {
			defer close(ended)
			for {
				if f.rotate() == nil {
					rotated.Add(1)
				}
				select { // a client that waits long for its answer would outlive the 64 keys
				case ahead <- struct{}{}:
				case <-killed:
					return
				case <-t.Context().Done():
					return
				}
			}
		}()
		for n := 0; n < 40 || rotated.Load() < 3; n++ { // each with the cookie that came last
			reply, err := client.Reply{}, client.ErrSilent
			for errors.Is(err, client.ErrSilent) && t.Context().Err() == nil {
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				reply, err = client.Query(ctx, at, v.keys, v.cookies[0], 0)
				cancel()
			}
			if err != nil {
				t.Fatal(err)
			}
			v.cookies = reply.Cookies
			for len(ahead) > 0 {
				<-ahead
			}
		}
		kill()
		close(killed)
		<-ended
		kill = f.child()
		t.Logf("killed after %d rotations", rotated.Load())
	}
	if err := v.ask(gatewayAt(f.whole())); err != nil {
		t.Error(err)
	}
}
