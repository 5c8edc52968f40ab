package cookie

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"

	"ntsagent/ntske/aead"
)

// Every daemon's way is a Format.
var _ = []Format{Chrony{}, NTPsec{}, NTPDRS{}}

// followed are the formats of daemons that own their keys, with what real ones made.
var followed = []struct {
	name   string
	format Format
	golden string // of the files in testdata
	keys   string
	length map[aead.ID]int // of cookies
}{
	{"NTPsec with keys of 32 octets", NTPsec{}, "ntpsec-32", ".nts-keys", map[aead.ID]int{15: 104, 16: 136, 17: 168}},
	{"NTPsec with keys of 48 octets", NTPsec{}, "ntpsec-48", ".nts-keys", map[aead.ID]int{15: 104, 16: 136, 17: 168}},
	{"NTPsec with keys of 64 octets", NTPsec{}, "ntpsec-64", ".nts-keys", map[aead.ID]int{15: 104, 16: 136, 17: 168}},
	{"ntpd-rs", NTPDRS{}, "ntpdrs", ".keys", map[aead.ID]int{15: 104, 17: 168}},
}

func readGolden(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func parsed(t testing.TB, f Format, file []byte) *Ring {
	t.Helper()
	r, err := f.ParseKeys(file)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// minted is a session and a cookie that a real daemon made for it.
type minted struct {
	session Session
	cookie  []byte
}

func readMinted(t testing.TB, name string) (all []minted) {
	t.Helper()
	var s Session
	for line := range strings.Lines(string(readGolden(t, name))) {
		word, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if word == "session" {
			n, err := strconv.Atoi(value)
			if err != nil {
				t.Fatal(err)
			}
			s = Session{AEAD: aead.ID(n)}
			continue
		}
		b, err := hex.DecodeString(value)
		if err != nil {
			t.Fatal(err)
		}
		switch word {
		case "c2s":
			s.C2S = b
		case "s2c":
			s.S2C = b
		case "cookie":
			all = append(all, minted{s, b})
		}
	}
	return all
}

func TestCookiesOfRealDaemonsOpenAndAreWhatSealMakes(t *testing.T) {
	for _, d := range followed {
		t.Run(d.name, func(t *testing.T) {
			r := parsed(t, d.format, readGolden(t, d.golden+d.keys))
			all := readMinted(t, d.golden+".cookies.txt")
			if len(all) != 2*len(d.format.AEADs()) || len(all) != 2*len(d.length) {
				t.Fatalf("%d cookies for the algorithms %v", len(all), d.format.AEADs())
			}
			for _, m := range all {
				got, err := d.format.Open(nil, r, m.cookie)
				if err != nil || !same(got, m.session) || len(m.cookie) != d.length[m.session.AEAD] {
					t.Fatalf("cookie of %d octets for %v: %v, %v", len(m.cookie), m.session, got, err)
				}
				at := 4
				if d.golden == "ntpdrs" {
					at = 6
				}
				again, err := d.format.Seal([]byte("before"), r.Current(), m.cookie[at:at+16], &m.session)
				if err != nil || string(again[:6]) != "before" || !bytes.Equal(again[6:], m.cookie) {
					t.Errorf("sealed to\n%x, %v\n%x", again, err, m.cookie)
				}
			}
		})
	}
}

func TestEveryFlippedBitAndEveryCutIsRefused(t *testing.T) {
	for _, d := range followed {
		t.Run(d.name, func(t *testing.T) {
			r := parsed(t, d.format, readGolden(t, d.golden+d.keys))
			c := readMinted(t, d.golden+".cookies.txt")[0].cookie
			for i := range 8 * len(c) {
				bad := bytes.Clone(c)
				bad[i/8] ^= 1 << (i % 8)
				want := ErrCookie
				if i < 8*4 {
					want = ErrUnknownKey
				}
				if s, err := d.format.Open(nil, r, bad); !errors.Is(err, want) {
					t.Errorf("bit %d flipped: %v, %v; want %v", i, s, err, want)
				}
			}
			for n := range c {
				if s, err := d.format.Open(nil, r, c[:n]); err == nil {
					t.Errorf("cut to %d octets: %v", n, s)
				}
			}
		})
	}
}

func TestSealOfFollowedDaemonsRefuses(t *testing.T) {
	for _, d := range followed {
		k := parsed(t, d.format, readGolden(t, d.golden+d.keys)).Current()
		nonce, good := make([]byte, 16), make([]byte, 32)
		for sentence, c := range map[string]struct {
			nonce []byte
			s     Session
		}{
			"a session it cannot speak": {nonce, Session{aead.GCMSIV128, make([]byte, 16), make([]byte, 16)}},
			"a short C2S key":           {nonce, Session{aead.SIVCMAC256, good[:31], good}},
			"a long S2C key":            {nonce, Session{aead.SIVCMAC256, good, make([]byte, 48)}},
			"a short nonce":             {nonce[:12], Session{aead.SIVCMAC256, good, good}},
			"no session":                {nonce, Session{}},
		} {
			if b, err := d.format.Seal(nil, k, c.nonce, &c.s); err == nil {
				t.Errorf("%s: %s: sealed %x", d.name, sentence, b)
			}
		}
	}
	if b, err := (NTPDRS{}).Seal(nil, mustKey(t, 1, 1), make([]byte, 16), &Session{aead.SIVCMAC256, make([]byte, 32), make([]byte, 32)}); err == nil {
		t.Errorf("ntpd-rs: a key that it cannot hold: sealed %x", b)
	}
	if b, err := (NTPDRS{}).Seal(nil, parsed(t, NTPDRS{}, readGolden(t, "ntpdrs.keys")).Current(), make([]byte, 16),
		&Session{aead.SIVCMAC384, make([]byte, 48), make([]byte, 48)}); err == nil {
		t.Errorf("ntpd-rs: a session of AES-SIV-CMAC-384: sealed %x", b)
	}
}

func TestASessionThatTheDaemonDoesNotSpeakIsNoCookie(t *testing.T) {
	// Sealed with the right key, so that only what is inside can be wrong.
	ntpsec := parsed(t, NTPsec{}, readGolden(t, "ntpsec-32.nts-keys"))
	ntpdrs := parsed(t, NTPDRS{}, readGolden(t, "ntpdrs.keys"))
	for sentence, c := range map[string]struct {
		f         Format
		r         *Ring
		plaintext []byte
	}{
		"NTPsec: AES-GCM-SIV":                       {NTPsec{}, ntpsec, append([]byte{30, 0, 0, 0}, make([]byte, 32)...)},
		"NTPsec: an algorithm of more than 16 bits": {NTPsec{}, ntpsec, append([]byte{15, 0, 1, 0}, make([]byte, 64)...)},
		"NTPsec: keys too short":                    {NTPsec{}, ntpsec, append([]byte{15, 0, 0, 0}, make([]byte, 62)...)},
		"NTPsec: keys too long":                     {NTPsec{}, ntpsec, append([]byte{15, 0, 0, 0}, make([]byte, 66)...)},
		"ntpd-rs: AES-SIV-CMAC-384":                 {NTPDRS{}, ntpdrs, append([]byte{0, 16}, make([]byte, 96)...)},
		"ntpd-rs: keys too short":                   {NTPDRS{}, ntpdrs, append([]byte{0, 15}, make([]byte, 62)...)},
		"ntpd-rs: keys too long":                    {NTPDRS{}, ntpdrs, append([]byte{0, 15}, make([]byte, 66)...)},
	} {
		nonce := make([]byte, 16)
		k := c.r.Current()
		var sealed []byte
		if c.f == (NTPsec{}) {
			ad := append([]byte{byte(k.id), byte(k.id >> 8), byte(k.id >> 16), byte(k.id >> 24)}, nonce...)
			sealed = k.secret().siv.Seal(ad, nonce, c.plaintext, ad)
		} else {
			head := []byte{byte(k.id >> 24), byte(k.id >> 16), byte(k.id >> 8), byte(k.id), 0, byte(16 + len(c.plaintext))}
			sealed = k.secret().siv.Seal(append(head, nonce...), nonce, c.plaintext, nil)
		}
		if s, err := c.f.Open(nil, c.r, sealed); !errors.Is(err, ErrCookie) {
			t.Errorf("%s: %v, %v", sentence, s, err)
		}
	}
}

func TestNothingIsAllocatedForFollowedDaemons(t *testing.T) {
	for _, d := range followed {
		r := parsed(t, d.format, readGolden(t, d.golden+d.keys))
		buf, nonce := make([]byte, 0, MaxCookie), make([]byte, 16)
		for _, m := range readMinted(t, d.golden+".cookies.txt") {
			if n := testing.AllocsPerRun(100, func() {
				if _, err := d.format.Seal(buf, r.Current(), nonce, &m.session); err != nil {
					t.Error(err)
				}
			}); n != 0 {
				t.Errorf("%s: Seal allocates %v times", d.name, n)
			}
			if n := testing.AllocsPerRun(100, func() {
				if _, err := d.format.Open(buf, r, m.cookie); err != nil {
					t.Error(err)
				}
			}); n != 0 {
				t.Errorf("%s: Open allocates %v times", d.name, n)
			}
		}
	}
}

// reseal is the round trip of what opens: sealed again with the same nonce it is the same cookie.
func reseal(t *testing.T, f Format, r *Ring, id uint32, nonce, c []byte) {
	t.Helper()
	s, err := f.Open(nil, r, c)
	if err != nil {
		if !errors.Is(err, ErrCookie) && !errors.Is(err, ErrUnknownKey) {
			t.Fatal(err)
		}
		return
	}
	again, err := f.Seal(nil, r.Find(id), nonce, &s)
	if err != nil || !bytes.HasPrefix(c, again) {
		t.Fatalf("%x opens, but seals to %x, %v", c, again, err)
	}
}

// sealAndOpen is the round trip of whatever a session may be.
func sealAndOpen(t *testing.T, f Format, r *Ring, seed uint64) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(seed, 1))
	algs := f.AEADs()
	s := Session{AEAD: algs[rnd.IntN(len(algs))]}
	octets := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
		return b
	}
	s.C2S, s.S2C = octets(s.AEAD.KeyLen()), octets(s.AEAD.KeyLen())
	k := r.Keys()[rnd.IntN(len(r.Keys()))]
	c, err := f.Seal(nil, k, octets(f.NonceLen(k)), &s)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := f.Open(nil, r, c); err != nil || !same(got, s) {
		t.Fatalf("sealed %v, opened %v, %v", s, got, err)
	}
}
