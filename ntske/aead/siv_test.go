package aead

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/jacobsa/crypto/siv"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func newSIV(t testing.TB, key []byte) *SIV {
	t.Helper()
	s, err := NewSIV(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// sealList is S2V and encryption over any number of components, as RFC 5297 §2.6 has it.
func sealList(s *SIV, components [][]byte, plaintext []byte) []byte {
	var w scratch
	tag := s.s2vEnd(&w, s.s2v(&w, components), plaintext)
	out := make([]byte, Overhead, Overhead+len(plaintext))
	tag.put(out)
	out = append(out, plaintext...)
	s.xorKeyStream(&w, out[Overhead:], tag)
	return out
}

func TestVectorsOfRFC5297(t *testing.T) {
	for _, v := range []struct {
		name, key  string
		components []string
		plaintext  string
		sealed     string
	}{
		{
			"A.1 one associated data and no nonce",
			"fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff",
			[]string{"101112131415161718191a1b1c1d1e1f2021222324252627"},
			"112233445566778899aabbccddee",
			"85632d07c6e8f37f950acd320a2ecc9340c02b9690c4dc04daef7f6afe5c",
		},
		{
			"A.2 two associated data and a nonce",
			"7f7e7d7c7b7a79787776757473727170404142434445464748494a4b4c4d4e4f",
			[]string{
				"00112233445566778899aabbccddeeffdeaddadadeaddadaffeeddccbbaa99887766554433221100",
				"102030405060708090a0",
				"09f911029d74e35bd84156c5635688c0",
			},
			"7468697320697320736f6d6520706c61696e7465787420746f20656e6372797074207573696e67205349562d414553",
			"7bdb6e3b432667eb06f4d14bff2fbd0fcb900f2fddbe404326601965c889bf17dba77ceb094fa663b7a3f748ba8af829ea64ad544a272e9c485b62a3fd5c0d",
		},
	} {
		t.Run(v.name, func(t *testing.T) {
			s := newSIV(t, unhex(t, v.key))
			var components [][]byte
			for _, c := range v.components {
				components = append(components, unhex(t, c))
			}
			if got := sealList(s, components, unhex(t, v.plaintext)); !bytes.Equal(got, unhex(t, v.sealed)) {
				t.Errorf("sealed %x, want %s", got, v.sealed)
			}
		})
	}
}

// oracle seals with an independent implementation.
func oracle(t testing.TB, key, nonce, plaintext, ad []byte) []byte {
	t.Helper()
	out, err := siv.Encrypt(nil, key, plaintext, [][]byte{ad, nonce})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestSealAgreesWithAnIndependentImplementation(t *testing.T) {
	rnd := rand.NewChaCha8([32]byte{1})
	size := rand.New(rnd)
	octets := func(n int) []byte {
		b := make([]byte, n)
		_, _ = rnd.Read(b)
		return b
	}
	for range 5000 {
		key := octets([]int{32, 48, 64}[size.IntN(3)])
		nonce, plaintext, ad := octets(size.IntN(40)), octets(size.IntN(300)), octets(size.IntN(300))
		s := newSIV(t, key)
		sealed := s.Seal(nil, nonce, plaintext, ad)
		if want := oracle(t, key, nonce, plaintext, ad); !bytes.Equal(sealed, want) {
			t.Fatalf("key %x nonce %x plaintext %x ad %x: sealed %x, want %x", key, nonce, plaintext, ad, sealed, want)
		}
		opened, err := s.Open(nil, nonce, sealed, ad)
		if err != nil || !bytes.Equal(opened, plaintext) {
			t.Fatalf("opened %x, %v; want %x", opened, err, plaintext)
		}
	}
}

func TestKeyLengths(t *testing.T) {
	for n := range 80 {
		_, err := NewSIV(make([]byte, n))
		if good := n == 32 || n == 48 || n == 64; (err == nil) != good {
			t.Errorf("key of %d octets: %v", n, err)
		}
	}
	for id, want := range map[ID]int{SIVCMAC256: 32, SIVCMAC384: 48, SIVCMAC512: 64, GCMSIV128: 16, 0: 0, 1: 0} {
		if got := id.KeyLen(); got != want {
			t.Errorf("%v: key length %d, want %d", id, got, want)
		}
	}
}

func TestNoFlippedBitIsAccepted(t *testing.T) {
	s := newSIV(t, bytes.Repeat([]byte{7}, 32))
	nonce, ad, plaintext := bytes.Repeat([]byte{1}, 16), []byte("associated"), bytes.Repeat([]byte{2}, 37)
	sealed := s.Seal(nil, nonce, plaintext, ad)
	for _, part := range [][]byte{nonce, ad, sealed} {
		for bit := range 8 * len(part) {
			part[bit/8] ^= 1 << (bit % 8)
			if out, err := s.Open(nil, nonce, sealed, ad); !errors.Is(err, ErrOpen) || out != nil {
				t.Fatalf("bit %d: opened %x, %v", bit, out, err)
			}
			part[bit/8] ^= 1 << (bit % 8)
		}
	}
	for n := range len(sealed) {
		if _, err := s.Open(nil, nonce, sealed[:n], ad); !errors.Is(err, ErrOpen) {
			t.Errorf("cut to %d octets: %v", n, err)
		}
	}
	if _, err := s.Open(nil, ad, sealed, nonce); !errors.Is(err, ErrOpen) {
		t.Errorf("nonce and associated data exchanged: %v", err)
	}
}

func TestAnEmptyAssociatedDataIsAComponent(t *testing.T) {
	s := newSIV(t, bytes.Repeat([]byte{7}, 32))
	nonce := bytes.Repeat([]byte{1}, 16)
	without := sealList(s, [][]byte{nonce}, []byte("text"))
	if got := s.Seal(nil, nonce, []byte("text"), nil); bytes.Equal(got, without) {
		t.Error("the empty associated data was left out")
	}
	if got, want := s.Seal(nil, nonce, []byte("text"), nil), s.Seal(nil, nonce, []byte("text"), []byte{}); !bytes.Equal(got, want) {
		t.Error("nil and empty associated data differ")
	}
}

func TestOpenLeavesNothingOfAPlaintextThatIsNotAuthentic(t *testing.T) {
	s := newSIV(t, bytes.Repeat([]byte{7}, 32))
	sealed := s.Seal(nil, []byte("nonce"), bytes.Repeat([]byte{0xaa}, 50), nil)
	sealed[3] ^= 1
	dst := bytes.Repeat([]byte{0x55}, 80)
	if _, err := s.Open(dst[:10], []byte("nonce"), sealed, nil); !errors.Is(err, ErrOpen) {
		t.Fatal(err)
	}
	want := slices.Concat(bytes.Repeat([]byte{0x55}, 10), make([]byte, 50), bytes.Repeat([]byte{0x55}, 20))
	if !bytes.Equal(dst, want) {
		t.Errorf("destination is %x, want %x", dst, want)
	}
}

func TestAnyOverlapOfInputsAndDestination(t *testing.T) {
	const size = 200
	s := newSIV(t, bytes.Repeat([]byte{7}, 48))
	fresh := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{2}).Read(fresh)
	clone := func() []byte { return bytes.Clone(fresh) }
	for _, n := range []int{0, 1, 15, 16, 17, 32, 64, 70} {
		for at := range 90 { // where the plaintext lies, relative to a destination of dst[20:]
			b := clone()
			want := s.Seal(nil, fresh[5:21], fresh[at:at+n], fresh[30:60])
			if got := s.Seal(b[:20], b[5:21], b[at:at+n], b[30:60]); !bytes.Equal(got[20:], want) {
				t.Fatalf("seal of %d octets at %d over 20 gives %x, want %x", n, at, got[20:], want)
			}
			sealed := s.Seal(nil, fresh[5:21], fresh[100:100+n], fresh[30:60])
			if at < 60 && at+len(sealed) > 5 {
				continue // the sealed text would overwrite its own nonce or associated data
			}
			b = clone()
			copy(b[at:], sealed)
			got, err := s.Open(b[:20], b[5:21], b[at:at+len(sealed)], b[30:60])
			if err != nil || !bytes.Equal(got[20:], fresh[100:100+n]) {
				t.Fatalf("open of %d octets at %d over 20: %x, %v", n, at, got, err)
			}
		}
	}
	for name, dst := range map[string]func(sealed []byte) []byte{
		"over the whole sealed text": func(sealed []byte) []byte { return sealed[:0] },
		"behind the tag":             func(sealed []byte) []byte { return sealed[:Overhead] },
	} {
		t.Run("open in place "+name, func(t *testing.T) {
			sealed := s.Seal(nil, fresh[:16], fresh[20:120], nil)
			d := dst(sealed)
			got, err := s.Open(d, fresh[:16], sealed, nil)
			if err != nil || !bytes.Equal(got[len(d):], fresh[20:120]) {
				t.Errorf("opened %x, %v", got, err)
			}
			if &got[0] != &sealed[0] {
				t.Error("did not open in place")
			}
		})
	}
}

func TestConcurrentUse(t *testing.T) {
	s := newSIV(t, bytes.Repeat([]byte{7}, 32))
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			plaintext := bytes.Repeat([]byte{byte(g)}, 64)
			for range 500 {
				sealed := s.Seal(nil, []byte{byte(g)}, plaintext, nil)
				if got, err := s.Open(nil, []byte{byte(g)}, sealed, nil); err != nil || !bytes.Equal(got, plaintext) {
					t.Errorf("opened %x, %v", got, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestNothingIsAllocated(t *testing.T) {
	s := newSIV(t, bytes.Repeat([]byte{7}, 32))
	nonce, ad, plaintext := make([]byte, 16), make([]byte, 188), make([]byte, 104)
	sealed := s.Seal(nil, nonce, plaintext, ad)
	dst := make([]byte, 0, 200)
	if n := testing.AllocsPerRun(200, func() { dst = s.Seal(dst[:0], nonce, plaintext, ad) }); n != 0 {
		t.Errorf("Seal allocates %v times", n)
	}
	if n := testing.AllocsPerRun(200, func() {
		if _, err := s.Open(dst[:0], nonce, sealed, ad); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("Open allocates %v times", n)
	}
	sealed[0] ^= 1
	if n := testing.AllocsPerRun(200, func() { _, _ = s.Open(dst[:0], nonce, sealed, ad) }); n != 0 {
		t.Errorf("Open of a forgery allocates %v times", n)
	}
}

func TestPrintingShowsNoKey(t *testing.T) {
	s := newSIV(t, bytes.Repeat([]byte{0xab}, 32))
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%q", "%d"} {
		if got := fmt.Sprintf(verb, s); got != "AES-SIV-CMAC-256" {
			t.Errorf("%s prints %q", verb, got)
		}
	}
	if got := fmt.Sprint((*SIV)(nil)); got != "no AEAD" {
		t.Errorf("nil prints %q", got)
	}
}

func FuzzSealOpen(f *testing.F) {
	f.Add(make([]byte, 32), []byte("0123456789abcdef"), make([]byte, 64), []byte{}, uint(3))
	f.Add(make([]byte, 48), []byte{}, []byte{}, []byte{}, uint(0))
	f.Add(make([]byte, 64), []byte("nonce"), []byte("fifteen octets."), []byte("associated data"), uint(999))
	f.Fuzz(func(t *testing.T, key, nonce, plaintext, ad []byte, bit uint) {
		s, err := NewSIV(key)
		if err != nil {
			return
		}
		sealed := s.Seal(nil, nonce, plaintext, ad)
		if want := oracle(t, key, nonce, plaintext, ad); !bytes.Equal(sealed, want) {
			t.Fatalf("sealed %x, want %x", sealed, want)
		}
		got, err := s.Open(nil, nonce, sealed, ad)
		if err != nil || !bytes.Equal(got, plaintext) {
			t.Fatalf("opened %x, %v; want %x", got, err, plaintext)
		}
		bit %= uint(8 * len(sealed))
		sealed[bit/8] ^= 1 << (bit % 8)
		if _, err := s.Open(nil, nonce, sealed, ad); !errors.Is(err, ErrOpen) {
			t.Fatalf("bit %d flipped: %v", bit, err)
		}
	})
}

func BenchmarkSeal(b *testing.B) {
	for _, size := range []struct {
		name          string
		plaintext, ad int
	}{{"cookie", 64, 0}, {"response", 104, 84}, {"response of eight cookies", 832, 84}} {
		b.Run(size.name, func(b *testing.B) {
			s := newSIV(b, make([]byte, 32))
			nonce, plaintext, ad := make([]byte, 16), make([]byte, size.plaintext), make([]byte, size.ad)
			dst := make([]byte, 0, 1000)
			b.ReportAllocs()
			for b.Loop() {
				dst = s.Seal(dst[:0], nonce, plaintext, ad)
			}
		})
	}
}

func BenchmarkNewSIV(b *testing.B) {
	key := make([]byte, 32)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := NewSIV(key); err != nil {
			b.Fatal(err)
		}
	}
}
