package client

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"ntsagent/ntske/record"
)

func TestGroupsAreWhatIsOffered(t *testing.T) {
	w := newWorld(t, "127.0.0.1", nil)
	for name, tt := range map[string]struct {
		groups []tls.CurveID
		want   tls.CurveID
	}{
		"one":     {[]tls.CurveID{tls.X25519}, tls.X25519},
		"another": {[]tls.CurveID{tls.CurveP384}, tls.CurveP384},
		"none":    {nil, tls.X25519MLKEM768},
	} {
		res, err := KeyExchange(patient(t), Config{Addr: w.ke, Name: testName, Roots: w.roots, Groups: tt.groups})
		if err != nil || res.TLS.CurveID != tt.want {
			t.Errorf("%s: %v was used (%v), want %v", name, res.TLS.CurveID, err, tt.want)
		}
	}
}

func TestACleanEndIsACloseNotifyAndIsAnswered(t *testing.T) {
	w := newWorld(t, "127.0.0.1", nil)
	if _, err := KeyExchange(patient(t), Config{Addr: w.ke, Name: testName, Roots: w.roots, Close: true}); err != nil {
		t.Errorf("our own server: %v", err)
	}

	answered := make(chan error, 1)
	conf := &tls.Config{NextProtos: []string{"ntske/1"}, Certificates: []tls.Certificate{w.cert}}
	addr := rawServer(t, conf, func(c *tls.Conn) {
		c.CloseWrite()
		_, err := c.Read(make([]byte, 1))
		if c.NetConn().(*tailed).ended {
			err = io.ErrUnexpectedEOF
		}
		answered <- err
	})
	if _, err := KeyExchange(patient(t), Config{Addr: addr, Name: testName, Roots: w.roots, Close: true}); err != nil {
		t.Error(err)
	}
	if err := <-answered; err != io.EOF {
		t.Errorf("the server read %v instead of our close_notify", err)
	}
}

func TestOtherEndsAreTheServersFault(t *testing.T) {
	cert, roots := identity(t)
	conf := &tls.Config{NextProtos: []string{"ntske/1"}, Certificates: []tls.Certificate{cert}}
	for name, tt := range map[string]struct {
		end   func(*tls.Conn)
		words string
	}{
		"only TCP ends":     {func(c *tls.Conn) { c.NetConn().Close() }, "say close_notify after its answer"},
		"a record follows":  {func(c *tls.Conn) { c.Write([]byte("more")); c.Close() }, "end after End of Message"},
		"half a record":     {func(c *tls.Conn) { c.NetConn().Write([]byte{23, 3}); c.NetConn().Close() }, "say close_notify after its answer"},
		"nothing till late": {func(c *tls.Conn) { io.Copy(io.Discard, c.NetConn()) }, "say close_notify after its answer in time"},
	} {
		t.Run(name, func(t *testing.T) {
			addr := rawServer(t, conf, tt.end)
			answered := func(err error) bool { return strings.Contains(fmt.Sprint(err), "after") } // as all words say
			err := soon(t, answered, func(ctx context.Context) error {
				_, err := KeyExchange(ctx, Config{Addr: addr, Name: testName, Roots: roots, Close: true})
				return err
			})
			blames(t, err, Server, "ntske", tt.words)
		})
	}
}

// rawServer answers each request and leaves the end of the connection to end.
func rawServer(t *testing.T, conf *tls.Config, end func(*tls.Conn)) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			c := tls.Server(&tailed{Conn: nc}, conf)
			if _, err := record.ReadRequest(c); err == nil {
				c.Write(reply(record.NTPv4, 15))
				end(c)
			}
			nc.Close()
		}
	}()
	t.Cleanup(func() { ln.Close(); <-done })
	return ln.Addr().(*net.TCPAddr).AddrPort()
}
