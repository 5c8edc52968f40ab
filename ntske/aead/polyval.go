package aead

import (
	"encoding/binary"
	"math/bits"
)

// polyval adds the whole blocks of data to the hash acc under the key h (POLYVAL, RFC 8452 §3).
func polyval(asm bool, acc, h *[blockLen]byte, data []byte) {
	switch {
	case len(data) == 0:
	case asm:
		polyvalBlocks(acc, h, &data[0], len(data)/blockLen)
	default:
		polyvalSlow(acc, h, data)
	}
}

// polyvalSlow is polyval without special instructions. Elements of the field are two little-endian words, the
// lowest bit of the first one being the constant term.
func polyvalSlow(acc, h *[blockLen]byte, data []byte) {
	a0, a1 := binary.LittleEndian.Uint64(acc[:8]), binary.LittleEndian.Uint64(acc[8:])
	h0, h1 := binary.LittleEndian.Uint64(h[:8]), binary.LittleEndian.Uint64(h[8:])
	for ; len(data) > 0; data = data[blockLen:] {
		a0 ^= binary.LittleEndian.Uint64(data[:8])
		a1 ^= binary.LittleEndian.Uint64(data[8:16])
		a0, a1 = dot(a0, a1, h0, h1)
	}
	binary.LittleEndian.PutUint64(acc[:8], a0)
	binary.LittleEndian.PutUint64(acc[8:], a1)
}

// dot returns a·b·x^-128 modulo x^128 + x^127 + x^126 + x^121 + 1.
func dot(a0, a1, b0, b1 uint64) (uint64, uint64) {
	// Karatsuba: 256 bits from three products.
	r0, r1 := clmul(a0, b0)
	r2, r3 := clmul(a1, b1)
	m0, m1 := clmul(a0^a1, b0^b1)
	m0, m1 = m0^r0^r2, m1^r1^r3
	r1, r2 = r1^m0, r2^m1
	// Twice add the modulus times the lowest word, which clears that word and so divides by x^64.
	r1 ^= r0<<57 ^ r0<<62 ^ r0<<63
	r2 ^= r0 ^ r0>>7 ^ r0>>2 ^ r0>>1
	r2 ^= r1<<57 ^ r1<<62 ^ r1<<63
	r3 ^= r1 ^ r1>>7 ^ r1>>2 ^ r1>>1
	return r2, r3
}

// clmul multiplies without carries, in time that depends on nothing.
func clmul(a, b uint64) (lo, hi uint64) {
	// Mirrored operands give the mirrored product, whose low half is the high half wanted, one bit off.
	return clmulLow(a, b), bits.Reverse64(clmulLow(bits.Reverse64(a), bits.Reverse64(b))) >> 1
}

// clmulLow is the low half of a product without carries. Each operand is spread over four words that hold
// every fourth bit: in a product of two such words at most 15 ones meet in one place, 16 in the last one, so
// that carries stay within the three places above or fall off the end, and the place is the sum modulo 2.
func clmulLow(a, b uint64) uint64 {
	const every4th = 0x1111111111111111
	a0, a1, a2, a3 := a&every4th, a&(every4th<<1), a&(every4th<<2), a&(every4th<<3)
	b0, b1, b2, b3 := b&every4th, b&(every4th<<1), b&(every4th<<2), b&(every4th<<3)
	return (a0*b0^a1*b3^a2*b2^a3*b1)&every4th |
		(a0*b1^a1*b0^a2*b3^a3*b2)&(every4th<<1) |
		(a0*b2^a1*b1^a2*b0^a3*b3)&(every4th<<2) |
		(a0*b3^a1*b2^a2*b1^a3*b0)&(every4th<<3)
}
