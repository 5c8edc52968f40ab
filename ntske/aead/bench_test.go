package aead

import (
	"fmt"
	"testing"
)

// BenchmarkResponse seals what a server sends for one cookie, 188 octets of associated data and 104 of
// plaintext, with the key at hand and with a new key each time.
func BenchmarkResponse(b *testing.B) {
	for _, id := range allIDs {
		key, nonce, plaintext, ad := make([]byte, id.KeyLen()), make([]byte, id.NonceLen()), make([]byte, 104), make([]byte, 188)
		dst := make([]byte, 0, 200)
		for end, box := range boxes(b, id, key) {
			for _, rekey := range []bool{false, true} {
				b.Run(fmt.Sprintf("%v/%s/new key %t", id, end, rekey), func(b *testing.B) {
					b.ReportAllocs()
					for b.Loop() {
						if rekey {
							_ = box.Reset(id, key)
						}
						dst = box.Seal(dst[:0], nonce, plaintext, ad)
					}
				})
			}
		}
	}
}

// BenchmarkCookie opens a cookie of chronyd: 64 octets of plaintext, no associated data.
func BenchmarkCookie(b *testing.B) {
	for _, id := range allIDs {
		nonce, dst := make([]byte, id.NonceLen()), make([]byte, 0, 200)
		for end, box := range boxes(b, id, make([]byte, id.KeyLen())) {
			sealed := box.Seal(nil, nonce, make([]byte, 64), nil)
			b.Run(fmt.Sprintf("%v/%s", id, end), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := box.Open(dst, nonce, sealed, nil); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
