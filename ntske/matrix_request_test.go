package ntske

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ntsagent/ntske/aead"
	"ntsagent/ntske/cookie"
	"ntsagent/ntske/tcp"
)

// TestMatrixOfTheRequest has the rows of what is taken and what is refused (§4 and §4.1).
func TestMatrixOfTheRequest(t *testing.T) {
	l := newLab(t, labTime, nil)

	t.Run("K06 the response ends with End of Message", func(t *testing.T) {
		all := l.serves(t, plain)
		if last := all[len(all)-1]; last.kind != 0 || len(bodies(all, 0)) != 1 {
			t.Errorf("records %v", kinds(all))
		}
	})
	t.Run("K07 requests of 1024 octets and up to 4096 are accepted", func(t *testing.T) {
		for _, n := range []int{1024, 4096} {
			l.serves(t, padTo(n))
		}
		l.serves(t, join(nextNTPv4, aead15, bytes.Repeat(rec(77), (1024-len(plain))/4), end)) // as many records as 1024 octets hold
		l.refuses(t, padTo(4097), error1, BadRequest)
	})
	t.Run("K08 an unknown record that is not critical is ignored", func(t *testing.T) {
		for _, kind := range []uint16{8, 99, 1023, 0x4000, 0x7fff} {
			l.serves(t, join(rec(kind, 1, 2, 3), plain))
		}
		l.serves(t, join(nextNTPv4, rec(99, make([]byte, 1000)...), aead15, rec(99), end))
	})
	t.Run("K09 an unknown critical record gets Error 0", func(t *testing.T) {
		for _, kind := range []uint16{11, 99, 0x4000, 0x7fff} {
			l.refuses(t, join(rec(critical|kind), plain), error0, UnrecognizedCritical)
			l.refuses(t, join(nextNTPv4, aead15, rec(critical|kind, 1), end), error0, UnrecognizedCritical)
		}
	})
	t.Run("K10 End of Message comes once, last, empty and critical", func(t *testing.T) {
		open := join(nextNTPv4, aead15)
		for name, tail := range map[string][]byte{
			"not critical": rec(0), "with a body": rec(critical, 0), "twice": join(end, end), "not last": join(end, rec(99)),
			"one octet after": join(end, []byte{0}), "two octets after": join(end, []byte{0, 0}), "three octets after": join(end, []byte{0, 0, 0}),
		} {
			t.Run(name, func(t *testing.T) { l.refuses(t, join(open, tail), error1, BadRequest) })
		}
		all := l.serves(t, plain)
		if last := all[len(all)-1]; !last.critical || len(last.body) != 0 {
			t.Errorf("ours: %+v", last)
		}
	})
	t.Run("K11 exactly one Next Protocol record, critical, both ways", func(t *testing.T) {
		l.refuses(t, join(aead15, end), error1, BadRequest)
		l.refuses(t, end, error1, BadRequest)
		l.refuses(t, join(nextNTPv4, nextNTPv4, aead15, end), error1, BadRequest)
		l.refuses(t, join(rec(1, 0, 0), aead15, end), error1, BadRequest)
		all := l.serves(t, plain)
		if all[0].kind != 1 || !all[0].critical || len(bodies(all, 1)) != 1 {
			t.Errorf("ours: %v", kinds(all))
		}
		l.serves(t, join(aead15, nextNTPv4, end)) // the order of records is free
	})
	t.Run("K12 the protocols answered are a subset, which may be empty", func(t *testing.T) {
		l.refuses(t, join(rec(critical|1), aead15, end), error1, BadRequest)
		none := []byte{0x80, 1, 0, 0, 0x80, 0, 0, 0}
		l.refuses(t, join(rec(critical|1, 0x80, 1), aead15, end), none, NoCommonProtocol)
		l.refuses(t, join(rec(critical|1, 0x80, 1), end), none, NoCommonProtocol)
		all := l.serves(t, join(rec(critical|1, 0x80, 1, 0, 0), aead15, end))
		if !bytes.Equal(all[0].body, []byte{0, 0}) {
			t.Errorf("answered protocols % x, want NTPv4 alone", all[0].body)
		}
	})
	t.Run("K13 an Error record is two octets and critical", func(t *testing.T) {
		all := fields(t, l.ask(t, end))
		if e := all[0]; len(all) != 2 || e.kind != 2 || !e.critical || len(e.body) != 2 {
			t.Errorf("got %+v", all)
		}
		l.outcome(t, BadRequest)
	})
	t.Run("K14 Error, Warning and Cookie records in a request get Error 1", func(t *testing.T) {
		for _, r := range [][]byte{rec(critical|2, 0, 0), rec(2, 0, 1), rec(critical|3, 0, 0), rec(3, 0, 0), rec(5, make([]byte, 100)...), rec(critical|5, 1)} {
			l.refuses(t, join(nextNTPv4, aead15, r, end), error1, BadRequest)
			l.refuses(t, join(r, plain), error1, BadRequest)
		}
	})
	t.Run("K15 an incomplete or malformed request gets Error 1", func(t *testing.T) {
		for name, request := range map[string][]byte{
			"protocols of 1 octet":            join(rec(critical|1, 0), aead15, end),
			"protocols of 3 octets":           join(rec(critical|1, 0, 0, 0), aead15, end),
			"algorithms of 1 octet":           join(nextNTPv4, rec(4, 15), end),
			"algorithms of 3 octets":          join(nextNTPv4, rec(4, 0, 15, 0), end),
			"a port of 1 octet":               join(nextNTPv4, aead15, rec(7, 1), end),
			"a port of 3 octets":              join(nextNTPv4, aead15, rec(7, 1, 2, 3), end),
			"an empty port":                   join(nextNTPv4, aead15, rec(7), end),
			"a body said to be 65535 octets":  {0x80, 1, 0xff, 0xff, 0, 0},
			"a GCM-SIV record with a body":    join(nextNTPv4, aead15, rec(1024, 0), end),
			"more records than can mean well": join(bytes.Repeat(rec(77), 1000), plain),
			"5000 octets of zeros":            make([]byte, 5000),
			"plain HTTP":                      []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		} {
			t.Run(name, func(t *testing.T) { l.refuses(t, request, error1, BadRequest) })
		}
		for _, n := range []int{1, 3, 4, 5, len(plain) - 4, len(plain) - 1} {
			s := l.open(t)
			s.Write(plain[:n])
			s.CloseWrite() // half-closed: nothing more will come
			if got := s.rest(t); !bytes.Equal(got, error1) {
				t.Errorf("%d of %d octets, then close_notify: got % x", n, len(plain), got)
			}
			l.outcome(t, BadRequest)
		}
	})
	t.Run("K15 a request that is late gets Error 1 before the deadline", func(t *testing.T) {
		cert := (&lab{t: t}).identity(time.Now().Add(time.Hour))
		for _, n := range []int{0, 1, len(plain) - 1} {
			synctest.Test(t, func(t *testing.T) {
				const short = 600 * time.Millisecond
				begin := time.Now()
				answer, outcome := late(t, cert, short, plain[:n])
				if took := time.Since(begin); took != short-writeBudget || !bytes.Equal(answer, error1) || outcome != Timeout {
					t.Errorf("%d octets, then silence: after %v of %v %q, got % x", n, took, short, outcome, answer)
				}
			})
		}
	})
	without := newLab(t, labTime, func(c *Config) { c.Ring = func(context.Context) *cookie.Ring { return nil } })
	unusable := newLab(t, labTime, func(c *Config) {
		key, err := cookie.NewKey(1, aead.SIVCMAC512, make([]byte, 64))
		if err != nil {
			t.Fatal(err)
		}
		ring, err := cookie.NewRing([]*cookie.Key{key}, 0)
		if err != nil {
			t.Fatal(err)
		}
		c.Ring = func(context.Context) *cookie.Ring { return ring }
	})
	t.Run("K16 an internal failure gets Error 2", func(t *testing.T) {
		without.refuses(t, plain, error2, NoKeys)
		unusable.refuses(t, plain, error2, InternalError)
	})
	t.Run("K17 no answer holds a Warning", func(t *testing.T) {
		for _, tt := range []struct {
			l       *lab
			request []byte
			outcome Outcome
		}{
			{l, plain, Served}, {l, end, BadRequest}, {l, join(rec(critical|99), end), UnrecognizedCritical},
			{l, join(rec(critical|1, 0x80, 1), end), NoCommonProtocol}, {l, join(nextNTPv4, rec(4, 0, 1), end), NoCommonAEAD},
			{without, plain, NoKeys}, {unusable, plain, InternalError},
		} {
			if all := fields(t, tt.l.ask(t, tt.request)); len(all) == 0 || len(bodies(all, 3)) != 0 {
				t.Errorf("%v: records %v", tt.outcome, kinds(all))
			}
			tt.l.outcome(t, tt.outcome)
		}
	})
	t.Run("K18 exactly one AEAD record, critical or not", func(t *testing.T) {
		l.refuses(t, join(nextNTPv4, end), error1, BadRequest)
		l.refuses(t, join(nextNTPv4, aead15, aead15, end), error1, BadRequest)
		l.refuses(t, join(nextNTPv4, rec(4), end), error1, BadRequest)
		l.serves(t, join(nextNTPv4, rec(critical|4, 0, 15), end))
	})
}

// late sends what is no whole request to a server whose connections last timeout, and returns all that comes back.
func late(t *testing.T, cert *tls.Certificate, timeout time.Duration, request []byte) (answer []byte, outcome Outcome) {
	server, err := New(Config{Format: cookie.Chrony{}, Ring: func(context.Context) *cookie.Ring { return nil }, Observe: func(_ context.Context, o Outcome) { outcome = o }})
	if err != nil {
		t.Fatal(err)
	}
	conf := TLSConfig(func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert, nil })
	srv, err := tcp.New(tcp.Config{TLS: conf, Services: map[string]tcp.Service{Protocol: server}, Timeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe()
	defer near.Close()
	ln := &piped{conns: make(chan net.Conn, 1)}
	ln.conns <- far
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { err := srv.Serve(ctx, ln); srv.Wait(); done <- err }()
	c := tls.Client(near, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{Protocol}})
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	c.Write(request)
	if answer, err = io.ReadAll(c); err != nil {
		t.Errorf("reading the reply: %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	return answer, outcome
}

// piped is a listener with the connections that are put in, until a deadline is set.
type piped struct {
	conns chan net.Conn
	end   sync.Once
}

func (p *piped) Accept() (net.Conn, error) {
	if c, ok := <-p.conns; ok {
		return c, nil
	}
	return nil, os.ErrDeadlineExceeded
}
func (p *piped) SetDeadline(time.Time) error { p.end.Do(func() { close(p.conns) }); return nil }
func (p *piped) Close() error                { return nil }
func (p *piped) Addr() net.Addr              { return &net.TCPAddr{} }

// padTo is a good request of exactly n octets.
func padTo(n int) []byte {
	return join(nextNTPv4, aead15, rec(99, make([]byte, n-len(plain)-4)...), end)
}
