package gateway

import (
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"ntsagent/ntske/packet"
)

func relayed(c *Config) { c.Mode = RelayMode }

func TestModesAreWords(t *testing.T) {
	for _, m := range []Mode{MirrorMode, RelayMode} {
		if got, err := ParseMode(m.String()); got != m || err != nil {
			t.Errorf("%v: %v, %v", m, got, err)
		}
	}
	if _, err := ParseMode("Relay"); err == nil || !strings.Contains(err.Error(), "neither mirror nor relay") {
		t.Error(err)
	}
}

// shifted makes the daemon serve another time.
func shifted(h *packet.Header, by time.Duration) {
	d := packet.FromTime(time.Unix(0, 0).Add(by)) - packet.FromTime(time.Unix(0, 0))
	h.Receive += d
	h.Transmit += d
}

func TestARelayServesWhatTheDaemonSaysNow(t *testing.T) {
	s := newSite(t, "127.0.0.1:0", 2, relayed)
	var n atomic.Int64
	s.daemon.set(func(h *packet.Header, _ func([]byte)) bool { // nobody could foresee this
		i := n.Add(1)
		h.Stratum, h.Leap = uint8(1+i%15), uint8(i%3)
		h.RootDelay, h.RefID = uint32(i), [4]byte{1, 2, 3, byte(i)}
		shifted(h, time.Duration(i)*time.Second)
		return true
	})
	cookies := [][]byte{s.cookie(t, s.ring.Current())}
	last := int64(0)
	for range 30 {
		reply, err := s.query(t, s.addr, cookies[0], 0)
		if err != nil {
			t.Fatal(err)
		}
		cookies = reply.Cookies
		h, i := reply.Header, int64(reply.Header.RootDelay)
		if i <= last || h.Stratum != uint8(1+i%15) || h.Leap != uint8(i%3) || h.RefID != [4]byte{1, 2, 3, byte(i)} {
			t.Errorf("answer %d after %d: %+v", i, last, h)
		}
		last = i
		// θ jumps by a second from one exchange to the next: the bounds are those of this one alone.
		bound := time.Duration(h.RootDispersion-daemonHeader.RootDispersion)*time.Second>>16 + reply.Delay
		if off := (reply.Offset - time.Duration(i)*time.Second).Abs(); off > bound {
			t.Errorf("off by %v, bound %v", off, bound)
		}
	}
	if reply, err := s.plain(t, s.addr); err != nil || int64(reply.Header.RootDelay) <= last {
		t.Errorf("plain: %+v, %v", reply.Header, err)
	}
	if n := s.g.Counts(); n[Asked] < 31 {
		t.Errorf("counted %v", n)
	}
}

func TestOnlyWhatDeservesAnAnswerIsRelayed(t *testing.T) {
	s := newSite(t, "127.0.0.1:0", 1, relayed)
	b, uid := s.request(t, 0)
	forged := append(b[:len(b)-1:len(b)-1], b[len(b)-1]^1)
	c, err := net.Dial("udp", s.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	unknown := s.seal(clientHeader(), random(16), nil, field(packet.UniqueIdentifier, uid), field(packet.NTSCookie, make([]byte, 100)))
	for i, out := range [][]byte{forged, unknown, b[:len(b)-1], {0x23}} {
		if _, err := c.Write(out); err != nil {
			t.Fatal(err)
		}
		until(t, "the outcome", func() bool {
			n := 0
			for _, count := range s.g.Counts() {
				n += int(count)
			}
			return n == i+1
		})
	}
	if n := s.g.Counts(); n[Asked] != 0 {
		t.Errorf("counted %v", n)
	}
}

func TestTheMirrorIsRelayedWhileItsOffsetIsNotExplained(t *testing.T) {
	s := newSite(t, "127.0.0.1:0", 1, nil)
	send := s.sender(t)
	calm := func() {
		t.Helper()
		until(t, "an offset that is explained", func() bool { return s.mirror.Condition() == Good })
		until(t, "an answer from the mirror", func() bool { // on a busy machine the condition may change meanwhile
			before := s.g.Counts()
			send()
			n := s.g.Counts()
			return n[Served] > before[Served] && n[Asked] == before[Asked]
		})
	}
	calm()
	var n atomic.Int64
	s.daemon.set(func(h *packet.Header, _ func([]byte)) bool {
		shifted(h, time.Duration(n.Add(1)%2)*time.Millisecond) // more than most delays on a busy machine hide
		return true
	})
	until(t, "an answer by relay", func() bool {
		before := s.g.Counts()
		send()
		n := s.g.Counts()
		return n[Served] > before[Served] && n[Asked] > before[Asked]
	})
	s.daemon.set(func(*packet.Header, func([]byte)) bool { return true })
	calm() // back by itself
}

func TestTheMirroredStateIsServedWhenTheDaemonDoesNotAnswerInTime(t *testing.T) {
	s := newSite(t, "127.0.0.1:0", 1, nil)
	var n atomic.Int64
	s.daemon.set(func(h *packet.Header, _ func([]byte)) bool { // an offset that nobody explains, told now and then
		i := n.Add(1)
		shifted(h, time.Duration(i/4%2)*time.Millisecond)
		return i%4 == 0
	})
	send, served := s.sender(t), 0
	until(t, "many requests that are served while relay is wanted", func() bool {
		before := s.g.Counts()
		send()
		after := s.g.Counts()
		if after[Asked] > before[Asked] && after[Served] > before[Served] {
			served++
		}
		if after[SilentStale] > 0 {
			t.Fatalf("counted %v", after)
		}
		return served > 12
	})
}

func TestTheMirroredStateIsServedWithinItsBoundsOnly(t *testing.T) {
	s := newSite(t, "127.0.0.1:0", 1, nil)
	s.daemon.set(func(*packet.Header, func([]byte)) bool { return false })
	now := s.mirror.clock()
	with := func(age time.Duration, spread float64) *State {
		return &State{header: daemonHeader, at: Instant{now.Wall - int64(age), now.Mono - int64(age)}, line: line{offset: 5e6, spread: spread}, relay: true}
	}
	for _, c := range []struct {
		name  string
		mode  Mode
		state *State
		want  Outcome
	}{
		{"known to a millisecond", MirrorMode, with(0, 1e6), Served},
		{"not known well", MirrorMode, with(0, 11e6), SilentUncertain},
		{"stale", MirrorMode, with(StaleAfter+time.Second, 1e6), SilentStale},
		{"nothing known", MirrorMode, nil, SilentStale},
		{"known, but only what the daemon says now is wanted", RelayMode, with(0, 1e6), SilentStale},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := s.worker(t, func(m *Mirror) { m.clock = func() Instant { return now } }) // no state grows older
			w.mode = c.mode
			b, uid := s.request(t, 0)
			t2 := w.clock()
			out, outcome := w.answer.answer(nil, arrival{datagram: b, t2: t2.Wall, seen: t2}, s.ring, c.state)
			if outcome != c.want || outcome.Silent() != (len(out) == 0) {
				t.Fatalf("%v, want %v", outcome, c.want)
			}
			if c.want != Served {
				return
			}
			h, _, err := packet.ParseNTSResponse(out, uid, s.s2c.Open)
			if told := time.Duration(int64(h.RootDispersion-daemonHeader.RootDispersion) * 1e9 >> 16); err != nil || told < time.Millisecond-20*time.Microsecond {
				t.Errorf("it tells a dispersion of %v, %v", told, err)
			}
		})
	}
}

func TestARelayIsSilentWhenTheDaemonIs(t *testing.T) {
	var log strings.Builder
	for _, c := range []struct {
		name    string
		f       func(h *packet.Header, send func([]byte)) bool
		answers bool // and is waited for
		want    Outcome
		says    string
	}{
		{"silence, as by chronyd's rate limit", func(*packet.Header, func([]byte)) bool { return false }, false, SilentStale, "exempt loopback"},
		{"the kiss code RATE", kiss("RATE"), true, SilentRate, "exempt loopback"},
		{"the kiss code DENY", kiss("DENY"), true, SilentStale, "kiss"},
		{"nonsense", func(h *packet.Header, _ func([]byte)) bool { h.Receive = 0; return true }, true, SilentStale, "no sense"},
		{"another origin", func(h *packet.Header, _ func([]byte)) bool { h.Origin++; return true }, false, SilentStale, "exempt loopback"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t, "127.0.0.1:0", 1, relayed)
			w := s.worker(t, func(m *Mirror) {
				m.conf.Log = hclog.New(&hclog.LoggerOptions{Output: &log})
				m.conf.Interval = time.Hour
			})
			log.Reset()
			s.daemon.set(c.f)
			if c.answers {
				w.relay.wait = time.Minute
			}
			for range 3 {
				if state, outcome := w.relay.ask(); state != nil || outcome != c.want {
					t.Fatalf("%v, %+v", outcome, state)
				}
			}
			if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), c.says) {
				t.Errorf("log:\n%s", &log)
			}
			if n := w.tally.n[Asked].Load(); c.want == SilentRate && n != 1 {
				t.Errorf("asked %d times", n)
			}
			// In the end, and not before, the daemon is asked again.
			s.daemon.set(func(*packet.Header, func([]byte)) bool { return true })
			if c.want == SilentRate {
				w.relay.notBefore -= int64(rateFactor * time.Hour)
			}
			until(t, "an answer", func() bool { state, outcome := w.relay.ask(); return outcome == Served && state.header.Stratum == 2 })
			if w.relay.notBefore > w.relay.clock().Mono {
				t.Error("it still pauses")
			}
		})
	}
	t.Run("nothing is sent to the client", func(t *testing.T) {
		s := newSite(t, "127.0.0.1:0", 1, relayed)
		s.daemon.set(func(h *packet.Header, send func([]byte)) bool { return false })
		send := s.sender(t)
		for range 20 {
			send()
		}
		if n := s.g.Counts(); n[Served] != 0 || n[SilentStale] == 0 {
			t.Errorf("counted %v", n)
		}
		s.daemon.set(func(*packet.Header, func([]byte)) bool { return true })
		until(t, "the daemon's return", func() bool { send(); return s.g.Counts()[Served] > 0 })
	})
	t.Run("the port of the daemon is closed", func(t *testing.T) {
		s := newSite(t, "127.0.0.1:0", 1, relayed)
		w := s.worker(t, nil)
		s.daemon.conn.Close()
		for range 10 {
			if _, outcome := w.relay.ask(); outcome != SilentStale {
				t.Error(outcome)
			}
		}
		if n := w.tally.n[Asked].Load(); n > 9 {
			t.Errorf("asked %d times of 10", n)
		}
	})
}

// sender returns a func that sends a request and waits until it has an outcome.
func (s *site) sender(t *testing.T) func() {
	t.Helper()
	c, err := net.Dial("udp", s.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	b, _ := s.request(t, 0)
	requests := func() (n uint64) {
		for outcome, count := range s.g.Counts() {
			if outcome != Asked && outcome != Unsent {
				n += count
			}
		}
		return n
	}
	return func() {
		t.Helper()
		n := requests()
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
		until(t, "the outcome of a request", func() bool { return requests() > n })
	}
}

// worker is one that nobody runs, in front of the same daemon.
func (s *site) worker(t *testing.T, change func(*Mirror)) *worker {
	t.Helper()
	conns, err := Listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"), 1)
	if err != nil {
		t.Fatal(err)
	}
	conf := s.g.conf
	conf.Mirror = NewMirror(s.mirror.conf)
	conf.Mirror.clock = s.mirror.clock
	conf.Mirror.state.Store(s.mirror.State())
	if change != nil {
		change(conf.Mirror)
	}
	g, err := New(conf)
	if err != nil {
		t.Fatal(err)
	}
	w, err := g.newWorker(conns[0], new(tally))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.relay.close(); conns[0].Close() })
	return w
}
