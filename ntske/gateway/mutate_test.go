package gateway

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"ntsagent/ntske/packet"
)

// check is what holds for every datagram whatever: no response that is longer, none to another mode than 3,
// and one that is no request itself.
func (d *desk) check(t *testing.T, b []byte) Outcome {
	before := bytes.Clone(b)
	out, outcome := d.answer(b)
	switch {
	case !bytes.Equal(b, before):
		t.Fatalf("the datagram %x was changed", before)
	case outcome.Silent():
		if len(out) != 0 {
			t.Fatalf("%v but %x", outcome, out)
		}
		return outcome
	case len(out) > len(b):
		t.Fatalf("%d octets answered with %d (%v): %x", len(b), len(out), outcome, b)
	case b[0]&7 != packet.ModeClient:
		t.Fatalf("mode %d answered: %x", b[0]&7, b)
	case len(out) < 48 || out[0]&7 != packet.ModeServer || out[0]&0x38 != b[0]&0x38 || !bytes.Equal(out[24:32], b[40:48]):
		t.Fatalf("answered %x with %x", b, out)
	}
	return outcome
}

// mutator makes hostile datagrams from good ones.
type mutator struct {
	*rand.Rand
	d     *desk
	seeds [][]byte // NTS requests, then plain ones
	nts   int
}

func newMutator(t testing.TB, d *desk, seed uint64) *mutator {
	m := &mutator{Rand: rand.New(rand.NewPCG(seed, 4)), d: d}
	for _, n := range []int{0, 1, 7, 12} {
		b, _ := d.request(t, n)
		m.seeds = append(m.seeds, b)
	}
	c := d.cookie(t, d.ring.Current())
	m.seeds = append(m.seeds, d.seal(clientHeader(), random(16), field(packet.CookiePlaceholder, c), field(packet.UniqueIdentifier, random(64)),
		field(packet.NTSCookie, c), field(0x2005, random(40))))
	m.nts = len(m.seeds)
	m.seeds = append(m.seeds, clientHeader().AppendTo(nil), packet.AppendField(clientHeader().AppendTo(nil), packet.UniqueIdentifier, random(32)),
		append(clientHeader().AppendTo(nil), random(20)...))
	return m
}

var fieldTypes = []packet.FieldType{packet.UniqueIdentifier, packet.NTSCookie, packet.CookiePlaceholder, packet.Authenticator, 0x2005, 0}

// datagram returns a mutated request. Half of those of NTS are sealed again after the change, so that it is
// not the seal that stops them.
func (m *mutator) datagram() []byte {
	b := bytes.Clone(m.seeds[m.IntN(len(m.seeds))])
	if m.IntN(2) == 0 {
		return m.damage(b, 1+m.IntN(4))
	}
	b = m.seeds[m.IntN(m.nts)]
	fields := [][]byte{}
	for f := range packet.Fields(b) {
		if f.Type == packet.Authenticator {
			break
		}
		fields = append(fields, bytes.Clone(b[f.Offset:f.Offset+4+len(f.Body)]))
	}
	header := bytes.Clone(b[:48])
	for range 1 + m.IntN(3) {
		i, j := m.IntN(len(fields)), m.IntN(len(fields))
		switch m.IntN(8) {
		case 0:
			fields = append(fields[:i:i], fields[i+1:]...)
			if len(fields) == 0 {
				fields = [][]byte{field(0x2005, nil)}
			}
		case 1:
			fields = append(fields, fields[i])
		case 2:
			fields[i], fields[j] = fields[j], fields[i]
		case 3:
			fields[i] = field(fieldTypes[m.IntN(len(fieldTypes))], make([]byte, m.IntN(160)))
		case 4:
			fields[i] = m.damage(bytes.Clone(fields[i]), 1)
		case 5:
			header = m.damage(header, 1)
		case 6:
			copy(fields[i], binary.BigEndian.AppendUint16(nil, uint16(fieldTypes[m.IntN(len(fieldTypes))])))
		case 7: // nothing: only plaintext and nonce differ
		}
	}
	return m.sealAgain(header, fields)
}

// sealAgain seals a header and fields with a nonce and a plaintext of any kind.
func (m *mutator) sealAgain(header []byte, fields [][]byte) []byte {
	var plaintext []byte
	for range m.IntN(4) {
		plaintext = append(plaintext, field(fieldTypes[m.IntN(len(fieldTypes))], make([]byte, m.IntN(120)))...)
	}
	if len(plaintext) > 0 && m.IntN(2) == 0 {
		plaintext = m.damage(plaintext, 2)
	}
	b := append(bytes.Clone(header), bytes.Join(fields, nil)...)
	nonce := make([]byte, m.IntN(33))
	sealed := m.d.c2s.Seal(nil, nonce, plaintext, b)
	body := binary.BigEndian.AppendUint16(nil, uint16(len(nonce)))
	body = binary.BigEndian.AppendUint16(body, uint16(len(sealed)))
	body = append(append(body, nonce...), make([]byte, -len(nonce)&3)...)
	body = append(append(body, sealed...), make([]byte, 4*m.IntN(5))...)
	if m.IntN(8) == 0 {
		body = m.damage(body, 1)
	}
	b = packet.AppendField(b, packet.Authenticator, body)
	if m.IntN(4) == 0 {
		b = append(b, make([]byte, m.IntN(40))...)
	}
	return b
}

// damage changes, cuts, doubles or inserts octets of b.
func (m *mutator) damage(b []byte, times int) []byte {
	for range times {
		if len(b) == 0 {
			return b
		}
		at := m.IntN(len(b))
		switch m.IntN(6) {
		case 0:
			b[at] ^= 1 << m.IntN(8)
		case 1:
			b[at] = byte(m.Uint32())
		case 2:
			b = b[:at]
		case 3:
			b = append(b, b[at:]...)
			b = b[:min(len(b), maxDatagram)]
		case 4:
			copy(b[at:], []byte{0xff, 0xff, 0, 0}[m.IntN(3):])
		case 5:
			b = append(b[:at:at], b[min(len(b), at+4*m.IntN(8)):]...)
		}
	}
	return b
}

// TestAMillionMutatedDatagrams: no crash, no response longer than its request, no response to a mode other than 3.
func TestAMillionMutatedDatagrams(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	m := newMutator(t, d, 1)
	rounds := 1_000_000
	if raceDetector {
		rounds /= 10
	}
	seen := map[Outcome]int{}
	for range rounds {
		seen[d.check(t, m.datagram())]++
	}
	for _, want := range []Outcome{Served, ServedPlain, NAKKey, NAKCookie, NAKRequest} {
		if seen[want] == 0 {
			t.Errorf("no datagram was %v", want)
		}
	}
	for r := packet.TooShort; r <= packet.BadEncrypted; r++ {
		if seen[Refused+Outcome(r)] == 0 && r != packet.NotAuthentic { // that is NAKRequest
			t.Errorf("no datagram was refused as: %v", r)
		}
	}
	t.Logf("%v", seen)
}

func FuzzAnswer(f *testing.F) {
	d := newDesk(f)
	m := newMutator(f, d, 2)
	for _, b := range m.seeds {
		f.Add(b, false)
		f.Add(b[:max(48, len(b)-40)], true)
	}
	f.Fuzz(func(t *testing.T, b []byte, seal bool) {
		if len(b) > maxDatagram {
			return
		}
		if seal { // what was made up reaches behind the seal
			b = append(bytes.Clone(b), d.seal(packet.Header{}, make([]byte, 16), nil)[48:]...)
			at := len(b) - 16
			copy(b[at:], d.c2s.Seal(nil, make([]byte, 16), nil, b[:at-24]))
		}
		d.check(t, b)
	})
}
