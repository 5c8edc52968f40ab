package aead

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math/rand/v2"
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

// sealList is S2V and encryption over any number of components, as RFC 5297 §2.6 has it.
func sealList(b *Box, components [][]byte, plaintext []byte) []byte {
	s := b.hidden()
	d := s.zero
	for _, c := range components {
		d = s.s2vNext(d, c)
	}
	tag := s.s2vEnd(d, plaintext)
	out := make([]byte, Overhead, Overhead+len(plaintext))
	tag.put(out)
	out = append(out, plaintext...)
	s.xorSIV(out[Overhead:], tag)
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
		for end, b := range boxes(t, SIVCMAC256, unhex(t, v.key)) {
			t.Run(v.name+", "+end, func(t *testing.T) {
				var components [][]byte
				for _, c := range v.components {
					components = append(components, unhex(t, c))
				}
				if got := sealList(b, components, unhex(t, v.plaintext)); !bytes.Equal(got, unhex(t, v.sealed)) {
					t.Errorf("sealed %x, want %s", got, v.sealed)
				}
			})
		}
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

func TestSIVAgreesWithAnIndependentImplementation(t *testing.T) {
	rnd := rand.NewChaCha8([32]byte{1})
	size := rand.New(rnd)
	octets := func(n int) []byte {
		b := make([]byte, n)
		_, _ = rnd.Read(b)
		return b
	}
	for range 3000 {
		id := []ID{SIVCMAC256, SIVCMAC384, SIVCMAC512}[size.IntN(3)]
		key := octets(id.KeyLen())
		nonce, plaintext, ad := octets(size.IntN(40)), octets(size.IntN(300)), octets(size.IntN(300))
		want := oracle(t, key, nonce, plaintext, ad)
		for end, b := range boxes(t, id, key) {
			sealed := b.Seal(nil, nonce, plaintext, ad)
			if !bytes.Equal(sealed, want) {
				t.Fatalf("%s: key %x nonce %x plaintext %x ad %x: sealed %x, want %x", end, key, nonce, plaintext, ad, sealed, want)
			}
			opened, err := b.Open(nil, nonce, sealed, ad)
			if err != nil || !bytes.Equal(opened, plaintext) {
				t.Fatalf("%s: opened %x, %v; want %x", end, opened, err, plaintext)
			}
		}
	}
}

func TestTheNonceOfSIVIsAComponentOfItsOwn(t *testing.T) {
	for end, b := range boxes(t, SIVCMAC256, bytes.Repeat([]byte{7}, 32)) {
		nonce, ad := bytes.Repeat([]byte{1}, 16), []byte("associated")
		if _, err := b.Open(nil, ad, b.Seal(nil, nonce, []byte("text"), ad), nonce); !errors.Is(err, ErrOpen) {
			t.Errorf("%s: nonce and associated data exchanged: %v", end, err)
		}
		without := sealList(b, [][]byte{nonce}, []byte("text"))
		if got := b.Seal(nil, nonce, []byte("text"), nil); bytes.Equal(got, without) {
			t.Errorf("%s: the empty associated data was left out", end)
		}
	}
}

func FuzzSIV(f *testing.F) {
	f.Add(make([]byte, 32), []byte("0123456789abcdef"), make([]byte, 64), []byte{}, uint(3))
	f.Add(make([]byte, 48), []byte{}, []byte{}, []byte{}, uint(0))
	f.Add(make([]byte, 64), []byte("nonce"), []byte("fifteen octets."), []byte("associated data"), uint(999))
	f.Fuzz(func(t *testing.T, key, nonce, plaintext, ad []byte, bit uint) {
		id, ok := map[int]ID{32: SIVCMAC256, 48: SIVCMAC384, 64: SIVCMAC512}[len(key)]
		if !ok {
			return
		}
		want := oracle(t, key, nonce, plaintext, ad)
		for end, b := range boxes(t, id, key) {
			checkBox(t, end, b, nonce, plaintext, ad, want, bit)
		}
	})
}
