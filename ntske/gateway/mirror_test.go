package gateway

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ntsagent/ntske/packet"
)

// daemon is a plain NTP source on loopback.
type daemon struct {
	addr  netip.AddrPort
	conn  *net.UDPConn
	asked atomic.Int32
	// change may alter the answer, or send something else (false).
	change atomic.Pointer[func(h *packet.Header, send func([]byte)) bool]
}

func startDaemon(t testing.TB) *daemon {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{addr: conn.LocalAddr().(*net.UDPAddr).AddrPort(), conn: conn}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for b := make([]byte, 512); ; {
			n, from, err := conn.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			now := time.Now()
			q, err := packet.ParseHeader(b[:n])
			if err != nil || q.Mode != packet.ModeClient {
				continue
			}
			h := daemonHeader
			h.Origin, h.Receive, h.Transmit = q.Transmit, packet.FromTime(now), packet.FromTime(now)
			send := func(b []byte) { conn.WriteToUDPAddrPort(b, from) }
			if f := d.change.Load(); f == nil || (*f)(&h, send) {
				send(h.AppendTo(nil))
			}
			d.asked.Add(1)
		}
	}()
	t.Cleanup(func() { conn.Close(); <-done })
	return d
}

func (d *daemon) set(f func(h *packet.Header, send func([]byte)) bool) { d.change.Store(&f) }

// startMirror polls a daemon until the test ends.
func startMirror(t testing.TB, daemon netip.AddrPort, interval time.Duration) *Mirror {
	t.Helper()
	m := NewMirror(MirrorConfig{Daemon: daemon, Interval: interval})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return m
}

// until waits for a condition.
func until(t testing.TB, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !f(); {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		<-time.After(time.Millisecond)
	}
}

func TestTheMirrorFollowsTheDaemon(t *testing.T) {
	d := startDaemon(t)
	m := startMirror(t, d.addr, 20*time.Millisecond)
	if m.Condition() != Stale && m.State() == nil {
		t.Error("time before the daemon has answered")
	}
	known := func() bool { return m.State() != nil && m.Condition() <= RelayWanted }
	until(t, "the daemon's state", known)
	h := m.State().Header()
	h.Origin, h.Receive, h.Transmit = 0, 0, 0
	if h != daemonHeader {
		t.Errorf("mirrored %+v", h)
	}
	offsetIs := func(want time.Duration) func() bool {
		return func() bool {
			got, bound := m.State().Offset(m.clock())
			return known() && (got-want).Abs() <= bound && bound < 2*time.Millisecond
		}
	}
	until(t, "no offset", offsetIs(0))
	for _, want := range []time.Duration{70 * time.Millisecond, -3 * time.Hour, 0} {
		d.set(func(h *packet.Header, _ func([]byte)) bool {
			shift := packet.FromTime(time.Unix(0, 0).Add(want)) - packet.FromTime(time.Unix(0, 0))
			h.Receive += shift
			h.Transmit += shift
			return true
		})
		until(t, "an offset of "+want.String(), offsetIs(want))
	}
	d.set(func(h *packet.Header, _ func([]byte)) bool { h.Leap = 1; return true })
	until(t, "the leap flag", func() bool { return m.State().Header().Leap == 1 })
	d.set(func(h *packet.Header, _ func([]byte)) bool { h.Leap = 3; h.Stratum = 0; return true })
	until(t, "that the daemon is not synchronised", func() bool { return m.Condition() == Unsynchronised })
}

func TestOnePollBringsWhatTheDaemonSays(t *testing.T) {
	d := startDaemon(t)
	m, conn := pollByHand(t, d)
	for leap := range uint8(3) {
		d.set(func(h *packet.Header, _ func([]byte)) bool { h.Leap = leap; return true })
		if _, err := m.ask(conn, track{}); err != nil || m.State().Header().Leap != leap {
			t.Errorf("leap %d is mirrored as %+v, %v", leap, m.State(), err)
		}
	}
}

// pollByHand is a mirror of d that nobody runs, and a socket to poll with. A poll may take as long as it likes.
func pollByHand(t *testing.T, d *daemon) (*Mirror, *net.UDPConn) {
	t.Helper()
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(d.addr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return NewMirror(MirrorConfig{Daemon: d.addr, Interval: time.Minute}), conn
}

func TestTheMirrorBelievesNothingElse(t *testing.T) {
	for name, f := range map[string]func(h *packet.Header, send func([]byte)) bool{
		"silence":                        func(*packet.Header, func([]byte)) bool { return false },
		"another origin":                 func(h *packet.Header, _ func([]byte)) bool { h.Origin++; return true },
		"mode 3":                         func(h *packet.Header, _ func([]byte)) bool { h.Mode = 3; return true },
		"mode 5":                         func(h *packet.Header, _ func([]byte)) bool { h.Mode = 5; return true },
		"no receive timestamp":           func(h *packet.Header, _ func([]byte)) bool { h.Receive = 0; return true },
		"no transmit timestamp":          func(h *packet.Header, _ func([]byte)) bool { h.Transmit = 0; return true },
		"transmit before receive":        func(h *packet.Header, _ func([]byte)) bool { h.Transmit -= 1 << 20; return true },
		"two seconds from there to then": func(h *packet.Header, _ func([]byte)) bool { h.Transmit += 2 << 32; return true },
		"the kiss code DENY":             kiss("DENY"),
		"the kiss code RSTR":             kiss("RSTR"),
		"the kiss code RATE":             kiss("RATE"),
		"a datagram that is cut":         func(h *packet.Header, send func([]byte)) bool { send(h.AppendTo(nil)[:47]); return false },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := startDaemon(t)
			d.set(f)
			m := startMirror(t, d.addr, 20*time.Millisecond)
			until(t, "three polls", func() bool { return d.asked.Load() >= 3 })
			if s := m.State(); s != nil {
				t.Fatalf("believed %+v", s.header)
			}
			d.set(func(h *packet.Header, send func([]byte)) bool { // a forgery ahead of the answer does no harm
				forged := *h
				forged.Origin, forged.Stratum = 5, 1
				send(forged.AppendTo(nil))
				return true
			})
			until(t, "a good answer", func() bool { return m.State() != nil && m.State().Header().Stratum == 2 })
			d.set(f)
			more := func() *State {
				n := d.asked.Load()
				until(t, "three more polls", func() bool { return d.asked.Load() >= n+3 })
				return m.State()
			}
			last := more() // to be asked when this was set, it had heard the last that was good
			s, late := more(), int64(StaleAfter)+1
			if s != last || s.Header().Stratum != 2 || s.Condition(Instant{last.at.Wall + late, last.at.Mono + late}) != Stale {
				t.Errorf("believed %+v", s.header)
			}
		})
	}
}

func kiss(code string) func(h *packet.Header, send func([]byte)) bool {
	return func(h *packet.Header, _ func([]byte)) bool {
		h.Stratum, h.RefID = 0, [4]byte([]byte(code))
		return true
	}
}

func TestAStepOfTheClockDuringAPollIsNoOffset(t *testing.T) {
	d := startDaemon(t)
	m, conn := pollByHand(t, d)
	var shift atomic.Int64
	clock := m.clock
	m.clock = func() Instant { i := clock(); i.Wall += shift.Load(); return i }
	d.set(func(*packet.Header, func([]byte)) bool { shift.Add(1e9); return true })
	if tr, err := m.ask(conn, track{n: 3}); err != errStep || tr.n != 0 || m.State() != nil {
		t.Errorf("track of %d, %v", tr.n, err)
	}
	d.set(func(*packet.Header, func([]byte)) bool { return true })
	tr, err := m.ask(conn, track{})
	if err != nil || tr.n != 1 {
		t.Fatal(err)
	}
	if tr, err = m.ask(conn, tr); err != nil || tr.n != 2 {
		t.Fatalf("track of %d, %v", tr.n, err)
	}
	shift.Add(-1e9) // between two polls: what was known of the offset is void
	if tr, err = m.ask(conn, tr); err != nil || tr.n != 1 {
		t.Errorf("track of %d, %v", tr.n, err)
	}
}

func TestAPollThatTookLongIsRepeatedAtOnce(t *testing.T) {
	const slow, quick = 100 * time.Millisecond, 50 * time.Microsecond
	d := startDaemon(t)
	m, conn := pollByHand(t, d)
	var wait atomic.Int32 // so many answers are slow
	var passed atomic.Int64
	start := m.clock()
	m.clock = func() Instant { return Instant{start.Wall + passed.Load(), start.Mono + passed.Load()} } // only answers take time
	d.set(func(h *packet.Header, _ func([]byte)) bool {
		h.Receive = timestamp(m.clock().Wall)
		h.Transmit = h.Receive
		shifted(h, 3*time.Millisecond)
		if wait.Add(-1) >= 0 {
			passed.Add(int64(slow))
		}
		passed.Add(int64(quick))
		return true
	})
	for _, c := range []struct {
		name        string
		slow, asked int32
		good        bool
	}{
		{"none is slow", 0, 1, true}, {"one is", 1, 2, true}, {"two are", 2, 3, true}, {"all are", 9, maxTries, false},
	} {
		wait.Store(c.slow)
		d.asked.Store(0)
		tr, err := m.ask(conn, track{})
		if err != nil {
			t.Fatal(err)
		}
		s := tr.samples[0]
		if width := time.Duration(s.hi - s.lo); tr.n != 1 || (width < slow) != c.good {
			t.Errorf("%s: known to %v", c.name, width)
		}
		until(t, "the last answer", func() bool { return d.asked.Load() >= c.asked })
		if n := d.asked.Load(); n != c.asked {
			t.Errorf("%s: asked %d times", c.name, n)
		}
	}
}

func TestAMirrorWithoutADaemonEnds(t *testing.T) {
	d := startDaemon(t)
	d.conn.Close()
	m := startMirror(t, d.addr, 20*time.Millisecond) // the port refuses; the cleanup sees it end
	if m.Condition() != Stale {
		t.Error("time from nowhere")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := NewMirror(MirrorConfig{Daemon: d.addr}).Run(ctx); err != nil {
		t.Error(err)
	}
}

func TestAnAnswerIsDatedWhenItCameAndNotWhenItWasRead(t *testing.T) {
	const came, late = int64(1_790_000_000e9), int64(80e6)
	stamp := func(ns int64) []byte {
		var b [16]byte
		binary.NativeEndian.PutUint64(b[:], uint64(ns/1e9))
		binary.NativeEndian.PutUint64(b[8:], uint64(ns%1e9))
		return message(unix.SOL_SOCKET, unix.SCM_TIMESTAMPNS, b[:]...)
	}
	h := daemonHeader
	h.Receive, h.Transmit = timestamp(came-20e3), timestamp(came-20e3)
	begin, read := Instant{came - 90e6, 7e9 - 90e6}, Instant{came + late, 7e9 + late}
	for _, c := range []struct {
		name    string
		control []byte
		want    Instant
	}{
		{"with the kernel's stamp", stamp(came), Instant{came, 7e9}},
		{"without", nil, read},
		{"with one that is not yet", stamp(came + late + 1e6), Instant{came + late + 1e6, read.Mono}},
	} {
		e, err := answered(h, begin, begin.Wall, read, c.control)
		if err != nil || e.at != c.want || e.t4 != c.want.Wall || e.sample().mono != c.want.Mono {
			t.Errorf("%s: %+v, %v", c.name, e, err)
		}
	}
	e, _ := answered(h, begin, begin.Wall, read, stamp(came))
	s := e.sample() // 90 ms there and back: by 54 µs θ may have changed meanwhile
	if lo, hi := s.lo+20e3, s.hi-(90e6-20e3); lo > -54e3 || hi < 54e3 || lo < -60e3 || hi > 60e3 {
		t.Errorf("%.0f and %.0f ns", lo, hi)
	}
}
