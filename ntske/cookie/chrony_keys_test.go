package cookie

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"ntsagent/ntske/aead"
)

func TestTheKeyFileOfARealChronydIsReadAndWrittenBack(t *testing.T) {
	file := goldenFile(t)
	r := goldenRing(t)
	var ids []uint32
	for _, k := range r.Keys() {
		ids = append(ids, k.ID())
	}
	want := []uint32{0x43a0942d, 0x156989a6, 0xdf65c07b, 0x1b4e117c}
	if len(ids) != 4 || [4]uint32(ids) != [4]uint32(want) || r.Current().ID() != want[2] {
		t.Errorf("ids %08x, current %08x", ids, r.Current().ID())
	}
	// Only the age differs: ours is of no use to a chronyd that does not rotate.
	if got := chrony.AppendKeys([]byte("before"), r); string(got) != "before"+strings.Replace(string(file), "15 2.3", "15 0.0", 1) {
		t.Errorf("wrote\n%s", got)
	}
}

func TestKeyFilesThatAreRead(t *testing.T) {
	file := string(goldenFile(t))
	nks1 := strings.NewReplacer("NKS0\n15 2.3\n", "NKS1\n2.3\n").Replace(file)
	head, rows := nks1[:len("NKS1\n2.3\n")], nks1[len("NKS1\n2.3\n"):]
	nks1 = head + strings.ReplaceAll(rows, "\n", " 15\n")
	want := chrony.AppendKeys(nil, goldenRing(t))
	for name, f := range map[string]string{
		"NKS0":                   file,
		"NKS0 in small letters":  "NKS0" + strings.ToLower(file[4:]),
		"an age in whole digits": strings.Replace(file, "2.3", "604800", 1),
		"NKS1 of chronyd 4.4":    nks1,
	} {
		t.Run(name, func(t *testing.T) {
			r, err := chrony.ParseKeys([]byte(f))
			if err != nil {
				t.Fatal(err)
			}
			if got := chrony.AppendKeys(nil, r); !bytes.Equal(got, want) {
				t.Errorf("read as\n%s", got)
			}
		})
	}
}

func TestTheKeyFilesOfANewerChronydAreReadAndWrittenBack(t *testing.T) {
	for name, want := range map[string]struct {
		current uint32
		algs    []aead.ID
	}{
		"ntskeys30":    {0x79f65a03, []aead.ID{30, 30, 30, 30}},
		"ntskeysmixed": {0x5abd3761, []aead.ID{15, 15, 30, 30}},
	} {
		file := testFile(t, name)
		r, err := chrony.ParseKeys(file)
		if err != nil {
			t.Fatal(err)
		}
		if got := algorithms(r); !slices.Equal(got, want.algs) || r.Current().ID() != want.current {
			t.Errorf("%s: keys of %d, current %v", name, got, r.Current())
		}
		lines := strings.SplitAfter(string(file), "\n")
		lines[1] = "0.0\n" // only the age differs
		if got := chrony.AppendKeys([]byte("before"), r); string(got) != "before"+strings.Join(lines, "") {
			t.Errorf("%s: wrote\n%s", name, got)
		}
	}
}

func algorithms(r *Ring) []aead.ID {
	var all []aead.ID
	for _, k := range r.Keys() {
		all = append(all, k.AEAD())
	}
	return all
}

func TestKeyFilesThatAreRefused(t *testing.T) {
	file := string(goldenFile(t))
	lines := strings.SplitAfter(file, "\n") // the last one is empty
	change := func(n int, old, new string) string {
		c := append([]string(nil), lines...)
		if !strings.Contains(c[n-1], old) {
			t.Fatalf("line %d holds no %q", n, old)
		}
		c[n-1] = strings.Replace(c[n-1], old, new, 1)
		return strings.Join(c, "")
	}
	nks1 := func(alg string) string {
		return "NKS1\n2.3\n" + strings.ReplaceAll(strings.Join(lines[2:], ""), "\n", alg+"\n")
	}
	for _, c := range []struct{ name, file, problem string }{
		{"an empty file", "", "empty"},
		{"another header", change(1, "NKS0", "NKS2"), "line 1 is neither"},
		{"a header with a space", change(1, "NKS0", "NKS0 "), "line 1 is neither"},
		{"carriage returns", strings.ReplaceAll(file, "\n", "\r\n"), "line 1 holds a carriage return"},
		{"a carriage return in one line", change(4, "\n", "\r\n"), "line 4 holds a carriage return"},
		{"no line feed at the end", strings.TrimSuffix(file, "\n"), "line 6 does not end with a line feed"},
		{"cut off in a key", file[:200], "line 5 does not end with a line feed"},
		{"three keys", strings.Join(lines[:5], ""), "has 5 lines"},
		{"five keys", file + lines[2], "has 7 lines"},
		{"an empty line at the end", file + "\n", "has 7 lines"},
		{"an empty line before the header", "\n" + file, "line 1 is neither"},
		{"no age", change(2, "15 2.3", "15"), "line 2 is not an AEAD number and an age"},
		{"an age below zero", change(2, "2.3", "-2.3"), "line 2 is not"},
		{"an age with an exponent", change(2, "2.3", "2e3"), "line 2 is not"},
		{"an age that is not a number", change(2, "2.3", "nan"), "line 2 is not"},
		{"an age that ends with a dot", change(2, "2.3", "2."), "line 2 is not"},
		{"NKS0 with keys of AES-GCM-SIV", change(2, "15", "30"), "line 2 does not start with 15"},
		{"NKS0 with keys of an unknown AEAD", change(2, "15", "1"), "line 2 does not start with 15"},
		{"two spaces", change(3, " ", "  "), "line 3 is not ID KEY"},
		{"a space at the end", change(3, "\n", " \n"), "line 3 is not ID KEY"},
		{"a tab", change(3, " ", "\t"), "line 3 is not ID KEY"},
		{"an id of 7 digits", change(3, "43A0942D", "3A0942D"), "line 3 does not start with an id"},
		{"an id of 9 digits", change(3, "43A0942D", "043A0942D"), "line 3 does not start with an id"},
		{"an id that is not hex", change(3, "43A0942D", "43A0942G"), "line 3 does not start with an id"},
		{"an id with a sign", change(3, "43A0942D", "+3A0942D"), "line 3 does not start with an id"},
		{"a key of 63 digits", change(5, "A53A", "53A"), "line 5 has a key of 63 characters"},
		{"a key of 66 digits", change(5, "A53A", "AAA53A"), "line 5 has a key of 66 characters"},
		{"a key that is not hex", change(5, "A53A", "A53Z"), "line 5 has a key that is not hex"},
		{"a slot left out", change(4, "156989A6", "156989A7"), "line 4 has the id 156989A7, which does not follow 43A0942D"},
		{"one id twice", change(4, "156989A6", "43A0942D"), "line 4 has the id 43A0942D"},
		{"rows in disorder", strings.Join([]string{lines[0], lines[1], lines[3], lines[2], lines[4], lines[5]}, ""), "line 4 has the id"},
		{"an AEAD in the rows of NKS0", change(3, "\n", " 15\n"), "line 3 is not ID KEY"},
		{"no AEAD in the rows of NKS1", nks1(""), "line 3 is not ID KEY AEAD"},
		{"NKS1 with keys of AES-GCM-SIV that are too long", nks1(" 30"), "line 3 has a key of 64 characters, not 32"},
		{"NKS1 with a short key of AES-SIV-CMAC", strings.Replace(string(testFile(t, "ntskeys30")), " 30\n", " 15\n", 1), "line 3 has a key of 32 characters, not 64"},
		{"NKS0 with short keys", strings.ReplaceAll(strings.Replace(string(testFile(t, "ntskeys30")), "NKS1\n6.9", "NKS0\n15 6.9", 1), " 30\n", "\n"), "line 3 has a key of 32 characters, not 64"},
		{"NKS1 with an unknown AEAD", nks1(" 015"), "line 3 does not hold a known AEAD number"},
		{"NKS1 with an AEAD chronyd does not have", nks1(" 17"), "line 3 does not hold a known AEAD number"},
		{"NKS1 with the second line of NKS0", strings.Replace(nks1(" 15"), "2.3", "15 2.3", 1), "line 2 is not an age"},
		{"a zero octet", change(5, "A53A", "A53\x00"), "line 5 has a key that is not hex"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := chrony.ParseKeys([]byte(c.file))
			if err == nil {
				t.Fatalf("read %v", r)
			}
			if !strings.Contains(err.Error(), c.problem) {
				t.Errorf("error %q, want %q", err, c.problem)
			}
			for _, line := range lines[2:6] {
				key := strings.Fields(line)[1]
				for i := range len(key) - 6 {
					if strings.Contains(strings.ToUpper(err.Error()), key[i:i+6]) {
						t.Fatalf("error %q shows a part of a key", err)
					}
				}
			}
		})
	}
}

func FuzzParseKeys(f *testing.F) {
	file := string(goldenFile(f))
	f.Add([]byte(file))
	f.Add([]byte("NKS0" + strings.ToLower(file[4:])))
	rows := strings.ReplaceAll(file[len("NKS0\n15 2.3\n"):], "\n", " 15\n")
	f.Add([]byte("NKS1\n2.3\n" + rows))
	f.Add([]byte("NKS1\n2.3\n" + strings.ReplaceAll(rows, " 15\n", " 30\n")))
	f.Add([]byte("NKS0\n15 \n\n\n\n\n"))
	f.Add(testFile(f, "ntskeys30"))
	f.Add(testFile(f, "ntskeysmixed"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := chrony.ParseKeys(b)
		if err != nil {
			return
		}
		if err := chrony.check(r); err != nil {
			t.Fatalf("took what it would not write: %v", err)
		}
		wire := chrony.AppendKeys(nil, r)
		again, err := chrony.ParseKeys(wire)
		if err != nil {
			t.Fatal(err)
		}
		if second := chrony.AppendKeys(nil, again); !bytes.Equal(wire, second) {
			t.Fatalf("%s became %s", wire, second)
		}
	})
}
