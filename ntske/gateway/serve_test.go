package gateway

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ntsagent/agent/daemon/daemontest"
	"ntsagent/ntske/client"
	"ntsagent/ntske/cookie"
	"ntsagent/ntske/packet"
)

// site is a gateway that runs in front of a daemon.
type site struct {
	*desk
	daemon *daemon
	mirror *Mirror
	g      *Gateway
	addr   netip.AddrPort
	key    atomic.Pointer[cookie.Ring]
}

func newSite(t testing.TB, listen string, sockets int, change func(*Config)) *site {
	t.Helper()
	d := startDaemon(t)
	s := siteBefore(t, startMirror(t, d.addr, 20*time.Millisecond), listen, sockets, change)
	s.daemon = d
	return s
}

// siteBefore is a gateway in front of a daemon that is mirrored.
func siteBefore(t testing.TB, m *Mirror, listen string, sockets int, change func(*Config)) *site {
	t.Helper()
	s := &site{desk: newDesk(t), mirror: m}
	s.key.Store(s.ring)
	conf := Config{Ring: s.key.Load, Mirror: s.mirror, Plain: true}
	if change != nil {
		change(&conf)
	}
	g, err := New(conf)
	if err != nil {
		t.Fatal(err)
	}
	s.g = g
	var conns []*net.UDPConn
	if listen == "both" { // as systemd hands a socket over
		c, err := net.ListenUDP("udp", nil)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	} else if conns, err = Listen(t.Context(), netip.MustParseAddrPort(listen), sockets); err != nil {
		t.Fatal(err)
	}
	s.addr = conns[0].LocalAddr().(*net.UDPAddr).AddrPort()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Serve(ctx, conns...) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		for _, c := range conns {
			c.Close()
		}
	})
	until(t, "the daemon's time", func() bool { c := s.mirror.Condition(); return c == Good || c == RelayWanted })
	return s
}

func (s *site) keys() client.Keys {
	return client.Keys{AEAD: s.session.AEAD, C2S: s.session.C2S, S2C: s.session.S2C}
}

// query asks with the agent's own client until there is an answer, for a minute: a gateway that was held up too long
// does not answer, nor one whose daemon was.
func (s *site) query(t testing.TB, addr netip.AddrPort, c []byte, placeholders int) (client.Reply, error) {
	t.Helper()
	return patiently(t, func(ctx context.Context) (client.Reply, error) {
		return client.Query(ctx, addr, s.keys(), c, placeholders)
	})
}

// plain is query without NTS.
func (s *site) plain(t testing.TB, addr netip.AddrPort) (client.Reply, error) {
	t.Helper()
	return patiently(t, func(ctx context.Context) (client.Reply, error) { return client.Plain(ctx, addr) })
}

func patiently(t testing.TB, ask func(context.Context) (client.Reply, error)) (client.Reply, error) {
	for deadline := time.Now().Add(time.Minute); ; {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		reply, err := ask(ctx)
		cancel()
		if !errors.Is(err, client.ErrSilent) || time.Now().After(deadline) {
			return reply, err
		}
	}
}

// near reports whether the clock that answered is ahead by this much, as far as the client can know: an interruption
// of itself is to it a part of the network.
func near(r client.Reply, ahead time.Duration) bool {
	return (r.Offset - ahead).Abs() <= 20*time.Millisecond+r.Delay.Abs()/2
}

func TestClientsAreServed(t *testing.T) {
	for _, tt := range []struct{ name, listen, ask string }{
		{"IPv4", "127.0.0.1:0", "127.0.0.1"}, {"IPv6", "[::1]:0", "::1"},
		{"any IPv4 address, answered from the one asked", "0.0.0.0:0", "127.0.0.2"},
		{"any IPv6 address", "[::]:0", "::1"},
		{"one socket for both families, asked by IPv4", "both", "127.0.0.3"}, {"and by IPv6", "both", "::1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t, tt.listen, 2, nil)
			addr := netip.AddrPortFrom(netip.MustParseAddr(tt.ask), s.addr.Port())
			cookies := [][]byte{s.cookie(t, s.ring.Current())}
			for i := range 20 { // each with a cookie of the one before
				reply, err := s.query(t, addr, cookies[0], i%8)
				if err != nil || len(reply.Cookies) != 1+i%8 {
					t.Fatalf("query %d: %d cookies, %v", i, len(reply.Cookies), err)
				}
				h := reply.Header
				if h.Stratum != 2 || h.RefID != daemonHeader.RefID || h.RootDispersion <= daemonHeader.RootDispersion || !near(reply, 0) {
					t.Errorf("offset %v, header %+v", reply.Offset, h)
				}
				cookies = reply.Cookies
			}
			reply, err := s.plain(t, addr)
			if err != nil || reply.Header.Stratum != 2 {
				t.Errorf("plain: %+v, %v", reply.Header, err)
			}
			s.key.Store(newRing(t))
			if _, err := s.query(t, addr, cookies[0], 0); !errors.Is(err, client.ErrNAK) {
				t.Errorf("with new keys: %v", err)
			}
			if n := s.g.Counts(); n[Served] < 20 || n[ServedPlain] == 0 || n[NAKKey] == 0 {
				t.Errorf("counted %v", n)
			}
		})
	}
}

func TestTheTimeServedIsTheDaemonsAndNotTheClocks(t *testing.T) {
	s := newSite(t, "127.0.0.1:0", 1, nil)
	const shift = 3 * time.Second // what chronyd -x would have added
	s.daemon.set(func(h *packet.Header, _ func([]byte)) bool {
		h.Receive += packet.Timestamp(3 << 32)
		h.Transmit += packet.Timestamp(3 << 32)
		return true
	})
	until(t, "the offset", func() bool {
		d, u := s.mirror.State().Offset(s.mirror.clock())
		return (d-shift).Abs() < time.Millisecond && u < time.Millisecond
	})
	reply, err := s.query(t, s.addr, s.cookie(t, s.ring.Current()), 0)
	if err != nil || !near(reply, shift) {
		t.Errorf("offset %v, %v", reply.Offset, err)
	}
}

func TestServeEndsAndTheSocketsCanBeUsedAgain(t *testing.T) {
	s := newSite(t, "127.0.0.1:0", 1, nil)
	conns, err := Listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"), 3)
	if err != nil {
		t.Fatal(err)
	}
	addr := conns[0].LocalAddr().(*net.UDPAddr).AddrPort()
	for range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.g.Serve(ctx, conns...) }()
		for range 5 {
			if _, err := s.query(t, addr, s.cookie(t, s.ring.Current()), 0); err != nil {
				t.Error(err)
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	for _, c := range conns[1:] {
		c.Close()
	}
	done := make(chan error, 1)
	go func() { done <- s.g.Serve(t.Context(), conns[0]) }()
	if _, err := s.query(t, addr, s.cookie(t, s.ring.Current()), 0); err != nil {
		t.Error(err)
	}
	conns[0].Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("a socket that is closed: %v", err)
	}
}

func TestNobodyElseHasASocketAtTheAddress(t *testing.T) {
	var taken, beside, alone, besideUs error
	daemontest.NewNetwork(t).Do(func() { // where nobody takes the port that is given back
		var other net.PacketConn
		if other, taken = (&net.ListenConfig{Control: reusePort}).ListenPacket(t.Context(), "udp4", "127.0.0.1:0"); taken != nil {
			return
		}
		addr := other.LocalAddr().(*net.UDPAddr).AddrPort()
		_, beside = Listen(t.Context(), addr, 2)
		other.Close()
		var conns []*net.UDPConn
		conns, alone = Listen(t.Context(), addr, 2)
		_, besideUs = Listen(t.Context(), addr, 1)
		for _, c := range conns {
			c.Close()
		}
	})
	if taken != nil || alone != nil {
		t.Fatal(taken, alone)
	}
	if !errors.Is(beside, syscall.EADDRINUSE) {
		t.Errorf("beside another server: %v", beside)
	}
	if !errors.Is(besideUs, syscall.EADDRINUSE) {
		t.Errorf("beside ourselves: %v", besideUs)
	}
}

func TestAStepBetweenArrivalAndBatchIsSeenByEveryMode(t *testing.T) {
	s := newSite(t, "127.0.0.1:0", 1, relayed)
	conns, err := Listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer conns[0].Close()
	w, err := s.g.newWorker(conns[0], new(tally))
	if err != nil {
		t.Fatal(err)
	}
	defer w.relay.close()
	shift, clock := int64(0), w.clock
	w.clock = func() Instant { i := clock(); i.Wall += shift; return i }
	w.answer.clock = w.clock
	w.answer.relay = func(*State) (*State, Outcome) { return goodState(w.clock()), Served } // the daemon knows of it
	c, err := net.Dial("udp", conns[0].LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	n := func(o Outcome) uint64 { return w.tally.n[o].Load() }
	ask := func() {
		t.Helper()
		if _, err := c.Write(clientHeader().AppendTo(nil)); err != nil {
			t.Fatal(err)
		}
		w.raw.Control(func(fd uintptr) { w.turns(fd) })
	}
	until(t, "an answer", func() bool { ask(); return n(ServedPlain) > 0 })
	before, stepped := n(ServedPlain), w.clock().Mono
	shift = int64(100 * time.Millisecond) // less than a request may wait
	until(t, "silence", func() bool { ask(); return n(SilentStep) > 0 || n(ServedPlain) > before })
	if n(ServedPlain) != before {
		t.Error("a stamp of the clock before was served")
	}
	until(t, "an answer when all such stamps are too old", func() bool { ask(); return n(ServedPlain) > before })
	if silent := w.clock().Mono - stepped; silent < maxDwell {
		t.Errorf("silent for %v", time.Duration(silent))
	}
}

func TestABatchAllocatesNothing(t *testing.T) {
	for name, change := range map[string]func(*Config){"from the mirror": nil, "by relay": relayed} {
		t.Run(name, func(t *testing.T) { batchAllocatesNothing(t, change) })
	}
}

func batchAllocatesNothing(t *testing.T, change func(*Config)) {
	d := newDesk(t)
	// Nobody runs this mirror, for its polls would be counted too.
	conf := Config{Ring: func() *cookie.Ring { return d.ring }, Mirror: NewMirror(MirrorConfig{Daemon: netip.MustParseAddrPort("127.0.0.1:9")}), Plain: true}
	start := time.Now().UnixNano()
	conf.Mirror.clock = func() Instant { // of one reading: neither an interruption nor the machine steps it
		wall := time.Now().UnixNano()
		return Instant{wall, wall - start}
	}
	state := goodState(Instant{})
	conf.Mirror.state.Store(state)
	if change != nil {
		change(&conf)
	}
	g, err := New(conf)
	if err != nil {
		t.Fatal(err)
	}
	conns, err := Listen(t.Context(), netip.MustParseAddrPort("0.0.0.0:0"), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer conns[0].Close()
	w, err := g.newWorker(conns[0], new(tally))
	if err != nil {
		t.Fatal(err)
	}
	defer w.relay.close()
	answers := w.answersAhead(t)
	c, err := net.DialUDP("udp", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: conns[0].LocalAddr().(*net.UDPAddr).Port})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(60 * time.Second))
	nts, _ := d.request(t, 7)
	plain, in := clientHeader().AppendTo(nil), make([]byte, maxDatagram)
	n := func(o Outcome) uint64 { return w.tally.n[o].Load() }
	// A machine that is too busy makes the gateway silent for a batch.
	busy := func() uint64 { return n(SilentLate) + n(SilentStep) + n(SilentStale) + n(SilentUncertain) }
	sent, received, deadline := uint64(0), uint64(0), time.Now().Add(60*time.Second)
	err = w.raw.Control(func(fd uintptr) {
		allocations := testing.AllocsPerRun(200, func() {
			state.at = w.clock()
			w.relay.notBefore, w.relay.pause = 0, 0 // whatever came of the last batch
			answers()
			for range 3 {
				c.Write(nts)
				c.Write(plain)
			}
			for sent += 6; n(Served)+n(ServedPlain)+busy() < sent && time.Now().Before(deadline); {
				w.turns(fd)
			}
			w.turns(fd) // it sees the end
			for ; received < n(Served)+n(ServedPlain); received++ {
				if _, err := c.Read(in); err != nil {
					t.Fatal(err)
				}
			}
		})
		if allocations != 0 {
			t.Errorf("%v allocations", allocations)
		}
	})
	asked := uint64(0)
	if w.mode == RelayMode {
		asked = 2 * 201 // for a batch of 2 and one of 4
	}
	if err != nil || received+busy() != 6*201 || received < busy() || n(Unsent) != 0 || n(Asked) != asked && busy() == 0 {
		t.Errorf("received %d and lost %d, asked %d times, %v", received, busy(), n(Asked), err)
	}
	if w.pace.send <= 0 || w.pace.answer <= 0 || w.depth != shallow {
		t.Errorf("pace %+v, depth %d", w.pace, w.depth)
	}
}

// answersAhead returns a func that sends the relay of w the answers to its next two questions, so that no daemon of
// this process spoils the count of allocations.
func (w *worker) answersAhead(t *testing.T) func() {
	t.Helper()
	daemon, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { daemon.Close() })
	at := daemon.LocalAddr().(*net.UDPAddr).AddrPort()
	if err := control(w.relay.conn, "ask another", func(fd int) error {
		return unix.Connect(fd, &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()})
	}); err != nil {
		t.Fatal(err)
	}
	to := netip.AddrPortFrom(at.Addr(), uint16(w.relay.conn.LocalAddr().(*net.UDPAddr).Port))
	b := make([]byte, 0, packet.HeaderLen)
	w.relay.nonces.take(8) // seeds them
	var foreseen nonces
	return func() {
		foreseen = w.relay.nonces
		h := daemonHeader
		h.Receive = packet.FromTime(time.Now())
		h.Transmit = h.Receive
		for range 2 {
			h.Origin = packet.Timestamp(binary.BigEndian.Uint64(foreseen.take(8)))
			daemon.WriteToUDPAddrPort(h.AppendTo(b), to)
		}
	}
}

func TestTheWayToTheWireIsLearnt(t *testing.T) {
	var p pace
	for range 500 {
		p.learn(4, 2, 0, 8000, 8000+6000) // 2 µs an answer, 3 µs to send one
	}
	p.learn(1, 1, 0, 90000, 190000) // alone
	p.learn(4, 2, 0, 8000, 5e9)     // interrupted
	p.learn(4, 2, 9, 8, 7)
	for _, c := range []struct {
		name         string
		left, before int
		want         int64
	}{
		{"one alone", 1, 0, 0}, {"the first of three", 3, 0, 4000}, {"the last of three", 1, 2, 6000},
	} {
		if got := p.lead(c.left, c.before); got != c.want {
			t.Errorf("%s: %d ns, want %d", c.name, got, c.want)
		}
	}
	var busy pace
	for i := range int64(1000) { // 2 and 3 µs, give or take, and 100 µs more in one batch of five
		jitter, late := i%7*200-600, int64(0)
		if i%5 == 0 {
			late = 100e3
		}
		busy.learn(4, 2, 0, 8000+jitter+late, 8000+6000+2*jitter+2*late)
	}
	if got := busy.lead(3, 1); got < 6000 || got > 8500 {
		t.Errorf("on a busy machine: %d ns, want 7000", got)
	}
	if (&pace{}).lead(3, 1) != 0 {
		t.Error("a lead before anything was learnt")
	}
}

func TestBatchesAreAsDeepAsTheBacklog(t *testing.T) {
	for _, c := range []struct{ depth, got, want int }{{2, 2, 4}, {3, 3, 6}, {deepest, deepest, deepest}, {8, 3, 3}, {4, 0, 2}, {2, 1, 2}} {
		if got := nextDepth(c.depth, c.got); got != c.want {
			t.Errorf("%d of %d: %d, want %d", c.got, c.depth, got, c.want)
		}
	}
}

func TestReceiveIsTheStampOfTheKernel(t *testing.T) {
	s := newSite(t, "127.0.0.1:0", 1, nil)
	conns, err := Listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer conns[0].Close()
	w, err := s.g.newWorker(conns[0], new(tally))
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("udp", conns[0].LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	in := make([]byte, maxDatagram)
	until(t, "a response within the time a request may wait", func() bool { // which a busy machine may overrun
		if _, err := c.Write(clientHeader().AppendTo(nil)); err != nil {
			t.Fatal(err)
		}
		const wait = 20 * time.Millisecond
		<-time.After(wait)
		w.raw.Control(func(fd uintptr) { w.turns(fd) })
		if w.tally.n[ServedPlain].Load() == 0 {
			return false
		}
		n, err := c.Read(in)
		h, bad := packet.ParseHeader(in[:n])
		if err != nil || bad != nil {
			t.Fatal(err, bad)
		}
		if stay := h.Transmit.Sub(h.Receive); stay < wait-time.Millisecond {
			t.Errorf("it waited %v and is said to have waited %v", wait, stay)
		}
		return true
	})
}
