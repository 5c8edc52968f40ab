package packet

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"ntsagent/ntske/registry"
)

// outline writes a description down in short: the id, each field with its meaning, and the MAC.
func outline(d Description) string {
	parts := []string{d.RefID.Text}
	for _, f := range d.Fields {
		part := fmt.Sprintf("%04X %s", f.Type, f.Meaning.Meaning)
		if f.Meaning.Private {
			part += " (private)"
		}
		if f.Discarded {
			part += " (discarded)"
		}
		parts = append(parts, part)
	}
	if d.MAC != nil {
		parts = append(parts, fmt.Sprintf("MAC %d of %d", d.MAC.KeyID, d.MAC.Len()))
	}
	return strings.Join(parts, "; ")
}

func TestPacketsOfARealChronydAreDescribed(t *testing.T) {
	g := golden(t)
	const uid, cookie, placeholder, auth = "0104 Unique Identifier", "0204 NTS Cookie", "0304 NTS Cookie Placeholder", "0404 NTS Authenticator and Encrypted Extension Fields"
	for name, want := range map[string]string{
		"one-request":    strings.Join([]string{"", uid, cookie, auth}, "; "),
		"eight-request":  strings.Join(slices.Concat([]string{"", uid, cookie}, slices.Repeat([]string{placeholder}, 7), []string{auth}), "; "),
		"one-response":   "127.127.1.1; " + uid + "; " + auth,
		"eight-response": "127.127.1.1; " + uid + "; " + auth,
		"nak-response":   "NTSN; " + uid,
	} {
		t.Run(name, func(t *testing.T) {
			d, err := Describe(g[name])
			if err != nil || outline(d) != want || d.Odd != nil {
				t.Errorf("%s, odd: %q, %v; want %s", outline(d), d.Odd, err, want)
			}
		})
	}
}

func TestFieldsAreNamedByTheirCompanyAndMACsToldApart(t *testing.T) {
	field := func(typ FieldType, n int) []byte { return AppendField(nil, typ, make([]byte, n-fieldHeader)) }
	mac := func(key byte, n int) []byte { return append([]byte{0, 0, 0, key}, make([]byte, n-4)...) }
	complement := AppendField(nil, ChecksumComplement, append(make([]byte, 22), 0xab, 0xcd))
	for _, c := range []struct {
		name    string
		version uint8
		tail    [][]byte
		want    string
		odd     []string // how each begins
	}{
		{"nothing but a header", 4, nil, "GPS", nil},
		{"a cookie in the company of NTS", 4, [][]byte{field(0x0104, 36), field(0x0204, 104), field(0x0404, 40)},
			"GPS; 0104 Unique Identifier; 0204 NTS Cookie; 0404 NTS Authenticator and Encrypted Extension Fields", nil},
		{"Autokey with its MAC", 4, [][]byte{field(0x0204, 28), mac(7, 20)}, "GPS; 0204 Autokey Message Request; MAC 7 of 20", nil},
		{"0x0204 alone", 4, [][]byte{field(0x0204, 28)}, "GPS; 0204 Autokey Message Request", nil},
		{"0x0204 with a unique identifier alone", 4, [][]byte{field(0x0104, 36), field(0x0204, 104)},
			"GPS; 0104 Unique Identifier; 0204 Autokey Message Request", nil},
		{"0x0204 with an authenticator alone", 4, [][]byte{field(0x0204, 104), field(0x0404, 40)},
			"GPS; 0204 Autokey Message Request; 0404 NTS Authenticator and Encrypted Extension Fields", nil},
		{"a nibble-swapped number", 4, [][]byte{field(0x0302, 28)}, "GPS; 0302 Reserved for historic reasons", nil},
		{"a number nobody has", 4, [][]byte{field(0x1234, 28)}, "GPS; 1234 ", nil},
		{"private ones, known and unknown", 4, [][]byte{field(0xF323, 28), field(0xF000, 16), field(0xFFFF, 28)},
			"GPS; F323 Monotonic timestamp and root delay with more bits (magic 0xF5BEDD9A) (private); F000 " + registry.PrivateUse +
				" (private); FFFF " + registry.PrivateUse + " (private)", nil},
		{"a field behind the authenticator", 4, [][]byte{field(0x0104, 36), field(0x0404, 40), field(0x0304, 104)},
			"GPS; 0104 Unique Identifier; 0404 NTS Authenticator and Encrypted Extension Fields; 0304 NTS Cookie Placeholder (discarded)",
			[]string{"extension field 0x0304 follows"}},
		{"a field of 16 octets and no MAC", 4, [][]byte{field(0x010A, 16)}, "GPS; 010A Network Correction", []string{"the last extension field, 0x010A, has 16 octets"}},
		{"a field of 16 octets and a MAC", 4, [][]byte{field(0x010A, 16), mac(1, 24)}, "GPS; 010A Network Correction; MAC 1 of 24", nil},
		{"what could be a field of 20 octets is a MAC", 4, [][]byte{field(0x0104, 20)}, "GPS; MAC 17039380 of 20",
			[]string{"the last 20 octets are read as a MAC, but have the form of an extension field 0x0104"}},
		{"what could be a field of 16 octets and a crypto-NAK is a MAC", 4, [][]byte{field(0x0104, 16), mac(0, 4)}, "GPS; MAC 17039376 of 20", nil},
		{"a field of 28 octets is none", 4, [][]byte{field(0x0104, 28)}, "GPS; 0104 Unique Identifier", nil},
		{"a crypto-NAK", 4, [][]byte{mac(0, 4)}, "GPS; MAC 0 of 4", nil},
		{"a crypto-NAK after a field", 4, [][]byte{field(0x8203, 28), mac(0, 4)}, "GPS; 8203 Cookie Message Response; MAC 0 of 4", nil},
		{"four octets that are no crypto-NAK", 4, [][]byte{mac(9, 4)}, "GPS; MAC 9 of 4", []string{"a crypto-NAK with key id 9"}},
		{"a checksum complement", 4, [][]byte{complement}, "GPS; 2005 UDP Checksum Complement", nil},
		{"a checksum complement before a MAC", 4, [][]byte{complement, mac(1, 20)}, "GPS; 2005 UDP Checksum Complement; MAC 1 of 20",
			[]string{"the checksum complement is not at the end"}},
		{"a checksum complement before a field", 4, [][]byte{complement, field(0x0104, 36)}, "GPS; 2005 UDP Checksum Complement; 0104 Unique Identifier",
			[]string{"the checksum complement is not at the end"}},
		{"a long checksum complement with noise", 4, [][]byte{AppendField(nil, ChecksumComplement, append([]byte{1}, make([]byte, 27)...))},
			"GPS; 2005 UDP Checksum Complement", []string{"the checksum complement field has 32 octets", "the checksum complement field is not zero"}},
		{"NTP version 3 with MD5", 3, [][]byte{mac(1, 20)}, "GPS; MAC 1 of 20", nil},
		{"NTP version 3 has MACs where version 4 has fields", 3, [][]byte{field(0x0104, 36)}, "GPS; MAC 17039396 of 36", nil},
		{"NTP version 1 with DES", 1, [][]byte{mac(1, 12)}, "GPS; MAC 1 of 12", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := Header{Version: c.version, Mode: ModeServer, Stratum: 1, RefID: [4]byte{'G', 'P', 'S'}}
			d, err := Describe(append(h.AppendTo(nil), bytes.Join(c.tail, nil)...))
			if err != nil || outline(d) != c.want {
				t.Errorf("%s, %v; want %s", outline(d), err, c.want)
			}
			if !slices.EqualFunc(d.Odd, c.odd, strings.HasPrefix) {
				t.Errorf("odd: %q, want %q", d.Odd, c.odd)
			}
			v, ok := d.ChecksumComplement()
			if want := c.name == "a checksum complement"; want != (v == 0xabcd && ok) {
				t.Errorf("checksum complement %04x, %v", v, ok)
			}
		})
	}
}

func TestMACsSayWhatTheyMayBe(t *testing.T) {
	for _, c := range []struct {
		name, algorithm string
		mac             MAC
		nak             bool
	}{
		{"a crypto-NAK", "", MAC{}, true},
		{"a key id alone is no crypto-NAK", "", MAC{KeyID: 1}, false},
		{"DES", "DES-CBC", MAC{0, make([]byte, 8)}, false},
		{"MD5 or CMAC", "MD5 or AES-128-CMAC", MAC{1, make([]byte, 16)}, false},
		{"SHA-1", "SHA-1, or a longer digest cut to 20 octets", MAC{1, make([]byte, 20)}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.mac.Algorithm() != c.algorithm || c.mac.IsNAK() != c.nak || c.mac.Len() != 4+len(c.mac.Digest) {
				t.Errorf("%q, NAK: %v, %d octets", c.mac.Algorithm(), c.mac.IsNAK(), c.mac.Len())
			}
		})
	}
}

func TestABadReferenceIDIsOdd(t *testing.T) {
	d, err := Describe(Header{Version: 4, Mode: ModeServer, Stratum: 1, RefID: [4]byte{'g', 'p', 's'}}.AppendTo(nil))
	if err != nil || len(d.Odd) != 1 || !strings.HasPrefix(d.Odd[0], `reference id "gps": octet 1 is neither`) {
		t.Errorf("%q, %v", d.Odd, err)
	}
}

func TestWhatIsNoPacketOfNTPv4IsNotDescribed(t *testing.T) {
	with := func(version, mode uint8, tail int) []byte {
		return append(Header{Version: version, Mode: mode}.AppendTo(nil), make([]byte, tail)...)
	}
	for name, b := range map[string][]byte{
		"47 octets":                         make([]byte, 47),
		"NTP version 5":                     with(5, ModeClient, 0),
		"mode 6":                            with(4, 6, 0),
		"mode 7":                            with(4, 7, 0),
		"a field of length 0":               with(4, ModeClient, 28),
		"three octets more":                 with(4, ModeClient, 3),
		"version 3 and eight octets":        with(3, ModeClient, 8),
		"version 3 and 72 octets":           with(3, ModeClient, 72),
		"version 3 and 21 octets":           with(3, ModeClient, 21),
		"a field and three octets after it": append(AppendField(with(4, ModeClient, 0), 0x0104, make([]byte, 32)), 0, 0, 0),
	} {
		t.Run(name, func(t *testing.T) {
			if d, err := Describe(b); !errors.Is(err, ErrMalformed) {
				t.Errorf("%s, %v", outline(d), err)
			}
		})
	}
}

func FuzzDescribe(f *testing.F) {
	g := golden(f)
	for _, name := range []string{"one-request", "eight-request", "one-response", "nak-response"} {
		f.Add(g[name])
	}
	h := Header{Version: 4, Mode: ModeServer, Stratum: 1, RefID: [4]byte{'G', 'P', 'S'}}.AppendTo(nil)
	f.Add(append(AppendField(bytes.Clone(h), 0x0204, make([]byte, 24)), make([]byte, 20)...))
	f.Add(AppendField(bytes.Clone(h), ChecksumComplement, make([]byte, 24)))
	f.Add(append(bytes.Clone(h), 0, 0, 0, 0))
	f.Add(append(Header{Version: 3, Mode: ModeClient}.AppendTo(nil), make([]byte, 12)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := Describe(b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		// All that is described makes the packet again, octet by octet.
		again := d.Header.AppendTo(nil)
		for _, field := range d.Fields {
			if field.Offset != len(again) {
				t.Fatalf("field at %d, want %d", field.Offset, len(again))
			}
			again = appendField(again, field.Type, field.Body, fieldHeader)
		}
		if d.MAC != nil {
			again = append(again, byte(d.MAC.KeyID>>24), byte(d.MAC.KeyID>>16), byte(d.MAC.KeyID>>8), byte(d.MAC.KeyID))
			again = append(again, d.MAC.Digest...)
		}
		if !bytes.Equal(again, b) {
			t.Fatalf("%x became %x", b, again)
		}
		has := func(typ FieldType) bool {
			return slices.ContainsFunc(d.Fields, func(f Named) bool { return f.Type == typ })
		}
		for _, f := range d.Fields {
			m := f.Meaning
			if m.Number != uint16(f.Type) || m.Private != (f.Type >= 0xF000) || (m.Meaning == "") != (m.Reference == "") {
				t.Fatalf("%04x is %+v", f.Type, m)
			}
			if nts := has(UniqueIdentifier) && has(Authenticator); f.Type == NTSCookie && (m.Meaning == "NTS Cookie") != nts {
				t.Fatalf("0x0204 is %q, NTS: %v", m.Meaning, nts)
			}
		}
	})
}
