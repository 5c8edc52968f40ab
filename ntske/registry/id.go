package registry

import (
	"fmt"
	"net/netip"
)

// Kind says how a reference id is to be read, which the stratum beside it decides (RFC 5905 §7.3).
type Kind uint8

const (
	KissCode    Kind = iota + 1 // stratum 0
	ClockSource                 // stratum 1, and clocks on the server itself at any stratum
	Upstream                    // stratum 2 to 15: the server's own server
	Undefined                   // stratum 16 and above: not synchronised, or reserved
)

// ID is what a reference id says.
type ID struct {
	Kind      Kind
	Text      string // printable: GPS, RATE, 192.0.2.1; "" if no id is given
	Meaning   string // "" if it is not registered
	Reference string // of the meaning
	Private   bool   // it begins with X and cannot be registered
	Fault     string // how it breaks the rules for ids, in words; "" if it keeps them
}

// ParseID reads an id as people write it, 1 to 4 upper-case letters or digits (RFC 9748 §3), into the four
// octets of a packet, padded with zeros.
func ParseID(s string) (id [4]byte, err error) {
	if len(s) == 0 || len(s) > len(id) {
		return id, fmt.Errorf("%q has %d octets; an id has 1 to 4", s, len(s))
	}
	for _, c := range []byte(s) {
		if !allowed(c) {
			return id, fmt.Errorf("%q: an id has upper-case letters and digits alone", s)
		}
	}
	copy(id[:], s)
	return id, nil
}

// Kiss returns what the kiss code of a packet of stratum 0 says (RFC 5905 §7.4).
func Kiss(code [4]byte) ID { return ascii(code, KissCode, kisses) }

// RefID returns what the reference id of a packet of that stratum says: a kiss code at 0, a clock at 1, an IPv4
// address or a hash from 2 to 15.
func RefID(id [4]byte, stratum uint8) ID {
	switch {
	case stratum == 0:
		return Kiss(id)
	case stratum > 15:
		return ID{Kind: Undefined, Text: netip.AddrFrom4(id).String()}
	case id[0] == 127 && id[1] == 127:
		return ownClock(id)
	case stratum == 1:
		return ascii(id, ClockSource, clocks)
	case id == [4]byte{}:
		return ID{Kind: Upstream}
	default:
		return ID{Kind: Upstream, Text: netip.AddrFrom4(id).String(), Reference: "RFC 5905 §7.3",
			Meaning: "IPv4 address of the server's source, or the start of the MD5 hash of an IPv6 address"}
	}
}

// ownClock reads the address that ntpd gives reference clocks, 127.127.driver.unit. Chronyd uses two of them.
func ownClock(id [4]byte) ID {
	c := ID{Kind: ClockSource, Text: netip.AddrFrom4(id).String(), Reference: "ntpd and chronyd"}
	switch {
	case id[2] == 1 && id[3] == 255:
		c.Meaning = "chronyd serves smoothed time"
	case id[2] == 1:
		c.Meaning = "the server's own clock, without a source"
	default:
		c.Meaning = fmt.Sprintf("reference clock of ntpd's driver %d, unit %d", id[2], id[3])
	}
	return c
}

// ascii reads an id of up to four characters.
func ascii(octets [4]byte, kind Kind, names []name) ID {
	id := ID{Kind: kind}
	length, end := len(octets), 0
	for length > 0 && octets[length-1] == 0 {
		length--
	}
	for end < length && allowed(octets[end]) {
		end++
	}
	shown := octets
	for i, c := range shown[:length] {
		if c <= ' ' || c > '~' {
			shown[i] = '.'
		}
	}
	id.Text = string(shown[:length])
	switch {
	case end < length && octets[end] == 0:
		id.Fault = "octets after the padding"
		return id
	case end < length:
		id.Fault = fmt.Sprintf("octet %d is neither an upper-case letter nor a digit", end+1)
		return id
	}
	id.Private = length > 0 && octets[0] == 'X'
	for _, n := range names {
		if n.id == id.Text {
			id.Meaning, id.Reference = n.meaning, n.reference
		}
	}
	return id
}

func allowed(c byte) bool { return 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' }

// name is an assignment of an id.
type name struct{ id, meaning, reference string }

// clocks are the NTP Reference Identifier Codes.
var clocks = []name{
	{"GOES", "Geosynchronous Orbit Environment Satellite", "RFC 5905"},
	{"GPS", "Global Position System", "RFC 5905"},
	{"GAL", "Galileo Positioning System", "RFC 5905"},
	{"PPS", "Generic pulse-per-second", "RFC 5905"},
	{"IRIG", "Inter-Range Instrumentation Group", "RFC 5905"},
	{"WWVB", "LF Radio WWVB Ft. Collins, CO 60 kHz", "RFC 5905"},
	{"DCF", "LF Radio DCF77 Mainflingen, DE 77.5 kHz", "RFC 5905"},
	{"HBG", "LF Radio HBG Prangins, HB 75 kHz", "RFC 5905"},
	{"MSF", "LF Radio MSF Anthorn, UK 60 kHz", "RFC 5905"},
	{"JJY", "LF Radio JJY Fukushima, JP 40 kHz, Saga, JP 60 kHz", "RFC 5905"},
	{"LORC", "MF Radio LORAN C station, 100 kHz", "RFC 5905"},
	{"TDF", "MF Radio Allouis, FR 162 kHz", "RFC 5905"},
	{"CHU", "HF Radio CHU Ottawa, Ontario", "RFC 5905"},
	{"WWV", "HF Radio WWV Ft. Collins, CO", "RFC 5905"},
	{"WWVH", "HF Radio WWVH Kauai, HI", "RFC 5905"},
	{"NIST", "NIST telephone modem", "RFC 5905"},
	{"ACTS", "NIST telephone modem", "RFC 5905"},
	{"USNO", "USNO telephone modem", "RFC 5905"},
	{"PTB", "European telephone modem", "RFC 5905"},
	{"DFM", "UTC(DFM)", "IANA"},
}

// kisses are the NTP Kiss-o'-Death Codes.
var kisses = []name{
	{"ACST", "The association belongs to a unicast server", "RFC 5905"},
	{"AUTH", "Server authentication failed", "RFC 5905"},
	{"AUTO", "Autokey sequence failed", "RFC 5905"},
	{"BCST", "The association belongs to a broadcast server", "RFC 5905"},
	{"CRYP", "Cryptographic authentication or identification failed", "RFC 5905"},
	{"DENY", "Access denied by remote server", "RFC 5905"},
	{"DROP", "Lost peer in symmetric mode", "RFC 5905"},
	{"RSTR", "Access denied due to local policy", "RFC 5905"},
	{"INIT", "The association has not yet synchronized for the first time", "RFC 5905"},
	{"MCST", "The association belongs to a dynamically discovered server", "RFC 5905"},
	{"NKEY", "No key found. Either the key was never installed or is not trusted", "RFC 5905"},
	{"NTSN", "Network Time Security (NTS) negative-acknowledgment (NAK)", "RFC 8915 §5.7"},
	{"RATE", "Rate exceeded. The server has temporarily denied access because the client exceeded the rate threshold", "RFC 5905"},
	{"RMOT", "Alteration of association from a remote host running ntpdc", "RFC 5905"},
	{"STEP", "A step change in system time has occurred, but the association has not yet resynchronized", "RFC 5905"},
}
