package packet

import (
	"encoding/binary"
	"iter"
)

// FieldType is the type of an extension field (RFC 7822, IANA registry of RFC 5905 §16).
type FieldType uint16

// The extension fields of NTS (RFC 8915 §5.3 to §5.6).
const (
	UniqueIdentifier  FieldType = 0x0104
	NTSCookie         FieldType = 0x0204
	CookiePlaceholder FieldType = 0x0304
	Authenticator     FieldType = 0x0404
)

// Field is an extension field. Body is a multiple of 4 octets long; padding cannot be told from content.
type Field struct {
	Type FieldType
	Body []byte // aliases the packet
}

const (
	fieldHeader = 4
	minField    = 16 // RFC 7822 §7.5.1.1
	// A legacy MAC has at most 24 octets: key id and a digest of 16 or 20. What is left of a packet is
	// an extension field only when it is longer (RFC 7822 §7.5.1.3).
	maxMAC = 24
)

// isMAC reports whether b, which is what is left of a packet, is a legacy MAC: a crypto-NAK, or a key id and
// a digest of 16 or 20 octets.
func isMAC(b []byte) bool { return len(b) == 4 || len(b) == 20 || len(b) == maxMAC }

// takeField takes the first extension field, of at least shortest octets, off b.
func takeField(b []byte, shortest int) (f Field, rest []byte, err error) {
	if len(b) < fieldHeader {
		return Field{}, nil, malformed("%d octets where an extension field should start", len(b))
	}
	n := int(binary.BigEndian.Uint16(b[2:]))
	if n < shortest || n%4 != 0 || n > len(b) {
		return Field{}, nil, malformed("extension field of length %d in %d octets", n, len(b))
	}
	return Field{FieldType(binary.BigEndian.Uint16(b)), b[fieldHeader:n:n]}, b[n:], nil
}

// Fields yields the extension fields of a whole packet b in order, each with the offset at which it starts,
// and stops at the end or at a legacy MAC. A fault in the framing comes last, as an error.
func Fields(b []byte) iter.Seq2[At, error] {
	return func(yield func(At, error) bool) {
		if len(b) < HeaderLen {
			yield(At{}, malformed("%d octets", len(b)))
			return
		}
		for rest := b[HeaderLen:]; len(rest) > 0 && !isMAC(rest); {
			at := len(b) - len(rest)
			f, r, err := takeField(rest, minField)
			if !yield(At{f, at}, err) || err != nil {
				return
			}
			rest = r
		}
	}
}

// At is an extension field and the offset in the packet at which its header starts.
type At struct {
	Field
	Offset int
}

// AppendField appends an extension field. Its body is padded with zeros to a multiple of 4 octets and, in a
// packet, to the 16 octets RFC 7822 asks for at least.
func AppendField(dst []byte, t FieldType, body []byte) []byte {
	return appendField(dst, t, body, minField)
}

// appendField appends an extension field of at least shortest octets, which is 4 for an encrypted one.
func appendField(dst []byte, t FieldType, body []byte, shortest int) []byte {
	n := max(shortest, fieldHeader+padded(len(body)))
	dst = binary.BigEndian.AppendUint16(dst, uint16(t))
	dst = binary.BigEndian.AppendUint16(dst, uint16(n))
	dst = append(dst, body...)
	return appendZeros(dst, n-fieldHeader-len(body))
}

// padded rounds a length up to a whole number of words.
func padded(n int) int { return (n + 3) &^ 3 }

func appendZeros(dst []byte, n int) []byte {
	for range n {
		dst = append(dst, 0)
	}
	return dst
}
