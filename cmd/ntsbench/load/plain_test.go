package load

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ntsagent/ntske/packet"
)

// redirect passes TCP connections on to addr until closed is, and then refuses them and tells how many it has refused.
func redirect(t *testing.T, addr netip.AddrPort, closed <-chan struct{}, tell func(refused int)) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for refused := 0; ; {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			select {
			case <-closed:
				in.Close()
				refused++
				tell(refused)
				continue
			default:
			}
			out, err := net.Dial("tcp4", addr.String())
			if err != nil {
				t.Error(err)
				return
			}
			go func() { io.Copy(out, in); out.Close() }()
			go func() { io.Copy(in, out); in.Close() }()
		}
	}()
	t.Cleanup(func() { ln.Close(); <-done })
	return ln.Addr().(*net.TCPAddr).AddrPort()
}

func TestAWrongPlainReplyIsNeverDone(t *testing.T) {
	t.Parallel()
	var going sync.WaitGroup
	for name, c := range map[string]struct {
		twist  func(*answer)
		reason error
	}{
		"another origin timestamp": {func(a *answer) { a.header.Origin ^= 1 << 40 }, errStray},
		"a kiss":                   {func(a *answer) { a.header.Stratum, a.header.RefID = 0, [4]byte([]byte("RATE")) }, errHeader},
		"not synchronised":         {func(a *answer) { a.header.Leap = 3 }, errHeader},
		"mode of a client":         {func(a *answer) { a.header.Mode = packet.ModeClient }, errHeader},
		"another version":          {func(a *answer) { a.header.Version = 3 }, errHeader},
		"longer than the request":  {func(a *answer) { a.trailing = make([]byte, 20) }, errLonger},
	} {
		f := startFake(t, func(a *answer) [][]byte { c.twist(a); return good(a) })
		going.Go(func() {
			r, err := Plain(t.Context(), PlainConfig{NTP: f.ntp, Sockets: 2, Window: 3, For: short, LostAfter: lostAfter(c.reason)})
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if r.Done != 0 || r.Failed < f.asked() || !errors.Is(r.FirstErr, c.reason) {
				t.Errorf("%s: %d done, %d of %d failed (%v), want %v", name, r.Done, r.Failed, f.asked(), r.FirstErr, c.reason)
			}
		})
	}
	going.Wait()
}

func TestAWrongEchoIsNeverDone(t *testing.T) {
	t.Parallel()
	var going sync.WaitGroup
	for name, c := range map[string]struct {
		twist  func([]byte) []byte
		reason error
	}{
		"the last octet changed": {func(b []byte) []byte { b[len(b)-1] ^= 1; return b }, errEcho},
		"an octet less":          {func(b []byte) []byte { return b[:len(b)-1] }, errEcho},
		"an octet more":          {func(b []byte) []byte { return append(b, 0) }, errLonger},
		"another token":          {func(b []byte) []byte { b[0] ^= 1; return b }, errStray},
		"too short to tell":      {func(b []byte) []byte { return b[:7] }, errStray},
	} {
		addr := respond(t, func(b []byte) [][]byte { return [][]byte{c.twist(b)} })
		going.Go(func() {
			r, err := Echo(t.Context(), PlainConfig{NTP: addr, Sockets: 2, Window: 3, Octets: 100, For: short, LostAfter: lostAfter(c.reason)})
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if r.Done != 0 || r.Failed == 0 || !errors.Is(r.FirstErr, c.reason) {
				t.Errorf("%s: %d done, %d failed (%v), want %v", name, r.Done, r.Failed, r.FirstErr, c.reason)
			}
		})
	}
	going.Wait()
}

// A request that waits for its turn because the server stood still is as late as if it had been sent.
func TestLatencyOfAnOpenLoopCountsFromTheIntendedMoment(t *testing.T) {
	t.Parallel()
	const stall, rate, span = 300 * time.Millisecond, 200, 400 * time.Millisecond
	stalls := func() netip.AddrPort {
		queries := 0
		return respond(t, func(b []byte) [][]byte {
			if queries++; queries == 1 {
				<-time.After(stall)
			}
			return [][]byte{b}
		})
	}
	c := PlainConfig{NTP: stalls(), Sockets: 1, Window: 1, For: span, LostAfter: patience}
	closed, err := Echo(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	// One after another: however slow the machine is, their latencies have room in the time it took.
	if sum := total(&closed); closed.Failed != 0 || closed.Latency.Quantile(1) < stall || sum > closed.Took {
		t.Errorf("closed loop: slowest %v, all %v in %v, %d failed", closed.Latency.Quantile(1), sum, closed.Took, closed.Failed)
	}
	c.NTP, c.Rate = stalls(), rate
	open, err := Echo(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	// One is due every 5 ms, so 50 of 80 are due more than 50 ms before the stall is over.
	if slow := slower(&open, 50*time.Millisecond); open.Failed != 0 || open.Done != 80 || slow < 48 {
		t.Errorf("open loop: %d of %d slow, %d failed (%v), want at least 48 of 80", slow, open.Done, open.Failed, open.FirstErr)
	}
}

// total is the sum of all latencies.
func total(r *Result) (sum time.Duration) {
	for _, d := range r.Latency.durations {
		sum += d
	}
	return sum
}

// slower returns how many operations took longer than most.
func slower(r *Result, most time.Duration) int {
	n := 0
	for _, d := range r.Latency.durations {
		if d > most {
			n++
		}
	}
	return n
}

func TestAServerThatIsAwayIsNotAskedFaster(t *testing.T) {
	t.Parallel()
	c := PlainConfig{NTP: refusing(t, unix.SOCK_DGRAM), Sockets: 1, Window: 2, For: 200 * time.Millisecond, LostAfter: 50 * time.Millisecond}
	r, err := Plain(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if r.Done != 0 || r.Failed < 2 || r.Failed > 2*int(r.Took/c.LostAfter) {
		t.Errorf("%d done, %d failed (%v) in %v, want 2 each 50 ms", r.Done, r.Failed, r.FirstErr, r.Took)
	}
}

func TestWhatWasDueAndNeverSentHasFailed(t *testing.T) {
	t.Parallel()
	addr := respond(t, func([]byte) [][]byte { return nil })
	c := PlainConfig{NTP: addr, Sockets: 1, Window: 1, Rate: 1000, For: 100 * time.Millisecond, LostAfter: 50 * time.Millisecond}
	r, err := Plain(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if r.Done != 0 || r.Failed != 100 || r.Lost != 100 {
		t.Errorf("%d done, %d failed (%v), want all 100 that were due", r.Done, r.Failed, r.FirstErr)
	}
}

func TestAShorterEchoMustBeExactlySoShort(t *testing.T) {
	t.Parallel()
	for octets, want := range map[int]error{84: nil, 83: errEcho, 85: errEcho, 228: errEcho} {
		addr := respond(t, func(b []byte) [][]byte { return [][]byte{b[:octets]} })
		r, err := Echo(t.Context(), PlainConfig{NTP: addr, Sockets: 1, Window: 3, Octets: 228, Reply: 84, For: short, LostAfter: patience})
		if err != nil {
			t.Fatal(err)
		}
		if (r.Done > 0) != (want == nil) || !errors.Is(r.FirstErr, want) {
			t.Errorf("%d octets come back: %d done, %d failed (%v), want %v", octets, r.Done, r.Failed, r.FirstErr, want)
		}
	}
}

func TestLengthsThatCannotBeAreRefused(t *testing.T) {
	t.Parallel()
	c := PlainConfig{NTP: netip.MustParseAddrPort("127.0.0.1:9"), Sockets: 1, Window: 1, For: short}
	for _, octets := range []int{-1, 7, 65508} {
		c.Octets = octets
		if _, err := Echo(t.Context(), c); err == nil {
			t.Errorf("no error for an echo of %d octets", octets)
		}
	}
	c.Octets = 100
	for _, reply := range []int{-1, 7, 101} {
		c.Reply = reply
		if _, err := Echo(t.Context(), c); err == nil {
			t.Errorf("no error for a reply of %d octets to an echo of 100", reply)
		}
	}
	c.Octets = 48
	if _, err := Plain(t.Context(), c); err == nil {
		t.Error("no error for a plain query with a length of its reply")
	}
	c.Octets, c.Reply = 49, 0
	if _, err := Plain(t.Context(), c); err == nil {
		t.Error("no error for a plain query of 49 octets")
	}
}

func TestADatagramArrivesBeforeItIsRead(t *testing.T) {
	t.Parallel()
	s, err := dial(respond(t, func(b []byte) [][]byte { return [][]byte{b, b} }))
	if err != nil {
		t.Fatal(err)
	}
	defer s.conn.Close()
	s.conn.SetDeadline(time.Now().Add(patience))
	b := make([]byte, 100)
	// The kernel begins to stamp some time after it was asked to, so it is asked until it does.
	for early := false; !early; {
		sent := time.Now()
		if _, err := s.conn.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		for _, wait := range []time.Duration{0, 20 * time.Millisecond} { // the second datagram waits for its reader
			<-time.After(wait)
			before := time.Now()
			n, arrived, err := readWaiting(s, b)
			if err != nil || string(b[:n]) != "hello" {
				t.Fatalf("%q: %v", b[:n], err)
			}
			if arrived.Before(sent) || arrived.After(time.Now()) {
				t.Fatalf("sent at 0, arrived at %v, read at %v", arrived.Sub(sent), time.Since(sent))
			}
			early = wait > 0 && arrived.Before(before)
		}
	}
}

// readWaiting waits for a datagram and reads it.
func readWaiting(s *socket, b []byte) (n int, arrived time.Time, err error) {
	failed := s.raw.Read(func(fd uintptr) bool {
		n, arrived, err = s.read(fd, b)
		return err != syscall.EAGAIN
	})
	return n, arrived, errors.Join(failed, err)
}
