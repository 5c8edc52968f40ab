package aead

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
)

// ErrOpen says that a sealed text is not authentic under this key, nonce and associated data.
// It never says more, so that it tells a forger nothing.
var ErrOpen = errors.New("aead: message is not authentic")

const blockLen = aes.BlockSize

// SIV is AES-SIV-CMAC (RFC 5297) under one key. It is safe for concurrent use and prints no key.
// Use it by pointer; it must not be copied.
type SIV struct {
	mac, ctr cipher.Block
	k1, k2   block // the CMAC subkeys, RFC 4493 §2.3
	zero     block // CMAC of the zero block: where S2V starts, RFC 5297 §2.4
	name     ID

	// cipher.Block is an interface, so whatever it is handed escapes to the heap. The scratch memory
	// for one operation therefore lives here; only operations that run at the same time under the
	// same key take theirs from the pool. (The pool alone would do, were it not that it forgets at
	// random under the race detector, where the tests prove that nothing is allocated.)
	busy  atomic.Bool
	own   scratch
	spare sync.Pool
}

type scratch [blockLen]byte

// NewSIV makes an AES-SIV-CMAC from a key of 32, 48 or 64 octets (SIVCMAC256, SIVCMAC384, SIVCMAC512).
// The first half of the key authenticates, the second encrypts. The key is not retained.
func NewSIV(key []byte) (*SIV, error) {
	s := new(SIV)
	switch len(key) {
	case SIVCMAC256.KeyLen():
		s.name = SIVCMAC256
	case SIVCMAC384.KeyLen():
		s.name = SIVCMAC384
	case SIVCMAC512.KeyLen():
		s.name = SIVCMAC512
	default:
		return nil, fmt.Errorf("aead: an AES-SIV-CMAC key has 32, 48 or 64 octets, not %d", len(key))
	}
	var err error
	if s.mac, err = aes.NewCipher(key[:len(key)/2]); err != nil {
		return nil, fmt.Errorf("aead: %w", err)
	}
	if s.ctr, err = aes.NewCipher(key[len(key)/2:]); err != nil {
		return nil, fmt.Errorf("aead: %w", err)
	}
	s.k1 = encrypt(s.mac, &s.own, block{}).double()
	s.k2 = s.k1.double()
	s.zero = encrypt(s.mac, &s.own, s.k1)
	return s, nil
}

// Format prints the name of the algorithm, whatever the verb, and never the key.
func (s *SIV) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// String returns the name of the algorithm.
func (s *SIV) String() string {
	if s == nil {
		return "no AEAD"
	}
	return s.name.String()
}

// Seal appends tag ‖ ciphertext, len(plaintext)+Overhead octets, to dst and returns the longer slice.
// The tag is S2V over ad, nonce and plaintext in this order; an empty ad or nonce is still a component,
// which is how NTS uses the algorithm (RFC 8915 §5.6, RFC 5297 §3). The nonce may have any length.
//
// Seal does not allocate when dst has room. Every input is read before the first octet is written, so
// plaintext, nonce and ad may lie anywhere, also in the memory that is written.
func (s *SIV) Seal(dst, nonce, plaintext, ad []byte) []byte {
	w := s.take()
	defer s.give(w)
	components := [2][]byte{ad, nonce}
	tag := s.s2vEnd(w, s.s2v(w, components[:]), plaintext)

	n := len(dst)
	dst = slices.Grow(dst, Overhead+len(plaintext))[:n+Overhead+len(plaintext)]
	copy(dst[n+Overhead:], plaintext) // before the tag is written: it may overlap
	tag.put(dst[n:])
	s.xorKeyStream(w, dst[n+Overhead:], tag)
	return dst
}

// Open appends the plaintext of what Seal made, len(sealed)-Overhead octets, to dst and returns the longer
// slice, or nil and ErrOpen if sealed is not authentic. Then dst[:len(dst)] is as it was and no octet of
// the plaintext is left behind it: that room is zero.
//
// Open does not allocate when dst has room. sealed, nonce and ad may lie in the memory that is written:
// Open(sealed[:0], …) and Open(sealed[:Overhead], …) open in place (and destroy sealed also on failure).
func (s *SIV) Open(dst, nonce, sealed, ad []byte) ([]byte, error) {
	if len(sealed) < Overhead {
		return nil, ErrOpen
	}
	w := s.take()
	defer s.give(w)
	components := [2][]byte{ad, nonce}
	head := s.s2v(w, components[:]) // before anything is written: they may overlap
	got := getBlock(sealed)

	n := len(dst)
	dst = slices.Grow(dst, len(sealed)-Overhead)[:n+len(sealed)-Overhead]
	plaintext := dst[n:]
	copy(plaintext, sealed[Overhead:])
	s.xorKeyStream(w, plaintext, got)
	if !s.s2vEnd(w, head, plaintext).equal(got) {
		clear(plaintext)
		return nil, ErrOpen
	}
	return dst, nil
}

func (s *SIV) take() *scratch {
	if s.busy.CompareAndSwap(false, true) {
		return &s.own
	}
	if w, ok := s.spare.Get().(*scratch); ok {
		return w
	}
	return new(scratch)
}

func (s *SIV) give(w *scratch) {
	if w == &s.own {
		s.busy.Store(false)
		return
	}
	s.spare.Put(w)
}

// s2v folds all components but the last into one block: the state D of RFC 5297 §2.4.
func (s *SIV) s2v(w *scratch, components [][]byte) block {
	d := s.zero
	for _, c := range components {
		d = d.double().xor(s.cmac(w, block{}, c))
	}
	return d
}

// s2vEnd finishes S2V with its last component.
func (s *SIV) s2vEnd(w *scratch, d block, last []byte) block {
	if len(last) < blockLen {
		// dbl(D) xor pad(last): one whole block, so CMAC closes it with K1.
		return encrypt(s.mac, w, d.double().xor(pad(last)).xor(s.k1))
	}
	// CMAC over "last xorend D". D meets the last 16 octets, which lie across the last two blocks of
	// CMAC; those are assembled aside, what comes before goes straight in.
	head := (len(last) - blockLen) &^ (blockLen - 1)
	var x block
	for i := 0; i < head; i += blockLen {
		x = encrypt(s.mac, w, x.xor(getBlock(last[i:])))
	}
	var tail [2 * blockLen]byte
	n := copy(tail[:], last[head:])
	end := tail[n-blockLen : n]
	getBlock(end).xor(d).put(end)
	return s.cmac(w, x, tail[:n])
}

// cmac continues CMAC (RFC 4493) from the chaining value x over b, the rest of the message.
func (s *SIV) cmac(w *scratch, x block, b []byte) block {
	for len(b) > blockLen {
		x = encrypt(s.mac, w, x.xor(getBlock(b)))
		b = b[blockLen:]
	}
	if len(b) == blockLen {
		return encrypt(s.mac, w, x.xor(getBlock(b)).xor(s.k1))
	}
	return encrypt(s.mac, w, x.xor(pad(b)).xor(s.k2))
}

// xorKeyStream encrypts or decrypts b in place in counter mode that starts at the tag with two bits
// cleared (RFC 5297 §2.5). Because of them 64 bits never overflow, so only the low half counts.
func (s *SIV) xorKeyStream(w *scratch, b []byte, tag block) {
	q := block{tag.hi, tag.lo &^ (1<<63 | 1<<31)}
	for len(b) >= blockLen {
		encrypt(s.ctr, w, q).xor(getBlock(b)).put(b)
		q.lo++
		b = b[blockLen:]
	}
	if len(b) > 0 {
		encrypt(s.ctr, w, q)
		subtle.XORBytes(b, b, w[:len(b)])
	}
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

// encrypt runs one block through the cipher. The result stays in w as well.
func encrypt(c cipher.Block, w *scratch, x block) block {
	x.put(w[:])
	c.Encrypt(w[:], w[:])
	return getBlock(w[:])
}
