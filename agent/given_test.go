package agent

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ntsagent/agent/config"
	"ntsagent/agent/daemon/chronytest"
	"ntsagent/agent/status"
	"ntsagent/agent/task"
)

// handOver gives away a copy of the socket, as an exec would.
func handOver(t *testing.T, name string, l syscall.Conn) task.Socket {
	t.Helper()
	raw, err := l.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	copied := -1
	if err := raw.Control(func(fd uintptr) { copied, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 3) }); err != nil || copied < 0 {
		t.Fatal(err)
	}
	return task.Socket{Name: name, FD: copied}
}

// held is a listening socket that the test holds as a service manager does.
func held(t *testing.T, network, addr string) *net.TCPListener {
	t.Helper()
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.(*net.TCPListener)
}

// dual is a socket for both families at a port of its own, as systemd opens
// ListenStream=PORT where BindIPv6Only= is not set.
func dual(t *testing.T) (l *net.TCPListener, v4, v6 netip.AddrPort) {
	t.Helper()
	l = held(t, "tcp", "[::]:0")
	port := portOf(l)
	return l, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port), netip.AddrPortFrom(netip.IPv6Loopback(), port)
}

func TestEveryGivenSocketThatIsNoUseIsToldOfAndTheOthersAreTaken(t *testing.T) {
	t.Parallel()
	good := held(t, "tcp4", "127.0.0.1:0")
	udp, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	conn, err := net.Dial("tcp4", good.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	dir, err := os.MkdirTemp("", "given") // the names of sockets are limited to 107 octets
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	unixLn, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer unixLn.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	other := held(t, "tcp4", "127.0.0.1:0")
	for _, c := range []struct {
		rule    string
		socket  task.Socket
		problem []string
	}{
		{"a name nobody knows", handOver(t, "ntsagent.socket", other), []string{`"ntsagent.socket"`, other.Addr().String(), "FileDescriptorName=", "ntske, http-01, tls-alpn-01"}},
		{"no name", handOver(t, "unknown", other), []string{`"unknown"`, "FileDescriptorName="}},
		{"a name with a line end", handOver(t, "a\nb", other), []string{`"a\nb"`}},
		{"a UDP socket", handOver(t, "ntske", udp), []string{`"ntske"`, "no TCP socket", "ListenStream="}},
		{"a socket for the gateway", handOver(t, "ntp", udp), []string{`"ntp"`, "daemon.gateway.listen", ".socket unit"}},
		{"a Unix socket", handOver(t, "ntske", unixLn.(*net.UnixListener)), []string{"no TCP socket", "ListenStream="}},
		{"a connection", handOver(t, "ntske", conn.(*net.TCPConn)), []string{"does not listen", "Accept=no"}},
		{"no socket", handOver(t, "ntske", null), []string{"no TCP socket"}},
		{"a descriptor that is not open", task.Socket{Name: "ntske", FD: 1 << 20}, []string{"no TCP socket"}},
		{"the same address twice", handOver(t, "ntske", good), []string{good.Addr().String(), "twice", "ListenStream="}},
	} {
		t.Run(c.rule, func(t *testing.T) {
			by, problems := takeGiven(task.Inherited{Sockets: []task.Socket{handOver(t, status.ServiceHTTP01, good), c.socket}})
			if len(problems) != 1 || len(by) != 1 || len(by[status.ServiceHTTP01]) != 1 || by[status.ServiceHTTP01][0].Addr().String() != good.Addr().String() {
				t.Fatalf("%v, %q", by, problems)
			}
			by[status.ServiceHTTP01][0].Close()
			for _, want := range c.problem {
				if !strings.Contains(problems[0], want) {
					t.Errorf("%q does not say %q", problems[0], want)
				}
			}
			if strings.Contains(problems[0], "\n") {
				t.Errorf("%q is not one line", problems[0])
			}
		})
	}
	if by, problems := takeGiven(task.Inherited{Problem: errors.New("LISTEN_FDS is wrong")}); len(by) != 0 || !slices.Equal(problems, []string{"LISTEN_FDS is wrong"}) {
		t.Errorf("%v, %q", by, problems)
	}
}

// bookWith holds the socket for purpose.
func bookWith(t *testing.T, purpose string, l *net.TCPListener) *book {
	t.Helper()
	by, problems := takeGiven(task.Inherited{Sockets: []task.Socket{handOver(t, purpose, l)}})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	b := newBookOf(by)
	t.Cleanup(b.closeAll)
	return b
}

func connect(t *testing.T, addr netip.AddrPort) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c
}

// hears is what who comes to addr is told. Hanging up may be quicker than he is.
func hears(t *testing.T, addr netip.AddrPort) string {
	t.Helper()
	c, err := net.Dial("tcp", addr.String())
	if errors.Is(err, syscall.ECONNRESET) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	return said(t, c)
}

// said is what comes on c until it ends.
func said(t *testing.T, c net.Conn) string {
	t.Helper()
	b, err := io.ReadAll(c)
	if err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after %q: %v", b, err)
	}
	return string(b)
}

func TestInAGivenSocketNewcomersWaitAWhileForTheDoorAndAreThenHungUpOn(t *testing.T) {
	t.Parallel()
	l := held(t, "tcp4", "127.0.0.1:0")
	addr := l.Addr().(*net.TCPAddr).AddrPort()
	before := time.Now()
	b := bookWith(t, "ntske", l)
	if got := hears(t, addr); got != "" {
		t.Errorf("who is hung up on was told %q", got)
	}
	if waited := time.Since(before); waited < restAfter/2 {
		t.Errorf("hung up on after %v: an agent that starts has not opened its doors by then", waited)
	}
	if got := hears(t, addr); got != "" { // at once, from now on
		t.Errorf("told %q", got)
	}
	ls, err := b.open(t.Context(), "ntske", []netip.AddrPort{addr})
	if err != nil || len(ls) != 1 || !slices.Equal(b.addresses("ntske"), []string{addr.String()}) {
		t.Fatalf("%v, %v, at %q", ls, err, b.addresses("ntske"))
	}
	early := connect(t, addr)
	c, err := ls[0].Accept()
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(c, "served")
	c.Close()
	if got := said(t, early); got != "served" {
		t.Errorf("told %q while it is served", got)
	}

	b.close("ntske")
	if at := b.addresses("ntske"); at != nil {
		t.Errorf("a closed one says that it listens at %q", at)
	}
	comes := func() bool { // in between
		waiting, err := net.Dial("tcp", addr.String())
		if err != nil {
			return false
		}
		defer waiting.Close()
		if ls, err = b.open(t.Context(), "ntske", []netip.AddrPort{addr}); err != nil {
			t.Fatal(err)
		}
		return accepts(t, ls[0], waiting)
	}
	for try := 1; !comes(); try++ { // where the machine was slower than restAfter
		if try == 5 {
			t.Fatal("who comes in between does not wait")
		}
		b.close("ntske")
	}
}

// accepts says whether who has connected is let in.
func accepts(t *testing.T, ln net.Listener, who net.Conn) bool {
	t.Helper()
	_ = ln.(*net.TCPListener).SetDeadline(time.Now().Add(10 * time.Second))
	defer ln.(*net.TCPListener).SetDeadline(time.Time{})
	for {
		c, err := ln.Accept()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return false
		}
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if c.RemoteAddr().String() == who.LocalAddr().String() {
			return true
		}
	}
}

func TestAnAgentThatEndsLeavesNewcomersInAGivenSocketToTheNext(t *testing.T) {
	t.Parallel()
	l := held(t, "tcp4", "127.0.0.1:0")
	addr := l.Addr().(*net.TCPAddr).AddrPort()
	handsOver := func() bool {
		b := bookWith(t, "ntske", l)
		if _, err := b.open(t.Context(), "ntske", []netip.AddrPort{addr}); err != nil {
			t.Fatal(err)
		}
		if left := b.take("ntske"); left != nil {
			t.Errorf("%v is to be closed, and shut for the service manager as well", left)
		}
		waiting, err := net.Dial("tcp", addr.String())
		if err != nil {
			return false
		}
		defer waiting.Close()
		b.closeAll()
		ls, err := bookWith(t, "ntske", l).open(t.Context(), "ntske", []netip.AddrPort{addr})
		if err != nil {
			t.Fatal(err)
		}
		return accepts(t, ls[0], waiting)
	}
	for try := 1; !handsOver(); try++ { // where the machine was slower than restAfter
		if try == 5 {
			t.Fatal("who comes in between does not wait")
		}
	}
}

func TestAFamilyThatIsShutIsHungUpOnWhereOneSocketTakesBoth(t *testing.T) {
	t.Parallel()
	l, v4, v6 := dual(t)
	b := bookWith(t, "ntske", l)
	asked := addressesOf(b.given["ntske"])
	if want := []netip.AddrPort{netip.AddrPortFrom(netip.IPv6Unspecified(), v6.Port()), netip.AddrPortFrom(netip.IPv4Unspecified(), v4.Port())}; !slices.Equal(asked, want) {
		t.Fatalf("%v, want %v", asked, want)
	}
	for _, c := range []struct {
		rule      string
		use       []netip.AddrPort
		open, not []netip.AddrPort
	}{
		{"both", asked, []netip.AddrPort{v4, v6}, nil},
		{"IPv4", asked[1:], []netip.AddrPort{v4}, []netip.AddrPort{v6}},
		{"IPv6", asked[:1], []netip.AddrPort{v6}, []netip.AddrPort{v4}},
	} {
		t.Run(c.rule, func(t *testing.T) {
			ls, err := b.openSome(t.Context(), "ntske", asked, c.use)
			if err != nil || len(ls) != 1 || ls[0].Addr().String() != c.use[0].String() {
				t.Fatalf("%v, %v", ls, err)
			}
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				for {
					nc, err := ls[0].Accept()
					if err != nil {
						return
					}
					io.WriteString(nc, "served")
					nc.Close()
				}
			}()
			for _, a := range c.not {
				if got := hears(t, a); got != "" {
					t.Errorf("%s is told %q", a, got)
				}
			}
			for _, a := range c.open {
				if got := hears(t, a); got != "served" {
					t.Errorf("%s is told %q", a, got)
				}
			}
			_ = ls[0].(interface{ SetDeadline(time.Time) error }).SetDeadline(time.Unix(1, 0))
			<-ended
			_ = ls[0].(interface{ SetDeadline(time.Time) error }).SetDeadline(time.Time{})
		})
	}
}

func TestASocketForOneFamilyIsNotTakenForBoth(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"tcp4", "tcp6"} {
		g, err := newGiven(handOver(t, "ntske", held(t, network, ":0")))
		if err != nil || len(g.at) != 1 || g.at[0].Addr().Is4() != (network == "tcp4") {
			t.Errorf("%s: %+v, %v", network, g, err)
			continue
		}
		g.Close()
	}
}

func TestGivenSocketsTakeThePlaceOfTheConfiguredAddresses(t *testing.T) {
	t.Parallel()
	l := held(t, "tcp4", "127.0.0.1:0")
	by, _ := takeGiven(task.Inherited{Sockets: []task.Socket{handOver(t, status.ServiceHTTP01, l)}})
	defer by[status.ServiceHTTP01][0].Close()
	parse := func(lines string) *config.Config {
		cfg, err := config.Parse("test", []byte("names: [alice.pool.example]\nacme: {agree_to_terms: true, "+lines+"}\n"))
		if err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	cfg := parse("challenges: [http-01]")
	got := instead(cfg, by)
	if want := []netip.AddrPort{l.Addr().(*net.TCPAddr).AddrPort()}; !slices.Equal(got.ACME.HTTP01.Listen, want) {
		t.Errorf("listens at %v, want %v", got.ACME.HTTP01.Listen, want)
	}
	if !slices.Equal(got.KE.Listen, cfg.KE.Listen) || !slices.Equal(got.ACME.TLSALPN01.Listen, cfg.ACME.TLSALPN01.Listen) || cfg.ACME.HTTP01.Listen[0].Port() != 80 {
		t.Error("others are changed")
	}
	if w := misfits(got, by); w != nil {
		t.Errorf("%q", w)
	}
	w := misfits(instead(parse("challenges: [tls-alpn-01]"), by), by)
	if len(w) != 1 || !strings.Contains(w[0], "http-01") || !strings.Contains(w[0], l.Addr().String()) || !strings.Contains(w[0], "disable") {
		t.Errorf("%q", w)
	}
}

func TestAGivenSocketThatIsOpenToOthersIsToldOfWhereSomebodyIsToStandBeforeIt(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		rule, purpose, network, at, acme, says string
	}{
		{"every address of both families, behind a router", status.ServiceTLSALPN01, "tcp", "[::]:0", "challenges: [tls-alpn-01], tls_alpn01: {mode: proxy, listen: [\"127.0.0.1:8403\"]}", "[::]:"},
		{"every address of IPv4, behind a web server", status.ServiceHTTP01, "tcp4", "0.0.0.0:0", "challenges: [http-01], http01: {mode: proxy, listen: [\"127.0.0.1:8402\"]}", "0.0.0.0:"},
		{"loopback, behind a router", status.ServiceTLSALPN01, "tcp4", "127.0.0.1:0", "challenges: [tls-alpn-01], tls_alpn01: {mode: proxy, listen: [\"127.0.0.1:8403\"]}", ""},
		{"every address, and nobody before it", status.ServiceTLSALPN01, "tcp", "[::]:0", "challenges: [tls-alpn-01]", ""},
		{"every address, another is behind a web server", status.ServiceTLSALPN01, "tcp", "[::]:0", "challenges: [http-01, tls-alpn-01], http01: {mode: proxy, listen: [\"127.0.0.1:8402\"]}", ""},
	} {
		cfg, err := config.Parse("test", []byte("names: [alice.pool.example]\nacme: {agree_to_terms: true, "+c.acme+"}\n"))
		if err != nil {
			t.Fatal(err)
		}
		l := held(t, c.network, c.at)
		by := bookWith(t, c.purpose, l).given
		cfg = instead(cfg, by)
		w := misfits(cfg, by)
		if told := len(w) == 1 && strings.Contains(w[0], c.purpose+" at "+c.says) && strings.Contains(w[0], "open to others") && strings.Contains(w[0], "ListenStream="); told != (c.says != "") || !told && len(w) > 0 {
			t.Errorf("%s: %q", c.rule, w)
		}
		if f := new(agent).front(cfg); f != nil && c.says != "" && !slices.ContainsFunc(f.Prober.Own, func(at netip.AddrPort) bool { return at.Port() == portOf(l) }) {
			t.Errorf("%s: he who stands before it is looked for at %v", c.rule, f.Prober)
		}
	}
}

// A configuration that gives up a challenge gives its port back.
func TestSocketsThatNothingIsServedAtAnyMoreAreClosed(t *testing.T) {
	t.Parallel()
	b := newBook()
	defer b.closeAll()
	for _, purpose := range []string{"kept", "dropped"} {
		if _, err := b.open(t.Context(), purpose, loopback(0)[:1]); err != nil {
			t.Fatal(err)
		}
	}
	b.keep([]wanted{{purpose: "kept"}})
	if len(b.addresses("kept")) != 1 || len(b.addresses("dropped")) != 0 {
		t.Errorf("kept %q, dropped %q", b.addresses("kept"), b.addresses("dropped"))
	}
}

func TestAMemberServesBothFamiliesFromOneGivenSocketAndKeepsItThroughReloads(t *testing.T) {
	t.Parallel()
	l, v4, v6 := dual(t)
	m := newGivenMember(t, time.Hour, l) // its chronyd answers by IPv4 alone
	d := m.wait("it serves IPv4", func(d status.Document) bool { return m.ke(d).IsValid() })
	if at := m.ke(d); !at.Addr().Is4() {
		t.Errorf("the status says that it listens at %s", at)
	}
	m.serves(v4, "", 8)
	if got := hears(t, v6); got != "" {
		t.Errorf("by IPv6 it says %q", got)
	}
	m.chronyd.Reconfigure(chronytest.Options{ExtraConf: []string{"allow ::1"}})
	d = m.wait("it is healthy", func(d status.Document) bool { return d.State == status.Healthy })
	if at := m.ke(d); at != netip.AddrPortFrom(netip.IPv6Unspecified(), v6.Port()) {
		t.Errorf("the status says that it listens at %s", at)
	}
	m.serves(v4, "", 8)
	m.under(v6, func() {
		for cookies := 1; cookies <= 3; cookies++ {
			m.configure(keCookies(cookies))
			if err := m.reload(); err != nil {
				t.Fatal(err)
			}
			m.serves(v4, "", cookies)
		}
	})
}

func TestAMemberWithoutACertificateHangsUpOnWhoComesToAGivenSocket(t *testing.T) {
	t.Parallel()
	l, v4, _ := dual(t)
	m := newGivenMember(t, 3*time.Second, l)
	d := m.wait("the certificate has expired", m.hasExpired)
	if d.State != status.Unhealthy {
		t.Errorf("state %s", d.State)
	}
	if got := hears(t, v4); got != "" {
		t.Errorf("told %q", got)
	}
	cert, key, serial := m.ca.issue(time.Hour)
	m.write(m.key, key)
	m.write(m.cert, cert)
	m.wait("it serves again", func(d status.Document) bool { return m.ke(d).IsValid() })
	m.serves(v4, serial, 8)
}

func keCookies(n int) string { // the addresses are not used: a socket is given
	return "ke: {listen: [\"192.0.2.9:4460\"], cookies: " + string(rune('0'+n)) + "}\n"
}

// newGivenMember is a member to whom l is given, for the key exchange.
func newGivenMember(t *testing.T, life time.Duration, l *net.TCPListener) *member {
	m := newMember(t, life, chronytest.Options{})
	m.configure(keCookies(8))
	m.inherited = task.Inherited{Sockets: []task.Socket{handOver(t, status.ServiceKE, l)}}
	m.start()
	return m
}
