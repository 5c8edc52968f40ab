package load

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// listener is a server that lets idle connections be looked at.
type listener struct {
	KETarget
	release context.CancelFunc // it closes all connections

	mu       sync.Mutex
	octets   []int // read from each that did not finish its handshake
	missing  []int // of the TLS record it began
	finished int
	ready    chan struct{} // one for each connection that has fallen silent
}

func listenIdle(t *testing.T) *listener {
	t.Helper()
	cert, roots := selfSigned(t)
	ctx, cancel := context.WithCancel(t.Context())
	l := &listener{release: cancel, ready: make(chan struct{}, 100)}
	l.KETarget = KETarget{Name: fakeName, Roots: roots, Timeout: patience, Addr: accepting(t, func(nc net.Conn) {
		defer context.AfterFunc(ctx, func() { nc.Close() })()
		l.serve(nc, serverConfig(cert))
	})}
	return l
}

// serve lets a handshake begin, and waits once the client sends no more.
func (l *listener) serve(nc net.Conn, conf *tls.Config) {
	count := &counting{Conn: nc}
	c := tls.Server(count, conf)
	if c.Handshake() == nil {
		l.mu.Lock()
		l.finished++
		l.mu.Unlock()
		l.ready <- struct{}{}
		c.Read(make([]byte, 1))
		return
	}
	l.mu.Lock()
	l.octets = append(l.octets, count.n)
	l.missing = append(l.missing, count.missing())
	l.mu.Unlock()
}

// counting counts what is read and keeps where the first TLS record ends.
type counting struct {
	net.Conn
	n      int
	header []byte // up to 5 octets: type, version, length
}

func (c *counting) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.n += n
	c.header = append(c.header, b[:min(n, 5-len(c.header))]...)
	return n, err
}

// missing is how many octets the first record is short of.
func (c *counting) missing() int {
	if len(c.header) < 5 {
		return 0
	}
	return 5 + int(c.header[3])<<8 + int(c.header[4]) - c.n
}

func TestIdleConnectionsStopWhereTheirKindSays(t *testing.T) {
	t.Parallel()
	const n = 10
	for _, k := range Kinds {
		t.Run(k.String(), func(t *testing.T) {
			l := listenIdle(t)
			idle, err := Hold(t.Context(), l.KETarget, k, n)
			if err != nil {
				t.Fatal(err)
			}
			if idle.Opened() != n || idle.Open() != n || idle.Refused != 0 {
				t.Errorf("%d opened, %d open, %d refused (%v), want %d, all open", idle.Opened(), idle.Open(), idle.Refused, idle.FirstErr, n)
			}
			if k == Finished {
				for range n {
					<-l.ready
				}
			}
			idle.Close()
			eventually(t, func() bool {
				l.mu.Lock()
				defer l.mu.Unlock()
				return l.finished+len(l.octets) == n
			})
			if want := map[Kind]int{Finished: n}[k]; l.finished != want {
				t.Errorf("%d handshakes finished, want %d", l.finished, want)
			}
			for i, octets := range l.octets {
				if (octets > 0) != (k == HalfHello) || (l.missing[i] > 0) != (k == HalfHello) {
					t.Errorf("the server read %d octets of a hello and misses %d", octets, l.missing[i])
				}
			}
		})
	}
}

func TestTheServersCloseIsSeenAndTimed(t *testing.T) {
	l := listenIdle(t)
	begin := time.Now()
	idle, err := Hold(t.Context(), l.KETarget, Finished, 5)
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	if _, err := idle.Gone(t.Context(), 20*time.Millisecond); err == nil || !strings.Contains(err.Error(), "5 of 5 idle connections are still open") {
		t.Errorf("a server that closes nothing: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := idle.Gone(ctx, time.Hour); err != context.Canceled {
		t.Errorf("interrupted: %v", err)
	}
	l.release()
	longest, err := idle.Gone(t.Context(), time.Minute)
	if err != nil || longest < 20*time.Millisecond || longest > time.Since(begin) {
		t.Errorf("the longest was open for %v, %v", longest, err)
	}
	if idle.Open() != 0 {
		t.Errorf("%d are open", idle.Open())
	}
}

func TestOurOwnCloseIsNotTheServers(t *testing.T) {
	l := listenIdle(t)
	idle, err := Hold(t.Context(), l.KETarget, TCP, 3)
	if err != nil {
		t.Fatal(err)
	}
	idle.Close()
	if idle.Open() != 3 {
		t.Errorf("the server is said to have closed %d", 3-idle.Open())
	}
}

func TestRefusedConnectionsAreCounted(t *testing.T) {
	rude := KETarget{Name: fakeName, Addr: accepting(t, func(nc net.Conn) { nc.Close() })}
	idle, err := Hold(t.Context(), rude, Finished, 5)
	if err != nil {
		t.Fatal(err)
	}
	idle.Close()
	if idle.Refused != 5 || idle.FirstErr == nil || idle.Opened() != 0 {
		t.Errorf("%d refused (%v), %d opened", idle.Refused, idle.FirstErr, idle.Opened())
	}
	nobody := KETarget{Name: fakeName, Addr: refusing(t, unix.SOCK_STREAM)}
	if idle, err := Hold(t.Context(), nobody, TCP, 5); err != nil || idle.Refused != 5 {
		t.Errorf("nobody there: %+v, %v", idle, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Hold(ctx, rude, TCP, 5); err != context.Canceled {
		t.Errorf("interrupted: %v", err)
	}
}

func TestProbesAreWholeSessions(t *testing.T) {
	good := script(t, eight, cleanly)
	if p := Probe(t.Context(), good, 3, time.Minute); p.Served != 3 || p.Of != 3 || p.Slowest <= 0 || p.FirstErr != nil {
		t.Errorf("%+v", p)
	}
	short := script(t, eight[:7], cleanly)
	if p := Probe(t.Context(), short, 3, time.Minute); p.Served != 0 || p.Of != 3 || p.FirstErr == nil || p.Slowest != 0 {
		t.Errorf("seven cookies: %+v", p)
	}
	silent := KETarget{Name: fakeName, Addr: accepting(t, func(nc net.Conn) { io.Copy(io.Discard, nc) })}
	if p := Probe(t.Context(), silent, 2, 20*time.Millisecond); p.Served != 0 || p.FirstErr == nil {
		t.Errorf("silence: %+v", p)
	}
}

func TestKindsHaveNames(t *testing.T) {
	for _, k := range Kinds {
		if got, err := ParseKind(k.String()); err != nil || got != k {
			t.Errorf("%v comes back as %v, %v", k, got, err)
		}
	}
	if k, err := ParseKind("odd"); err == nil {
		t.Errorf("odd is %v", k)
	}
}

// refusing is an address, of stream or datagram sockets, that answers nobody, and that nobody else can take until the
// test ends.
func refusing(t *testing.T, kind int) netip.AddrPort {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	host := [4]byte{127, 0, 0, 1}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: host}); err != nil {
		t.Fatal(err)
	}
	if kind == unix.SOCK_DGRAM { // then it takes nothing from anybody else
		if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: host, Port: 1}); err != nil {
			t.Fatal(err)
		}
	}
	at, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return netip.AddrPortFrom(netip.AddrFrom4(host), uint16(at.(*unix.SockaddrInet4).Port))
}

func eventually(t *testing.T, is func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !is(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("not within %v", patience)
		}
	}
}
