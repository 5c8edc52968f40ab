package aead

import (
	"crypto/subtle"
	"encoding/binary"
	"slices"
)

func (s *state) resetSIV(key []byte) {
	s.main.expand(s.asm, key[:len(key)/2])
	s.ctr.expand(s.asm, key[len(key)/2:])
	s.k1 = s.main.encrypt(block{}).double()
	s.k2 = s.k1.double()
	s.zero = s.main.encrypt(s.k1)
}

func (s *state) sealSIV(dst, nonce, plaintext, ad []byte) []byte {
	tag := s.s2vEnd(s.s2vNext(s.s2vNext(s.zero, ad), nonce), plaintext)
	n := len(dst)
	dst = slices.Grow(dst, Overhead+len(plaintext))[:n+Overhead+len(plaintext)]
	copy(dst[n+Overhead:], plaintext) // before the tag is written: it may overlap
	tag.put(dst[n:])
	s.xorSIV(dst[n+Overhead:], tag)
	return dst
}

func (s *state) openSIV(dst, nonce, sealed, ad []byte) ([]byte, error) {
	head := s.s2vNext(s.s2vNext(s.zero, ad), nonce) // before anything is written: they may overlap
	got := getBlock(sealed)

	n := len(dst)
	dst = slices.Grow(dst, len(sealed)-Overhead)[:n+len(sealed)-Overhead]
	plaintext := dst[n:]
	copy(plaintext, sealed[Overhead:])
	s.xorSIV(plaintext, got)
	if !s.s2vEnd(head, plaintext).equal(got) {
		clear(plaintext)
		return nil, ErrOpen
	}
	return dst, nil
}

// s2vNext folds a component that is not the last one into the state D of RFC 5297 §2.4.
func (s *state) s2vNext(d block, component []byte) block {
	return d.double().xor(s.cmac(block{}, component))
}

// s2vEnd finishes S2V with its last component.
func (s *state) s2vEnd(d block, last []byte) block {
	if len(last) < blockLen {
		// dbl(D) xor pad(last): one whole block, so CMAC closes it with K1.
		return s.main.encrypt(d.double().xor(pad(last)).xor(s.k1))
	}
	// CMAC over "last xorend D". D meets the last 16 octets, which lie across the last two blocks of
	// CMAC; those are assembled aside, what comes before goes straight in.
	head := (len(last) - blockLen) &^ (blockLen - 1)
	x := s.main.chain(block{}, last[:head])
	var tail [2 * blockLen]byte
	n := copy(tail[:], last[head:])
	end := tail[n-blockLen : n]
	getBlock(end).xor(d).put(end)
	return s.cmac(x, tail[:n])
}

// cmac continues CMAC (RFC 4493) from the chaining value x over b, the rest of the message.
func (s *state) cmac(x block, b []byte) block {
	if len(b) > blockLen {
		head := (len(b) - 1) &^ (blockLen - 1)
		x = s.main.chain(x, b[:head])
		b = b[head:]
	}
	if len(b) == blockLen {
		return s.main.encrypt(x.xor(getBlock(b)).xor(s.k1))
	}
	return s.main.encrypt(x.xor(pad(b)).xor(s.k2))
}

// xorSIV encrypts or decrypts b in place in counter mode that starts at the tag with two bits cleared
// (RFC 5297 §2.5). Because of them 64 bits never overflow, so only the low half counts.
func (s *state) xorSIV(b []byte, tag block) {
	q := block{tag.hi, tag.lo &^ (1<<63 | 1<<31)}
	var pad [streamLen]byte
	for len(b) > 0 {
		n := streamLenFor(len(b))
		for i := 0; i < n; i += blockLen {
			q.put(pad[i:])
			q.lo++
		}
		s.ctr.encryptBlocks(pad[:n], pad[:n])
		b = b[subtle.XORBytes(b, b, pad[:n]):]
	}
}

const (
	blockLen  = 16
	streamLen = 8 * blockLen // how much of a key stream is made at a time
)

// streamLenFor says how much key stream to make at a time for n octets: whole blocks, and from two on a
// multiple of four, which the assembly encrypts side by side.
func streamLenFor(n int) int {
	if n <= blockLen {
		return blockLen
	}
	const side = 4 * blockLen
	return (min(n, streamLen) + side - 1) &^ (side - 1)
}

// block is 16 octets as two big-endian words: small values that stay in registers.
type block struct{ hi, lo uint64 }

func getBlock(b []byte) block {
	return block{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:16])}
}

func (x block) put(b []byte) {
	binary.BigEndian.PutUint64(b[:8], x.hi)
	binary.BigEndian.PutUint64(b[8:16], x.lo)
}

func (x block) xor(y block) block { return block{x.hi ^ y.hi, x.lo ^ y.lo} }

// double multiplies by x in GF(2^128), without a branch on secret bits.
func (x block) double() block {
	return block{x.hi<<1 | x.lo>>63, x.lo<<1 ^ -(x.hi>>63)&0x87}
}

// equal compares in constant time.
func (x block) equal(y block) bool {
	var a, b [blockLen]byte
	x.put(a[:])
	y.put(b[:])
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// pad appends a one bit and zeros to less than one block.
func pad(b []byte) block {
	var p [blockLen]byte
	p[copy(p[:], b)] = 0x80
	return getBlock(p[:])
}
