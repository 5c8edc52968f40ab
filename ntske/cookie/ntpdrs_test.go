package cookie

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"
)

// appendNTPDRS writes r as ntpd-rs writes a key file at t.
func appendNTPDRS(dst []byte, t uint64, r *Ring) []byte {
	keys := r.Keys()
	dst = binary.BigEndian.AppendUint64(dst, t)
	dst = binary.BigEndian.AppendUint32(dst, keys[0].id)
	dst = binary.BigEndian.AppendUint32(dst, uint32(r.current))
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(keys)))
	for _, k := range keys {
		dst = append(dst, k.secret().octets...)
	}
	return dst
}

func TestTheKeyFileOfARealNtpdRsIsReadAndWrittenBack(t *testing.T) {
	file := readGolden(t, "ntpdrs.keys")
	r := parsed(t, NTPDRS{}, file)
	keys := r.Keys()
	if len(keys) != 2 || keys[0].ID() != 1 || keys[1].ID() != 2 || r.Current() != keys[1] {
		t.Errorf("%v of %v", r, keys)
	}
	if got := appendNTPDRS(nil, binary.BigEndian.Uint64(file), r); !bytes.Equal(got, file) {
		t.Errorf("written as\n%x\n%x", got, file)
	}
}

func TestKeyFilesOfNtpdRs(t *testing.T) {
	file := readGolden(t, "ntpdrs.keys")
	with := func(at int, n uint32) []byte {
		b := bytes.Clone(file)
		binary.BigEndian.PutUint32(b[at:], n)
		return b
	}
	for _, c := range []struct {
		sentence string
		file     []byte
		problem  string // "" = it is read
		current  uint32
	}{
		{"the first key mints", with(12, 0), "", 1},
		{"ids run over the end", with(8, 0xffffffff), "", 0},
		{"an empty file", nil, "empty", 0},
		{"a head without its end", file[:19], "19 octets of the 20", 0},
		{"a head alone", file[:20], "2 keys make 148", 0},
		{"a key cut off", file[:147], "2 keys make 148", 0},
		{"an octet too many", append(bytes.Clone(file), 0), "2 keys make 148", 0},
		{"a key fewer than are there", with(16, 1), "1 keys make 84", 0},
		{"more keys than there could be", with(16, 0xffffffff), "4294967295 keys make", 0},
		{"no keys", append(bytes.Clone(file[:16]), 0, 0, 0, 0), "key 2 of 0", 0},
		{"a key to mint that is not there", with(12, 2), "key 3 of 2", 0},
		{"the highest number to mint", with(12, 0xffffffff), "key 4294967296 of 2", 0},
		{"a key file of ntpd", readGolden(t, "ntpsec-48.nts-keys"), "keys make", 0},
	} {
		r, err := (NTPDRS{}).ParseKeys(c.file)
		switch {
		case c.problem == "" && (err != nil || r.Current().ID() != c.current):
			t.Errorf("%s: %v, %v", c.sentence, r, err)
		case c.problem != "" && (err == nil || !strings.Contains(err.Error(), c.problem)):
			t.Errorf("%s: %v, %v; want %q", c.sentence, r, err, c.problem)
		}
	}
	for n := range file {
		if r, err := (NTPDRS{}).ParseKeys(file[:n]); err == nil {
			t.Errorf("%d of %d octets: %v", n, len(file), r)
		}
	}
}

func TestWhatFollowsTheSealedPartDoesNotCount(t *testing.T) {
	r := parsed(t, NTPDRS{}, readGolden(t, "ntpdrs.keys"))
	m := readMinted(t, "ntpdrs.cookies.txt")[0]
	padded := append(slices.Clone(m.cookie), 0, 1, 2, 3)
	if got, err := (NTPDRS{}).Open(nil, r, padded); err != nil || !same(got, m.session) {
		t.Errorf("%v, %v", got, err)
	}
	for n := range len(m.cookie) { // a length that is not the sealed part's
		bad := slices.Clone(padded)
		binary.BigEndian.PutUint16(bad[4:], uint16(n))
		if s, err := (NTPDRS{}).Open(nil, r, bad); err == nil && n != len(m.cookie)-22 {
			t.Errorf("length %d: %v", n, s)
		}
	}
}

func FuzzNTPDRSKeys(f *testing.F) {
	f.Add(readGolden(f, "ntpdrs.keys"))
	f.Add(make([]byte, 20))
	f.Add(append(make([]byte, 19), append([]byte{1}, make([]byte, 64)...)...))
	f.Fuzz(func(t *testing.T, file []byte) {
		r, err := (NTPDRS{}).ParseKeys(file)
		if err != nil {
			return
		}
		if again := appendNTPDRS(nil, binary.BigEndian.Uint64(file), r); !bytes.Equal(again, file) {
			t.Fatalf("%x is read, and written as %x", file, again)
		}
	})
}

func FuzzNTPDRSCookie(f *testing.F) {
	r := parsed(f, NTPDRS{}, readGolden(f, "ntpdrs.keys"))
	for _, m := range readMinted(f, "ntpdrs.cookies.txt") {
		f.Add(m.cookie, uint64(0))
		f.Add(append(m.cookie, 1, 2, 3), uint64(1))
	}
	f.Add([]byte{}, uint64(7))
	f.Fuzz(func(t *testing.T, c []byte, seed uint64) {
		sealAndOpen(t, NTPDRS{}, r, seed)
		if len(c) >= ntpdrsClear {
			reseal(t, NTPDRS{}, r, binary.BigEndian.Uint32(c), c[6:22], c)
		} else if s, err := (NTPDRS{}).Open(nil, r, c); err == nil {
			t.Fatalf("%x opens: %v", c, s)
		}
	})
}
