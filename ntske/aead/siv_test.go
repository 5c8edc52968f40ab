package aead

import (
	"bytes"
	"encoding/hex"
	"testing"
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
