package cookie

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"ntsagent/ntske/aead"
)

func mustKey(t testing.TB, id uint32, fill byte) *Key {
	t.Helper()
	k, err := NewKey(id, aead.SIVCMAC256, bytes.Repeat([]byte{fill}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestPrintingShowsNoKey(t *testing.T) {
	// Octets that no address and no id is likely to show in any notation.
	octets := bytes.Repeat([]byte{0xab, 0xcd, 0x5c, 0x5d}, 8)
	k, err := NewKey(42, aead.SIVCMAC256, octets)
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewRing([]*Key{k}, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := Session{aead.SIVCMAC256, octets, octets}
	type holder struct {
		Session Session
		Key     *Key
		Ring    *Ring
		key     *Key
		value   Key
		ring    *Ring
	}
	h := holder{s, k, r, k, *k, r}
	leaks := []string{"abcd5c5d", "ABCD5C5D", "171 205 92 93", "171, 205, 92, 93", "0xab", "0xAB", `\xab`, "253", "q81cX"}
	check := func(what, got string) {
		t.Helper()
		for _, l := range leaks {
			if strings.Contains(got, l) {
				t.Errorf("%s shows %q in %q", what, l, got)
			}
		}
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%q", "%d", "%o", "%t"} {
		for _, v := range []any{s, &s, k, *k, r, *r, h, &h} {
			check(verb, fmt.Sprintf(verb, v))
		}
	}
	for want, v := range map[string]any{"session AES-SIV-CMAC-256": s, "cookie key 0000002a": k, "1 cookie keys, current 0000002a": r} {
		if got := fmt.Sprintf("%x", v); got != want {
			t.Errorf("printed %q, want %q", got, want)
		}
		b, err := json.Marshal(v)
		if err != nil || string(b) != `"`+want+`"` {
			t.Errorf("encoded %s, %v; want %q", b, err, want)
		}
	}
	_, err = NewKey(7, aead.SIVCMAC512, octets)
	check("an error", fmt.Sprint(err))
	short, err := NewKey(42, aead.GCMSIV128, octets[:16])
	if err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%q", "%d", "%o", "%t"} {
		for _, v := range []any{short, *short, holder{Key: short, key: short, value: *short}} {
			check(verb, fmt.Sprintf(verb, v))
		}
	}
	if got := fmt.Sprint((*Key)(nil), (*Ring)(nil), Ring{}); got != "<nil> <nil> no cookie keys" {
		t.Errorf("nil prints %q", got)
	}
}

func TestKeysThatAreRefused(t *testing.T) {
	for _, c := range []struct {
		name string
		alg  aead.ID
		n    int
	}{
		{"31 octets", aead.SIVCMAC256, 31},
		{"a length of another algorithm", aead.SIVCMAC256, 48},
		{"a long key of AES-GCM-SIV", aead.GCMSIV128, 32},
		{"an unknown algorithm", 99, 32},
	} {
		t.Run(c.name, func(t *testing.T) {
			if k, err := NewKey(1, c.alg, make([]byte, c.n)); err == nil {
				t.Errorf("made %v", k)
			}
		})
	}
}

func TestAKeyKeepsItsOwnCopy(t *testing.T) {
	octets := bytes.Repeat([]byte{9}, 32)
	k, err := NewKey(1, aead.SIVCMAC256, octets)
	if err != nil {
		t.Fatal(err)
	}
	before := k.Fingerprint()
	clear(octets)
	if k.Fingerprint() != before {
		t.Error("the key changed with the octets it was made from")
	}
}

func TestFingerprintsTellKeysApartAndDoNotDependOnTheID(t *testing.T) {
	a, b, c := mustKey(t, 1, 1), mustKey(t, 2, 1), mustKey(t, 1, 2)
	if a.Fingerprint() != b.Fingerprint() || a.Fingerprint() == c.Fingerprint() {
		t.Errorf("fingerprints %s %s %s", a.Fingerprint(), b.Fingerprint(), c.Fingerprint())
	}
	if raw, err := hex.DecodeString(a.Fingerprint()); err != nil || len(raw) != 4 {
		t.Errorf("fingerprint %q is not 8 hex digits", a.Fingerprint())
	}
}

func TestRings(t *testing.T) {
	a, b := mustKey(t, 1, 1), mustKey(t, 2, 2)
	list := []*Key{a, b}
	r, err := NewRing(list, 1)
	if err != nil {
		t.Fatal(err)
	}
	list[1] = a
	r.Keys()[0] = b
	if r.Current() != b || r.Find(1) != a || r.Find(2) != b || r.Find(3) != nil {
		t.Error("the ring lost its keys")
	}
	for name, c := range map[string]struct {
		keys    []*Key
		current int
	}{
		"no keys":             {nil, 0},
		"current beyond":      {[]*Key{a, b}, 2},
		"current before":      {[]*Key{a, b}, -1},
		"a missing key":       {[]*Key{a, nil}, 0},
		"one id for two keys": {[]*Key{a, mustKey(t, 1, 3)}, 0},
	} {
		if r, err := NewRing(c.keys, c.current); err == nil {
			t.Errorf("%s: made %v", name, r)
		}
	}
}
