package packet

import (
	"encoding/binary"
	"fmt"
	"strings"

	"ntsagent/ntske/registry"
)

// ChecksumComplement is the field that balances the UDP checksum of a packet that is stamped late (RFC 7821).
const ChecksumComplement FieldType = 0x2005

// Modes of packets that have no NTP header (RFC 9327 and ntpdc).
const (
	modeControl = 6
	modePrivate = 7
)

// minLast is the least length of the last extension field when no MAC follows, in octets: what is longer than
// any MAC (RFC 7822 §7.5.1.4).
const minLast = 28

// Named is an extension field and what it is in its packet.
type Named struct {
	At
	Meaning   registry.Entry // its number is the field's type; no Meaning in it: the type is not registered
	Discarded bool           // it follows the NTS authenticator, so that nothing vouches for it (RFC 8915 §5.7)
}

// Description is an NTP packet taken apart for people to read. Its slices alias the packet.
type Description struct {
	Header Header
	RefID  registry.ID
	Fields []Named
	MAC    *MAC     // nil if there is none
	Odd    []string // rules that the packet breaks, in words, although receivers may let them pass
}

// Describe takes the packet b apart and names what it finds: the reference id or kiss code, the extension
// fields and the MAC. It is for diagnosis; nothing in a Description is authenticated.
//
// Where extension fields end and a MAC begins is read as RFC 7822 has it: what is left of the packet is a MAC
// if it has 4, 20 or 24 octets. Versions before 4 have no extension fields. Errors wrap ErrMalformed, also for
// versions and modes with another layout; the Description then holds what was read before.
func Describe(b []byte) (Description, error) {
	h, err := ParseHeader(b)
	if err != nil {
		return Description{}, err
	}
	if h.Version > 4 || h.Mode == modeControl || h.Mode == modePrivate {
		return Description{}, malformed("version %d, mode %d has another layout than NTPv4", h.Version, h.Mode)
	}
	d := Description{Header: h, RefID: registry.RefID(h.RefID, h.Stratum)}
	rest := b[HeaderLen:]
	if h.Version == 4 {
		for f, err := range Fields(b) {
			if err != nil {
				return d, err
			}
			d.Fields = append(d.Fields, Named{At: f})
			rest = b[f.Offset+fieldHeader+len(f.Body):]
		}
		d.nameFields()
	} else if len(rest) > 0 && !isOldMAC(rest) {
		return d, malformed("%d octets where a MAC of NTP version %d should be", len(rest), h.Version)
	}
	if len(rest) > 0 {
		d.MAC = parseMAC(rest)
	}
	d.Odd = d.odd()
	return d, nil
}

// ChecksumComplement returns the UDP checksum complement (RFC 7821) and whether there is one: it has to be
// the last two octets of the packet.
func (d Description) ChecksumComplement() (complement uint16, ok bool) {
	if len(d.Fields) == 0 || d.MAC != nil {
		return 0, false
	}
	last := d.Fields[len(d.Fields)-1]
	if last.Type != ChecksumComplement {
		return 0, false
	}
	return binary.BigEndian.Uint16(last.Body[len(last.Body)-2:]), true
}

// nameFields says what each field is in the company of the others.
func (d *Description) nameFields() {
	uid, auth := false, false
	for _, f := range d.Fields {
		uid = uid || f.Type == UniqueIdentifier
		auth = auth || f.Type == Authenticator
	}
	sealed := false
	for i := range d.Fields {
		f := &d.Fields[i]
		f.Meaning, f.Discarded = nameField(f.Type, uid && auth), sealed
		sealed = sealed || f.Type == Authenticator
	}
}

// nameField says what a field of type t is, in a packet that NTS protects or in another. One number has two
// meanings, 0x0204: an NTS cookie or an Autokey message request (RFC 9748 §4.3).
func nameField(t FieldType, nts bool) registry.Entry {
	meanings := registry.Field(uint16(t))
	for _, m := range meanings {
		if len(meanings) == 1 || nts == strings.HasPrefix(m.Reference, "RFC 8915 ") {
			return m
		}
	}
	return registry.Entry{Number: uint16(t)}
}

// odd lists the rules that the packet breaks.
func (d Description) odd() (all []string) {
	note := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	if d.RefID.Fault != "" {
		note("reference id %q: %s (RFC 9748)", d.RefID.Text, d.RefID.Fault)
	}
	for i, f := range d.Fields {
		last := i == len(d.Fields)-1
		if n := fieldHeader + len(f.Body); last && d.MAC == nil && n < minLast {
			note("the last extension field, 0x%04X, has %d octets; without a MAC it needs %d (RFC 7822)", f.Type, n, minLast)
		}
		if f.Type == ChecksumComplement {
			all = append(all, oddComplement(f.Body, last && d.MAC == nil)...)
		}
		if f.Discarded {
			note("extension field 0x%04X follows the NTS authenticator and counts for nothing (RFC 8915)", f.Type)
		}
	}
	if d.MAC == nil {
		return all
	}
	n, first := d.MAC.Len(), d.MAC.KeyID
	switch {
	case n == 4 && first != 0:
		note("a crypto-NAK with key id %d; it should be 0 (RFC 5905)", first)
	case d.Header.Version == 4 && n > 4 && int(first&0xFFFF) == n:
		note("the last %d octets are read as a MAC, but have the form of an extension field 0x%04X (RFC 7822)", n, first>>16)
	}
	return all
}

// oddComplement lists what is wrong with a checksum complement field of that body.
func oddComplement(body []byte, atEnd bool) (all []string) {
	if !atEnd {
		all = append(all, "the checksum complement is not at the end of the packet, where it belongs (RFC 7821)")
	}
	if n := fieldHeader + len(body); n != minLast {
		all = append(all, fmt.Sprintf("the checksum complement field has %d octets instead of %d (RFC 7821)", n, minLast))
	}
	for _, c := range body[:len(body)-2] {
		if c != 0 {
			return append(all, "the checksum complement field is not zero up to its last two octets (RFC 7821)")
		}
	}
	return all
}
