package agent

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/pprof"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"ntsagent/acme/challenge"
	"ntsagent/agent/status"
	"ntsagent/hostcheck"
)

const (
	proofToken = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA"
	proofText  = proofToken + ".9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI"
)

// attacked is a challenge door as the agent has it, with a proof pending for
// memberName. Its goroutines can be told from those of other tests.
type attacked struct {
	t    *testing.T
	addr string
	mark string
	end  func() // which waits for all that has begun
}

func attack(t *testing.T, purpose string) *attacked {
	t.Helper()
	name, err := hostcheck.ParseName(memberName)
	if err != nil {
		t.Fatal(err)
	}
	r := challenge.New(hostcheck.NewSet([]hostcheck.Name{name}), hclog.NewNullLogger())
	if _, err := r.PresentHTTP01(name, proofToken, proofText); err != nil {
		t.Fatal(err)
	}
	cert, err := challenge.Certificate(name, proofText, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.PresentTLSALPN01(name, cert); err != nil {
		t.Fatal(err)
	}
	a, c, d := &agent{Options: Options{Log: hclog.NewNullLogger()}}, &certs{}, &door{purpose: purpose}
	if err := a.answer(c, d, challenge.Redirect{Responder: r}); err != nil {
		t.Fatal(err)
	}
	ln := held(t, "tcp4", "127.0.0.1:0")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	pprof.Do(ctx, pprof.Labels("attacked", t.Name()), func(ctx context.Context) {
		go func() { ended <- d.serve(ctx, ln) }()
	})
	at := &attacked{t: t, addr: ln.Addr().String(), mark: fmt.Sprintf("%q:%q", "attacked", t.Name())}
	at.end = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		c.going.Wait()
		if c.proofs != nil {
			c.proofs.Wait()
		}
	})
	t.Cleanup(at.end)
	return at
}

// goroutines counts those that serve the door.
func (a *attacked) goroutines() (n int) {
	var b bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&b, 1); err != nil {
		a.t.Fatal(err)
	}
	alike := 0 // in the group that is read
	for line := range strings.Lines(b.String()) {
		if _, stack, ok := strings.Cut(line, " @ "); ok && strings.HasPrefix(stack, "0x") {
			_, _ = fmt.Sscan(line, &alike) // which says so first
		}
		if strings.HasPrefix(line, "# labels:") && strings.Contains(line, a.mark) {
			n += alike
		}
	}
	return n
}

// attacker sends what it has to, an octet at a time where slow says so, and stays
// until it is hung up on.
func (a *attacked) attacker(raw string, slow time.Duration) error {
	c, err := net.Dial("tcp4", a.addr)
	if errors.Is(err, syscall.ECONNRESET) {
		return nil
	}
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute)) // a defect alone takes so long
	go func() {
		if slow == 0 {
			_, _ = io.WriteString(c, raw) // it is hung up on, or not read any further
			return
		}
		for i := range raw {
			if _, err := io.WriteString(c, raw[i:i+1]); err != nil || !pause(a.t.Context(), slow) {
				return
			}
		}
	}()
	b, err := io.ReadAll(c)
	if bytes.Contains(b, []byte(proofText)) {
		return errors.New("was shown the proof")
	}
	if ne, ok := err.(net.Error); ok && ne.Timeout() {
		return errors.New("is still there")
	}
	return nil
}

// askProof is one request of a CA.
func (a *attacked) askProof() error {
	c, err := net.Dial("tcp4", a.addr)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, "GET /.well-known/acme-challenge/"+proofToken+" HTTP/1.1\r\nHost: "+memberName+"\r\n\r\n"); err != nil {
		return err
	}
	b, err := io.ReadAll(c)
	if err == nil && (!bytes.HasPrefix(b, []byte("HTTP/1.1 200 ")) || !bytes.HasSuffix(b, []byte("\r\n\r\n"+proofText))) {
		err = fmt.Errorf("answered %q", b)
	}
	return err
}

// As many as there is room for beside a CA, each as slow as it can be.
func TestSlowAttackersOfHTTP01AreGoneInTimeAndKeepNoCAOut(t *testing.T) {
	t.Parallel()
	const good, lots = "Host: " + memberName + "\r\n", 20000
	kinds := []struct {
		rule, raw string
		slow      time.Duration
	}{
		{"says nothing", "", 0},
		{"a header at one octet a second", "GET / HTTP/1.1\r\n" + good, time.Second},
		{"a right request at one octet a second", "GET /.well-known/acme-challenge/" + proofToken + " HTTP/1.1\r\n" + good + "\r\n", time.Second},
		{"a header without end", "GET / HTTP/1.1\r\n" + good + "X: ", 0},
		{"a body at one octet a second", "POST / HTTP/1.1\r\n" + good + "Content-Length: 50\r\n\r\nbody", 20 * time.Millisecond},
		{"a chunk that stays half", "POST / HTTP/1.1\r\n" + good + "Transfer-Encoding: chunked\r\n\r\n5\r\nhel", 0},
		{"waits to be let", "POST / HTTP/1.1\r\n" + good + "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n", 0},
		{"half a preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\n", 0},
		{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + strings.Repeat("\x00\x00\x00\x04\x00\x00\x00\x00\x00", lots), 0},
		{"pipelines", strings.Repeat("GET / HTTP/1.1\r\n"+good+"\r\n", lots), 0},
		{"a header of megabytes", "GET / HTTP/1.1\r\n" + good + "X: " + strings.Repeat("x", 100*lots), 0},
		{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 0},
	}
	a := attack(t, status.ServiceHTTP01)
	var attackers, ca sync.WaitGroup
	for i := range maxHTTPConns - 2 { // one place is the CA's, and one may be one that it has left
		kind := kinds[i%len(kinds)]
		attackers.Go(func() {
			if err := a.attacker(kind.raw, kind.slow); err != nil {
				t.Errorf("%s: %v", kind.rule, err)
			}
		})
	}
	over := make(chan struct{})
	asked, failed := 0, 0
	ca.Go(func() {
		for {
			begun := time.Now()
			if err := a.askProof(); err != nil {
				t.Logf("a CA meanwhile, after %v: %v", time.Since(begun), err)
				if time.Since(begun) < 4*time.Second { // else it was as slow as an attacker: the machine is busy
					failed++
				}
			}
			asked++
			select {
			case <-over:
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	})
	began := time.Now()
	attackers.Wait()
	t.Logf("%d attackers gone after %v", maxHTTPConns-2, time.Since(began).Round(time.Millisecond))
	close(over)
	ca.Wait()
	t.Logf("a CA asked %d times, %d in vain", asked, failed)
	if failed > asked/4 {
		t.Error("a CA does not get through")
	}
	eventually(t, "one goroutine is left, who accepts", func() bool { return a.goroutines() <= 1 })
	if a.goroutines() != 1 {
		t.Error("nobody accepts: the goroutines are not found")
	}
	a.end() // in which nobody is waited for any more
}

// CVE-2026-22045: who stalled after a ClientHello for acme-tls/1 stayed for ever,
// for the deadlines were gone by then. CVE-2023-47124: who was slow at the
// challenges kept others out.
func TestCVE_2026_22045_2023_47124_StalledHandshakesAreGoneInTimeAndKeepNoCAOut(t *testing.T) {
	t.Parallel()
	stalled := descriptors(t, 2000/fraction)
	a := attack(t, status.ServiceTLSALPN01)
	hello := clientHello(t)
	var attackers sync.WaitGroup
	for i := range stalled {
		raw := hello[:len(hello)*(i%3)/2] // nothing, a half and all of it
		attackers.Go(func() {
			if err := a.attacker(string(raw), 0); err != nil {
				t.Errorf("%d of %d octets: %v", len(raw), len(hello), err)
			}
		})
	}
	tries := 1
	for ; a.handshake() != nil; tries++ { // as long as they keep coming anybody may have to go
		if tries > 1000 {
			t.Fatal("a CA never gets through")
		}
	}
	attackers.Wait()
	t.Logf("%d stalled, a CA got through at the %d. try", stalled, tries)
	if err := a.handshake(); err != nil {
		t.Errorf("a CA afterwards: %v", err)
	}
	eventually(t, "one goroutine is left, who accepts", func() bool { return a.goroutines() <= 1 })
	if a.goroutines() != 1 {
		t.Error("nobody accepts: the goroutines are not found")
	}
}

// descriptors is how many connections a test may hold, of those that it wants.
func descriptors(t *testing.T, want int) int {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	const others = 600 // of the tests beside this one
	if limit.Cur < others+2*maxTLSALPNConns {
		t.Fatalf("%d open files are too few for this test", limit.Cur)
	}
	return min(want, int(min(limit.Cur, 1<<20))-others)
}

func caTLS() *tls.Config {
	return &tls.Config{ServerName: memberName, NextProtos: []string{challenge.ALPN}, InsecureSkipVerify: true} // judged by its content
}

func (a *attacked) handshake() error {
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp4", a.addr, caTLS())
	if err != nil {
		return err
	}
	defer c.Close()
	if got := c.ConnectionState(); got.NegotiatedProtocol != challenge.ALPN || got.PeerCertificates[0].DNSNames[0] != memberName {
		return fmt.Errorf("%+v", got)
	}
	return nil
}

// clientHello is what a CA sends first.
func clientHello(t *testing.T) []byte {
	t.Helper()
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	go tls.Client(near, caTLS()).Handshake()
	b := make([]byte, 16<<10)
	n, err := far.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return b[:n]
}
