package packet

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"
)

func TestRequestsAreParsedAndVerified(t *testing.T) {
	g := golden(t)
	c2s := siv(t, g["c2s"])
	h := Header{Version: 4, Mode: ModeClient}
	uid, cookie := g["one-uid"], make([]byte, 100)
	request := func(placeholders int) []byte {
		return AppendNTSRequest(nil, h, uid, cookie, placeholders, make([]byte, 16), c2s.Seal)
	}
	start := AppendField(AppendField(h.AppendTo(nil), UniqueIdentifier, uid), NTSCookie, cookie)
	encrypted := func(plaintext []byte) []byte {
		return appendAuthenticator(bytes.Clone(start), 0, make([]byte, 16), plaintext, c2s.Seal)
	}
	for _, c := range []struct {
		name    string
		b       []byte
		cookies int
	}{
		{"one that chronyd took", g["one-request"], 1},
		{"one with seven placeholders that chronyd took", g["eight-request"], 8},
		{"no placeholder", request(0), 1},
		{"three placeholders", request(3), 4},
		{"CVE-2026-26076 no more than eight cookies for a hundred placeholders", request(100), 8},
		{"an encrypted placeholder", encrypted(appendField(nil, CookiePlaceholder, cookie, 4)), 2},
		{"an encrypted placeholder of another length does not count", encrypted(appendField(nil, CookiePlaceholder, uid, 4)), 1},
		{"a placeholder after the authenticator does not count", AppendField(request(0), CookiePlaceholder, cookie), 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := parseNTSRequest(c.b)
			if err != nil {
				t.Fatal(err)
			}
			n, err := r.verify(nil, 16, c2s.Open)
			if err != nil || n != c.cookies || r.Header.Mode != ModeClient || len(r.Cookie) != 100 || len(r.UID) != 32 {
				t.Errorf("%d cookies, %v; want %d", n, err, c.cookies)
			}
		})
	}
}

func TestRequestsThatAreRefused(t *testing.T) {
	g := golden(t)
	c2s := siv(t, g["c2s"])
	h := Header{Version: 4, Mode: ModeClient}
	uid, cookie, nonce := g["one-uid"], make([]byte, 100), make([]byte, 16)
	seal := func(h Header, fields ...[]byte) []byte {
		return appendAuthenticator(append(h.AppendTo(nil), bytes.Join(fields, nil)...), 0, nonce, nil, c2s.Seal)
	}
	u, c, p := AppendField(nil, UniqueIdentifier, uid), AppendField(nil, NTSCookie, cookie), AppendField(nil, CookiePlaceholder, cookie)
	short := AppendField(nil, CookiePlaceholder, cookie[:96])
	for name, b := range map[string][]byte{
		"N02 mode 4":    seal(Header{Version: 4, Mode: ModeServer}, u, c),
		"N02 mode 1":    seal(Header{Version: 4, Mode: 1}, u, c),
		"NTP version 3": seal(Header{Version: 3, Mode: ModeClient}, u, c),
		"N03 a placeholder shorter than the cookie":   seal(h, u, c, short),
		"N03 a shorter placeholder before the cookie": seal(h, u, short, c),
		"N03 placeholders of different lengths":       seal(h, u, c, p, short),
		"N07 no unique identifier":                    seal(h, c),
		"N07 two unique identifiers":                  seal(h, u, u, c),
		"N07 no cookie":                               seal(h, u),
		"N07 two cookies":                             seal(h, u, c, c),
		"N07 no authenticator":                        append(append(h.AppendTo(nil), u...), c...),
		"N07 the cookie after the authenticator":      append(seal(h, u), c...),
		"N01 a unique identifier shorter than 32":     seal(h, AppendField(nil, UniqueIdentifier, uid[:28]), c),
		"plain NTP":                            h.AppendTo(nil),
		"CVE-2023-33192 a cookie of 20 octets": cve202333192(t),
	} {
		t.Run(name, func(t *testing.T) {
			r, err := parseNTSRequest(b)
			if err == nil { // only of CVE-2023-33192 is the framing sound
				_, err = r.verify(nil, 16, c2s.Open)
			}
			if err == nil {
				t.Error("taken")
			}
		})
	}
}

// cve202333192 makes a packet like the one that crashed a server: a cookie of 20 zero octets.
func cve202333192(t *testing.T) []byte {
	b := make([]byte, HeaderLen)
	b[0] = 0x23
	b = AppendField(b, UniqueIdentifier, make([]byte, 32))
	b = AppendField(b, NTSCookie, make([]byte, 20))
	auth, err := hex.DecodeString("00100010")
	if err != nil {
		t.Fatal(err)
	}
	return AppendField(b, Authenticator, append(auth, make([]byte, 32)...))
}

func TestN06ARequestNeedsRoomForTheNonceOfTheResponse(t *testing.T) {
	g := golden(t)
	c2s := siv(t, g["c2s"])
	request := func(nonce, padding int) []byte {
		b := AppendNTSRequest(nil, Header{Version: 4, Mode: ModeClient}, g["one-uid"], make([]byte, 100), 0, make([]byte, nonce), c2s.Seal)
		at := len(b) - 4 - 4 - padded(nonce) - 16
		b[at+3] += byte(padding)
		return append(b, make([]byte, padding)...)
	}
	for _, c := range []struct {
		name                    string
		nonce, padding, longest int
		good                    bool
	}{
		{"16 octets", 16, 0, 1 << 20, true},
		{"13 octets, which are padded to 16", 13, 0, 1 << 20, true},
		{"12 octets", 12, 0, 1 << 20, false},
		{"12 octets and 4 of padding", 12, 4, 1 << 20, true},
		{"4 octets and 8 of padding", 4, 8, 1 << 20, false},
		{"4 octets and 12 of padding", 4, 12, 1 << 20, true},
		{"12 octets when the AEAD takes no more", 12, 0, 12, true},
		{"8 octets when the AEAD takes 12", 8, 0, 12, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := parseNTSRequest(request(c.nonce, c.padding))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := r.verify(nil, c.longest, c2s.Open); (err == nil) != c.good {
				t.Errorf("verified: %v", err)
			}
		})
	}
}

func TestNoFlippedBitOfARequestIsVerified(t *testing.T) {
	g := golden(t)
	b, c2s := g["eight-request"], siv(t, g["c2s"])
	for bit := range 8 * len(b) {
		b[bit/8] ^= 1 << (bit % 8)
		if r, err := parseNTSRequest(b); err == nil {
			if _, err := r.verify(nil, 16, c2s.Open); err == nil {
				t.Errorf("bit %d flipped and verified", bit)
			}
		}
		b[bit/8] ^= 1 << (bit % 8)
	}
}

func TestN12AResponseIsNoLongerThanItsRequest(t *testing.T) {
	g := golden(t)
	c2s, s2c := siv(t, g["c2s"]), siv(t, g["s2c"])
	for placeholders := range 8 {
		req := AppendNTSRequest(nil, Header{Version: 4, Mode: ModeClient}, g["one-uid"], make([]byte, 100), placeholders, make([]byte, 16), c2s.Seal)
		r, err := parseNTSRequest(req)
		if err != nil {
			t.Fatal(err)
		}
		n, err := r.verify(nil, 16, c2s.Open)
		if err != nil || n != placeholders+1 {
			t.Fatal(n, err)
		}
		var plaintext []byte
		for range n {
			plaintext = appendCookie(plaintext, make([]byte, 100))
		}
		resp := appendNTSResponse([]byte("before"), Header{Version: 4, Mode: ModeServer, Stratum: 1}, r.UID, plaintext, make([]byte, 16), s2c.Seal)[6:]
		if len(resp) > len(req) {
			t.Errorf("%d octets answered with %d", len(req), len(resp))
		}
		_, cookies, err := ParseNTSResponse(resp, g["one-uid"], s2c.Open)
		if err != nil || len(cookies) != n {
			t.Errorf("%d cookies, %v", len(cookies), err)
		}
	}
}

func TestParsingARequestAllocatesNothing(t *testing.T) {
	g := golden(t)
	b, open, seal := g["eight-request"], siv(t, g["c2s"]).Open, siv(t, g["s2c"]).Seal
	h, plaintext, nonce := Header{Version: 4, Mode: ModeServer}, make([]byte, 104), make([]byte, 16)
	dst, scratch := make([]byte, 0, 1500), make([]byte, 0, 1500)
	if n := testing.AllocsPerRun(200, func() {
		r, err := parseNTSRequest(b)
		if err != nil {
			t.Error(err)
		}
		if _, err := r.verify(scratch, 16, open); err != nil {
			t.Error(err)
		}
		dst = appendNTSResponse(dst[:0], h, r.UID, plaintext, nonce, seal)
	}); n != 0 {
		t.Errorf("a request and its response allocate %v times", n)
	}
}

func FuzzParseNTSRequest(f *testing.F) {
	g := golden(f)
	c2s := siv(f, g["c2s"])
	known := [][]byte{g["one-request"], g["eight-request"]}
	for _, b := range known {
		f.Add(b)
	}
	f.Add(g["nak-request"])
	f.Add(AppendField(bytes.Clone(known[0]), CookiePlaceholder, make([]byte, 100)))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseNTSRequest(b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		n, err := r.verify(nil, 16, c2s.Open)
		if err != nil {
			return
		}
		for _, k := range append(known, g["nak-request"]) {
			p, err := parseNTSRequest(k)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Equal(p.p.ad, r.p.ad) && bytes.Equal(p.p.nonce, r.p.nonce) && bytes.Equal(p.p.text, r.p.text) {
				return
			}
		}
		t.Fatalf("verified %x for %d cookies", b, n)
	})
}
