package aead

import (
	"errors"
	"fmt"
	"io"
)

// ErrOpen says that a sealed text is not authentic under this key, nonce and associated data.
// It never says more, so that it tells a forger nothing.
var ErrOpen = errors.New("aead: message is not authentic")

// Box is one of the algorithms named here under one key. Seal and Open are safe for concurrent use; Reset is
// not, and must not run beside them. The zero value must be Reset before it seals or opens. A Box prints no
// key. A copy shares its key with the original.
//
// On amd64 and arm64 processors with instructions for AES and carry-less multiplication nothing it does
// depends in time on a secret, and nothing allocates but the first Reset. Elsewhere it stands on crypto/aes:
// Reset allocates, and so do Seal and Open of GCMSIV128, which makes a new AES key for every nonce.
type Box struct {
	// Behind a func: fmt looks through pointers for some verbs, but never through a func.
	hidden func() *state
}

// state is what a Box holds.
type state struct {
	id  ID
	asm bool // has the assembly back end; set once

	// AES-SIV-CMAC: the two halves of the key. AES-GCM-SIV: main is the key that makes keys.
	main, ctr aesKey

	k1, k2 block // AES-SIV-CMAC: the CMAC subkeys, RFC 4493 §2.3
	zero   block // CMAC of the zero block, where S2V starts, RFC 5297 §2.4
}

// New makes a Box with a key of id.KeyLen() octets.
func New(id ID, key []byte) (*Box, error) {
	b := new(Box)
	if err := b.Reset(id, key); err != nil {
		return nil, err
	}
	return b, nil
}

// Reset gives b another algorithm and key, of id.KeyLen() octets, which is not retained. After an error b is
// as it was.
func (b *Box) Reset(id ID, key []byte) error {
	switch n := id.KeyLen(); {
	case n == 0:
		return fmt.Errorf("aead: %v is not known", id)
	case len(key) != n:
		return fmt.Errorf("aead: %v takes a key of %d octets, not %d", id, n, len(key))
	}
	if b.hidden == nil {
		s := &state{asm: hasAES}
		b.hidden = func() *state { return s }
	}
	s := b.hidden()
	s.id = id
	if id == GCMSIV128 {
		s.main.expand(s.asm, key)
	} else {
		s.resetSIV(key)
	}
	return nil
}

// ID returns the algorithm, or 0 for a Box that was never Reset.
func (b *Box) ID() ID {
	if b == nil || b.hidden == nil {
		return 0
	}
	return b.hidden().id
}

// Format prints the name of the algorithm, whatever the verb, and never the key.
func (b *Box) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, b.String()) }

// String returns the name of the algorithm.
func (b *Box) String() string {
	if b.ID() == 0 {
		return "no AEAD"
	}
	return b.ID().String()
}

// Seal appends what authenticates and hides plaintext, len(plaintext)+Overhead octets, to dst and returns the
// longer slice: tag ‖ ciphertext with AES-SIV-CMAC, ciphertext ‖ tag with AES-GCM-SIV. ad and nonce are
// authenticated; an empty one is still a component of S2V, which is how NTS uses AES-SIV-CMAC (RFC 8915
// §5.6, RFC 5297 §3). The nonce may have any length with AES-SIV-CMAC and must have 12 octets with
// AES-GCM-SIV; Seal panics otherwise, as crypto/cipher does.
//
// Every input is read before the first octet is written, so plaintext, nonce and ad may lie anywhere, also in
// the memory that is written.
func (b *Box) Seal(dst, nonce, plaintext, ad []byte) []byte {
	s := b.hidden()
	if s.id == GCMSIV128 {
		return s.sealGCM(dst, nonce, plaintext, ad)
	}
	return s.sealSIV(dst, nonce, plaintext, ad)
}

// Open appends the plaintext of what Seal made, len(sealed)-Overhead octets, to dst and returns the longer
// slice, or nil and ErrOpen if sealed is not authentic. Then dst[:len(dst)] is as it was and no octet of
// the plaintext is left behind it: that room is zero, or untouched if not even the lengths fit.
//
// sealed, nonce and ad may lie in the memory that is written: Open(sealed[:0], …) and
// Open(sealed[:Overhead], …) open in place (and destroy sealed also on failure).
func (b *Box) Open(dst, nonce, sealed, ad []byte) ([]byte, error) {
	s := b.hidden()
	if len(sealed) < Overhead {
		return nil, ErrOpen
	}
	if s.id == GCMSIV128 {
		return s.openGCM(dst, nonce, sealed, ad)
	}
	return s.openSIV(dst, nonce, sealed, ad)
}
