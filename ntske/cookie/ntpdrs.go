package cookie

import (
	"encoding/binary"
	"fmt"

	"ntsagent/ntske/aead"
)

// NTPDRS is the way of ntpd-rs 1.1 and newer to write cookies and its key file. All this agent knows of
// either is here.
//
// A cookie has 104 or 168 octets for sessions of AES-SIV-CMAC-256 and 512:
//
//	 0   4  key id, big endian
//	 4   2  length of the sealed part, big endian
//	 6  16  nonce
//	22   …  AES-SIV-CMAC-512 under the key, no associated data, of
//	        AEAD number (2 octets, big endian) ‖ S2C ‖ C2S
//
// S2C comes first, unlike with all others. What follows the sealed part does not count.
type NTPDRS struct{}

const (
	ntpdrsID    = 4
	ntpdrsClear = ntpdrsID + 2 + sivNonce // what is not sealed
	ntpdrsHead  = 2                       // of the plaintext

	ntpdrsFileHead = 20
	ntpdrsKey      = 64
)

var ntpdrsAEADs = []aead.ID{aead.SIVCMAC256, aead.SIVCMAC512}

// AEADs implements Format.
func (NTPDRS) AEADs() []aead.ID { return append([]aead.ID(nil), ntpdrsAEADs...) }

// NonceLen implements Format.
func (NTPDRS) NonceLen(*Key) int { return sivNonce }

// Seal implements Format.
func (NTPDRS) Seal(dst []byte, k *Key, nonce []byte, s *Session) ([]byte, error) {
	if err := checkSeal("ntpd-rs", ntpdrsSeals(k), ntpdrsAEADs, nonce, s); err != nil {
		return nil, err
	}
	var room [maxPlaintext]byte
	plaintext := binary.BigEndian.AppendUint16(room[:0], uint16(s.AEAD))
	plaintext = append(append(plaintext, s.S2C...), s.C2S...)
	dst = binary.BigEndian.AppendUint32(dst, k.id)
	dst = binary.BigEndian.AppendUint16(dst, uint16(aead.Overhead+len(plaintext)))
	dst = append(dst, nonce...)
	return k.secret().siv.Seal(dst, nonce, plaintext, nil), nil
}

// ntpdrsSeals returns the algorithm of k, or 0 if it is not the one of ntpd-rs.
func ntpdrsSeals(k *Key) aead.ID {
	if k.alg != aead.SIVCMAC512 {
		return 0
	}
	return k.alg
}

// Open implements Format.
func (NTPDRS) Open(dst []byte, r *Ring, c []byte) (Session, error) {
	if len(c) < ntpdrsClear+aead.Overhead+ntpdrsHead {
		return Session{}, ErrCookie
	}
	n := int(binary.BigEndian.Uint16(c[ntpdrsID:]))
	if n < aead.Overhead+ntpdrsHead || n > aead.Overhead+maxPlaintext || len(c) < ntpdrsClear+n {
		return Session{}, ErrCookie
	}
	k := r.Find(binary.BigEndian.Uint32(c))
	if k == nil {
		return Session{}, ErrUnknownKey
	}
	if ntpdrsSeals(k) == 0 {
		return Session{}, ErrCookie
	}
	out, err := k.secret().siv.Open(dst, c[ntpdrsID+2:ntpdrsClear], c[ntpdrsClear:ntpdrsClear+n], nil)
	if err != nil {
		return Session{}, ErrCookie
	}
	plaintext := out[len(dst):]
	alg := aead.ID(binary.BigEndian.Uint16(plaintext))
	s2c, c2s, err := sessionKeys(plaintext, ntpdrsHead, alg, ntpdrsAEADs)
	if err != nil {
		return Session{}, err
	}
	return Session{alg, c2s, s2c}, nil
}

// ParseKeys reads a whole key file of ntpd-rs, all numbers big endian:
//
//	 0     8  seconds since 1970 when it was written
//	 8     4  id of the first key; the others count on from it and may run over the end of 32 bits
//	12     4  which key mints, counted from 0
//	16     4  number of keys
//	20  64·n  keys of AES-SIV-CMAC-512, oldest first
//
// ntpd-rs cuts the file and writes it anew in place, so it is found short now and then: that is an error.
func (NTPDRS) ParseKeys(file []byte) (*Ring, error) {
	if len(file) == 0 {
		return nil, fmt.Errorf("ntpd-rs key file: %w", errEmptyKeys)
	}
	if len(file) < ntpdrsFileHead {
		return nil, fmt.Errorf("ntpd-rs key file: cut off: %d octets of the %d of its head", len(file), ntpdrsFileHead)
	}
	first := binary.BigEndian.Uint32(file[8:])
	primary := binary.BigEndian.Uint32(file[12:])
	n := binary.BigEndian.Uint32(file[16:])
	if want := ntpdrsFileHead + ntpdrsKey*uint64(n); uint64(len(file)) != want {
		return nil, fmt.Errorf("ntpd-rs key file: %d octets, but %d keys make %d; it may be cut off", len(file), n, want)
	}
	if primary >= n {
		return nil, fmt.Errorf("ntpd-rs key file: key %d of %d is to mint", uint64(primary)+1, n)
	}
	keys := make([]*Key, n)
	for i := range keys {
		at := ntpdrsFileHead + ntpdrsKey*i
		k, err := NewKey(first+uint32(i), aead.SIVCMAC512, file[at:at+ntpdrsKey])
		if err != nil {
			return nil, err
		}
		keys[i] = k
	}
	return NewRing(keys, int(primary))
}
