package load

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ntsagent/cmd/ntsbench/floor"
	"ntsagent/ntske/aead"
	"ntsagent/ntske/record"
)

// accepting hands each connection to serve, in a goroutine of its own, until
// the test ends, and closes what serve leaves open.
func accepting(t *testing.T, serve func(net.Conn)) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var going sync.WaitGroup
	going.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			going.Go(func() {
				defer nc.Close()
				serve(nc)
			})
		}
	})
	t.Cleanup(func() { ln.Close(); going.Wait() })
	return ln.Addr().(*net.TCPAddr).AddrPort()
}

// script is a server that answers every request with cookies of these lengths,
// a negative one for the cookie before once more, and then does end.
func script(t *testing.T, lengths []int, end func(*tls.Conn)) KETarget {
	t.Helper()
	cert, roots := selfSigned(t)
	answer := record.Response{Protocols: []record.Protocol{record.NTPv4}, AEADs: []aead.ID{aead.SIVCMAC256}}
	for i, n := range lengths {
		c := bytes.Repeat([]byte{byte(i)}, max(n, 0))
		if n < 0 {
			c = answer.Cookies[i-1]
		}
		answer.Cookies = append(answer.Cookies, c)
	}
	return KETarget{Name: fakeName, Roots: roots, Timeout: patience, Addr: accepting(t, func(nc net.Conn) {
		c := tls.Server(nc, serverConfig(cert))
		if _, err := record.ReadRequest(c); err == nil {
			c.Write(answer.AppendTo(nil))
			end(c)
		}
	})}
}

func serverConfig(cert tls.Certificate) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{protocol}, SessionTicketsDisabled: true}
}

// cleanly ends a connection as a server should.
func cleanly(c *tls.Conn) {
	c.CloseWrite()
	c.Read(make([]byte, 1)) // the client's close_notify
}

var eight = []int{100, 100, 100, 100, 100, 100, 100, 100}

func TestOnlyWholeSessionsAreDone(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		cookies []int
		end     func(*tls.Conn)
		words   string // "": it is good
	}{
		"eight cookies and a close_notify": {eight, cleanly, ""},
		"seven cookies":                    {eight[:7], cleanly, "gave 7 cookies, want 8"},
		"nine cookies":                     {append([]int{100}, eight...), cleanly, "gave 9 cookies, want 8"},
		"one cookie twice":                 {append(slices.Clone(eight[:7]), -1), cleanly, "one cookie twice"},
		"one cookie of another length":     {[]int{100, 100, 100, 104, 100, 100, 100, 100}, cleanly, "cookies of 100 and of 104 octets"},
		"no close_notify":                  {eight, func(c *tls.Conn) { c.NetConn().Close() }, "close_notify"},
	} {
		t.Run(name, func(t *testing.T) {
			r := KE(t.Context(), script(t, tt.cookies, tt.end), 2, 50*time.Millisecond)
			if tt.words == "" {
				if r.Failed != 0 || r.Done == 0 {
					t.Errorf("%d done, %d failed: %v", r.Done, r.Failed, r.FirstErr)
				}
				return
			}
			if r.Done != 0 || r.Failed == 0 || !strings.Contains(r.FirstErr.Error(), tt.words) {
				t.Errorf("%d done, %d failed: %v, want %q", r.Done, r.Failed, r.FirstErr, tt.words)
			}
		})
	}
}

func TestACertificateThatDoesNotVerifyIsNeverDone(t *testing.T) {
	target := script(t, eight, cleanly)
	stranger, _ := selfSigned(t)
	leaf, err := x509.ParseCertificate(stranger.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	wrongRoots, wrongName := target, target
	wrongRoots.Roots = x509.NewCertPool()
	wrongRoots.Roots.AddCert(leaf)
	wrongName.Name = "other.test"
	for name, bad := range map[string]KETarget{"another authority": wrongRoots, "another name": wrongName} {
		for what, r := range map[string]Result{
			"session": KE(t.Context(), bad, 1, 20*time.Millisecond), "floor": TLSFloor(t.Context(), bad, nil, 1, 20*time.Millisecond),
		} {
			if r.Done != 0 || r.Failed == 0 || !strings.Contains(r.FirstErr.Error(), "x509") {
				t.Errorf("%s, %s: %d done, %d failed: %v", name, what, r.Done, r.Failed, r.FirstErr)
			}
		}
	}
}

func TestTheGroupsAreTheTargets(t *testing.T) {
	var group atomic.Uint32
	target := script(t, eight, func(c *tls.Conn) {
		group.Store(uint32(c.ConnectionState().CurveID))
		cleanly(c)
	})
	for want, offer := range map[tls.CurveID][]tls.CurveID{tls.X25519: {tls.X25519}, tls.X25519MLKEM768: nil} {
		target.Groups = offer
		if r := KE(t.Context(), target, 1, time.Nanosecond); r.Done != 1 || tls.CurveID(group.Load()) != want {
			t.Errorf("%v done, with %v, want %v: %v", r.Done, tls.CurveID(group.Load()), want, r.FirstErr)
		}
	}
}

func TestALoopCountsWhatItDoes(t *testing.T) {
	target := script(t, eight, cleanly)
	begin := time.Now()
	r := KE(t.Context(), target, 3, 100*time.Millisecond)
	took := time.Since(begin)
	if r.Failed != 0 || r.Done < 3 || r.Latency.Len() != r.Done {
		t.Errorf("%d done with %d latencies, %d failed: %v", r.Done, r.Latency.Len(), r.Failed, r.FirstErr)
	}
	if r.Took < 100*time.Millisecond || r.Took > took || r.Latency.Quantile(0) <= 0 || r.Latency.Quantile(1) > took {
		t.Errorf("took %v of %v, latency up to %v", r.Took, took, r.Latency.Quantile(1))
	}
}

func TestAKeyExchangeServerThatIsAwayIsNotHammered(t *testing.T) {
	t.Parallel()
	away := KETarget{Name: fakeName, Addr: refusing(t, unix.SOCK_STREAM)}
	r := KE(t.Context(), away, 2, 250*time.Millisecond)
	if r.Done != 0 || r.Failed < 2 || r.Failed > 6 {
		t.Errorf("%d done, %d failed (%v), want 2 each 100 ms", r.Done, r.Failed, r.FirstErr)
	}
	ctx, cancel := context.WithCancel(t.Context())
	begin := time.Now()
	time.AfterFunc(50*time.Millisecond, cancel)
	if KE(ctx, away, 2, time.Hour); time.Since(begin) > time.Minute {
		t.Error("a load does not end with its context")
	}
}

func TestASessionCutOffByTheContextCountsAsNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	target := script(t, eight, func(c *tls.Conn) {
		cancel()
		c.Read(make([]byte, 1)) // nothing more is said
	})
	if r := KE(ctx, target, 2, time.Second); r.Failed != 0 || r.Done != 0 {
		t.Errorf("%d done, %d failed: %v", r.Done, r.Failed, r.FirstErr)
	}
}

func TestTheFloorsAnswerIsCompared(t *testing.T) {
	cert, roots := selfSigned(t)
	answer := floor.Answer(854)
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- floor.TLS(ctx, ln, cert, answer) }()
	target := KETarget{Addr: ln.Addr().(*net.TCPAddr).AddrPort(), Name: fakeName, Roots: roots, Timeout: patience}

	if r := TLSFloor(t.Context(), target, answer, 4, 100*time.Millisecond); r.Failed != 0 || r.Done < 4 {
		t.Errorf("%d done, %d failed: %v", r.Done, r.Failed, r.FirstErr)
	}
	other := floor.Answer(854)
	other[853]++
	for name, want := range map[string][]byte{"shorter": answer[:853], "longer": floor.Answer(855), "another": other, "none": nil} {
		if r := TLSFloor(t.Context(), target, want, 1, time.Nanosecond); r.Done != 0 || r.Failed != 1 || !strings.Contains(r.FirstErr.Error(), "answer of") {
			t.Errorf("%s: %d done, %d failed: %v", name, r.Done, r.Failed, r.FirstErr)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("the floor ended with %v", err)
	}

	target.Addr = accepting(t, func(nc net.Conn) { tls.Server(nc, serverConfig(cert)).Write(answer) })
	if r := TLSFloor(t.Context(), target, answer, 1, time.Nanosecond); r.Done != 0 || r.Failed != 1 || !strings.Contains(r.FirstErr.Error(), "close_notify") {
		t.Errorf("no close_notify: %d done, %d failed: %v", r.Done, r.Failed, r.FirstErr)
	}
}
