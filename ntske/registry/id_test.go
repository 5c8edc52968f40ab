package registry

import (
	"strings"
	"testing"
)

func TestIDsAreThoseOfRFC5905AndWhatWasAddedSince(t *testing.T) {
	for _, c := range []struct {
		name    string
		rows    [][]string
		count   int
		names   []name
		stratum uint8
	}{
		{"clocks", append(table(t, "rfc5905-figure12.txt"), []string{"DFM", "UTC(DFM)"}), 20, clocks, 1},
		{"kiss codes", append(table(t, "rfc5905-figure13.txt"), []string{"NTSN", "Network Time Security (NTS) negative-acknowledgment (NAK)"}), 15, kisses, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			if len(c.rows) != c.count || len(c.names) != c.count {
				t.Errorf("%d rows for %d ids, want %d", len(c.rows), len(c.names), c.count)
			}
			for _, row := range c.rows {
				octets, err := ParseID(row[0])
				if err != nil {
					t.Fatal(err)
				}
				id := RefID(octets, c.stratum)
				if id.Text != row[0] || id.Meaning != strings.TrimSuffix(row[1], ".") || id.Reference == "" || id.Fault != "" || id.Private {
					t.Errorf("%q is %+v", row, id)
				}
			}
		})
	}
}

func TestAReferenceIDIsReadByItsStratum(t *testing.T) {
	const upstream = "IPv4 address of the server's source, or the start of the MD5 hash of an IPv6 address"
	for _, c := range []struct {
		name    string
		octets  string
		stratum uint8
		want    ID
	}{
		{"a kiss code", "RATE", 0, ID{Kind: KissCode, Text: "RATE", Reference: "RFC 5905",
			Meaning: "Rate exceeded. The server has temporarily denied access because the client exceeded the rate threshold"}},
		{"a clock is no kiss code", "GPS\x00", 0, ID{Kind: KissCode, Text: "GPS"}},
		{"a kiss code is no clock", "RATE", 1, ID{Kind: ClockSource, Text: "RATE"}},
		{"a clock", "GPS\x00", 1, ID{Kind: ClockSource, Text: "GPS", Meaning: "Global Position System", Reference: "RFC 5905"}},
		{"letters of stratum 2 are an address", "GPS\x00", 2, ID{Kind: Upstream, Text: "71.80.83.0", Meaning: upstream, Reference: "RFC 5905 §7.3"}},
		{"an address", "\xc0\x00\x02\x01", 15, ID{Kind: Upstream, Text: "192.0.2.1", Meaning: upstream, Reference: "RFC 5905 §7.3"}},
		{"stratum 16 has no source", "\xc0\x00\x02\x01", 16, ID{Kind: Undefined, Text: "192.0.2.1"}},
		{"no kiss code", "\x00\x00\x00\x00", 0, ID{Kind: KissCode}},
		{"no clock", "\x00\x00\x00\x00", 1, ID{Kind: ClockSource}},
		{"no source", "\x00\x00\x00\x00", 3, ID{Kind: Upstream}},
		{"an unknown clock", "GNSS", 1, ID{Kind: ClockSource, Text: "GNSS"}},
		{"a private clock", "XYZ\x00", 1, ID{Kind: ClockSource, Text: "XYZ", Private: true}},
		{"a private kiss code", "X123", 0, ID{Kind: KissCode, Text: "X123", Private: true}},
		{"an X further on is not private", "AXXX", 0, ID{Kind: KissCode, Text: "AXXX"}},
		{"lower case", "gps\x00", 1, ID{Kind: ClockSource, Text: "gps", Fault: "octet 1 is neither an upper-case letter nor a digit"}},
		{"padded with a space", "GPS ", 1, ID{Kind: ClockSource, Text: "GPS.", Fault: "octet 4 is neither an upper-case letter nor a digit"}},
		{"a character after the padding", "G\x00PS", 1, ID{Kind: ClockSource, Text: "G.PS", Fault: "octets after the padding"}},
		{"padding in front", "\x00GPS", 1, ID{Kind: ClockSource, Text: ".GPS", Fault: "octets after the padding"}},
		{"octets for the terminal", "A\x1b[m", 0, ID{Kind: KissCode, Text: "A.[m", Fault: "octet 2 is neither an upper-case letter nor a digit"}},
		{"the own clock of chronyd", "\x7f\x7f\x01\x01", 1, ID{Kind: ClockSource, Text: "127.127.1.1",
			Meaning: "the server's own clock, without a source", Reference: "ntpd and chronyd"}},
		{"the own clock at a far stratum", "\x7f\x7f\x01\x01", 10, ID{Kind: ClockSource, Text: "127.127.1.1",
			Meaning: "the server's own clock, without a source", Reference: "ntpd and chronyd"}},
		{"smoothed time", "\x7f\x7f\x01\xff", 3, ID{Kind: ClockSource, Text: "127.127.1.255", Meaning: "chronyd serves smoothed time", Reference: "ntpd and chronyd"}},
		{"another driver of ntpd", "\x7f\x7f\x1c\x02", 1, ID{Kind: ClockSource, Text: "127.127.28.2",
			Meaning: "reference clock of ntpd's driver 28, unit 2", Reference: "ntpd and chronyd"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := RefID([4]byte([]byte(c.octets)), c.stratum); got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}

func TestIDsThatNobodyMayWrite(t *testing.T) {
	for name, s := range map[string]string{
		"none": "", "five letters": "GALIL", "lower case": "gps", "a space": "GP S", "a zero octet": "GPS\x00", "another script": "É",
	} {
		t.Run(name, func(t *testing.T) {
			if id, err := ParseID(s); err == nil {
				t.Errorf("%q became %x", s, id)
			}
		})
	}
}

func FuzzID(f *testing.F) {
	f.Add("GPS", uint8(1))
	f.Add("RATE", uint8(0))
	f.Add("\x7f\x7f\x01\x01", uint8(10))
	f.Add("X\x00\x00A", uint8(1))
	f.Add("A", uint8(255))
	f.Fuzz(func(t *testing.T, s string, stratum uint8) {
		octets, err := ParseID(s)
		if err == nil {
			for stratum := range uint8(2) {
				if id := RefID(octets, stratum); id.Text != s || id.Fault != "" || id.Private != (s[0] == 'X') {
					t.Fatalf("%q of stratum %d is %+v", s, stratum, id)
				}
			}
		} else {
			copy(octets[:], s)
		}
		id := RefID(octets, stratum)
		if strings.ContainsFunc(id.Text, func(r rune) bool { return r <= ' ' || r > '~' }) {
			t.Fatalf("%q has octets for the terminal", id.Text)
		}
		// What the rules allow can be written, and becomes the same octets.
		if id.Kind <= ClockSource && id.Fault == "" && id.Text != "" && octets[0] != 127 {
			if again, err := ParseID(id.Text); err != nil || again != octets {
				t.Fatalf("%x is shown as %q and read as %x, %v", octets, id.Text, again, err)
			}
		}
		if (id.Meaning == "") != (id.Reference == "") || id.Private && id.Meaning != "" || id.Kind == 0 {
			t.Fatalf("%+v", id)
		}
	})
}
