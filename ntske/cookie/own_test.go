package cookie

import (
	"bytes"
	"crypto/rand"
	"slices"
	"strings"
	"testing"

	"ntsagent/ntske/aead"
)

var own Own

// ownRing is a ring after so many rotations.
func ownRing(t testing.TB, rotations, keep int) *Ring {
	t.Helper()
	r, err := own.NewRing(rand.Reader)
	for range rotations {
		if err == nil {
			r, err = own.Next(r, keep, rand.Reader)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestARingOfOursKeepsItsNewestKeysAndTheLastMints(t *testing.T) {
	r := ownRing(t, 0, 10)
	for n := 2; n <= 25; n++ {
		before := r.Keys()
		var err error
		if r, err = own.Next(r, 10, rand.Reader); err != nil {
			t.Fatal(err)
		}
		keys := r.Keys()
		if len(keys) != min(n, 10) || r.Current() != keys[len(keys)-1] || keys[len(keys)-1].ID() != before[len(before)-1].ID()+1 {
			t.Fatalf("after %d: %v, ids %v", n, r, keys)
		}
		if !slices.Equal(keys[:len(keys)-1], before[len(before)-len(keys)+1:]) {
			t.Fatalf("after %d: other keys than the newest are kept", n)
		}
	}
	if r, err := own.Next(r, 3, rand.Reader); err != nil || len(r.Keys()) != 3 {
		t.Errorf("fewer are to be kept: %v, %v", r, err)
	}
}

func TestACookieUnderAKeyOfOursIsOneOfChronyd(t *testing.T) {
	r := ownRing(t, 3, 10)
	for _, alg := range own.AEADs() {
		octets := make([]byte, 2*alg.KeyLen()+16)
		rand.Read(octets)
		s := Session{AEAD: alg, C2S: octets[:alg.KeyLen()], S2C: octets[alg.KeyLen() : 2*alg.KeyLen()]}
		c, err := own.Seal(nil, r.Keys()[1], octets[2*alg.KeyLen():], &s)
		if err != nil {
			t.Fatal(err)
		}
		got, err := chrony.Open(nil, r, c)
		if err != nil || got.AEAD != alg || !bytes.Equal(got.C2S, s.C2S) || !bytes.Equal(got.S2C, s.S2C) {
			t.Errorf("%v: %v, %v", alg, got, err)
		}
	}
	if all := own.AEADs(); len(all) != 2 || all[0] != aead.SIVCMAC256 {
		t.Errorf("AEADs %v: the first is what every client has", all)
	}
}

func TestAListOfOurKeysComesBackAsItWas(t *testing.T) {
	for _, rotations := range []int{0, 1, 9, 80} {
		r := ownRing(t, rotations, MostKeys)
		file := own.AppendKeys(nil, r)
		again, err := own.ParseKeys(file)
		if err != nil {
			t.Fatal(err)
		}
		if got := own.AppendKeys(nil, again); !bytes.Equal(got, file) || again.Current().Fingerprint() != r.Current().Fingerprint() {
			t.Errorf("%d rotations: another list", rotations)
		}
	}
}

func TestADamagedListOfOurKeysIsRefusedWithoutShowingAKey(t *testing.T) {
	good := string(own.AppendKeys(nil, ownRing(t, 2, 10)))
	lines := strings.SplitAfter(good, "\n")
	row := lines[2]
	for name, bad := range map[string]string{
		"nothing":                "",
		"cut off in a row":       good[:len(good)-7],
		"cut off after a row":    good[:len(good)-len(lines[3])],
		"one row more":           good + row,
		"no head":                strings.Join(lines[1:], ""),
		"no keys at all":         "keys 0\n",
		"too many":               "keys 65\n" + strings.Repeat(row, 65),
		"a number with a zero":   "keys 03\n" + strings.Join(lines[1:], ""),
		"the same key twice":     lines[0] + row + row + lines[3],
		"a short id":             strings.Replace(good, row, row[1:], 1),
		"an id in capitals":      strings.Replace(good, row, "ABCDEF01"+row[8:], 1),
		"an AEAD we do not have": strings.Replace(good, " 15 ", " 17 ", 1),
		"a key of the other":     strings.Replace(good, " 15 ", " 30 ", 1),
		"a key that is not hex":  strings.Replace(good, row, row[:len(row)-2]+"x\n", 1),
		"a key in capitals":      strings.Replace(good, row, row[:12]+"ABCDEF"+row[18:], 1),
		"a space more":           strings.Replace(good, row, row[:len(row)-1]+" \n", 1),
		"carriage returns":       strings.ReplaceAll(good, "\n", "\r\n"),
	} {
		_, err := own.ParseKeys([]byte(bad))
		if err == nil {
			t.Errorf("%s: taken", name)
		} else if len(bad) > 0 && strings.Contains(err.Error(), row[20:40]) {
			t.Errorf("%s: a key is shown: %v", name, err)
		}
	}
}

func FuzzParseOwnKeys(f *testing.F) {
	for _, n := range []int{0, 1, 12} {
		f.Add(own.AppendKeys(nil, ownRing(f, n, 10)))
	}
	f.Add([]byte("keys 1\n00000000 30 " + strings.Repeat("5c", 16) + "\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := own.ParseKeys(b)
		if err != nil {
			return
		}
		if got := own.AppendKeys(nil, r); !bytes.Equal(got, b) {
			t.Fatalf("%q became %q", b, got)
		}
		if _, err := own.Next(r, len(r.Keys()), rand.Reader); err != nil && r.Find(r.Current().ID()+1) == nil {
			t.Fatal(err)
		}
	})
}
