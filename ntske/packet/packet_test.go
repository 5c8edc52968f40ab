package packet

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"os"
	"strings"
	"testing"
	"time"
)

// golden reads the packets a real chronyd took and sent, and the keys, by name.
func golden(t testing.TB) map[string][]byte {
	t.Helper()
	text, err := os.ReadFile("testdata/exchanges.txt")
	if err != nil {
		t.Fatal(err)
	}
	m := map[string][]byte{}
	for line := range strings.Lines(string(text)) {
		name, octets, _ := strings.Cut(strings.TrimSpace(line), " ")
		if m[name], err = hex.DecodeString(octets); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func TestTheHeaderOfARealChronyd(t *testing.T) {
	g := golden(t)
	h, err := ParseHeader(g["one-response"])
	want := Header{
		Version: 4, Mode: ModeServer, Stratum: 1, Precision: -26, RefID: [4]byte{0x7f, 0x7f, 1, 1},
		RefTime: 0xeeae243a2c4f224d, Origin: 0xeeae243c2adb3eb7, Receive: 0xeeae243c2adc67e1, Transmit: 0xeeae243c2ae1fb84,
	}
	if err != nil || h != want {
		t.Errorf("parsed %+v, %v; want %+v", h, err, want)
	}
	if got := h.AppendTo(nil); !bytes.Equal(got, g["one-response"][:HeaderLen]) {
		t.Errorf("wrote %x", got)
	}
	if h.Kiss() != "" {
		t.Errorf("kiss code %q of stratum 1", h.Kiss())
	}
	nak, err := ParseHeader(g["nak-response"])
	if err != nil || nak.Leap != 3 || nak.Kiss() != "NTSN" {
		t.Errorf("parsed %+v, %v", nak, err)
	}
}

func TestShortHeadersAreRefused(t *testing.T) {
	for n := range HeaderLen {
		if _, err := ParseHeader(make([]byte, n)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%d octets: %v", n, err)
		}
	}
}

func TestAKissCodeShowsNothingButLettersAndDigits(t *testing.T) {
	h := Header{RefID: [4]byte{'A', '\n', 0x1b, 'z'}}
	if got := h.Kiss(); got != "A..." {
		t.Errorf("kiss code %q", got)
	}
}

func TestTimestamps(t *testing.T) {
	at := func(s string) time.Time {
		tm, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			t.Fatal(err)
		}
		return tm
	}
	for _, c := range []struct {
		name string
		time time.Time
		want Timestamp
	}{
		{"the Unix epoch", at("1970-01-01T00:00:00Z"), 2208988800 << 32},
		{"half a second", at("1970-01-01T00:00:00.5Z"), 2208988800<<32 | 1<<31},
		{"the last nanosecond of a second", at("1970-01-01T00:00:00.999999999Z"), 2208988800<<32 | 0xfffffffb},
		{"the last second of era 0", at("2036-02-07T06:28:15Z"), 0xffffffff << 32},
		{"after the first second of era 1", at("2036-02-07T06:28:17Z"), 1 << 32},
		{"in era 1", at("2100-06-01T12:00:00.25Z"), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := FromTime(c.time)
			if c.want != 0 && got != c.want {
				t.Errorf("timestamp %x, want %x", got, c.want)
			}
			for _, off := range []time.Duration{0, time.Hour, -time.Hour, 67 * 365 * 24 * time.Hour, -67 * 365 * 24 * time.Hour} {
				if back := got.Time(c.time.Add(off)); !back.Equal(c.time) {
					t.Errorf("near %v it is %v, want %v", c.time.Add(off), back, c.time)
				}
			}
		})
	}
	if FromTime(time.Time{}) != 0 || !Timestamp(0).Time(time.Unix(0, 0)).IsZero() {
		t.Error("an unknown time has become known")
	}
}

func TestOffsetAndDelay(t *testing.T) {
	ms := func(n int64) time.Duration { return time.Duration(n) * time.Millisecond }
	for _, c := range []struct {
		name               string
		start              time.Time
		there, stay, back  time.Duration
		ahead              time.Duration
		offset, delayTotal time.Duration
	}{
		{"clocks agree", time.Unix(1.8e9, 0), ms(10), ms(1), ms(10), 0, 0, ms(20)},
		{"the server is ahead", time.Unix(1.8e9, 0), ms(10), ms(1), ms(10), ms(500), ms(500), ms(20)},
		{"the server is behind by a year", time.Unix(1.8e9, 0), ms(10), ms(1), ms(10), -365 * 24 * time.Hour, -365 * 24 * time.Hour, ms(20)},
		{"the way there is longer", time.Unix(1.8e9, 0), ms(30), ms(1), ms(10), 0, ms(10), ms(40)},
		{"the era ends on the way", time.Unix(1<<32-ntpToUnix, 0).Add(-ms(5)), ms(10), ms(1), ms(10), 0, 0, ms(20)},
		{"the eras of the clocks differ", time.Unix(1<<32-ntpToUnix, 0).Add(-ms(500)), ms(10), ms(1), ms(10), ms(1000), ms(1000), ms(20)},
	} {
		t.Run(c.name, func(t *testing.T) {
			t1 := c.start
			t2 := t1.Add(c.there)
			t3 := t2.Add(c.stay)
			t4 := t3.Add(c.back)
			offset, delay := OffsetDelay(FromTime(t1), FromTime(t2.Add(c.ahead)), FromTime(t3.Add(c.ahead)), FromTime(t4))
			if d := offset - c.offset; d.Abs() > 2 {
				t.Errorf("offset %v, want %v", offset, c.offset)
			}
			if d := delay - c.delayTotal; d.Abs() > 2 {
				t.Errorf("delay %v, want %v", delay, c.delayTotal)
			}
		})
	}
}

func TestExtensionFieldsAndMACsAreToldApart(t *testing.T) {
	field := func(n int) []byte { return AppendField(nil, 0x2005, make([]byte, n-4)) }
	for _, c := range []struct {
		name   string
		tail   []byte
		fields int
		good   bool
	}{
		{"nothing", nil, 0, true},
		{"a crypto-NAK", make([]byte, 4), 0, true},
		{"a MAC of MD5", field(20), 0, true},
		{"a MAC of SHA-1", field(24), 0, true},
		{"a field of 28 octets", field(28), 1, true},
		{"a field and a MAC", append(field(16), make([]byte, 20)...), 1, true},
		{"two fields", append(field(28), field(32)...), 2, true},
		{"one octet", make([]byte, 1), 0, false},
		{"a field of length 0", make([]byte, 28), 0, false},
		{"a field of 12 octets", append([]byte{0, 1, 0, 12}, make([]byte, 24)...), 0, false},
		{"a field of 29 octets", append([]byte{0, 1, 0, 29}, make([]byte, 28)...), 0, false},
		{"a field longer than the packet", append([]byte{0, 1, 0, 32}, make([]byte, 24)...), 0, false},
		{"a field and three octets", append(field(28), 0, 0, 0), 1, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := append(Header{}.AppendTo(nil), c.tail...)
			n, at, good := 0, HeaderLen, true
			for f, err := range Fields(b) {
				if err != nil {
					good = false
					break
				}
				if f.Offset != at {
					t.Errorf("field at %d, want %d", f.Offset, at)
				}
				at += 4 + len(f.Body)
				n++
			}
			if n != c.fields || good != c.good {
				t.Errorf("%d fields, good: %v", n, good)
			}
		})
	}
	for range Fields(make([]byte, 47)) {
		return
	}
	t.Error("a packet without a header has no fault")
}

func TestFieldsArePaddedToWordsAndToTheirLeastLength(t *testing.T) {
	for body, want := range map[int]int{0: 16, 1: 16, 12: 16, 13: 20, 16: 20, 100: 104} {
		if got := len(AppendField(nil, NTSCookie, make([]byte, body))); got != want {
			t.Errorf("body of %d octets makes a field of %d, want %d", body, got, want)
		}
	}
	if got := appendCookie(nil, []byte{1, 2, 3, 4}); !bytes.Equal(got, []byte{2, 4, 0, 8, 1, 2, 3, 4}) {
		t.Errorf("encrypted field %x", got)
	}
}

func FuzzHeader(f *testing.F) {
	g := golden(f)
	f.Add(g["one-response"])
	f.Add(g["nak-response"])
	f.Add(bytes.Repeat([]byte{0xff}, HeaderLen))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseHeader(b)
		if err != nil {
			if len(b) >= HeaderLen {
				t.Fatal(err)
			}
			return
		}
		if got := h.AppendTo(nil); !bytes.Equal(got, b[:HeaderLen]) {
			t.Fatalf("%x became %x", b[:HeaderLen], got)
		}
	})
}

func FuzzTimestamp(f *testing.F) {
	f.Add(uint64(0xeeae243a2c4f224d), int64(1.8e9))
	f.Add(uint64(1), int64(1<<32-ntpToUnix))
	f.Add(uint64(math.MaxUint64), int64(0))
	f.Fuzz(func(t *testing.T, v uint64, near int64) {
		ts, pivot := Timestamp(v), time.Unix(near%(1<<40), 0)
		if ts == 0 {
			return
		}
		got := ts.Time(pivot)
		if d := got.Unix() - pivot.Unix(); d < -1<<31 || d > 1<<31 {
			t.Fatalf("%x near %v is %v, %d s away", v, pivot, got, d)
		}
		// A timestamp is finer than a nanosecond, but not by more than it may be off.
		if d := FromTime(got).Sub(ts); d.Abs() > 1 {
			t.Fatalf("%x became %x", v, FromTime(got))
		}
	})
}
