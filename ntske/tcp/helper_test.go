package tcp

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"
)

const testName = "alice.pool.example"

// patience is how long what comes is waited for: more than any machine stands still.
const patience = time.Minute

// identity makes a self-signed certificate and the pool that verifies it.
func identity(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{testName},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// serviceFunc makes a Service of a func.
type serviceFunc func(context.Context, *tls.Conn)

func (f serviceFunc) ServeConn(ctx context.Context, c *tls.Conn) { f(ctx, c) }

// answer reads one line's worth and writes text.
func answer(text string) Service {
	return serviceFunc(func(_ context.Context, c *tls.Conn) {
		if _, err := c.Read(make([]byte, 64)); err == nil {
			io.WriteString(c, text)
		}
	})
}

// events collects what a Server observes.
type events struct {
	mu  sync.Mutex
	all []Event
}

func (e *events) observe(ev Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, ev)
}

func (e *events) has(want Event) bool { return e.count(want) > 0 }

func (e *events) count(want Event) (n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, ev := range e.all {
		if ev == want {
			n++
		}
	}
	return n
}

// running is a Server at work on a loopback listener.
type running struct {
	*Server
	t      *testing.T
	ln     net.Listener
	events *events
	roots  *x509.CertPool
	stop   func() error // cancels Serve, waits for the connections, returns Serve's error
	// stopAccepting cancels Serve and waits for it alone.
	stopAccepting func()
}

// start serves cfg's services, whose TLS part it fills in. Unless cfg says it, connections outlive all patience.
func start(t *testing.T, cfg Config) *running {
	t.Helper()
	return startAt(t, "127.0.0.1", cfg)
}

func startAt(t *testing.T, ip string, cfg Config) *running {
	t.Helper()
	if cfg.Timeout == 0 {
		cfg.Timeout = 2 * patience
	}
	cert, roots := identity(t)
	r := &running{t: t, events: new(events), roots: roots}
	cfg.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true}
	for protocol := range cfg.Services {
		cfg.TLS.NextProtos = append(cfg.TLS.NextProtos, protocol)
	}
	cfg.Observe = r.events.observe
	var err error
	if r.Server, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	r.ln = listen(t, net.JoinHostPort(ip, "0"))
	r.serve()
	return r
}

// listen opens what the agent does, which is no multipath TCP.
func listen(t *testing.T, address string) net.Listener {
	t.Helper()
	var conf net.ListenConfig
	conf.SetMultipathTCP(false)
	ln, err := conf.Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

// serve starts Serve and leaves its end to the test or its cleanup.
func (r *running) serve() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	server, accepted := r.Server, make(chan struct{})
	r.stopAccepting = func() { cancel(); <-accepted }
	go func() {
		err := server.Serve(ctx, r.ln)
		close(accepted)
		server.Wait()
		done <- err
	}()
	r.stop = sync.OnceValue(func() error { cancel(); return <-done })
	r.t.Cleanup(func() {
		if err := r.stop(); err != nil {
			r.t.Errorf("Serve returned %v", err)
		}
	})
}

// open returns how many connections are open now.
func (s *Server) open() int { return s.conns.len() }

func (t *Table[C]) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.at)
}

func (r *running) dial() net.Conn {
	r.t.Helper()
	c, err := net.Dial("tcp", r.ln.Addr().String())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

func (r *running) client(nc net.Conn, protocols ...string) *tls.Conn {
	return tls.Client(nc, &tls.Config{RootCAs: r.roots, ServerName: testName, NextProtos: protocols})
}

// ask does a whole session and returns the answer.
func (r *running) ask(nc net.Conn, protocol string) (string, error) {
	c := r.client(nc, protocol)
	if _, err := io.WriteString(c, "?"); err != nil {
		return "", err
	}
	b, err := io.ReadAll(c)
	return string(b), err
}

// eventually waits for a condition that nothing signals. It returns how many milliseconds it has seen pass: of a time in
// which nobody here could do anything it sees one.
func eventually(t *testing.T, what string, ok func() bool) (ms int) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); ms++ {
		if time.Now().After(end) {
			t.Fatalf("still not so: %s", what)
		}
		runtime.Gosched()
		<-time.After(time.Millisecond)
	}
	return ms
}

// hungUp reads until the other side closes, which it must long before its connections end.
func hungUp(t *testing.T, c net.Conn) {
	t.Helper()
	_, err := io.Copy(io.Discard, c)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		t.Fatal("the server did not hang up")
	}
}
