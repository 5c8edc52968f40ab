package registry

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"ntsagent/ntske/aead"
)

// table reads the rows of a table as an RFC prints it.
func table(t *testing.T, file string) (rows [][]string) {
	t.Helper()
	b, err := os.ReadFile("testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		rows = append(rows, strings.Split(strings.TrimSpace(line), " | "))
	}
	return rows
}

// sweep looks all numbers up and writes down what is registered, as "12 Fixed Key Request".
func sweep(lookup func(uint16) []Entry, format string) (all []string) {
	for n := range 1 << 16 {
		for _, e := range lookup(uint16(n)) {
			if !e.Private {
				all = append(all, fmt.Sprintf(format, n)+" "+e.Meaning)
			}
		}
	}
	return all
}

func TestExtensionFieldTypesAreThoseOfRFC9748(t *testing.T) {
	rows := table(t, "rfc9748-table1.txt")
	if len(rows) != 64 {
		t.Fatalf("%d rows", len(rows))
	}
	want := []string{"0x010A Network Correction"} // registered later
	for _, row := range rows[:63] {
		want = append(want, row[0]+" "+row[1])
		n, err := strconv.ParseUint(row[0], 0, 16)
		if err != nil {
			t.Fatal(err)
		}
		reference := strings.NewReplacer("[RFC", "RFC ", "]", "", ", Section ", " §").Replace(row[2])
		if !slices.Contains(Field(uint16(n)), Entry{uint16(n), row[1], reference, false}) {
			t.Errorf("%s: %q of %s is not in %v", row[0], row[1], reference, Field(uint16(n)))
		}
	}
	slices.Sort(want)
	got := sweep(Field, "0x%04X")
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("registered are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if last := rows[63]; last[0] != "0xF000-0xFFFF" || last[1] != PrivateUse {
		t.Errorf("the last row is %q", last)
	}
}

func TestTheNumbersOfNTSKEAreThoseOfRFC8915AndWhatWasAllocatedSince(t *testing.T) {
	for _, c := range []struct {
		name   string
		lookup func(uint16) []Entry
		want   []string
	}{
		{"record types", Record, []string{"0 End of Message", "1 NTS Next Protocol Negotiation", "2 Error", "3 Warning",
			"4 AEAD Algorithm Negotiation", "5 New Cookie for NTPv4", "6 NTPv4 Server Negotiation", "7 NTPv4 Port Negotiation",
			"8 Keep Alive", "9 Supported Next Protocol List", "10 Supported Algorithm List", "11 List Server Names",
			"12 Fixed Key Request", "13 NTP Server Deny", "14 Pool Authentication Token", "1024 Compliant AES-128-GCM-SIV Exporter Context"}},
		{"next protocols", Protocol, []string{"0 Network Time Protocol version 4 (NTPv4)"}},
		{"error codes", ErrorCode, []string{"0 Unrecognized Critical Record", "1 Bad Request", "2 Internal Server Error"}},
		{"warning codes", WarningCode, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := sweep(c.lookup, "%d"); !slices.Equal(got, c.want) {
				t.Errorf("registered are %q, want %q", got, c.want)
			}
		})
	}
}

func TestPrivateNumbersAreThoseOfTheirRange(t *testing.T) {
	for _, c := range []struct {
		name        string
		lookup      func(uint16) []Entry
		first, last int
		known       int // rows that tell a use
	}{
		{"extension fields", Field, 0xF000, 0xFFFF, 6},
		{"records", Record, 16384, 32767, 8},
		{"protocols", Protocol, 32768, 65535, 1},
		{"error codes", ErrorCode, 32768, 65535, 4},
		{"warning codes", WarningCode, 32768, 65535, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			known := 0
			for n := range 1 << 16 {
				entries := c.lookup(uint16(n))
				if private := c.first <= n && n <= c.last; private && len(entries) == 0 {
					t.Errorf("%d is private and unknown", n)
				} else if slices.ContainsFunc(entries, func(e Entry) bool { return e.Private != private }) {
					t.Errorf("%d is private: %v, but %v", n, private, entries)
				}
				for _, e := range entries {
					if e.Number != uint16(n) || e.Meaning == "" || e.Reference == "" {
						t.Errorf("%d: %+v", n, e)
					}
					if e.Private && e.Meaning != PrivateUse {
						known++
					}
				}
			}
			if known != c.known {
				t.Errorf("%d uses known, want %d", known, c.known)
			}
		})
	}
}

func TestNumbersWithTwoMeaningsTellBoth(t *testing.T) {
	for _, c := range []struct {
		name    string
		entries []Entry
		want    []string
	}{
		{"0x0204 is of Autokey and of NTS", Field(0x0204), []string{"Autokey Message Request", "NTS Cookie"}},
		{"0x4005 was used twice", Record(0x4005), []string{"List Server Names", "Pool Authentication Token, now 14"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, e := range c.entries {
				got = append(got, e.Meaning)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func TestAEADsAreThoseOfTheRegistry(t *testing.T) {
	var got []uint16
	for n := range 1 << 16 {
		a, ok := AEAD(uint16(n))
		if !ok {
			continue
		}
		if a.Number != uint16(n) || a.Private != (n >= 0x8000) {
			t.Errorf("%d is %+v", n, a)
		}
		if a.Private {
			continue
		}
		got = append(got, a.Number)
		if a.KeyLen == 0 || a.NonceMin == 0 || a.NonceMax != 0 && a.NonceMax < a.NonceMin || !strings.HasPrefix(a.Name, "AEAD_A") && n != 29 {
			t.Errorf("%+v", a)
		}
		for _, bits := range []string{"AES_128_", "AES_192_", "AES_256_"} {
			if n, _ := strconv.Atoi(bits[4:7]); strings.Contains(a.Name, bits) && a.KeyLen != n/8 {
				t.Errorf("%s has a key of %d octets", a.Name, a.KeyLen)
			}
		}
	}
	if len(got) != 33 || got[0] != 1 || got[32] != 33 {
		t.Errorf("registered are %v", got)
	}
	for _, id := range []aead.ID{aead.SIVCMAC256, aead.SIVCMAC384, aead.SIVCMAC512, aead.GCMSIV128} {
		a, _ := AEAD(uint16(id))
		if name := strings.ReplaceAll(strings.TrimPrefix(a.Name, "AEAD_"), "_", "-"); a.KeyLen != id.KeyLen() || name != id.String() {
			t.Errorf("%v with a key of %d octets is %+v", id, id.KeyLen(), a)
		}
	}
	if a, _ := AEAD(15); a.NonceMax != 0 {
		t.Errorf("AES-SIV takes any nonce, but %+v", a)
	}
	if a, _ := AEAD(30); a.NonceMin != 12 || a.NonceMax != 12 {
		t.Errorf("AES-GCM-SIV takes 12 octets of nonce, but %+v", a)
	}
}
