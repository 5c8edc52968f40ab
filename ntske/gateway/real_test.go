package gateway

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"ntsagent/agent/daemon/chronytest"
	"ntsagent/agent/daemon/daemontest"
	"ntsagent/agent/daemon/ntpdrstest"
	"ntsagent/agent/daemon/ntpsectest"
	"ntsagent/ntske/client"
	"ntsagent/ntske/cookie"
	"ntsagent/ntske/packet"
	"ntsagent/packaging/parts"
	"ntsagent/packaging/parts/partstest"
)

// openNTPD is a real, synchronised OpenNTPD that believes in an adjustment of the clock which the test makes up.
type openNTPD struct {
	addr netip.AddrPort
	slew *os.File // for testdata/slew.c

	start, outstanding int64 // ns: CLOCK_MONOTONIC, and what was outstanding then
}

func startOpenNTPD(t *testing.T) *openNTPD {
	t.Helper()
	dir := t.TempDir()
	shim, conf := filepath.Join(dir, "slew.so"), filepath.Join(dir, "ntpd.conf")
	if out, err := exec.Command("gcc", "-shared", "-fPIC", "-O1", "-o", shim, "testdata/slew.c").CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v: %s", err, out)
	}
	if err := os.WriteFile(conf, []byte("listen on 127.0.0.1\nserver 127.0.0.1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	o := new(openNTPD)
	var err error
	if o.slew, err = os.Create(filepath.Join(dir, "slew")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.slew.Close() })
	o.adjust(t, 0)

	root := partstest.OpenNTPD(t, parts.Debian12)
	source := startDaemon(t)
	p := daemontest.NewProcess(t)
	for range 5 { // somebody may take the port before it does
		o.addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), freePort(t))
		err = p.Run(func(ctx context.Context) *exec.Cmd {
			cmd := root.Command(ctx, "ntpd", "-d", "-f", conf)
			if cmd.Err != nil {
				return cmd
			}
			// It starts itself again for each of its processes, by name: the shim must know how that is done.
			cmd.Env = append(os.Environ(), "SLEW_FILE="+o.slew.Name(), "SLEW_SHIM="+shim, "SLEW_LOADER="+cmd.Path, "SLEW_LIBRARIES="+cmd.Args[2],
				"SLEW_PROGRAM="+cmd.Args[5], "SLEW_PORT="+strconv.Itoa(int(o.addr.Port())), "SLEW_SOURCE="+strconv.Itoa(int(source.addr.Port())))
			cmd.Args = slices.Insert(cmd.Args, 1, "--preload", shim)
			return daemontest.WithoutClock(cmd)
		}, func() bool { _, ok := o.ask(); return ok })
		if err == nil {
			break
		}
	}
	if err != nil {
		t.Fatalf("OpenNTPD: %v\n%s", err, p.Log())
	}
	until(t, "that OpenNTPD is synchronised", func() bool {
		r, ok := o.ask()
		return ok && r.Header.Leap != 3 && r.Header.Stratum == daemonHeader.Stratum+1
	})
	return o
}

func freePort(t *testing.T) uint16 {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Port()
}

// ask is a plain query past the gateway.
func (o *openNTPD) ask() (client.Reply, bool) { return askPlain(o.addr) }

func askPlain(addr netip.AddrPort) (client.Reply, bool) {
	h := clientHeader()
	h.Transmit = packet.Timestamp(binary.NativeEndian.Uint64(random(8)))
	return exact(addr, h.AppendTo(nil), func(b []byte) (packet.Header, bool) {
		got, err := packet.ParseHeader(b)
		return got, err == nil && got.Origin == h.Transmit
	})
}

// ask is an NTS query.
func (s *site) ask(t *testing.T) (client.Reply, bool) {
	b, uid := s.request(t, 0)
	return exact(s.addr, b, func(b []byte) (packet.Header, bool) {
		h, _, err := packet.ParseNTSResponse(b, uid, s.s2c.Open)
		return h, err == nil
	})
}

// exact sends a request and waits for the answer a moment. It reads the clock with more care than clients do, for on a busy
// machine a client whose clock is read while it is interrupted is wrong by more than its delay.
func exact(addr netip.AddrPort, out []byte, parse func([]byte) (packet.Header, bool)) (client.Reply, bool) {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return client.Reply{}, false
	}
	defer c.Close()
	if err := stampArrivals(c); err != nil {
		return client.Reply{}, false
	}
	c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	sent := time.Unix(0, steady(systemClock()).Wall)
	if _, err := c.Write(out); err != nil {
		return client.Reply{}, false
	}
	var in, control [maxDatagram]byte
	for {
		n, size, _, _, err := c.ReadMsgUDPAddrPort(in[:], control[:])
		if err != nil {
			return client.Reply{}, false
		}
		if h, ok := parse(in[:n]); ok {
			r := client.Reply{Header: h}
			got := time.Unix(0, arrivalStamp(control[:size]))
			r.Offset, r.Delay = packet.OffsetDelay(packet.FromTime(sent), h.Receive, h.Transmit, packet.FromTime(got))
			return r, true
		}
	}
}

func monotonic() int64 {
	var t unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	return t.Nano()
}

// adjust makes OpenNTPD believe that so much is outstanding from now on, and worked off at 500 ppm.
func (o *openNTPD) adjust(t *testing.T, outstanding time.Duration) {
	t.Helper()
	o.start, o.outstanding = monotonic(), int64(outstanding)
	for _, w := range []struct{ value, at int64 }{{0, 8}, {o.start, 0}, {o.outstanding, 8}} {
		if _, err := o.slew.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(w.value)), w.at); err != nil {
			t.Fatal(err)
		}
	}
}

// ahead returns how far the time OpenNTPD serves is ahead of the clock, in ns.
func (o *openNTPD) ahead(mono int64) int64 {
	done := (mono - o.start) / 2000
	if o.outstanding > 0 {
		return max(0, o.outstanding-done)
	}
	return min(0, o.outstanding+done)
}

// bound is how far a client may be wrong about what a server says, if that knows its time to its root dispersion.
func bound(r client.Reply) time.Duration {
	return max(r.Delay, 0)/2 + time.Duration(int64(r.Header.RootDispersion)*1e9>>16) + 2*time.Microsecond
}

func TestOpenNTPDsTimeIsServedThroughoutASlew(t *testing.T) {
	t.Parallel()
	o := startOpenNTPD(t)
	const interval = 50 * time.Millisecond
	m := startMirror(t, o.addr, interval)
	mirrored, byRelay := siteBefore(t, m, "127.0.0.1:0", 1, nil), siteBefore(t, m, "127.0.0.1:0", 1, relayed)
	for _, amount := range []time.Duration{0, time.Millisecond, -800 * time.Microsecond} {
		told := map[string]int{}                                          // answers that cannot be of the clock alone
		slew := func() { o.slews(t, amount, m, mirrored, byRelay, told) } // once or, on a busy machine, more often
		for deadline := time.Now().Add(60 * time.Second); ; {
			if slew(); amount == 0 || len(told) == 3 {
				break
			}
			if time.Now().After(deadline) {
				t.Errorf("%v: only %v answers could be told from the clock's", amount, told)
				break
			}
		}
		t.Logf("%v: %v told from the clock", amount, told)
	}
	t.Logf("mirrored %v; by relay %v", mirrored.g.Counts(), byRelay.g.Counts())
}

// slews makes one adjustment and compares all answers that come until it is worked off. A change that long delays hide is
// known after as many exchanges as a track remembers, which they need not do much longer.
func (o *openNTPD) slews(t *testing.T, amount time.Duration, m *Mirror, mirrored, byRelay *site, told map[string]int) {
	t.Helper()
	o.adjust(t, amount)
	const forgotten = trackLen + 1 // one may have been under way
	polls, relays, last := 0, 0, m.State()
	for i := 0; i < 10 || o.ahead(monotonic()) != 0; i++ {
		for _, c := range []struct {
			name string
			ask  func() (client.Reply, bool)
		}{
			{"asked directly", func() (client.Reply, bool) { r, ok := o.ask(); r.Header.RootDispersion = 0; return r, ok }},
			{"mirrored", func() (client.Reply, bool) {
				if s := m.State(); s != last {
					polls, last = polls+1, s
				}
				if polls <= forgotten {
					return client.Reply{}, false
				}
				return mirrored.ask(t)
			}},
			{"by relay", func() (client.Reply, bool) {
				r, ok := byRelay.ask(t)
				if ok {
					relays++
				}
				return r, ok && relays > forgotten
			}},
		} {
			from := o.ahead(monotonic())
			r, ok := c.ask()
			to := o.ahead(monotonic())
			if !ok {
				continue // a busy machine
			}
			lo, hi := time.Duration(min(from, to))-bound(r), time.Duration(max(from, to))+bound(r)
			if r.Offset < lo || r.Offset > hi {
				t.Errorf("%v, %s: %v ahead, want %v to %v; %v", amount, c.name, r.Offset, lo, hi, m.Condition())
			}
			if lo > 0 || hi < 0 {
				told[c.name]++
			}
		}
		<-time.After(5 * time.Millisecond)
	}
}

func TestChronydsTimeIsServedThoughItDisciplinesNoClock(t *testing.T) {
	t.Parallel()
	source := startDaemon(t)
	shift := func(by time.Duration) {
		source.set(func(h *packet.Header, _ func([]byte)) bool { shifted(h, by); return true })
	}
	shift(300 * time.Millisecond)
	chronyd := chronytest.Start(t, chronytest.Options{ExtraConf: []string{
		"server 127.0.0.1 minpoll -4 maxpoll -4 port " + strconv.Itoa(int(source.addr.Port())),
		"smoothtime 400 100",
	}})
	near := func(want time.Duration) func() bool {
		return func() bool {
			r, ok := askPlain(chronyd.Addr)
			return ok && (r.Offset-want).Abs() < 20*time.Millisecond && r.Header.Stratum == daemonHeader.Stratum+1
		}
	}
	until(t, "the source's time", near(300*time.Millisecond))
	m := startMirror(t, chronyd.Addr, 250*time.Millisecond)
	s := siteBefore(t, m, "127.0.0.1:0", 1, nil)
	follows := func(what string, enough func(first, last client.Reply) bool) (first, last client.Reply) {
		t.Helper()
		n := 0
		for deadline := time.Now().Add(60 * time.Second); n < 20 || !enough(first, last); {
			if time.Now().After(deadline) {
				t.Fatalf("%s: only %d answers; from %v to %v", what, n, first.Offset, last.Offset)
			}
			before, ok1 := askPlain(chronyd.Addr)
			r, ok2 := s.ask(t)
			after, ok3 := askPlain(chronyd.Addr)
			if !ok1 || !ok2 || !ok3 {
				continue // a busy machine
			}
			const stratum = 3 // behind daemonHeader
			if before.Header.Stratum != stratum || r.Header.Stratum != stratum || after.Header.Stratum != stratum {
				continue // there chronyd loses its source, and changes its mind at once: it runs on its own and admits no dispersion
			}
			if n++; n == 1 {
				first = before
			}
			last = after
			// Both are seen through delays of their own.
			lo := min(before.Offset-before.Delay/2, after.Offset-after.Delay/2) - bound(r)
			hi := max(before.Offset+before.Delay/2, after.Offset+after.Delay/2) + bound(r)
			if r.Offset < lo || r.Offset > hi {
				t.Errorf("%s: %v ahead, chronyd between %v and %v; %v", what, r.Offset, lo, hi, m.Condition())
			}
			<-time.After(5 * time.Millisecond)
		}
		return first, last
	}
	start := time.Now()
	follows("-x", func(_, _ client.Reply) bool { return time.Since(start) > time.Second })
	until(t, "that chronyd smooths its time", func() bool { return strings.Contains(chronyd.Log(), "Time smoothing activated") })
	start = time.Now()
	shift(310 * time.Millisecond)
	first, last := follows("smoothtime", func(first, last client.Reply) bool { // and the delays do not hide that
		return last.Offset-last.Delay/2 > first.Offset+first.Delay/2+20*time.Microsecond && time.Since(start) > time.Second
	})
	// At 400 ppm at most; the rest is what chronyd's source may be wrong.
	fastest := 300*time.Millisecond + time.Since(start)*400/1e6 + time.Millisecond
	t.Logf("smoothed from %v to %v", first.Offset, last.Offset)
	if last.Offset-last.Delay/2 > fastest {
		t.Errorf("the time was not smoothed: from %v to %v", first.Offset, last.Offset)
	}
}

func TestEveryDaemonAnswersAGatewaysQuestion(t *testing.T) {
	asks := func(t *testing.T, at netip.AddrPort, do func(func())) {
		t.Helper()
		m := NewMirror(MirrorConfig{Daemon: at})
		var conn *net.UDPConn
		var err error
		do(func() { conn, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(at)) })
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := stampArrivals(conn); err != nil {
			t.Fatal(err)
		}
		until(t, "an answer", func() bool { _, err = m.ask(conn, track{}); return err == nil })
		if h := m.State().Header(); h.Mode != packet.ModeServer || h.Version != 4 {
			t.Errorf("%+v", h)
		}
	}
	here := func(f func()) { f() }
	for _, r := range []parts.Release{parts.Debian12, parts.Debian13} {
		t.Run(r.String(), func(t *testing.T) {
			t.Parallel()
			asks(t, chronytest.Start(t, chronytest.Options{Release: r}).Addr, here)
		})
		t.Run("NTPsec beside "+r.String(), func(t *testing.T) {
			t.Parallel()
			s := ntpsectest.Start(t, ntpsectest.Options{Release: r})
			asks(t, ntpsectest.Addr, s.Do)
		})
	}
	t.Run("ntpd-rs", func(t *testing.T) {
		t.Parallel()
		asks(t, ntpdrstest.Start(t, ntpdrstest.Options{}).Addr, here)
	})
	t.Run("OpenNTPD", func(t *testing.T) {
		t.Parallel()
		asks(t, startOpenNTPD(t).addr, here)
	})
}

func TestChronydsRateLimitIsNotHitInSilence(t *testing.T) {
	t.Parallel()
	chronyd := chronytest.Start(t, chronytest.Options{ExtraConf: []string{"ratelimit interval 3 burst 4"}})
	var log strings.Builder
	m := NewMirror(MirrorConfig{Daemon: chronyd.Addr, Log: hclog.New(&hclog.LoggerOptions{Output: &log})})
	g, err := New(Config{Ring: func() *cookie.Ring { return nil }, Mirror: m, Mode: RelayMode})
	if err != nil {
		t.Fatal(err)
	}
	conns, err := Listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer conns[0].Close()
	w, err := g.newWorker(conns[0], new(tally))
	if err != nil {
		t.Fatal(err)
	}
	defer w.relay.close()
	served, refused, asks, start := 0, 0, int64(0), time.Now().UnixNano()
	// Requests come once in a millisecond, however slow the machine.
	w.relay.clock = func() Instant { return Instant{start + asks*1e6, asks * 1e6} }
	until(t, "a limit that is hit", func() bool {
		asks++
		if _, outcome := w.relay.ask(); outcome == Served {
			served++
		} else {
			refused++
		}
		return refused > 500 && served > 0
	})
	_, dropped := chronyd.Dropped()
	if asked := w.tally.n[Asked].Load(); dropped == 0 || asked > uint64(asks/5) || !strings.Contains(log.String(), "exempt loopback") {
		t.Errorf("%d answers and %d silences, asked %d times, chronyd dropped %d:\n%s", served, refused, asked, dropped, &log)
	}
}
