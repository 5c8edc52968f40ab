package agent

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"ntsagent/agent/daemon/chronytest"
	"ntsagent/agent/status"
	"ntsagent/agent/task"
	"ntsagent/ntske/client"
)

const memberName = "alice.pool.test"

// patience is how long a test waits for what is sure to come: far longer than any
// process of a busy machine has been seen to stand still.
const patience = time.Minute

// authority is a CA of the test's own.
type authority struct {
	t     *testing.T
	key   *ecdsa.PrivateKey
	cert  *x509.Certificate
	roots *x509.CertPool
	last  int64
}

func newAuthority(t *testing.T) *authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{t: t, key: key, roots: x509.NewCertPool(), last: 1}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.roots.AddCert(a.cert)
	return a
}

// issue makes a certificate that ends after life, as PEM, and its serial.
func (a *authority) issue(life time.Duration) (cert, key []byte, serial string) {
	return a.issueFor(memberName, life)
}

func (a *authority) issueFor(name string, life time.Duration) (cert, key []byte, serial string) {
	a.last++
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(a.last), DNSNames: []string{name}, NotBefore: now.Add(-time.Minute), NotAfter: now.Add(life),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &own.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(own)
	if err != nil {
		a.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), template.SerialNumber.Text(16)
}

// member is an agent that runs in this process beside a real chronyd, with a
// certificate by other hands.
type member struct {
	t         *testing.T
	ca        *authority
	chronyd   *chronytest.Server
	dir       string
	state     string // state_dir
	cert, key string // paths
	conf      string
	socket    string
	selfCheck string // observe.self_check
	ended     chan error
	inherited task.Inherited
	shut      atomic.Int64 // how often the key exchange has told that it was shut for longer than a moment
}

// startMember starts both and waits until nothing is in the way of serving but
// what the test did not provide.
func startMember(t *testing.T, life time.Duration, extra string) *member {
	t.Helper()
	m := newMember(t, life, chronytest.Options{})
	m.configure(extra)
	m.start()
	m.wait("the key exchange listens", func(d status.Document) bool { return m.ke(d).IsValid() })
	return m
}

// newMember starts chronyd and writes the certificate. The agent is left to be
// configured and started.
func newMember(t *testing.T, life time.Duration, o chronytest.Options) *member {
	t.Helper()
	dir, err := os.MkdirTemp("", "member") // the names of sockets are limited to 107 octets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	m := &member{
		t: t, ca: newAuthority(t), chronyd: chronytest.Start(t, o), dir: dir, state: filepath.Join(dir, "state"),
		cert: filepath.Join(dir, "fullchain.pem"), key: filepath.Join(dir, "privkey.pem"),
		conf: filepath.Join(dir, "ntsagent.yaml"), socket: filepath.Join(dir, "control.sock"), selfCheck: "1s", ended: make(chan error, 1),
	}
	cert, key, _ := m.ca.issue(life)
	m.write(m.key, key)
	m.write(m.cert, cert)
	return m
}

// start runs the agent until stop, or the end of the test.
func (m *member) start() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		m.ended <- Run(ctx, Options{ConfigPath: m.conf, Log: hclog.New(m.logTo()), Version: "test", Host: machine, Inherited: m.inherited})
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-m.ended; err != nil {
			m.t.Errorf("the agent ended with %v", err)
		}
	})
	m.t.Cleanup(stop)
	return stop
}

// logTo writes the agent's log into the test's, which shows it on a failure.
func (m *member) logTo() *hclog.LoggerOptions {
	return &hclog.LoggerOptions{Level: hclog.Debug, Output: m.said(), DisableTime: true}
}

// said takes what the agent says.
func (m *member) said() testWriter { return testWriter{m.t, &m.shut} }

type testWriter struct {
	t    *testing.T
	shut *atomic.Int64 // nil = not counted
}

func (w testWriter) Write(b []byte) (int, error) {
	if w.shut != nil {
		w.shut.Add(int64(strings.Count(string(b), "not listening: for="+status.ServiceKE)))
	}
	w.t.Log(strings.TrimSuffix(string(b), "\n"))
	return len(b), nil
}

// configure writes the configuration; extra are further lines of YAML, whole
// ones, which also take the place of the names, certificate and ke lines.
func (m *member) configure(extra string) {
	if !strings.Contains(extra, "ke:") {
		extra += "ke: {listen: [\"127.0.0.1:0\"]}\n"
	}
	if !strings.Contains(extra, "certificate:") {
		extra += fmt.Sprintf("names: [%s]\ncertificate: {source: files, cert: %s, key: %s}\n", memberName, m.cert, m.key)
	}
	m.write(m.conf, fmt.Appendf(nil, `daemon:
  kind: chrony
  address: %s
  chrony: {keys_file: %s, command_socket: %s, config_file: %s}
observe: {socket: %s, self_check: %s}
state_dir: %s
%s`, m.chronyd.Addr, m.chronyd.KeysFile, m.chronyd.Socket, m.chronyd.Conf,
		m.socket, m.selfCheck, m.state, unhurried(extra)))
}

// patiently tries again what a busy machine may be too slow for, such as a key
// exchange with a daemon that has few seconds for it.
func patiently(try func() error) (err error) {
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for end := time.Now().Add(patience); ; <-again.C {
		if err = try(); err == nil || time.Now().After(end) {
			return err
		}
	}
}

// unhurried gives clients more time for a key exchange than the 3 s that they have
// where a configuration says nothing: both ends are on one busy machine.
func unhurried(yaml string) string {
	if strings.Contains(yaml, "timeout:") {
		return yaml
	}
	return strings.Replace(yaml, "ke: {listen", "ke: {timeout: 30s, listen", 1)
}

func (m *member) write(path string, b []byte) {
	m.t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		m.t.Fatal(err)
	}
}

func (m *member) status() (status.Document, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience/2)
	defer cancel()
	return status.NewClient(m.socket).Status(ctx)
}

func (m *member) reload() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return status.NewClient(m.socket).Reload(ctx)
}

// wait polls the status until what is wanted is there.
func (m *member) wait(what string, ok func(status.Document) bool) status.Document {
	m.t.Helper()
	deadline := time.After(patience)
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		d, err := m.status()
		if err == nil && ok(d) {
			return d
		}
		select {
		case <-again.C:
		case ended := <-m.ended:
			m.ended <- nil
			m.t.Fatalf("waiting until %s: the agent ended: %v", what, ended)
		case <-deadline:
			m.t.Fatalf("waited in vain until %s; status is %+v, error %v", what, d, err)
		}
	}
}

// ke is where the key exchange listens, or the zero value.
func (m *member) ke(d status.Document) netip.AddrPort {
	for _, l := range d.Listeners {
		if l.Service == status.ServiceKE && l.Open {
			return netip.MustParseAddrPort(l.Address)
		}
	}
	return netip.AddrPort{}
}

// hasExpired says that the certificate has, before the agent took it or since,
// and that nobody is let in.
func (m *member) hasExpired(d status.Document) bool {
	return !m.ke(d).IsValid() && slices.ContainsFunc(d.Reasons, func(r string) bool { return strings.Contains(r, "expired") })
}

// keyExchange does one key exchange at addr.
func (m *member) keyExchange(ctx context.Context, addr netip.AddrPort) (client.Result, error) {
	return client.KeyExchange(ctx, client.Config{Addr: addr, Name: memberName, Roots: m.ca.roots})
}

// exchange does one key exchange at addr and one query with a cookie from it.
func (m *member) exchange(addr netip.AddrPort) (serial string, cookies int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := m.keyExchange(ctx, addr)
	if err != nil {
		return "", 0, err
	}
	serial = r.TLS.PeerCertificates[0].SerialNumber.Text(16)
	_, err = client.Query(ctx, netip.AddrPortFrom(addr.Addr(), r.Port), r.Keys, r.Cookies[0], 0)
	return serial, len(r.Cookies), err
}

// serves asserts a whole exchange, by a certificate of that serial unless "".
func (m *member) serves(addr netip.AddrPort, serial string, cookies int) {
	m.t.Helper()
	got, n, err := m.exchange(addr)
	if err != nil || n != cookies || serial != "" && got != serial {
		m.t.Fatalf("key exchange: serial %s, %d cookies, error %v; want serial %q and %d cookies", got, n, err, serial, cookies)
	}
}

// under runs do while clients come one after the other, none of whom may fail.
func (m *member) under(addr netip.AddrPort, do func()) {
	m.t.Helper()
	m.while(do, func() error { _, _, err := m.exchange(addr); return err })
}

// while runs do while clients come one after the other, none of whom may fail.
func (m *member) while(do func(), client func() error) {
	m.t.Helper()
	stop, failed := make(chan struct{}), make(chan error, 1)
	go func() {
		for n := 0; ; n++ {
			if err := client(); err != nil {
				failed <- fmt.Errorf("client %d: %w", n, err)
				return
			}
			select {
			case <-stop:
				failed <- nil
				return
			default:
			}
		}
	}()
	do()
	close(stop)
	if err := <-failed; err != nil {
		m.t.Fatalf("a client failed meanwhile: %v", err)
	}
}
