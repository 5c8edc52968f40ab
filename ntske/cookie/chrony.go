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
// A cookie of chronyd 4.0 and newer, under a key of either algorithm and with a session of either:
//
//	  0   4  key id, big endian
//	  4   N  nonce: 16 octets for AES-SIV-CMAC-256, 12 for AES-128-GCM-SIV
//	4+N   …  C2S ‖ S2C sealed with the key and no associated data
//
// It does not say which AEAD the session uses; the length of the keys does:
//
//	session                     15    30
//	key of AES-SIV-CMAC-256    100    68 octets
//	key of AES-128-GCM-SIV      96    64 octets
//
// Before 4.4 chronyd knew AES-SIV-CMAC-256 only.
type Chrony struct{}

const (
	chronyID      = 4
	chronySession = 2 * 32 // C2S and S2C of AES-SIV-CMAC-256, the longest

	chronyKeys    = 4 // keys of a ring, oldest first: two old ones, the current and the next one
	chronyCurrent = 2
)

// AEADs lists the algorithms of sessions that cookies can carry and every chronyd can speak, best first. It
// is what may be offered to clients before anything is known of the daemon.
func (Chrony) AEADs() []aead.ID { return []aead.ID{aead.SIVCMAC256} }

// Carries lists the algorithms of sessions that cookies can carry. Whether the daemon at hand speaks more of
// them than AEADs lists, only a trial tells: it takes chronyd 4.4 with a library that has AES-128-GCM-SIV.
func (Chrony) Carries() []aead.ID { return []aead.ID{aead.SIVCMAC256, aead.GCMSIV128} }

// chronyKnows reports whether chronyd has alg, for keys and for sessions.
func chronyKnows(alg aead.ID) bool { return alg == aead.SIVCMAC256 || alg == aead.GCMSIV128 }

// NonceLen returns the length in octets of the nonce that Seal takes with this key.
func (Chrony) NonceLen(k *Key) int { return k.alg.NonceLen() }

// Seal appends the cookie that carries s, sealed with k, to dst. nonce is k's NonceLen octets, random and
// never used before. It does not allocate when dst has room for 100 octets.
func (Chrony) Seal(dst []byte, k *Key, nonce []byte, s *Session) ([]byte, error) {
	if !chronyKnows(k.alg) || !chronyKnows(s.AEAD) {
		return nil, fmt.Errorf("chrony cookie: chronyd has no key of %v with a session of %v", k.alg, s.AEAD)
	}
	if len(s.C2S) != s.AEAD.KeyLen() || len(s.S2C) != s.AEAD.KeyLen() {
		return nil, fmt.Errorf("chrony cookie: keys of %d and %d octets for %v", len(s.C2S), len(s.S2C), s.AEAD)
	}
	if len(nonce) != k.alg.NonceLen() {
		return nil, fmt.Errorf("chrony cookie: nonce of %d octets, not %d", len(nonce), k.alg.NonceLen())
	}
	dst = binary.BigEndian.AppendUint32(dst, k.id)
	dst = append(dst, nonce...)
	var plaintext [chronySession]byte
	n := copy(plaintext[:], s.C2S)
	n += copy(plaintext[n:], s.S2C)
	return k.secret().siv.Seal(dst, nonce, plaintext[:n], nil), nil
}

// Open opens the cookie c with the key of r it names. The keys of the session lie in the up to 64 octets that
// Open appends to dst (its result is not returned apart), so it does not allocate when dst has room for them.
// Errors are ErrUnknownKey, found before any cryptography, and ErrCookie.
func (Chrony) Open(dst []byte, r *Ring, c []byte) (Session, error) {
	if !chronyLength(aead.SIVCMAC256, len(c)) && !chronyLength(aead.GCMSIV128, len(c)) {
		return Session{}, ErrCookie
	}
	k := r.Find(binary.BigEndian.Uint32(c))
	if k == nil {
		return Session{}, ErrUnknownKey
	}
	if !chronyLength(k.alg, len(c)) {
		return Session{}, ErrCookie
	}
	sealed := chronyID + k.alg.NonceLen()
	out, err := k.secret().siv.Open(dst, c[chronyID:sealed], c[sealed:], nil)
	if err != nil {
		return Session{}, ErrCookie
	}
	keys := out[len(dst):]
	alg, n := aead.SIVCMAC256, len(keys)/2
	if n == aead.GCMSIV128.KeyLen() {
		alg = aead.GCMSIV128
	}
	return Session{alg, keys[:n:n], keys[n : 2*n : 2*n]}, nil
}

// chronyLength reports whether a cookie under a key of alg may have n octets.
func chronyLength(alg aead.ID, n int) bool {
	n -= chronyID + alg.NonceLen() + aead.Overhead
	return chronyKnows(alg) && (n == 2*aead.SIVCMAC256.KeyLen() || n == 2*aead.GCMSIV128.KeyLen())
}

// NewRing makes a fresh ring of four random keys of AES-SIV-CMAC-256, which every chronyd knows: two old ones,
// the current one and the next.
func (Chrony) NewRing(rand io.Reader) (*Ring, error) {
	var id [4]byte
	if _, err := io.ReadFull(rand, id[:]); err != nil {
		return nil, fmt.Errorf("make cookie keys: %w", err)
	}
	first := binary.BigEndian.Uint32(id[:])
	keys := make([]*Key, chronyKeys)
	for i := range keys {
		k, err := chronyFresh(first+uint32(i), aead.SIVCMAC256, rand)
		if err != nil {
			return nil, err
		}
		keys[i] = k
	}
	return NewRing(keys, chronyCurrent)
}

// Next makes the ring that follows r: its oldest key is gone, the key that was next mints, and a random one
// is the new next. It has the algorithm of the key before it.
//
// A ring never goes from AES-128-GCM-SIV back to AES-SIV-CMAC-256: chronyd would answer old cookies with
// longer ones, make its answers longer than the requests, and so not send them. Where r is about to, a fresh
// key of AES-128-GCM-SIV takes the place of the one that was next, which then was for nothing; the daemon
// does not know the new one before it has read the file.
func (f Chrony) Next(r *Ring, rand io.Reader) (*Ring, error) {
	if err := f.check(r); err != nil {
		return nil, err
	}
	keys := r.Keys()[1:]
	current, next := keys[chronyCurrent-1], keys[chronyCurrent]
	var err error
	if current.alg == aead.GCMSIV128 && next.alg != aead.GCMSIV128 {
		if next, err = chronyFresh(next.id+chronyKeys, aead.GCMSIV128, rand); err != nil {
			return nil, err
		}
		keys[chronyCurrent] = next
	}
	// A random key id may run over the end of 32 bits here; the slots follow each other all the same.
	fresh, err := chronyFresh(next.id+1, next.alg, rand)
	if err != nil {
		return nil, err
	}
	return NewRing(append(keys, fresh), chronyCurrent)
}

// check says why chronyd would not take r, if so.
func (Chrony) check(r *Ring) error {
	if len(r.keys) != chronyKeys || r.current != chronyCurrent {
		return fmt.Errorf("chrony cookie keys: %d of which number %d is current; chronyd wants %d and number %d",
			len(r.keys), r.current+1, chronyKeys, chronyCurrent+1)
	}
	for i, k := range r.keys {
		if !chronyKnows(k.alg) {
			return fmt.Errorf("chrony cookie keys: key %08x is of %v, which chronyd does not have", k.id, k.alg)
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

func chronyFresh(id uint32, alg aead.ID, rand io.Reader) (*Key, error) {
	var room [32]byte
	defer clear(room[:])
	octets := room[:alg.KeyLen()]
	if _, err := io.ReadFull(rand, octets); err != nil {
		return nil, fmt.Errorf("make cookie key %08x: %w", id, err)
	}
	return NewKey(id, alg, octets)
}
