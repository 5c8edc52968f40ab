package issuer_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"ntsagent/acme/dnscheck"
	"ntsagent/acme/store"
	"ntsagent/agent"
	"ntsagent/agent/daemon/chronytest"
	"ntsagent/agent/status"
	"ntsagent/hostcheck"
)

// member is a whole agent beside a real chronyd, with its certificates from a world's CA. Whatever takes days is done while it
// is stopped: what it remembers is made older.
type member struct {
	t            *testing.T
	w            *world
	names        []hostcheck.Name
	conf, socket string
	state        string                 // state_dir
	http01       atomic.Pointer[string] // where it answers the CA
	validations  sync.Map               // by Host: *atomic.Int32, how often the CA came to look
}

func newMember(t *testing.T, w *world, names ...hostcheck.Name) *member {
	t.Helper()
	dir, err := os.MkdirTemp("", "member") // the names of sockets are limited to 107 octets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	m := &member{t: t, w: w, names: names, conf: filepath.Join(dir, "ntsagent.yaml"), socket: filepath.Join(dir, "control.sock"),
		state: filepath.Join(dir, "state")}
	chronyd := chronytest.Start(t, chronytest.Options{})
	var list []string
	for _, n := range names {
		list = append(list, n.String())
		m.validations.Store(n.String(), new(atomic.Int32))
	}
	config := fmt.Appendf(nil, `names: [%s]
public_addresses: [127.0.0.1]
acme:
  directory: %s
  ca_file: %s
  agree_to_terms: true
  challenges: [http-01]
  http01: {listen: ["127.0.0.1:0"], host_ports: [%d]}
  resolvers: [%q, %q]
ke: {listen: ["127.0.0.1:0"]}
daemon:
  kind: chrony
  address: %s
  chrony: {keys_file: %s, command_socket: %s, config_file: %s}
observe: {socket: %s, self_check: 1s}
state_dir: %s
`, strings.Join(list, ", "), w.directory, w.caFile, port(w.http.Listener), w.zone.addr, w.zone.serve(t),
		chronyd.Addr, chronyd.KeysFile, chronyd.Socket, chronyd.Conf, m.socket, m.state)
	if err := os.WriteFile(m.conf, config, 0o600); err != nil {
		t.Fatal(err)
	}
	w.http.Config.Handler = m
	return m
}

// ServeHTTP takes the CA from its port to the agent's, which the kernel chose. The first visit may come before it is known.
func (m *member) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	host, _, _ := strings.Cut(r.Host, ":")
	if n, ok := m.validations.Load(host); ok {
		n.(*atomic.Int32).Add(1)
	}
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for m.http01.Load() == nil {
		select {
		case <-again.C:
		case <-r.Context().Done():
			return
		}
	}
	to := *m.http01.Load()
	(&httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) { p.Out.URL.Scheme, p.Out.URL.Host = "http", to }}).ServeHTTP(w, r)
}

func (m *member) seen(n hostcheck.Name) int32 {
	count, _ := m.validations.Load(n.String())
	return count.(*atomic.Int32).Load()
}

// run starts the agent; the returned func stops it.
func (m *member) run() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	m.http01.Store(nil)
	go func() {
		log := hclog.New(&hclog.LoggerOptions{Level: hclog.Debug, Output: testLog{m.t}, DisableTime: true})
		ended <- agent.Run(ctx, agent.Options{ConfigPath: m.conf, Log: log, Version: "test"})
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			m.t.Errorf("the agent ended with %v", err)
		}
	})
	m.t.Cleanup(stop)
	m.wait("it listens for the CA", func(d status.Document) bool {
		for _, l := range d.Listeners {
			if l.Service == status.ServiceHTTP01 && l.Open {
				m.http01.Store(&l.Address)
				return true
			}
		}
		return false
	})
	return stop
}

type testLog struct{ t *testing.T }

func (l testLog) Write(b []byte) (int, error) {
	l.t.Log(strings.TrimSuffix(string(b), "\n"))
	return len(b), nil
}

// wait polls the status until what is wanted is there.
func (m *member) wait(what string, ok func(status.Document) bool) status.Document {
	m.t.Helper()
	end := time.NewTimer(time.Minute)
	defer end.Stop()
	for {
		ctx, cancel := context.WithTimeout(m.t.Context(), 10*time.Second)
		d, err := status.NewClient(m.socket).Status(ctx)
		cancel()
		if err == nil && ok(d) {
			return d
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-end.C:
			m.t.Fatalf("waited in vain until %s; status is %+v, error %v", what, d, err)
		}
	}
}

// shown is the serial number of the certificate that a client of the key exchange is shown for name.
func (m *member) shown(d status.Document, name hostcheck.Name) string {
	m.t.Helper()
	for _, l := range d.Listeners {
		if l.Service != status.ServiceKE || !l.Open {
			continue
		}
		c, err := (&tls.Dialer{NetDialer: &net.Dialer{Timeout: 30 * time.Second},
			Config: &tls.Config{ServerName: name.String(), NextProtos: []string{"ntske/1"}, InsecureSkipVerify: true}}).DialContext(m.t.Context(), "tcp", l.Address)
		if err != nil {
			m.t.Fatal(err)
		}
		defer c.Close()
		return c.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.Text(16)
	}
	m.t.Fatalf("no key exchange listens: %+v", d.Listeners)
	return ""
}

func serving(d status.Document) bool {
	for _, l := range d.Listeners {
		if l.Service == status.ServiceKE && l.Open {
			return true
		}
	}
	return false
}

// renewed tells whether another certificate is there than the old one. There is none while the agent starts.
func renewed(c status.Certificate, old string) bool {
	return c.Serial != "" && c.Serial != old && c.OrderingSince.IsZero()
}

// store is what the agent, which must be stopped, has on disk.
func (m *member) store() *store.Store { return openStore(m.t, filepath.Join(m.state, "acme")) }

// old gives name a certificate of which 15 days of 75 are left, and lets the agent have forgotten its last order.
func (m *member) old(name hostcheck.Name) (serial string) {
	m.t.Helper()
	s := m.store()
	key, err := s.PendingKey(name, store.P256)
	if err != nil {
		m.t.Fatal(err)
	}
	chain, serial := selfSigned(m.t, name, key, time.Now().AddDate(0, 0, -60), time.Now().AddDate(0, 0, 15))
	if err := s.Commit(name, chain); err != nil {
		m.t.Fatal(err)
	}
	if err := s.SaveRenewal(name, store.Renewal{LastSuccess: time.Now().AddDate(0, 0, -60)}); err != nil {
		m.t.Fatal(err)
	}
	return serial
}

// selfSigned is a chain of one.
func selfSigned(t *testing.T, name hostcheck.Name, key crypto.Signer, from, to time.Time) (chain []byte, serial string) {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(from.UnixNano()), Subject: pkix.Name{CommonName: "the CA of old"},
		DNSNames: []string{name.String()}, NotBefore: from, NotAfter: to,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), template.SerialNumber.Text(16)
}

// pass makes what the agent knows of the DNS older.
func (m *member) pass(by time.Duration) {
	m.t.Helper()
	s := m.store()
	for _, n := range m.names {
		st, err := s.Standing(n)
		if err != nil || st == (dnscheck.State{}) {
			m.t.Fatalf("%s: %+v, %v", n, st, err)
		}
		for _, t := range []*time.Time{&st.Since, &st.Checked, &st.First, &st.Next, &st.LetGo} {
			if !t.IsZero() {
				*t = t.Add(-by)
			}
		}
		if err := s.SaveStanding(n, st); err != nil {
			m.t.Fatal(err)
		}
	}
}

// TestAWholeAgentWhoseNameIsWithdrawn is a member of two pools. One of them takes the name out of its DNS, while the CA would
// go on reusing the authorization it has: no certificate is made for it, the old one serves on, the status tells, the other
// name renews; and when the name is back, so does that one.
func TestAWholeAgentWhoseNameIsWithdrawn(t *testing.T) {
	t.Parallel()
	east, west := mustName(t, "alice.east.example"), mustName(t, "alice.west.example")
	var orders atomic.Int32
	w := newWorld(t, settings{authzReuse: 100, front: keepAuthorizations(&orders)}, east, west)
	m := newMember(t, w, east, west)

	stop := m.run()
	m.wait("both names have certificates", func(d status.Document) bool {
		return !d.Certificates[0].NotAfter.IsZero() && !d.Certificates[1].NotAfter.IsZero()
	})
	stop()
	if n := orders.Load(); n != 2 || m.seen(east) == 0 || m.seen(west) == 0 {
		t.Fatalf("%d orders, %d and %d validations", n, m.seen(east), m.seen(west))
	}

	validated := m.seen(east)
	eastern, western := m.old(east), m.old(west)
	w.zone.set(east, "")
	var d status.Document
	looked := func(d status.Document) bool {
		return d.Certificates[0].NextAttempt.After(time.Now()) && d.Certificates[0].Condition != ""
	}
	for round := range 3 {
		m.pass(40 * time.Minute)
		stop = m.run()
		d = m.wait(fmt.Sprintf("look %d is over, and west has renewed", round+1), func(d status.Document) bool {
			return looked(d) && serving(d) && renewed(d.Certificates[1], western) &&
				(round < 2 || d.State == status.Degraded) // by the name alone: a daemon that was slow to answer is worse
		})
		if want := []string{"missing", "missing", status.ConditionWithdrawn}[round]; d.Certificates[0].Condition != want {
			t.Errorf("after look %d: %+v, want %s", round+1, d.Certificates[0], want)
		}
		if got := m.shown(d, east); got != eastern {
			t.Errorf("after look %d certificate %s is served, want %s as before", round+1, got, eastern)
		}
		if round < 2 {
			stop()
		}
	}
	if n := orders.Load(); n != 3 {
		t.Errorf("%d orders in all, want one for west alone since the name was withdrawn", n)
	}
	if got := m.shown(d, west); got != d.Certificates[1].Serial || got == western {
		t.Errorf("west is served certificate %s; %+v", got, d.Certificates[1])
	}
	c, text := d.Certificates[0], status.Text(d)
	for _, want := range []string{
		"certificate " + east.String() + ": withdrawn, not renewed, 14d", " left: since 20", "the DNS has no address for " + east.String() + " any more: " + w.zone.addr + ", ",
		"ask whoever runs the zone to publish its A and AAAA records again; orders resume by themselves", "looked at again in 1",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the status does not say %q:\n%s", want, text)
		}
	}
	if c.Failures != 0 || c.LastError != "" || len(d.LastErrors) != 1 || !strings.Contains(d.LastErrors[0].What, east.String()) {
		t.Errorf("%+v, last errors %+v", c, d.LastErrors)
	}
	stop()

	w.zone.set(east, "127.0.0.1")
	m.pass(20 * time.Minute)
	m.run()
	d = m.wait("the name that is back has renewed", func(d status.Document) bool {
		return renewed(d.Certificates[0], eastern) && serving(d)
	})
	if c := d.Certificates[0]; c.Condition != "" || c.LastError != "" || c.LastHint != "" || m.shown(d, east) != c.Serial || orders.Load() != 4 {
		t.Errorf("%d orders, %+v", orders.Load(), c)
	}
	if n := m.seen(east); n != validated {
		t.Errorf("the CA has looked %d times more: it does not reuse its authorization, and nothing was shown here", n-validated)
	}
}
