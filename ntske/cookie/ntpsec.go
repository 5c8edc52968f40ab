package cookie

import (
	"encoding/binary"

	"ntsagent/ntske/aead"
)

// NTPsec is ntpd's way to write cookies and its key file nts-keys, with ntpd of NTPsec 1.1.4 and newer. All
// this agent knows of either is here and in ntpsec_keys.go.
//
// A cookie has 104, 136 or 168 octets for sessions of AES-SIV-CMAC-256, 384 and 512:
//
//	 0   4  key id, in the byte order of the host
//	 4  16  nonce
//	20   …  AES-SIV-CMAC under the key, with octets 0 to 19 as associated data, of
//	        AEAD number (4 octets, in the byte order of the host) ‖ C2S ‖ S2C
//
// The length of the key (32, 48 or 64 octets) picks the AES-SIV-CMAC of the cookie; it has nothing to do with
// the session's.
type NTPsec struct{}

const (
	ntpsecID    = 4
	ntpsecClear = ntpsecID + sivNonce // what is not sealed, and the associated data
	ntpsecHead  = 4                   // of the plaintext
)

var ntpsecAEADs = []aead.ID{aead.SIVCMAC256, aead.SIVCMAC384, aead.SIVCMAC512}

// AEADs implements Format.
func (NTPsec) AEADs() []aead.ID { return append([]aead.ID(nil), ntpsecAEADs...) }

// NonceLen implements Format.
func (NTPsec) NonceLen(*Key) int { return sivNonce }

// Seal implements Format.
func (NTPsec) Seal(dst []byte, k *Key, nonce []byte, s *Session) ([]byte, error) {
	if err := checkSeal("NTPsec", ntpsecSeals(k), ntpsecAEADs, nonce, s); err != nil {
		return nil, err
	}
	start := len(dst)
	dst = binary.NativeEndian.AppendUint32(dst, k.id)
	dst = append(dst, nonce...)
	var room [maxPlaintext]byte
	plaintext := binary.NativeEndian.AppendUint32(room[:0], uint32(s.AEAD))
	plaintext = append(append(plaintext, s.C2S...), s.S2C...)
	ad := dst[start : start+ntpsecClear]
	return k.secret().siv.Seal(dst, ad[ntpsecID:], plaintext, ad), nil
}

// ntpsecSeals returns the algorithm of k, or 0 if it is not one for cookies of ntpd.
func ntpsecSeals(k *Key) aead.ID {
	if k.alg == aead.GCMSIV128 {
		return 0
	}
	return k.alg
}

// Open implements Format.
func (NTPsec) Open(dst []byte, r *Ring, c []byte) (Session, error) {
	if len(c) < ntpsecClear+aead.Overhead+ntpsecHead || len(c) > MaxCookie {
		return Session{}, ErrCookie
	}
	k := r.Find(binary.NativeEndian.Uint32(c))
	if k == nil {
		return Session{}, ErrUnknownKey
	}
	if ntpsecSeals(k) == 0 {
		return Session{}, ErrCookie
	}
	out, err := k.secret().siv.Open(dst, c[ntpsecID:ntpsecClear], c[ntpsecClear:], c[:ntpsecClear])
	if err != nil {
		return Session{}, ErrCookie
	}
	plaintext := out[len(dst):]
	number := binary.NativeEndian.Uint32(plaintext)
	if number > 0xffff {
		return Session{}, ErrCookie
	}
	alg := aead.ID(number)
	c2s, s2c, err := sessionKeys(plaintext, ntpsecHead, alg, ntpsecAEADs)
	if err != nil {
		return Session{}, err
	}
	return Session{alg, c2s, s2c}, nil
}
