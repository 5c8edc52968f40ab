// Package aead knows the AEAD algorithms of Network Time Security and seals with AES-SIV-CMAC.
//
// It holds the algorithm numbers of the IANA AEAD registry that NTS peers use (RFC 8915 §5.1, §7) and
// an implementation of AES-SIV-CMAC (RFC 5297) in the form RFC 5116 gives it: one associated data, one
// nonce, one plaintext. Neither sealing nor opening allocates when the destination has room.
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
