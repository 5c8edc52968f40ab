package cookie

import (
	"errors"
	"fmt"
	"slices"

	"ntsagent/ntske/aead"
)

// Format is one daemon's way to write cookies and its key file. The methods keep nothing and are safe for
// concurrent use. A daemon that takes its keys from others can be led; its Format can also write key files
// (Chrony.AppendKeys).
type Format interface {
	// AEADs lists the algorithms of sessions that cookies can carry and the daemon can speak, best first.
	AEADs() []aead.ID
	// ParseKeys reads a whole key file of the daemon, strictly: all of it, or an error that tells where and
	// shows no key.
	ParseKeys(file []byte) (*Ring, error)
	// NonceLen returns the length in octets of the nonce that Seal takes with this key.
	NonceLen(*Key) int
	// Seal appends the cookie that carries s, sealed with k, to dst. nonce is k's NonceLen octets, random
	// and never used before. It does not allocate when dst has room for MaxCookie octets.
	Seal(dst []byte, k *Key, nonce []byte, s *Session) ([]byte, error)
	// Open opens the cookie c with the key of r it names. The keys of the session lie in the octets that Open
	// appends to dst (its result is not returned apart), so it does not allocate when dst has room for
	// MaxCookie of them. Errors are ErrUnknownKey, found before any cryptography, and ErrCookie.
	Open(dst []byte, r *Ring, c []byte) (Session, error)
}

// MaxCookie is the length in octets of the longest cookie of any daemon: a session of AES-SIV-CMAC-512 with
// NTPsec or ntpd-rs.
const MaxCookie = 168

// sivNonce is the length of the nonce of both daemons that are followed.
const sivNonce = 16

// maxPlaintext holds the longest head (4 octets) and two keys of AES-SIV-CMAC-512.
const maxPlaintext = 4 + 2*64

// checkSeal says why a cookie cannot be sealed with what it is to be made of.
func checkSeal(daemon string, alg aead.ID, opens []aead.ID, nonce []byte, s *Session) error {
	switch {
	case alg == 0:
		return fmt.Errorf("%s cookie: the key is of an algorithm that %s does not seal with", daemon, daemon)
	case !slices.Contains(opens, s.AEAD):
		return fmt.Errorf("%s cookie: %s speaks no %v", daemon, daemon, s.AEAD)
	case len(s.C2S) != s.AEAD.KeyLen() || len(s.S2C) != s.AEAD.KeyLen():
		return fmt.Errorf("%s cookie: keys of %d and %d octets for %v", daemon, len(s.C2S), len(s.S2C), s.AEAD)
	case len(nonce) != sivNonce:
		return fmt.Errorf("%s cookie: nonce of %d octets, not %d", daemon, len(nonce), sivNonce)
	}
	return nil
}

// sessionKeys splits the two keys behind the head of a plaintext of a cookie. They must fill it.
func sessionKeys(plaintext []byte, head int, alg aead.ID, opens []aead.ID) (first, second []byte, err error) {
	n := alg.KeyLen()
	if !slices.Contains(opens, alg) || len(plaintext) != head+2*n {
		return nil, nil, ErrCookie
	}
	keys := plaintext[head:]
	return keys[:n:n], keys[n : 2*n : 2*n], nil
}

var errEmptyKeys = errors.New("the file is empty")
