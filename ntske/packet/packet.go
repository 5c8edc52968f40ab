// Package packet reads and writes NTPv4 packets: the header (RFC 5905 §7.3), extension fields (RFC 7822)
// and the fields by which Network Time Security protects a packet (RFC 8915 §5).
//
// It knows no AEAD and no clock: sealing, opening, nonces and times are handed in.
package packet

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// HeaderLen is the length of an NTP header in octets.
const HeaderLen = 48

// Modes of a header (RFC 5905 §7.3) that client and server use.
const (
	ModeClient = 3
	ModeServer = 4
)

// ErrMalformed says that octets are not the packet they should be. Errors that wrap it say why.
var ErrMalformed = errors.New("malformed NTP packet")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

// Header is an NTP header (RFC 5905 §7.3).
type Header struct {
	Leap           uint8  // 0 to 3; 3 = not synchronised
	Version        uint8  // 0 to 7
	Mode           uint8  // 0 to 7
	Stratum        uint8  // 0 = kiss code in RefID
	Poll           int8   // log2 seconds
	Precision      int8   // log2 seconds
	RootDelay      uint32 // NTP short format: seconds in 16.16 bits
	RootDispersion uint32 // NTP short format
	RefID          [4]byte
	RefTime        Timestamp
	Origin         Timestamp
	Receive        Timestamp
	Transmit       Timestamp
}

// ParseHeader reads the header at the start of b; what follows it is not looked at.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < HeaderLen {
		return Header{}, malformed("%d octets", len(b))
	}
	return Header{
		Leap:           b[0] >> 6,
		Version:        b[0] >> 3 & 7,
		Mode:           b[0] & 7,
		Stratum:        b[1],
		Poll:           int8(b[2]),
		Precision:      int8(b[3]),
		RootDelay:      binary.BigEndian.Uint32(b[4:]),
		RootDispersion: binary.BigEndian.Uint32(b[8:]),
		RefID:          [4]byte(b[12:16]),
		RefTime:        Timestamp(binary.BigEndian.Uint64(b[16:])),
		Origin:         Timestamp(binary.BigEndian.Uint64(b[24:])),
		Receive:        Timestamp(binary.BigEndian.Uint64(b[32:])),
		Transmit:       Timestamp(binary.BigEndian.Uint64(b[40:])),
	}, nil
}

// AppendTo appends the 48 octets of h. Bits of Leap, Version and Mode that the format has no room for are lost.
func (h Header) AppendTo(dst []byte) []byte {
	dst = append(dst, h.Leap<<6|h.Version&7<<3|h.Mode&7, h.Stratum, byte(h.Poll), byte(h.Precision))
	dst = binary.BigEndian.AppendUint32(dst, h.RootDelay)
	dst = binary.BigEndian.AppendUint32(dst, h.RootDispersion)
	dst = append(dst, h.RefID[:]...)
	dst = binary.BigEndian.AppendUint64(dst, uint64(h.RefTime))
	dst = binary.BigEndian.AppendUint64(dst, uint64(h.Origin))
	dst = binary.BigEndian.AppendUint64(dst, uint64(h.Receive))
	return binary.BigEndian.AppendUint64(dst, uint64(h.Transmit))
}

// Kiss returns the kiss code of a packet of stratum 0 (RFC 5905 §7.4), such as "RATE" or "NTSN", with
// anything but upper-case letters and digits shown as a dot; "" if h is no kiss.
func (h Header) Kiss() string {
	if h.Stratum != 0 {
		return ""
	}
	code := h.RefID
	for i, c := range code {
		if (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			code[i] = '.'
		}
	}
	return string(code[:])
}
