// Package aead knows the AEAD algorithms of Network Time Security and seals with them.
//
// It holds the algorithm numbers of the IANA AEAD registry that NTS peers use (RFC 8915 §5.1, §7) and
// AES-SIV-CMAC (RFC 5297) and AES-128-GCM-SIV (RFC 8452) in the form RFC 5116 gives them: one associated
// data, one nonce, one plaintext. A Box is any of them under one key and can be given another key in place;
// neither that nor sealing nor opening allocates when the destination has room.
package aead

import "fmt"

// ID is an AEAD algorithm number of the IANA registry, as NTS-KE negotiates it (RFC 8915 §4.1.5).
type ID uint16

// The algorithms NTS peers negotiate. SIVCMAC256 is the one every NTS peer must know.
const (
	SIVCMAC256 ID = 15 // AEAD_AES_SIV_CMAC_256, RFC 5297
	SIVCMAC384 ID = 16 // AEAD_AES_SIV_CMAC_384, RFC 5297
	SIVCMAC512 ID = 17 // AEAD_AES_SIV_CMAC_512, RFC 5297
	GCMSIV128  ID = 30 // AEAD_AES_128_GCM_SIV, RFC 8452
)

// Overhead is what sealing adds to a plaintext, in octets, with every algorithm named here.
const Overhead = 16

// KeyLen returns the key length of the algorithm in octets, or 0 for an algorithm this package does not know.
// It is also the length of the C2S and S2C keys that NTS exports from TLS (RFC 8915 §5.1).
func (id ID) KeyLen() int {
	switch id {
	case SIVCMAC256:
		return 32
	case SIVCMAC384:
		return 48
	case SIVCMAC512:
		return 64
	case GCMSIV128:
		return 16
	default:
		return 0
	}
}

// NonceLen returns the length in octets of the nonce that NTS peers use with the algorithm (RFC 8915 §5.6),
// or 0 for an algorithm this package does not know. AES-128-GCM-SIV takes no other, AES-SIV-CMAC takes any.
func (id ID) NonceLen() int {
	switch id {
	case SIVCMAC256, SIVCMAC384, SIVCMAC512:
		return 16
	case GCMSIV128:
		return gcmNonceLen
	default:
		return 0
	}
}

// String returns the name of the algorithm without its registry prefix, such as "AES-SIV-CMAC-256",
// or "AEAD n" for one this package does not know.
func (id ID) String() string {
	switch id {
	case SIVCMAC256:
		return "AES-SIV-CMAC-256"
	case SIVCMAC384:
		return "AES-SIV-CMAC-384"
	case SIVCMAC512:
		return "AES-SIV-CMAC-512"
	case GCMSIV128:
		return "AES-128-GCM-SIV"
	default:
		return fmt.Sprintf("AEAD %d", uint16(id))
	}
}
