package cookie

import (
	"encoding/binary"
	"fmt"
	"io"

	"ntsagent/ntske/aead"
)

// Chrony is chronyd's way to write cookies and its key file ntskeys. All this agent knows of either is here
// and in chrony_keys.go.
//
// A cookie of chronyd 4.0 and newer, with a key and a session of AES-SIV-CMAC-256, has 100 octets:
//
//	 0   4  key id, big endian
//	 4  16  nonce
//	20  80  AES-SIV-CMAC-256 under the key, no associated data, of C2S ‖ S2C
//
// It does not say which AEAD the session uses; the length of the keys does.
type Chrony struct{}

const (
	chronyID      = 4
	chronyNonce   = 16
	chronySession = 2 * 32 // C2S and S2C of AES-SIV-CMAC-256
	chronyCookie  = chronyID + chronyNonce + aead.Overhead + chronySession

	chronyKeys    = 4 // keys of a ring, oldest first: two old ones, the current and the next one
	chronyCurrent = 2
)

// AEADs lists the algorithms of sessions that cookies can carry and chronyd can speak, best first.
func (Chrony) AEADs() []aead.ID { return []aead.ID{aead.SIVCMAC256} }

// NonceLen returns the length in octets of the nonce that Seal takes with this key.
func (Chrony) NonceLen(*Key) int { return chronyNonce }

// Seal appends the cookie that carries s, sealed with k, to dst. nonce is k's NonceLen octets, random and
// never used before. It does not allocate when dst has room for 100 octets.
func (Chrony) Seal(dst []byte, k *Key, nonce []byte, s *Session) ([]byte, error) {
	if k.alg != aead.SIVCMAC256 || s.AEAD != aead.SIVCMAC256 {
		return nil, fmt.Errorf("chrony cookie: key of %v and session of %v are not supported yet", k.alg, s.AEAD)
	}
	if len(s.C2S) != s.AEAD.KeyLen() || len(s.S2C) != s.AEAD.KeyLen() {
		return nil, fmt.Errorf("chrony cookie: keys of %d and %d octets for %v", len(s.C2S), len(s.S2C), s.AEAD)
	}
	if len(nonce) != chronyNonce {
		return nil, fmt.Errorf("chrony cookie: nonce of %d octets, not %d", len(nonce), chronyNonce)
	}
	dst = binary.BigEndian.AppendUint32(dst, k.id)
	dst = append(dst, nonce...)
	var plaintext [chronySession]byte
	copy(plaintext[copy(plaintext[:], s.C2S):], s.S2C)
	return k.secret().siv.Seal(dst, nonce, plaintext[:], nil), nil
}

// Open opens the cookie c with the key of r it names. The keys of the session lie in the 64 octets that Open
// appends to dst (its result is not returned apart), so it does not allocate when dst has room for them.
// Errors are ErrUnknownKey, found before any cryptography, and ErrCookie.
func (Chrony) Open(dst []byte, r *Ring, c []byte) (Session, error) {
	if len(c) != chronyCookie {
		return Session{}, ErrCookie
	}
	k := r.Find(binary.BigEndian.Uint32(c))
	if k == nil {
		return Session{}, ErrUnknownKey
	}
	if k.alg != aead.SIVCMAC256 {
		return Session{}, ErrCookie
	}
	out, err := k.secret().siv.Open(dst, c[chronyID:chronyID+chronyNonce], c[chronyID+chronyNonce:], nil)
	if err != nil {
		return Session{}, ErrCookie
	}
	keys := out[len(dst):]
	return Session{aead.SIVCMAC256, keys[:32:32], keys[32:64:64]}, nil
}

// NewRing makes a fresh ring of four random keys: two old ones, the current one and the next.
func (Chrony) NewRing(rand io.Reader) (*Ring, error) {
	var id [4]byte
	if _, err := io.ReadFull(rand, id[:]); err != nil {
		return nil, fmt.Errorf("make cookie keys: %w", err)
	}
	first := binary.BigEndian.Uint32(id[:])
	keys := make([]*Key, chronyKeys)
	for i := range keys {
		k, err := chronyFresh(first+uint32(i), rand)
		if err != nil {
			return nil, err
		}
		keys[i] = k
	}
	return NewRing(keys, chronyCurrent)
}

// Next makes the ring that follows r: its oldest key is gone, the key that was next mints, and a random one
// is the new next.
func (f Chrony) Next(r *Ring, rand io.Reader) (*Ring, error) {
	if err := f.check(r); err != nil {
		return nil, err
	}
	// A random key id may run over the end of 32 bits here; the slots follow each other all the same.
	k, err := chronyFresh(r.keys[chronyKeys-1].id+1, rand)
	if err != nil {
		return nil, err
	}
	return NewRing(append(r.Keys()[1:], k), chronyCurrent)
}

// check says why chronyd would not take r, if so.
func (Chrony) check(r *Ring) error {
	if len(r.keys) != chronyKeys || r.current != chronyCurrent {
		return fmt.Errorf("chrony cookie keys: %d of which number %d is current; chronyd wants %d and number %d",
			len(r.keys), r.current+1, chronyKeys, chronyCurrent+1)
	}
	for i, k := range r.keys {
		if k.alg != aead.SIVCMAC256 {
			return fmt.Errorf("chrony cookie keys: key %08x is of %v, which is not supported yet", k.id, k.alg)
		}
		if i > 0 && !chronyFollows(r.keys[i-1].id, k.id) {
			return fmt.Errorf("chrony cookie keys: id %08x does not follow %08x", k.id, r.keys[i-1].id)
		}
	}
	return nil
}

// chronyFollows reports whether the key b may come right after the key a. The two lowest bits of an id are
// the slot chronyd keeps the key in.
func chronyFollows(a, b uint32) bool { return (a+1)%chronyKeys == b%chronyKeys }

func chronyFresh(id uint32, rand io.Reader) (*Key, error) {
	var octets [32]byte
	defer clear(octets[:])
	if _, err := io.ReadFull(rand, octets[:]); err != nil {
		return nil, fmt.Errorf("make cookie key %08x: %w", id, err)
	}
	return NewKey(id, aead.SIVCMAC256, octets[:])
}
