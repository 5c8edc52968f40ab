package front_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"ntsagent/acme/front"
	"ntsagent/hostcheck"
)

// Whatever listens at port 80 can neither hold nor fill the agent.
func TestAWebServerOfAnyKindIsAskedWithinBounds(t *testing.T) {
	t.Parallel()
	name, err := hostcheck.ParseName(alice)
	if err != nil {
		t.Fatal(err)
	}
	endless := func(head, rest string) func(net.Conn) {
		return func(c net.Conn) {
			_, err := io.WriteString(c, head)
			for more := bytes.Repeat([]byte(rest), 1024); err == nil; _, err = c.Write(more) {
			}
		}
	}
	for _, c := range []struct {
		name   string
		answer func(net.Conn)
		what   string
	}{
		{"a header without end", endless("HTTP/1.1 200 OK\r\n", "X-More: more\r\n"), "does not answer"},
		{"a body without end", endless("HTTP/1.1 200 OK\r\n\r\n", "more"), "something else than the proof"},
		{"what is no HTTP", endless("220 mail.example ESMTP\r\n", "\x00\r\n"), "does not answer"},
		{"a redirect to itself without end", func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: http://"+alice+"/again\r\n\r\n")
		}, "with 302"},
		{"a redirect that would write a request of its own", func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: http://"+alice+"/ HTTP/1.1%0d%0aHost:x\r\n\r\n")
		}, "with 302"},
		{"a login page that is named without its host", func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: /login\r\n\r\n")
		}, "with 302"},
		{"nothing", func(c net.Conn) {}, "does not answer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			at := serve(t, c.answer)
			prober := front.Prober{Addrs: []netip.Addr{at.Addr()}, HTTP: at.Port(), HTTPS: at.Port()}
			faults := front.Judge{Agent: at}.Faults(prober.Ask(t.Context(), name, token, expected))
			if len(faults) == 0 || !faults[0].Fatal || !strings.Contains(faults[0].What, c.what) {
				t.Errorf("%+v, want %q", faults, c.what)
			}
		})
	}
}

func TestAWebServerThatSaysNothingHoldsNobodyWhoIsStopped(t *testing.T) {
	t.Parallel()
	name, err := hostcheck.ParseName(alice)
	if err != nil {
		t.Fatal(err)
	}
	var took time.Duration
	for range 5 { // one that is not stopped takes longer each time, a machine that stands still does not
		ctx, cancel := context.WithCancel(t.Context())
		at := serve(t, func(c net.Conn) { cancel(); <-t.Context().Done() })
		begun := time.Now()
		prober := front.Prober{Addrs: []netip.Addr{at.Addr()}, HTTP: at.Port(), HTTPS: at.Port()}
		if seen := prober.Ask(ctx, name, token, expected); len(seen) != 1 || seen[0].Right.Err == nil {
			t.Errorf("%+v", seen)
		}
		if took = time.Since(begun); took < 4*time.Second { // one question alone has five
			return
		}
	}
	t.Errorf("it took %s to stop", took)
}

// serve answers every request, once its first octet is there.
func serve(t *testing.T, answer func(net.Conn)) netip.AddrPort {
	t.Helper()
	return accept(t, func(c net.Conn) {
		if n, _ := c.Read(make([]byte, 4096)); n > 0 { // nobody asks on the first connection of all
			answer(c)
		}
	})
}

// accept has each take every connection, which is closed after that.
func accept(t *testing.T, each func(net.Conn)) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				each(c)
			}()
		}
	}()
	return ln.Addr().(*net.TCPAddr).AddrPort()
}
