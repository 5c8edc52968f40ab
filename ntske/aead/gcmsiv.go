package aead

import (
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"slices"
)

const gcmNonceLen = 12

// gcm is AES-GCM-SIV for one nonce: the keys of RFC 8452 §4, made from the main key and the nonce, and the
// hash under way.
type gcm struct {
	asm   bool
	nonce [gcmNonceLen]byte
	enc   aesKey
	h     [blockLen]byte // the message-authentication key
	acc   [blockLen]byte // POLYVAL so far
}

// start derives the keys for a nonce of gcmNonceLen octets. keyLen is 16 or, for AEAD_AES_256_GCM_SIV whose
// test vectors alone use it, 32.
func (g *gcm) start(s *state, keyLen int, nonce []byte) {
	g.asm = s.asm
	copy(g.nonce[:], nonce)
	var in [6 * blockLen]byte
	n := (2 + keyLen/8) * blockLen
	first, rest := uint64(binary.LittleEndian.Uint32(nonce))<<32, binary.LittleEndian.Uint64(nonce[4:])
	for i := 0; i < n; i += blockLen {
		binary.LittleEndian.PutUint64(in[i:], first|uint64(i/blockLen))
		binary.LittleEndian.PutUint64(in[i+8:], rest)
	}
	s.main.encryptBlocks(in[:n], in[:n])
	for i := 0; i < n; i += blockLen { // half of every block is thrown away
		copy(in[i/2:], in[i:i+8])
	}
	g.h = [blockLen]byte(in[:])
	g.enc.expand(g.asm, in[blockLen:blockLen+keyLen])
}

// hash adds b to the hash, filled up with zeros to whole blocks.
func (g *gcm) hash(b []byte) {
	head := len(b) &^ (blockLen - 1)
	polyval(g.asm, &g.acc, &g.h, b[:head])
	if head < len(b) {
		var last [blockLen]byte
		copy(last[:], b[head:])
		polyval(g.asm, &g.acc, &g.h, last[:])
	}
}

// tag closes the hash over associated data and plaintext of these lengths in octets.
func (g *gcm) tag(ad, plaintext int) (t [blockLen]byte) {
	binary.LittleEndian.PutUint64(t[:8], 8*uint64(ad))
	binary.LittleEndian.PutUint64(t[8:], 8*uint64(plaintext))
	polyval(g.asm, &g.acc, &g.h, t[:])
	lo := binary.LittleEndian.Uint64(g.acc[:8]) ^ binary.LittleEndian.Uint64(g.nonce[:8])
	hi := binary.LittleEndian.Uint64(g.acc[8:]) ^ uint64(binary.LittleEndian.Uint32(g.nonce[8:]))
	binary.LittleEndian.PutUint64(t[:8], lo)
	binary.LittleEndian.PutUint64(t[8:], hi&^(1<<63))
	g.enc.encryptBlocks(t[:], t[:])
	return t
}

// xor encrypts or decrypts b in place in counter mode that starts at the tag with its last bit set. The first
// four octets count, little-endian, and wrap around by themselves.
func (g *gcm) xor(b []byte, tag [blockLen]byte) {
	lo, hi := binary.LittleEndian.Uint64(tag[:8]), binary.LittleEndian.Uint64(tag[8:])|1<<63
	count := uint32(lo)
	var pad [streamLen]byte
	for len(b) > 0 {
		n := streamLenFor(len(b))
		for i := 0; i < n; i += blockLen {
			binary.LittleEndian.PutUint64(pad[i:], lo>>32<<32|uint64(count))
			binary.LittleEndian.PutUint64(pad[i+8:], hi)
			count++
		}
		g.enc.encryptBlocks(pad[:n], pad[:n])
		b = b[subtle.XORBytes(b, b, pad[:n]):]
	}
}

func (s *state) sealGCM(dst, nonce, plaintext, ad []byte) []byte {
	if len(nonce) != gcmNonceLen {
		panic(fmt.Sprintf("aead: %v takes a nonce of %d octets, not %d", s.id, gcmNonceLen, len(nonce)))
	}
	var g gcm
	g.start(s, GCMSIV128.KeyLen(), nonce)
	return g.seal(dst, plaintext, ad)
}

func (g *gcm) seal(dst, plaintext, ad []byte) []byte {
	g.hash(ad)
	g.hash(plaintext)
	tag := g.tag(len(ad), len(plaintext))
	n := len(dst)
	dst = slices.Grow(dst, len(plaintext)+Overhead)[:n+len(plaintext)+Overhead]
	text := dst[n : n+len(plaintext)]
	copy(text, plaintext)
	copy(dst[n+len(plaintext):], tag[:])
	g.xor(text, tag)
	return dst
}

func (s *state) openGCM(dst, nonce, sealed, ad []byte) ([]byte, error) {
	if len(nonce) != gcmNonceLen {
		return nil, ErrOpen
	}
	var g gcm
	g.start(s, GCMSIV128.KeyLen(), nonce)
	return g.open(dst, sealed, ad)
}

func (g *gcm) open(dst, sealed, ad []byte) ([]byte, error) {
	g.hash(ad) // before anything is written: it may overlap
	m := len(sealed) - Overhead
	got := [blockLen]byte(sealed[m:])

	n := len(dst)
	dst = slices.Grow(dst, m)[:n+m]
	plaintext := dst[n:]
	copy(plaintext, sealed[:m])
	g.xor(plaintext, got)
	g.hash(plaintext)
	want := g.tag(len(ad), m)
	if subtle.ConstantTimeCompare(want[:], got[:]) != 1 {
		clear(plaintext)
		return nil, ErrOpen
	}
	return dst, nil
}
