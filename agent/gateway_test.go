package agent

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ntsagent/agent/daemon/chronytest"
	"ntsagent/agent/daemon/daemontest"
	"ntsagent/agent/daemon/openntpdtest"
	"ntsagent/agent/status"
	"ntsagent/ntske/aead"
	"ntsagent/ntske/client"
)

// fronting is an agent that runs in this process with its gateway in front of a
// daemon that it asks for the time alone.
type fronting struct {
	*member
	addr netip.AddrPort // of the daemon
	// listen is where the key exchange listens, and the gateway unless told otherwise.
	listen string
}

func newFronting(t *testing.T, addr netip.AddrPort) *fronting {
	t.Helper()
	dir, err := os.MkdirTemp("", "front") // the names of sockets are limited to 107 octets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	f := &fronting{addr: addr, listen: `"127.0.0.1:0", "[::1]:0"`, member: &member{
		t: t, ca: newAuthority(t), dir: dir, state: filepath.Join(dir, "state"),
		cert: filepath.Join(dir, "fullchain.pem"), key: filepath.Join(dir, "privkey.pem"),
		conf: filepath.Join(dir, "ntsagent.yaml"), socket: filepath.Join(dir, "control.sock"), ended: make(chan error, 1),
	}}
	cert, key, _ := f.ca.issue(time.Hour)
	f.write(f.key, key)
	f.write(f.cert, cert)
	f.configure("")
	return f
}

// configure writes the configuration; gateway are further entries of
// daemon.gateway, which also take the place of its listen entry.
func (f *fronting) configure(gateway string, extra ...string) {
	if !strings.Contains(gateway, "listen:") {
		gateway = "listen: [" + f.listen + "]" + gateway
	}
	f.write(f.conf, fmt.Appendf(nil, `names: [%s]
certificate: {source: files, cert: %s, key: %s}
ke: {timeout: 30s, listen: [%s]}
observe: {socket: %s, self_check: 1s}
state_dir: %s
daemon: {kind: gateway, address: %q, gateway: {%s}}
%s`, memberName, f.cert, f.key, f.listen, f.socket, f.state, f.addr, gateway, strings.Join(extra, "\n")))
}

// kes are where the key exchange listens.
func (f *fronting) kes(d status.Document) (out []netip.AddrPort) {
	for _, l := range d.Listeners {
		if l.Service == status.ServiceKE && l.Open {
			out = append(out, netip.MustParseAddrPort(l.Address))
		}
	}
	return out
}

func (f *fronting) whole() status.Document {
	f.t.Helper()
	return f.wait("all is well", func(d status.Document) bool { return d.State == status.Healthy && provenAndOpen(f.member)(d) })
}

func TestTheGatewayServesForADaemonWithoutNTS(t *testing.T) {
	t.Parallel()
	f := newFronting(t, chronytest.Start(t, chronytest.Options{}).Addr)
	f.start()
	d := f.whole()
	if len(f.kes(d)) != 2 {
		t.Fatalf("listeners %+v", d.Listeners)
	}
	if len(d.Warnings) != 1 || !strings.HasPrefix(d.Warnings[0], "daemon.address: any user of this host may answer") {
		t.Errorf("warnings %q", d.Warnings)
	}
	for _, ke := range f.kes(d) {
		f.attends(ke)
	}
}

// frontOpenNTPD is a gateway in front of a real OpenNTPD, which is in a network of
// its own, through a relay.
func frontOpenNTPD(t *testing.T, s *openntpdtest.Server) *fronting {
	f := newFronting(t, relay(t, localhost, s.Network, openntpdtest.Addr))
	f.start()
	return f
}

func TestTheGatewaySpeaksNTSForOpenNTPD(t *testing.T) {
	t.Parallel()
	s := openntpdtest.StartSynchronised(t)
	f := frontOpenNTPD(t, s)
	healthy := func() status.Document {
		t.Helper()
		return f.wait("it serves the time on both families", func(d status.Document) bool {
			return d.State == status.Healthy && len(f.kes(d)) == 2 && len(d.Daemon.Opens) == 2
		})
	}
	for _, ke := range f.kes(healthy()) {
		for _, alg := range []aead.ID{aead.SIVCMAC256, aead.GCMSIV128} {
			if err := f.asks(ke, alg); err != nil {
				t.Errorf("%v, %v: %v", ke, alg, err)
			}
		}
	}
	s.Stop()
	d := f.wait("its silence is told", func(d status.Document) bool {
		return d.Keys.State == status.KeysUnseen && d.Daemon.Gateway.Condition == "stale"
	})
	if !strings.Contains(d.Keys.Why, f.addr.String()) || len(f.kes(d)) != 2 {
		t.Errorf("%+v, %+v", d.Daemon.Gateway, d.Keys)
	}
	s.Restart()
	healthy()
}

func TestAnOpenNTPDWithoutASourceHasNoTimeToGive(t *testing.T) {
	t.Parallel()
	f := frontOpenNTPD(t, openntpdtest.Start(t))
	d := f.wait("the key exchange listens", provenAndOpen(f.member))
	if d.State != status.NotSynchronised || d.Daemon.Gateway.Condition != "unsynchronised" || d.Daemon.Synchronised {
		t.Errorf("state %s, %+v", d.State, d.Daemon)
	}
	reply, err := f.asked(f.ke(d), aead.SIVCMAC256)
	if h := reply.Header; err != nil || h.Leap != 3 || h.Stratum != 0 || len(reply.Cookies) != 1 {
		t.Errorf("%+v, %v", reply, err)
	}
}

func TestTheKeyExchangeListensByNoFamilyThatTheGatewayDoesNot(t *testing.T) {
	t.Parallel()
	f := newFronting(t, chronytest.Start(t, chronytest.Options{}).Addr)
	f.configure(`listen: ["127.0.0.1:0"]`)
	f.start()
	d := f.wait("one family is closed", func(d status.Document) bool { return provenAndOpen(f.member)(d) && d.State != status.Healthy })
	if kes := f.kes(d); len(kes) != 1 || !kes[0].Addr().Is4() || !strings.Contains(status.Text(d), "IPv6: the gateway does not listen by it") {
		t.Errorf("status\n%s", status.Text(d))
	}
	f.configure("")
	if err := f.reload(); err != nil {
		t.Fatal(err)
	}
	for _, ke := range f.kes(f.wait("both are open", func(d status.Document) bool { return d.State == status.Healthy && len(f.kes(d)) == 2 })) {
		f.attends(ke)
	}
}

// asks is asked for its error.
func (f *fronting) asks(ke netip.AddrPort, alg aead.ID) error {
	_, err := f.asked(ke, alg)
	return err
}

// asked exchanges keys for one algorithm and asks the gateway with a cookie.
func (f *fronting) asked(ke netip.AddrPort, alg aead.ID) (reply client.Reply, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := client.KeyExchange(ctx, client.Config{Addr: ke, Name: memberName, Roots: f.ca.roots, AEADs: []aead.ID{alg}})
	if err != nil {
		return reply, err
	}
	if r.Keys.AEAD != alg {
		return reply, fmt.Errorf("agreed to %v", r.Keys.AEAD)
	}
	v := visitor{keys: r.Keys, cookies: r.Cookies}
	return v.query(netip.AddrPortFrom(ke.Addr(), r.Port))
}

func TestTheGatewayServesWithoutIPv6AndAtThePortOfNTP(t *testing.T) {
	t.Parallel()
	if !daemontest.Isolated(t, nil) {
		return
	}
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	f := newFronting(t, chronytest.Start(t, chronytest.Options{}).Addr)
	f.listen = `"0.0.0.0:0", "[::]:0"`
	f.configure("")
	f.start()
	f.attends(f.ke(f.whole()))
	for _, listen := range []string{`"127.0.0.9:123"`, `"127.0.0.9:4123"`} {
		f.listen = `"0.0.0.0:0"`
		f.configure(fmt.Sprintf("listen: [%s], plain: true", listen))
		if err := f.reload(); err != nil {
			t.Fatal(err)
		}
		d := f.whole()
		v := f.visitAt(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.9"), f.ke(d).Port()))
		if v.at != gatewayAt(d) {
			t.Errorf("the key exchange leads to %v", v.at)
		}
		if err := v.ask(v.at); err != nil {
			t.Errorf("%v: %v", v.at, err)
		}
		if _, err := client.Plain(t.Context(), v.at); err != nil {
			t.Errorf("plain, %v: %v", v.at, err)
		}
	}
}
