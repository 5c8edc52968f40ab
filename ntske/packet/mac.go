package packet

import "encoding/binary"

// MAC is the legacy message authentication code at the end of a packet (RFC 5905 §7.3, RFC 8573): a key id and
// a digest, or a key id alone.
type MAC struct {
	KeyID  uint32
	Digest []byte // aliases the packet; empty in a crypto-NAK
}

// Len is the length of the code in the packet, in octets.
func (m MAC) Len() int { return 4 + len(m.Digest) }

// IsNAK says that the code is a crypto-NAK: the server could not authenticate the request (RFC 5905 §9.2).
func (m MAC) IsNAK() bool { return len(m.Digest) == 0 && m.KeyID == 0 }

// Algorithm names what may have made the digest, as far as its length tells; "" if it tells nothing.
func (m MAC) Algorithm() string {
	switch len(m.Digest) {
	case 8:
		return "DES-CBC"
	case 16:
		return "MD5 or AES-128-CMAC"
	case 20:
		return "SHA-1, or a longer digest cut to 20 octets"
	}
	return ""
}

// parseMAC reads the code from the at least 4 octets of b.
func parseMAC(b []byte) *MAC {
	return &MAC{KeyID: binary.BigEndian.Uint32(b), Digest: b[4:len(b):len(b)]}
}

// A MAC of an NTP version before 4, which has no extension fields, has these lengths in octets. Its longest is
// of SHA-512.
const (
	minOldMAC = 4 + 8
	maxOldMAC = 4 + 64
)

// isOldMAC reports whether b, all that follows the header in a version before 4, can be a MAC.
func isOldMAC(b []byte) bool {
	return len(b) == 4 || len(b)%4 == 0 && minOldMAC <= len(b) && len(b) <= maxOldMAC
}
