package keyring

import (
	"bytes"
	"crypto/rand"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"ntsagent/ntske/aead"
	"ntsagent/ntske/cookie"
)

var chrony cookie.Chrony

func newFile(t testing.TB) file {
	t.Helper()
	keys := make([]*cookie.Key, 4)
	for i := range keys {
		secret := make([]byte, aead.SIVCMAC256.KeyLen())
		rand.Read(secret)
		key, err := cookie.NewKey(0xa0b0c0c+uint32(i), aead.SIVCMAC256, secret)
		if err != nil {
			t.Fatal(err)
		}
		keys[i] = key
	}
	ring, err := cookie.NewRing(keys, 2)
	if err != nil {
		t.Fatal(err)
	}
	return file{ring: ring, rotated: time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)}
}

func encode(t testing.TB, f file) []byte {
	t.Helper()
	b, err := f.append(nil, chrony)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestFileKeepsWhatWasProven(t *testing.T) {
	f := newFile(t)
	keys := f.ring.Keys()
	f = f.withProven(keys[2].ID(), keys[3].ID())
	f.minting, f.provenAt = keys[2].ID(), f.rotated.Add(time.Second)
	got, err := parseFile(chrony, encode(t, f))
	if err != nil {
		t.Fatal(err)
	}
	if got.minting != f.minting || !reflect.DeepEqual(got.proven, f.proven) || !got.rotated.Equal(f.rotated) || !got.provenAt.Equal(f.provenAt) {
		t.Errorf("read back %+v, wrote %+v", got, f)
	}
	if got.pending() || got.published() != got.ring {
		t.Error("a proven ring is pending, or not the one to publish")
	}
}

func TestFileOfAPendingRotationMintsUnderTheOldKey(t *testing.T) {
	f := newFile(t)
	keys := f.ring.Keys()
	f = f.withProven(keys[0].ID(), keys[1].ID(), keys[2].ID(), keys[3].ID())
	f.minting = keys[2].ID()
	ring, err := chrony.Next(f.ring, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	f, err = parseFile(chrony, encode(t, f.withRing(ring, f.rotated.Add(time.Hour))))
	if err != nil {
		t.Fatal(err)
	}
	if !f.pending() || f.published().Current().ID() != keys[2].ID() || len(f.proven) != 3 {
		t.Errorf("pending %t, minting %s, proven %x", f.pending(), f.published().Current(), f.proven)
	}
}

func TestFileRefusesWhatItDidNotWrite(t *testing.T) {
	f := newFile(t)
	id := f.ring.Current().ID()
	f = f.withProven(id)
	f.minting = id
	good := string(encode(t, f))
	for _, c := range []struct{ sentence, old, new string }{
		{"a cut off head", "proven-at -\n", ""},
		{"another version", "keys 1", "keys 2"},
		{"a minting key it does not hold", "minting " + hexID(id), "minting " + hexID(id+64)},
		{"a minting key in upper case", "minting " + hexID(id), "minting " + strings.ToUpper(hexID(id))},
		{"a proven key it does not hold", "proven " + hexID(id), "proven " + hexID(id+64)},
		{"a key proven twice", "proven " + hexID(id), "proven " + hexID(id) + " " + hexID(id)},
		{"a time in another zone", "rotated 2026-11-23T10:00:00Z", "rotated 2026-11-23T10:00:00+01:00"},
		{"a time with fractions", "rotated 2026-11-23T10:00:00Z", "rotated 2026-11-23T10:00:00.5Z"},
		{"a cut off key file", good[len(good)-10:], ""},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			bad := strings.Replace(good, c.old, c.new, 1)
			if bad == good {
				t.Fatal("the case changes nothing")
			}
			if _, err := parseFile(chrony, []byte(bad)); !errors.Is(err, errFile) {
				t.Errorf("parseFile: %v", err)
			}
		})
	}
}

func TestFileOfARefusedRingPublishesNothing(t *testing.T) {
	f := newFile(t)
	id := f.ring.Current().ID()
	f = f.withProven(id).withAccepted(f.rotated).withRefused()
	f, err := parseFile(chrony, encode(t, f))
	if err != nil {
		t.Fatal(err)
	}
	if f.published() != nil || !f.pending() || f.minting != id {
		t.Errorf("publishes %v, pending %t, last minted %08x", f.published(), f.pending(), f.minting)
	}
}

func TestAKeyThatIsCurrentLateServesAWholeInterval(t *testing.T) {
	f := newFile(t)
	late := f.rotated.Add(90 * time.Hour)
	f = f.withAccepted(late)
	if !f.rotated.Equal(late) {
		t.Errorf("a first proof at %s counts from %s", late, f.rotated)
	}
	if again := f.withAccepted(late.Add(time.Hour)); !again.rotated.Equal(late) {
		t.Errorf("proving the same key again moves the rotation to %s", again.rotated)
	}
}

func TestFileErrorsShowNoKey(t *testing.T) {
	f := newFile(t)
	good := encode(t, f)
	secret := strings.Fields(string(good))[len(strings.Fields(string(good)))-1]
	_, err := parseFile(chrony, bytes.Replace(good, []byte(secret), []byte(secret[1:]), 1))
	if err == nil || strings.Contains(err.Error(), secret[8:40]) {
		t.Errorf("error %v", err)
	}
}

func FuzzParseFile(f *testing.F) {
	const keys = "NKS0\n15 0.0\n" +
		"0A0B0C0C 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n" +
		"0A0B0C0D 01112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n" +
		"0A0B0C0E 02112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n" +
		"0A0B0C0F 03112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n"
	f.Add([]byte(keys))
	f.Add([]byte(fileHead + "\nrotated -\nproven-at -\nminting -\nproven -\n" + keys))
	f.Add([]byte(fileHead + "\nrotated 2026-11-23T10:00:00Z\nproven-at 2026-11-23T10:00:00Z\nminting 0a0b0c0e\nproven 0a0b0c0e 0a0b0c0f\n" + keys))
	f.Fuzz(func(t *testing.T, b []byte) {
		first, err := parseFile(chrony, b)
		if err != nil {
			return
		}
		once := encode(t, first)
		second, err := parseFile(chrony, once)
		if err != nil {
			t.Fatalf("cannot read back what was written: %v", err)
		}
		if twice := encode(t, second); !bytes.Equal(once, twice) {
			t.Fatalf("written twice:\n%q\n%q", once, twice)
		}
		if key := second.mintingKey(); key != nil && second.published().Current() != key {
			t.Fatal("publishes another key than it mints under")
		}
	})
}
