// Package record reads and writes the messages of NTS Key Establishment (RFC 8915 §4).
//
// A message is a run of records that ends with End of Message. A whole message becomes one typed value,
// a Request or a Response, or it is refused: no half-understood message leaves this package.
//
// # Which fault wins
//
// A request may be wrong in several ways and is told one error code. Framing comes first (too long, cut
// off, octets after End of Message): such a message is not read further. Then the first record in wire order
// that is faulty by itself or unknown and critical decides. What is missing from a message is found at its end.
package record

import (
	"encoding/binary"
	"fmt"
	"iter"
)

// The ports that go without saying: TCP for NTS-KE (RFC 8915 §7.1), UDP for the NTP server of a response
// without a Port record (RFC 8915 §4.1.8).
const (
	KEPort  = 4460
	NTPPort = 123
)

// Type is a record type of the IANA registry (RFC 8915 §7.6), without the critical bit.
type Type uint16

// The record types of RFC 8915 §4.1, and one that chrony registered.
const (
	EndOfMessage    Type = 0
	NextProtocol    Type = 1
	ErrorRecord     Type = 2
	Warning         Type = 3
	AEADAlgorithm   Type = 4
	NewCookie       Type = 5
	Server          Type = 6
	Port            Type = 7
	Compliant128GCM Type = 1024 // keys of AES-128-GCM-SIV are exported with its own id in the context
)

// Protocol is a next protocol of the IANA registry (RFC 8915 §7.7).
type Protocol uint16

// NTPv4 is the one protocol this agent speaks (RFC 8915 §5).
const NTPv4 Protocol = 0

// Code is an error code of the IANA registry (RFC 8915 §7.8).
type Code uint16

// The error codes of RFC 8915 §4.1.3.
const (
	UnrecognizedCritical Code = 0
	BadRequest           Code = 1
	InternalError        Code = 2
)

// String returns the name RFC 8915 gives the code, or "error n".
func (c Code) String() string {
	switch c {
	case UnrecognizedCritical:
		return "unrecognized critical record"
	case BadRequest:
		return "bad request"
	case InternalError:
		return "internal server error"
	default:
		return fmt.Sprintf("error %d", uint16(c))
	}
}

// Error is a failure that is told to the peer, or that a peer told us. Only Code crosses the wire.
type Error struct {
	Code   Code
	Reason string // for our own log; "" when the peer sent the error
}

func (e *Error) Error() string {
	if e.Reason == "" {
		return "NTS-KE: peer answered: " + e.Code.String()
	}
	return "NTS-KE: " + e.Code.String() + ": " + e.Reason
}

// messageFault is something wrong with a message, in contrast to the stream it came from. A server turns
// it into a Bad Request, a client reports it.
type messageFault struct{ reason string }

func (f *messageFault) Error() string { return "NTS-KE message: " + f.reason }

func fault(format string, args ...any) error {
	return &messageFault{fmt.Sprintf(format, args...)}
}

// AppendError appends a whole response that carries nothing but an Error record (RFC 8915 §4.1.3).
func AppendError(dst []byte, c Code) []byte {
	dst = appendUint16s(dst, true, ErrorRecord, uint16(c))
	return appendHeader(dst, true, EndOfMessage, 0)
}

const (
	headerLen   = 4
	criticalBit = 0x8000
)

// raw is one record as it stands on the wire; body aliases the message.
type raw struct {
	kind     Type
	critical bool
	body     []byte
}

// next takes the first record off b. ok is false when b does not hold a whole one.
func next(b []byte) (r raw, rest []byte, ok bool) {
	if len(b) < headerLen {
		return raw{}, b, false
	}
	kind := binary.BigEndian.Uint16(b)
	end := headerLen + int(binary.BigEndian.Uint16(b[2:]))
	if len(b) < end {
		return raw{}, b, false
	}
	return raw{Type(kind &^ criticalBit), kind&criticalBit != 0, b[headerLen:end:end]}, b[end:], true
}

func appendHeader(dst []byte, critical bool, kind Type, length int) []byte {
	k := uint16(kind)
	if critical {
		k |= criticalBit
	}
	dst = binary.BigEndian.AppendUint16(dst, k)
	return binary.BigEndian.AppendUint16(dst, uint16(length))
}

func appendUint16s[T ~uint16](dst []byte, critical bool, kind Type, list ...T) []byte {
	dst = appendHeader(dst, critical, kind, 2*len(list))
	for _, v := range list {
		dst = binary.BigEndian.AppendUint16(dst, uint16(v))
	}
	return dst
}

// records yields the records of a message whose framing is known to be right.
func records(msg []byte) iter.Seq[raw] {
	return func(yield func(raw) bool) {
		for r, rest, ok := next(msg); ok && yield(r); r, rest, ok = next(rest) {
		}
	}
}

// seen notes which of the records that may come once have come. Values cannot tell: a list may be empty.
type seen struct{ protocol, aead, compliant, server, port bool }

// once notes a record and refuses its second appearance.
func once(flag *bool, kind Type) error {
	if *flag {
		return fault("second record of type %d", kind)
	}
	*flag = true
	return nil
}

// numbers reads a body that is a list of 16-bit numbers; an empty one is nil.
func numbers[T ~uint16](r raw) ([]T, error) {
	if len(r.body)%2 != 0 {
		return nil, fault("record of type %d is cut in the middle of a number", r.kind)
	}
	if len(r.body) == 0 {
		return nil, nil
	}
	list := make([]T, 0, len(r.body)/2)
	for b := r.body; len(b) > 0; b = b[2:] {
		list = append(list, T(binary.BigEndian.Uint16(b)))
	}
	return list, nil
}

// maxServer is the longest body of a Server record, in octets: a DNS name has at most 253, and no client
// keeps more than 255.
const maxServer = 255

// name reads the body of a Server record: visible ASCII of 1 to 255 octets. Whether it is a host name or
// an address is for those who use it.
func name(r raw) (string, error) {
	good := 0 < len(r.body) && len(r.body) <= maxServer
	for _, c := range r.body {
		good = good && ' ' < c && c <= '~'
	}
	if !good {
		return "", fault("Server record is not 1 to %d octets of visible ASCII", maxServer)
	}
	return string(r.body), nil
}

// port reads the body of a Port record. Port 0 names no port.
func port(r raw) (uint16, error) {
	if len(r.body) != 2 || binary.BigEndian.Uint16(r.body) == 0 {
		return 0, fault("Port record does not hold one port")
	}
	return binary.BigEndian.Uint16(r.body), nil
}
