package cookie

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"ntsagent/ntske/aead"
)

var chrony Chrony

func testFile(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func goldenFile(t testing.TB) []byte { return testFile(t, "ntskeys") }

func goldenRing(t testing.TB) *Ring {
	t.Helper()
	r, err := chrony.ParseKeys(goldenFile(t))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// goldenCookies reads what chronyd minted and the keys its client exported.
func goldenCookies(t testing.TB) (s Session, cookies [][]byte) {
	t.Helper()
	text, err := os.ReadFile("testdata/cookies.txt")
	if err != nil {
		t.Fatal(err)
	}
	s.AEAD = aead.SIVCMAC256
	for line := range strings.Lines(string(text)) {
		name, digits, _ := strings.Cut(strings.TrimSpace(line), " ")
		b, err := hex.DecodeString(digits)
		if err != nil {
			t.Fatal(err)
		}
		switch name {
		case "c2s":
			s.C2S = b
		case "s2c":
			s.S2C = b
		case "cookie":
			cookies = append(cookies, b)
		}
	}
	if len(cookies) != 8 {
		t.Fatalf("%d golden cookies", len(cookies))
	}
	return s, cookies
}

func same(a, b Session) bool {
	return a.AEAD == b.AEAD && bytes.Equal(a.C2S, b.C2S) && bytes.Equal(a.S2C, b.S2C)
}

func TestCookiesOfARealChronydOpenToTheKeysOfTheirSession(t *testing.T) {
	r := goldenRing(t)
	want, cookies := goldenCookies(t)
	for _, c := range cookies {
		got, err := chrony.Open(nil, r, c)
		if err != nil || !same(got, want) {
			t.Errorf("opened C2S %x S2C %x, %v", got.C2S, got.S2C, err)
		}
		if id := c[:4]; !bytes.Equal(id, []byte{0xdf, 0x65, 0xc0, 0x7b}) || r.Current().ID() != 0xdf65c07b {
			t.Errorf("chronyd minted with key %x, we take %08x for current", id, r.Current().ID())
		}
	}
}

func TestSealMakesTheVeryOctetsChronydMade(t *testing.T) {
	r := goldenRing(t)
	s, cookies := goldenCookies(t)
	for _, want := range cookies {
		got, err := chrony.Seal([]byte("before"), r.Current(), want[4:20], &s)
		if err != nil || !bytes.Equal(got, append([]byte("before"), want...)) {
			t.Errorf("sealed %x, %v; chronyd made %x", got, err, want)
		}
	}
	if n := chrony.NonceLen(r.Current()); n != 16 {
		t.Errorf("nonce of %d octets", n)
	}
}

func TestEveryKeyOfTheRingOpensItsCookies(t *testing.T) {
	r := goldenRing(t)
	s, _ := goldenCookies(t)
	for _, k := range r.Keys() {
		c, err := chrony.Seal(nil, k, make([]byte, 16), &s)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := chrony.Open(nil, r, c); err != nil || !same(got, s) {
			t.Errorf("key %08x: %v", k.ID(), err)
		}
	}
}

func TestCookiesThatDoNotOpen(t *testing.T) {
	r := goldenRing(t)
	_, cookies := goldenCookies(t)
	c := cookies[0]
	for bit := range 8 * len(c) {
		c[bit/8] ^= 1 << (bit % 8)
		want := ErrCookie
		if bit < 32 {
			want = ErrUnknownKey
		}
		if s, err := chrony.Open(nil, r, c); !errors.Is(err, want) || s.C2S != nil || s.S2C != nil {
			t.Errorf("bit %d flipped: %v, want %v", bit, err, want)
		}
		c[bit/8] ^= 1 << (bit % 8)
	}
	for n := range 513 { // CVE-2023-33192 was a cookie of 20 octets
		for _, b := range [][]byte{make([]byte, n), append(bytes.Clone(c), make([]byte, 513)...)[:n]} {
			if n == len(c) {
				continue
			}
			want := ErrCookie
			if (n == 64 || n == 68 || n == 96) && b[0] == 0 {
				want = ErrUnknownKey // such cookies there are
			}
			if _, err := chrony.Open(nil, r, b); !errors.Is(err, want) {
				t.Errorf("cookie of %d octets: %v", n, err)
			}
		}
	}
	if _, err := chrony.Open(nil, r, make([]byte, 100)); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("100 zero octets: %v", err)
	}
	// The id of one key over what another sealed.
	copy(c, []byte{0x43, 0xa0, 0x94, 0x2d})
	if _, err := chrony.Open(nil, r, c); !errors.Is(err, ErrCookie) {
		t.Errorf("cookie under the wrong key: %v", err)
	}
}

func TestAFailedOpenLeavesNoKeyBehind(t *testing.T) {
	_, cookies := goldenCookies(t)
	cookies[0][20] ^= 1
	dst := make([]byte, 0, 64)
	if _, err := chrony.Open(dst, goldenRing(t), cookies[0]); !errors.Is(err, ErrCookie) {
		t.Fatal(err)
	}
	if !bytes.Equal(dst[:64], make([]byte, 64)) {
		t.Errorf("destination holds %x", dst[:64])
	}
}

func TestOpenPutsTheKeysWhereItIsTold(t *testing.T) {
	want, cookies := goldenCookies(t)
	dst := make([]byte, 3, 200)
	s, err := chrony.Open(dst, goldenRing(t), cookies[0])
	if err != nil || !same(s, want) {
		t.Fatal(err)
	}
	if all := dst[:67]; &s.C2S[0] != &all[3] || &s.S2C[0] != &all[35] || cap(s.C2S) != 32 || cap(s.S2C) != 32 {
		t.Error("keys do not lie behind dst, or can grow into each other")
	}
}

func TestSealRefuses(t *testing.T) {
	k := goldenRing(t).Current()
	other, err := NewKey(1, aead.SIVCMAC512, make([]byte, 64))
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := NewKey(1, aead.GCMSIV128, make([]byte, 16))
	if err != nil {
		t.Fatal(err)
	}
	short, good := make([]byte, 16), make([]byte, 32)
	for _, c := range []struct {
		name  string
		key   *Key
		nonce []byte
		s     Session
	}{
		{"a key chronyd cannot hold", other, short, Session{aead.SIVCMAC256, good, good}},
		{"a session chronyd cannot speak", k, short, Session{aead.SIVCMAC512, make([]byte, 64), make([]byte, 64)}},
		{"a session of AES-GCM-SIV with long keys", k, short, Session{aead.GCMSIV128, good, good}},
		{"a long nonce under a key of AES-GCM-SIV", gcm, short, Session{aead.SIVCMAC256, good, good}},
		{"a short C2S key", k, short, Session{aead.SIVCMAC256, short, good}},
		{"a short S2C key", k, short, Session{aead.SIVCMAC256, good, short}},
		{"a short nonce", k, short[:12], Session{aead.SIVCMAC256, good, good}},
		{"no session", k, short, Session{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if b, err := chrony.Seal(nil, c.key, c.nonce, &c.s); err == nil {
				t.Errorf("sealed %x", b)
			}
		})
	}
}

func TestRotation(t *testing.T) {
	rnd := rand.NewChaCha8([32]byte{3})
	r, err := chrony.NewRing(rnd)
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		keys := r.Keys()
		if len(keys) != 4 || r.Current() != keys[2] {
			t.Fatalf("ring %v", r)
		}
		for i, k := range keys[1:] {
			if k.ID() != keys[i].ID()+1 || k.Fingerprint() == keys[i].Fingerprint() {
				t.Errorf("key %08x follows %08x", k.ID(), keys[i].ID())
			}
		}
		next, err := chrony.Next(r, rnd)
		if err != nil {
			t.Fatal(err)
		}
		for i, k := range next.Keys()[:3] {
			if k != keys[i+1] {
				t.Errorf("key %d changed in the rotation", i)
			}
		}
		if next.Current() != keys[3] {
			t.Error("what was the next key is not the current one")
		}
		if _, err := chrony.ParseKeys(chrony.AppendKeys(nil, next)); err != nil {
			t.Errorf("the file of a rotated ring: %v", err)
		}
		r = next
	}
}

func TestIDsRunOverTheEndOfTheirNumbers(t *testing.T) {
	// The first four octets are the first id, so the fourth key has id 1 and the next one id 2.
	r, err := chrony.NewRing(io.MultiReader(bytes.NewReader([]byte{0xff, 0xff, 0xff, 0xfe}), rand.NewChaCha8([32]byte{})))
	if err != nil {
		t.Fatal(err)
	}
	next, err := chrony.Next(r, rand.NewChaCha8([32]byte{1}))
	if err != nil || next.Keys()[3].ID() != 2 {
		t.Fatalf("%v, %v", next, err)
	}
	if _, err := chrony.ParseKeys(chrony.AppendKeys(nil, next)); err != nil {
		t.Error(err)
	}
}

func TestNoRandomnessNoKeys(t *testing.T) {
	for n := range 4 + 4*32 {
		if r, err := chrony.NewRing(bytes.NewReader(make([]byte, n))); err == nil {
			t.Errorf("%d random octets made %v", n, r)
		}
	}
	if r, err := chrony.Next(goldenRing(t), bytes.NewReader(make([]byte, 31))); err == nil {
		t.Errorf("31 random octets made %v", r)
	}
}

func TestNextRefusesARingThatIsNotChronys(t *testing.T) {
	big, err := NewKey(4, aead.SIVCMAC512, make([]byte, 64))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		keys    []*Key
		current int
	}{
		"three keys":           {[]*Key{mustKey(t, 1, 1), mustKey(t, 2, 2), mustKey(t, 3, 3)}, 2},
		"the last one current": {[]*Key{mustKey(t, 1, 1), mustKey(t, 2, 2), mustKey(t, 3, 3), mustKey(t, 4, 4)}, 3},
		"slots in disorder":    {[]*Key{mustKey(t, 1, 1), mustKey(t, 3, 2), mustKey(t, 2, 3), mustKey(t, 4, 4)}, 2},
		"a longer key":         {[]*Key{mustKey(t, 1, 1), mustKey(t, 2, 2), mustKey(t, 3, 3), big}, 2},
	} {
		r, err := NewRing(c.keys, c.current)
		if err != nil {
			t.Fatal(err)
		}
		if next, err := chrony.Next(r, rand.NewChaCha8([32]byte{})); err == nil {
			t.Errorf("%s: made %v", name, next)
		}
		if _, err := chrony.ParseKeys(chrony.AppendKeys(nil, r)); err == nil && name != "the last one current" {
			t.Errorf("%s: its file parses", name)
		}
	}
}

func TestNothingIsAllocated(t *testing.T) {
	r := goldenRing(t)
	s, cookies := goldenCookies(t)
	nonce := make([]byte, 16)
	buf := make([]byte, 0, 100)
	if n := testing.AllocsPerRun(200, func() {
		if _, err := chrony.Seal(buf, r.Current(), nonce, &s); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("Seal allocates %v times", n)
	}
	unknown := make([]byte, 100)
	forged := bytes.Clone(cookies[0])
	forged[50] ^= 1
	for name, c := range map[string][]byte{"a cookie": cookies[0], "a forged cookie": forged, "an unknown key": unknown} {
		if n := testing.AllocsPerRun(200, func() { _, _ = chrony.Open(buf, r, c) }); n != 0 {
			t.Errorf("Open of %s allocates %v times", name, n)
		}
	}
}

func FuzzOpen(f *testing.F) {
	_, cookies := goldenCookies(f)
	for _, c := range cookies {
		f.Add(c)
	}
	f.Add([]byte{})
	f.Add(make([]byte, 20))
	keys := goldenRing(f).Keys()
	for _, set := range goldenSets(f) {
		for _, c := range set.cookies {
			f.Add(c)
		}
		keys = append(keys, set.ring.Current())
	}
	r, err := NewRing([]*Key{keys[0], keys[1], keys[2], keys[3], keys[4]}, 2)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, c []byte) {
		s, err := chrony.Open(nil, r, c)
		if err != nil {
			if !errors.Is(err, ErrCookie) && !errors.Is(err, ErrUnknownKey) {
				t.Fatal(err)
			}
			return
		}
		// Deterministic sealing: what opens is what Seal would have made.
		k := r.Find(uint32(c[0])<<24 | uint32(c[1])<<16 | uint32(c[2])<<8 | uint32(c[3]))
		again, err := chrony.Seal(nil, k, c[4:4+chrony.NonceLen(k)], &s)
		if err != nil || !bytes.Equal(again, c) {
			t.Fatalf("%x opens, but seals to %x, %v", c, again, err)
		}
	})
}

func BenchmarkSeal(b *testing.B) {
	k := goldenRing(b).Current()
	s, _ := goldenCookies(b)
	nonce, buf := make([]byte, 16), make([]byte, 0, 100)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := chrony.Seal(buf, k, nonce, &s); err != nil {
			b.Fatal(err)
		}
	}
}
