package gateway

import (
	"bytes"
	"testing"
	"time"

	"ntsagent/ntske/aead"
	"ntsagent/ntske/cookie"
	"ntsagent/ntske/packet"
)

func TestTheTimeOfTheDaemonIsAnswered(t *testing.T) {
	d := newDesk(t)
	d.after(2 * time.Second)
	want := daemonHeader
	want.Poll, want.Origin = clientHeader().Poll, clientHeader().Transmit
	want.Receive, want.Transmit = timestamp(d.now.Wall-20e3), timestamp(d.now.Wall)
	want.RootDispersion = 70 + 3 // 15 ppm of 2 s and the 12 µs that the offset is not known better: 42 µs

	b, uid := d.request(t, 0)
	if h := d.served(t, b, uid, 1); h != want {
		t.Errorf("under NTS %+v, want %+v", h, want)
	}
	for version := range uint8(8) {
		q := clientHeader()
		q.Version = version
		if version != 3 && version != 4 {
			d.silent(t, q.AppendTo(nil), Refused+Outcome(packet.OtherVersion))
			continue
		}
		out, outcome := d.answer(q.AppendTo(nil))
		h, err := packet.ParseHeader(out)
		want.Version = version
		if outcome != ServedPlain || err != nil || h != want || len(out) != 48 {
			t.Errorf("plain %+v, %v, want %+v", h, outcome, want)
		}
	}
	d.a.plain = false
	d.silent(t, clientHeader().AppendTo(nil), SilentPlain)
	d.served(t, b, uid, 1)
}

func TestEveryAEADThatACookieCarriesIsServed(t *testing.T) {
	for _, id := range (cookie.Chrony{}).Carries() {
		t.Run(id.String(), func(t *testing.T) {
			d := newDeskFor(t, id)
			for placeholders := range 9 {
				b, uid := d.request(t, placeholders)
				d.served(t, b, uid, min(8, 1+placeholders))
				b[len(b)-1] ^= 1
				d.nak(t, b, uid, NAKRequest)
			}
			uid, c := random(32), d.cookie(t, d.ring.Current())
			if id != aead.GCMSIV128 {
				return
			}
			// A nonce of 12 octets is the longest it takes, and so enough; all others are not authentic.
			at := 48 + 36 + 4 + len(c) + 4
			b := packet.AppendNTSRequest(nil, clientHeader(), uid, c, 0, random(12), d.c2s.Seal)
			d.served(t, b, uid, 1)
			for n := range byte(29) {
				if b[at+1] = n; n == 12 {
					continue
				}
				if out, outcome := d.answer(b); outcome == Served || len(out) > len(b) {
					t.Errorf("nonce of %d: %v", n, outcome)
				}
			}
		})
	}
}

func TestWhatIsNotAnswered(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(*desk)
		want  Outcome
	}{
		{"nothing was ever heard of the daemon", func(d *desk) { d.state = nil }, SilentStale},
		{"the daemon is silent", func(d *desk) { d.after(StaleAfter + 1) }, SilentStale},
		{"the uncertainty is above the bound", func(d *desk) { d.state.line.spread = float64(MaxUncertainty) + 1 }, SilentUncertain},
		{"the uncertainty has grown above the bound", func(d *desk) { d.state.line.growth = 0.01; d.after(time.Second) }, SilentUncertain},
		{"the clock was set ahead", func(d *desk) { d.now.Wall += 1e9 }, SilentStep},
		{"the clock was set back", func(d *desk) { d.now.Wall -= 1e9 }, SilentStep},
		{"the clock was set by 2 ms", func(d *desk) { d.now.Wall += 2e6 }, SilentStep},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDesk(t)
			tt.spoil(d)
			b, uid := d.request(t, 0)
			d.silent(t, b, tt.want)
			d.silent(t, clientHeader().AppendTo(nil), tt.want)
			d.ring = newRing(t)
			d.nak(t, b, uid, NAKKey)
		})
	}
	d := newDesk(t)
	b, _ := d.request(t, 0)
	d.ring = nil // CVE-2023-4012: NTS where there is none yet
	d.silent(t, b, SilentKeys)
}

func TestADaemonThatIsNotSynchronisedIsToldAsSuch(t *testing.T) {
	for name, spoil := range map[string]func(*packet.Header){
		"leap 3":         func(h *packet.Header) { h.Leap = 3 },
		"stratum 0":      func(h *packet.Header) { h.Stratum, h.RefID = 0, [4]byte{'I', 'N', 'I', 'T'} },
		"stratum 16":     func(h *packet.Header) { h.Stratum = 16 },
		"stratum 255":    func(h *packet.Header) { h.Stratum = 255 },
		"all of a kiss ": func(h *packet.Header) { h.Leap, h.Stratum, h.RefID = 3, 0, [4]byte{'X', 'F', 'U', 'N'} },
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			spoil(&d.state.header)
			b, uid := d.request(t, 0)
			h := d.served(t, b, uid, 1) // authentic, and with a fresh cookie
			if h.Leap != 3 || h.Stratum != 0 || h.RefID != [4]byte{} || h.RootDispersion != 16<<16 || d.state.Condition(d.now) != Unsynchronised {
				t.Errorf("%+v", h)
			}
		})
	}
}

func TestALeapSecondBetweenReceiveAndTransmit(t *testing.T) {
	for _, tt := range []struct {
		name string
		step int64
		late Outcome // if the next poll came in between, too
	}{{"inserted: the clock shows 23:59:59 twice", -1e9, SilentStep}, {"deleted: the clock leaves 23:59:59 out", 1e9, SilentLate}} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDesk(t)
			d.state.header.Leap = 1
			b, uid := d.request(t, 7)
			readings := 0
			d.a.clock = func() Instant { // T3 and, because of the step, with care; what was seen before was before the leap
				if readings++; readings == 1 {
					d.now.Wall += tt.step
				}
				return d.now
			}
			d.silent(t, b, SilentStep)
			if readings != 3 {
				t.Fatalf("the clock was read %d times", readings)
			}
			d.silent(t, b, SilentStep) // and so until the daemon has told what it makes of it
			next := goodState(d.now)
			d.state = next
			if h := d.served(t, b, uid, 8); h.Leap != 0 { // no older than one poll
				t.Errorf("leap %d", h.Leap)
			}
			// Also if the poll came in between: the stamp is of the clock before.
			if out, outcome := d.a.answer(nil, arrival{datagram: b, t2: d.now.Wall - tt.step - 20e3, seen: d.now}, d.ring, d.state); outcome != tt.late || len(out) != 0 {
				t.Errorf("%v, %x", outcome, out)
			}
		})
	}
}

func TestAnInterruptedReadingOfTheClockIsNoStep(t *testing.T) {
	for interrupted := range readings { // in a row
		d := newDesk(t)
		b, uid := d.request(t, 0)
		n := 0
		d.a.clock = func() Instant {
			now := d.now
			if n++; n <= interrupted {
				d.after(5 * time.Millisecond)
				now.Mono = d.now.Mono
			}
			return now
		}
		h := d.served(t, b, uid, 1)
		if h.Transmit != timestamp(d.now.Wall) {
			t.Errorf("after %d interruptions the transmit timestamp is of another reading", interrupted)
		}
		if want := []int{1, 3}[min(interrupted, 1)]; n < want || n > readings+1 {
			t.Errorf("after %d interruptions: %d readings", interrupted, n)
		}
	}
	d := newDesk(t)
	n := 0
	last := steady(func() Instant { n++; d.now.Mono += int64(time.Second); return d.now })
	if n != readings || last != d.now {
		t.Errorf("interrupted for ever: %d readings", n)
	}
}

func TestTransmitIsReadLast(t *testing.T) {
	d := newDesk(t)
	b, uid := d.request(t, 7)
	start := d.now.Wall
	d.a.clock = func() Instant { d.after(time.Microsecond); return d.now }
	h := d.served(t, b, uid, 8)
	if h.Transmit != timestamp(d.now.Wall) || d.now.Wall == start {
		t.Error("the clock was read after the transmit timestamp")
	}
	out, _ := d.a.answer(nil, arrival{datagram: b, t2: start, seen: d.now, lead: 5000}, d.ring, d.state)
	if h, _, _ := packet.ParseNTSResponse(out, uid, d.s2c.Open); h.Transmit != timestamp(d.now.Wall+5000) {
		t.Error("the way to the wire is not added")
	}
}

func TestNothingIsAllocatedForADatagram(t *testing.T) {
	for _, id := range (cookie.Chrony{}).Carries() {
		t.Run(id.String(), func(t *testing.T) { allocatesNothing(t, newDeskFor(t, id)) })
	}
}

func allocatesNothing(t *testing.T, d *desk) {
	one, _ := d.request(t, 0)
	eight, _ := d.request(t, 7)
	forged := bytes.Clone(one)
	forged[len(forged)-1] ^= 1
	unknown := bytes.Clone(one)
	unknown[48+36+4] ^= 0x80
	for _, tt := range []struct {
		name string
		b    []byte
		want Outcome
	}{
		{"one cookie", one, Served}, {"eight cookies", eight, Served}, {"plain", clientHeader().AppendTo(nil), ServedPlain},
		{"forged", forged, NAKRequest}, {"unknown key", unknown, NAKKey}, {"cut short", one[:len(one)-1], Refused + Outcome(packet.BadField)},
		{"nothing", nil, Refused + Outcome(packet.TooShort)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dst := make([]byte, 0, maxDatagram)
			n := testing.AllocsPerRun(500, func() {
				if _, outcome := d.a.answer(dst, arrival{datagram: tt.b, t2: d.now.Wall, seen: d.now}, d.ring, d.state); outcome != tt.want {
					t.Errorf("outcome %v", outcome)
				}
			})
			if n != 0 {
				t.Errorf("%v allocations", n)
			}
		})
	}
}

func TestNoNonceIsHandedOutTwice(t *testing.T) {
	seen := map[[16]byte]bool{}
	for range 2 { // gateways: each has a seed of its own
		var s nonces
		for i := range 3*seedEvery + 1 {
			n := [16]byte(s.take(16))
			if seen[n] || len(s.take(12)) != 12 {
				t.Fatalf("nonce %d: %x once more", i, n)
			}
			seen[n] = true
		}
	}
}

func TestEveryOutcomeHasAName(t *testing.T) {
	seen := map[string]bool{}
	for o := range outcomes {
		if s := Outcome(o).String(); Outcome(o) != Refused && (s == "" || seen[s]) {
			t.Errorf("outcome %d is called %q", o, s)
		} else {
			seen[s] = true
		}
	}
}

func BenchmarkAnswer(b *testing.B) {
	d := newDesk(b)
	one, _ := d.request(b, 0)
	eight, _ := d.request(b, 7)
	unknown := bytes.Clone(one)
	unknown[48+36+4] ^= 0x80
	for name, in := range map[string][]byte{"one": one, "eight": eight, "unknown key": unknown} {
		b.Run(name, func(b *testing.B) {
			a := newAnswerer(true, systemClock())
			d.state = goodState(a.clock())
			dst := make([]byte, 0, maxDatagram)
			b.ReportAllocs()
			for b.Loop() {
				a.answer(dst, arrival{datagram: in, t2: time.Now().UnixNano(), seen: a.clock()}, d.ring, d.state)
			}
		})
	}
}
