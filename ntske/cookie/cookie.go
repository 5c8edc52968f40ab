// Package cookie holds what an NTS cookie carries, the keys that seal cookies, and how each NTP daemon
// writes both.
//
// A Ring is immutable: a rotation makes a new one. Session, Key and Ring print no key, whatever the verb.
package cookie

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"

	"ntsagent/ntske/aead"
)

// Why a cookie was not opened.
var (
	// ErrCookie says that the octets are no cookie of this kind, or were not sealed with the key they name.
	ErrCookie = errors.New("cookie: not a valid cookie")
	// ErrUnknownKey says that a cookie names a key the ring does not hold, most often one that has been
	// rotated out. It is found before any cryptography.
	ErrUnknownKey = errors.New("cookie: sealed with an unknown key")
)

// Session is what a cookie carries: the AEAD of an NTS session and its two keys, of AEAD.KeyLen() octets
// each (RFC 8915 §5.1). A struct that is ever printed should hold one by pointer: fmt does not ask Format of
// what lies in unexported fields.
type Session struct {
	AEAD aead.ID
	C2S  []byte // the client seals with it
	S2C  []byte // the server seals with it
}

// String names the algorithm and no key.
func (s Session) String() string { return "session " + s.AEAD.String() }

// Format prints String for every verb.
func (s Session) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// MarshalText is String, for encoders that would write the fields.
func (s Session) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Key seals and opens cookies. It is immutable and safe for concurrent use.
type Key struct {
	id  uint32
	alg aead.ID
	// Behind a func: a struct that holds a Key in a field of its own prints it without asking Format, and
	// fmt looks through pointers for some verbs, but never through a func.
	secret func() *secret
}

type secret struct {
	octets []byte
	siv    *aead.Box
}

// NewKey makes the key number id for the algorithm alg from alg.KeyLen() octets, which it copies.
func NewKey(id uint32, alg aead.ID, octets []byte) (*Key, error) {
	siv, err := aead.New(alg, octets)
	if err != nil {
		return nil, fmt.Errorf("cookie key %08x: %w", id, err)
	}
	hidden := &secret{slices.Clone(octets), siv}
	return &Key{id, alg, func() *secret { return hidden }}, nil
}

// ID returns the number by which a cookie names the key.
func (k *Key) ID() uint32 { return k.id }

// AEAD returns the algorithm that seals cookies under the key.
func (k *Key) AEAD() aead.ID { return k.alg }

// Fingerprint returns 8 hex digits by which people compare keys without seeing them: the start of a
// SHA-256 over a label and the key.
func (k *Key) Fingerprint() string {
	h := sha256.New()
	h.Write([]byte("ntsagent cookie key fingerprint\x00"))
	h.Write(k.secret().octets)
	return hex.EncodeToString(h.Sum(nil)[:4])
}

// String returns the number of the key and nothing of the key itself.
func (k Key) String() string { return fmt.Sprintf("cookie key %08x", k.id) }

// Format prints String for every verb.
func (k Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.String()) }

// MarshalText is String, for encoders.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// Ring is a set of cookie keys of which one mints and all open. It is immutable and safe for concurrent use.
type Ring struct {
	keys    []*Key
	current int
}

// NewRing makes a ring of keys, oldest first, of which keys[current] mints. Their ids must differ.
func NewRing(keys []*Key, current int) (*Ring, error) {
	if current < 0 || current >= len(keys) {
		return nil, fmt.Errorf("cookie ring: key %d of %d is to be the current one", current, len(keys))
	}
	for i, k := range keys {
		if k == nil {
			return nil, fmt.Errorf("cookie ring: key %d is missing", i)
		}
		if slices.ContainsFunc(keys[:i], func(o *Key) bool { return o.id == k.id }) {
			return nil, fmt.Errorf("cookie ring: two keys have the id %08x", k.id)
		}
	}
	return &Ring{slices.Clone(keys), current}, nil
}

// Current returns the key that mints.
func (r *Ring) Current() *Key { return r.keys[r.current] }

// Find returns the key with this id, or nil.
func (r *Ring) Find(id uint32) *Key {
	for _, k := range r.keys {
		if k.id == id {
			return k
		}
	}
	return nil
}

// Keys returns the keys, oldest first.
func (r *Ring) Keys() []*Key { return slices.Clone(r.keys) }

// String says how many keys there are and which one mints.
func (r Ring) String() string {
	if len(r.keys) == 0 {
		return "no cookie keys"
	}
	return fmt.Sprintf("%d cookie keys, current %08x", len(r.keys), r.Current().id)
}

// Format prints String for every verb.
func (r Ring) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, r.String()) }

// MarshalText is String, for encoders.
func (r Ring) MarshalText() ([]byte, error) { return []byte(r.String()), nil }
