package cookie

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// appendNTPsec writes r as ntpd writes a key file that it last rotated at t.
func appendNTPsec(dst []byte, t uint64, r *Ring) []byte {
	keys := r.Keys()
	dst = fmt.Appendf(dst, "T: %d\nL: %d\n", t, keys[0].alg.KeyLen())
	for _, k := range slices.Backward(keys) {
		dst = fmt.Appendf(dst, "I: %d\nK: %x\n", k.id, k.secret().octets)
	}
	return dst
}

func TestKeyFilesOfRealNtpdAreReadAndWrittenBack(t *testing.T) {
	for name, want := range map[string]struct {
		rotated uint64
		ids     []uint32 // oldest first
	}{
		"ntpsec-32.nts-keys": {1795416203, []uint32{2351226803}},
		"ntpsec-48.nts-keys": {1795385600, []uint32{4000000000, 3449435605}},
		"ntpsec-64.nts-keys": {1795385600, []uint32{4000000000, 879275427}},
	} {
		file := readGolden(t, name)
		r := parsed(t, NTPsec{}, file)
		var ids []uint32
		for _, k := range r.Keys() {
			ids = append(ids, k.ID())
		}
		if !slices.Equal(ids, want.ids) || r.Current().ID() != want.ids[len(want.ids)-1] {
			t.Errorf("%s: ids %d, current %d", name, ids, r.Current().ID())
		}
		if got := appendNTPsec(nil, want.rotated, r); !bytes.Equal(got, file) {
			t.Errorf("%s: written as\n%s", name, got)
		}
	}
}

func TestKeyFilesOfNtpdThatAreRead(t *testing.T) {
	file := string(readGolden(t, "ntpsec-48.nts-keys"))
	old := string(readGolden(t, "ntpsec-32.nts-keys"))
	second := "I: 7\nK: " + strings.Repeat("5c", 32) + "\n"
	ten := old
	for i := range 9 {
		ten += fmt.Sprintf("I: %d\nK: %064x\n", i, i)
	}
	for sentence, c := range map[string]struct {
		file string
		keys int
	}{
		"never rotated":                         {strings.Replace(file, "T: 1795385600", "T: 0", 1), 2},
		"keys in capital letters":               {strings.ReplaceAll(file, "e673e8", "E673E8"), 2},
		"ten keys":                              {ten, 10},
		"two keys, and what 1.2.1 left behind":  {old + second + "6a\n", 2},
		"two keys, and a line feed left behind": {old + second + "\n", 2},
		"two keys, and much left behind":        {old + second + strings.Repeat("f", 27) + "\n", 2},
	} {
		r, err := (NTPsec{}).ParseKeys([]byte(c.file))
		if err != nil || len(r.Keys()) != c.keys || r.Current() != r.Keys()[c.keys-1] {
			t.Errorf("%s: %v, %v", sentence, r, err)
		}
	}
}

func TestKeyFilesOfNtpdThatAreRefused(t *testing.T) {
	file := string(readGolden(t, "ntpsec-48.nts-keys"))
	old := string(readGolden(t, "ntpsec-32.nts-keys"))
	second := "I: 7\nK: " + strings.Repeat("5c", 32) + "\n"
	eleven := old
	for i := range 10 {
		eleven += fmt.Sprintf("I: %d\nK: %064x\n", i, i)
	}
	swap := func(old, new string) string {
		if !strings.Contains(file, old) {
			t.Fatalf("no %q in the file", old)
		}
		return strings.Replace(file, old, new, 1)
	}
	for _, c := range []struct{ sentence, file, problem string }{
		{"an empty file", "", "empty"},
		{"no time", swap("T: 1795385600\n", ""), `line 1 does not start with "T: "`},
		{"a time that is no number", swap("T: 1795385600", "T: now"), "line 1 is not T:"},
		{"a time with a sign", swap("T: 1", "T: -1"), "line 1 is not T:"},
		{"a time with a space too many", swap("T: 1", "T:  1"), "line 1 is not T:"},
		{"a length that ntpd does not know", swap("L: 48", "L: 40"), "line 2 is not L:"},
		{"a length that the keys do not have", swap("L: 48", "L: 32"), "line 4 has a key of 96 characters, not 64"},
		{"no length", swap("L: 48\n", ""), `line 2 does not start with "L: "`},
		{"no keys", "T: 0\nL: 32\n", `line 3 does not end with a line feed`},
		{"an id of 33 bits", swap("I: 4000000000", "I: 4294967296"), "line 5 is not I:"},
		{"an id with a leading zero", swap("I: 4000000000", "I: 04000000000"), "line 5 is not I:"},
		{"an id twice", swap("I: 4000000000", "I: 3449435605"), "two keys have the id"},
		{"an id without its key", old + "I: 7\n", "line 6 does not end"},
		{"a key that is not hex", swap("e673e8", "x673e8"), "line 4 has a key that is not hex"},
		{"carriage returns", strings.ReplaceAll(file, "\n", "\r\n"), "line 1 is not T:"},
		{"something after one key", old + "6a\n", `line 5 does not start with "I: "`},
		{"something after two keys that is not hex", old + second + "xyz\n", `line 7 does not start with "I: "`},
		{"too much after two keys", old + second + strings.Repeat("f", 28) + "\n", `line 7 does not start with "I: "`},
		{"two lines after two keys", old + second + "6a\n6a\n", `line 7 does not start with "I: "`},
		{"eleven keys", eleven, "line 23 is one too many"},
		{"ntskeys of chronyd", string(goldenFile(t)), `line 1 does not start with "T: "`},
		{"a key file of ntpd-rs", string(readGolden(t, "ntpdrs.keys")), "line 1"},
	} {
		r, err := (NTPsec{}).ParseKeys([]byte(c.file))
		if err == nil || !strings.Contains(err.Error(), c.problem) {
			t.Errorf("%s: %v, %v; want %q", c.sentence, r, err, c.problem)
			continue
		}
		if strings.Contains(err.Error(), "e673e") || strings.Contains(err.Error(), "673e8") {
			t.Errorf("%s: shows of a key: %v", c.sentence, err)
		}
	}
}

// Every part of a key file is refused, but the one that ends after a whole pair: that is a whole file.
func TestACutKeyFileOfNtpdIsRefused(t *testing.T) {
	file := readGolden(t, "ntpsec-48.nts-keys")
	pair := bytes.Index(file, []byte("I: 4000000000"))
	for n := range file {
		r, err := (NTPsec{}).ParseKeys(file[:n])
		if (err == nil) != (n == pair) {
			t.Errorf("%d of %d octets: %v, %v", n, len(file), r, err)
		}
	}
}

func FuzzNTPsecKeys(f *testing.F) {
	for _, name := range []string{"ntpsec-32", "ntpsec-48", "ntpsec-64"} {
		f.Add(readGolden(f, name+".nts-keys"))
	}
	f.Add([]byte("T: 0\nL: 32\nI: 0\nK: 00\n"))
	f.Fuzz(func(t *testing.T, file []byte) {
		r, err := (NTPsec{}).ParseKeys(file)
		if err != nil {
			return
		}
		head, _, _ := bytes.Cut(file, []byte("\n"))
		rotated, ok := decimal(head[3:], 64)
		if !ok {
			t.Fatalf("the time %q is no number", head)
		}
		// What 1.2.1 left behind is gone, capital letters are small; else it is the same file.
		again := appendNTPsec(nil, rotated, r)
		rest, ok := bytes.CutPrefix(lowerKeys(file), again)
		if !ok || len(rest) > 0 && (len(r.Keys()) != 2 || !isLeftOver(rest)) {
			t.Fatalf("%q is read, and written as %q", file, again)
		}
		if back := parsed(t, NTPsec{}, again); fmt.Sprint(back) != fmt.Sprint(r) {
			t.Fatalf("%v became %v", r, back)
		}
	})
}

// lowerKeys makes the digits of keys small.
func lowerKeys(file []byte) []byte {
	lines := bytes.SplitAfter(file, []byte("\n"))
	for i, l := range lines {
		if bytes.HasPrefix(l, []byte("K: ")) {
			lines[i] = append([]byte("K: "), bytes.ToLower(l[3:])...)
		}
	}
	return bytes.Join(lines, nil)
}

func FuzzNTPsecCookie(f *testing.F) {
	r := parsed(f, NTPsec{}, readGolden(f, "ntpsec-48.nts-keys"))
	for _, m := range readMinted(f, "ntpsec-48.cookies.txt") {
		f.Add(m.cookie, uint64(0))
	}
	f.Add([]byte{}, uint64(7))
	f.Fuzz(func(t *testing.T, c []byte, seed uint64) {
		sealAndOpen(t, NTPsec{}, r, seed)
		if len(c) >= ntpsecClear {
			reseal(t, NTPsec{}, r, binary.NativeEndian.Uint32(c), c[4:20], c)
		} else if s, err := (NTPsec{}).Open(nil, r, c); err == nil {
			t.Fatalf("%x opens: %v", c, s)
		}
	})
}
