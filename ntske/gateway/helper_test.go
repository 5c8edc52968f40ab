package gateway

import (
	"bytes"
	"crypto/rand"
	"errors"
	"testing"
	"time"

	"ntsagent/ntske/aead"
	"ntsagent/ntske/cookie"
	"ntsagent/ntske/packet"
)

// desk is a gateway without its sockets, and a client with a session.
type desk struct {
	ring    *cookie.Ring
	session cookie.Session
	c2s     *aead.Box
	s2c     *aead.Box
	now     Instant
	state   *State
	a       *answerer
}

var daemonHeader = packet.Header{
	Version: 4, Mode: packet.ModeServer, Stratum: 2, Precision: -24, RootDelay: 300, RootDispersion: 70,
	RefID: [4]byte{198, 51, 100, 4}, RefTime: timestamp(1_790_000_000e9),
}

func newDesk(t testing.TB) *desk { return newDeskFor(t, aead.SIVCMAC256) }

// newDeskFor is a desk whose client has negotiated another AEAD.
func newDeskFor(t testing.TB, id aead.ID) *desk {
	t.Helper()
	d := &desk{ring: newRing(t), now: Instant{1_790_000_100e9, 500e9}}
	d.session = cookie.Session{AEAD: id, C2S: random(id.KeyLen()), S2C: random(id.KeyLen())}
	d.c2s, d.s2c = box(t, d.session.AEAD, d.session.C2S), box(t, d.session.AEAD, d.session.S2C)
	d.state = goodState(d.now)
	d.a = newAnswerer(true, func() Instant { return d.now })
	return d
}

// goodState is what a daemon tells that serves the clock of the system as it is.
func goodState(at Instant) *State {
	return &State{header: daemonHeader, at: at, line: line{spread: 10e3, growth: 1e-6}}
}

func newRing(t testing.TB) *cookie.Ring {
	t.Helper()
	ring, err := cookie.Chrony{}.NewRing(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

func box(t testing.TB, id aead.ID, key []byte) *aead.Box {
	t.Helper()
	b, err := aead.New(id, key)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func (d *desk) cookie(t testing.TB, key *cookie.Key) []byte {
	t.Helper()
	c, err := cookie.Chrony{}.Seal(nil, key, random(16), &d.session)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// clientHeader is that of a request.
func clientHeader() packet.Header {
	return packet.Header{Version: 4, Mode: packet.ModeClient, Poll: 6, Transmit: 0x1122334455667788}
}

// request is an NTS request with a fresh cookie, and its unique identifier.
func (d *desk) request(t testing.TB, placeholders int) (b, uid []byte) {
	t.Helper()
	uid = random(32)
	c := d.cookie(t, d.ring.Current())
	return packet.AppendNTSRequest(nil, clientHeader(), uid, c, placeholders, random(d.session.AEAD.NonceLen()), d.c2s.Seal), uid
}

// answer asks the gateway 20 µs after the datagram came.
func (d *desk) answer(b []byte) ([]byte, Outcome) {
	return d.a.answer(nil, arrival{datagram: b, t2: d.now.Wall - 20e3, seen: d.now}, d.ring, d.state)
}

// seal makes a request of any fields before the authenticator and any plaintext in it.
func (d *desk) seal(h packet.Header, nonce, plaintext []byte, fields ...[]byte) []byte {
	b := append(h.AppendTo(nil), bytes.Join(fields, nil)...)
	sealed := d.c2s.Seal(nil, nonce, plaintext, b)
	body := []byte{byte(len(nonce) >> 8), byte(len(nonce)), byte(len(sealed) >> 8), byte(len(sealed))}
	body = append(append(body, nonce...), make([]byte, -len(nonce)&3)...)
	return packet.AppendField(b, packet.Authenticator, append(body, sealed...))
}

// served opens an NTS response as a client would and fails the test if it is not authentic or brings no cookie
// that this gateway opens again.
func (d *desk) served(t *testing.T, b, uid []byte, cookies int) packet.Header {
	t.Helper()
	out, outcome := d.answer(b)
	if outcome != Served {
		t.Fatalf("outcome: %v", outcome)
	}
	h, got, err := packet.ParseNTSResponse(out, uid, d.s2c.Open)
	if err != nil || len(got) != cookies || len(out) > len(b) {
		t.Fatalf("%d octets for %d with %d cookies, want %d: %v", len(out), len(b), len(got), cookies, err)
	}
	for _, c := range got {
		s, err := cookie.Chrony{}.Open(nil, d.ring, c)
		if err != nil || s.AEAD != d.session.AEAD || !bytes.Equal(s.C2S, d.session.C2S) || !bytes.Equal(s.S2C, d.session.S2C) {
			t.Fatalf("cookie: %v", err)
		}
	}
	return h
}

// nak fails the test if b does not get exactly an NTS NAK.
func (d *desk) nak(t *testing.T, b, uid []byte, want Outcome) {
	t.Helper()
	out, outcome := d.answer(b)
	h, _, err := packet.ParseNTSResponse(out, uid, d.s2c.Open)
	if outcome != want || !errors.Is(err, packet.ErrNAK) || len(out) > len(b) {
		t.Fatalf("outcome %v, want %v; %x: %v", outcome, want, out, err)
	}
	if h.Stratum != 0 || h.Leap != 3 || h.Origin != clientHeader().Transmit || h.Receive != 0 || h.Transmit != 0 {
		t.Errorf("header %+v", h)
	}
	for f := range packet.Fields(out) {
		if f.Type != packet.UniqueIdentifier {
			t.Errorf("field %04x in a NAK", f.Type)
		}
	}
}

// silent fails the test if b gets a response.
func (d *desk) silent(t *testing.T, b []byte, want Outcome) {
	t.Helper()
	if out, outcome := d.answer(b); outcome != want || len(out) != 0 || !outcome.Silent() {
		t.Errorf("outcome %v, want %v; %x", outcome, want, out)
	}
}

func (d *desk) after(dt time.Duration) { d.now.Wall += int64(dt); d.now.Mono += int64(dt) }
