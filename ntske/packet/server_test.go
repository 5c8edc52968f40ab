package packet

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"
)

// appendCookie appends a cookie as an encrypted extension field, for the plaintext of appendNTSResponse.
func appendCookie(dst, cookie []byte) []byte {
	return appendField(dst, NTSCookie, cookie, fieldHeader)
}

// appendNTSResponse appends any response, also one that no Request would give: h, uid, and the authenticator
// that seal makes with the S2C key over the encrypted fields in plaintext.
func appendNTSResponse(dst []byte, h Header, uid, plaintext, nonce []byte, seal Seal) []byte {
	start := len(dst)
	dst = h.AppendTo(dst)
	dst = AppendField(dst, UniqueIdentifier, uid)
	return appendAuthenticator(dst, start, nonce, plaintext, seal)
}

func TestRequestsAreParsedAndVerified(t *testing.T) {
	g := golden(t)
	c2s := siv(t, g["c2s"])
	h := Header{Version: 4, Mode: ModeClient}
	uid, cookie := g["one-uid"], make([]byte, 100)
	request := func(placeholders int) []byte {
		return AppendNTSRequest(nil, h, uid, cookie, placeholders, make([]byte, 16), c2s.Seal)
	}
	start := AppendField(AppendField(h.AppendTo(nil), UniqueIdentifier, uid), NTSCookie, cookie)
	sealed := func(plaintext []byte, before ...byte) []byte {
		return appendAuthenticator(append(bytes.Clone(start), before...), 0, make([]byte, 16), plaintext, c2s.Seal)
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
		{"an encrypted placeholder", sealed(appendField(nil, CookiePlaceholder, cookie, 4)), 2},
		{"an encrypted placeholder of another length does not count", sealed(appendField(nil, CookiePlaceholder, uid, 4)), 1},
		{"N08 an encrypted field of 4 octets", sealed([]byte{0x20, 0x05, 0, 4}), 1},
		{"an encrypted cookie is passed over", sealed(appendCookie(nil, cookie)), 1},
		{"a field of an unknown type", sealed(nil, AppendField(nil, 0x2005, make([]byte, 24))...), 1},
		{"N10 a placeholder after the authenticator does not count", AppendField(request(0), CookiePlaceholder, cookie), 1},
		{"N10 a second authenticator and a cookie after the first", append(request(0), request(0)[HeaderLen:]...), 1},
		{"N10 rubbish after the authenticator", append(request(0), 1, 2, 3), 1},
		{"additional padding", padAuthenticator(request(0), 32), 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := ParseRequest(c.b)
			if err != nil {
				t.Fatal(err)
			}
			n, err := r.Verify(nil, 16, c2s.Open)
			if err != nil || n != c.cookies || !r.NTS() || len(r.Cookie) != 100 || len(r.UID) != 32 {
				t.Errorf("%d cookies, %v; want %d", n, err, c.cookies)
			}
		})
	}
}

// padAuthenticator adds additional padding to a request that ends with its authenticator of 40 octets.
func padAuthenticator(b []byte, padding int) []byte {
	b = append(bytes.Clone(b), make([]byte, padding)...)
	b[len(b)-padding-40+3] += byte(padding)
	return b
}

func TestPlainRequestsAreParsed(t *testing.T) {
	uid := golden(t)["one-uid"]
	for _, c := range []struct {
		name string
		b    []byte
		uid  bool
	}{
		{"of version 4", Header{Version: 4, Mode: ModeClient}.AppendTo(nil), false},
		{"of version 3", Header{Version: 3, Mode: ModeClient}.AppendTo(nil), false},
		{"with a unique identifier", AppendField(Header{Version: 4, Mode: ModeClient}.AppendTo(nil), UniqueIdentifier, uid), true},
		{"with a field of an unknown type", AppendField(Header{Version: 4, Mode: ModeClient}.AppendTo(nil), 0x2005, uid), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := ParseRequest(c.b)
			if err != nil || r.NTS() || r.Header.Mode != ModeClient || (r.UID != nil) != c.uid {
				t.Fatalf("%+v, %v", r, err)
			}
			h := Header{Version: r.Header.Version, Mode: ModeServer, Stratum: 2, Transmit: 5}
			b := r.AppendPlain([]byte("before"), h)[6:]
			if got, err := ParseHeader(b); err != nil || got != h || len(b) > len(c.b) || c.uid != bytes.Contains(b, uid) {
				t.Errorf("answered %x", b)
			}
		})
	}
}

func TestRequestsThatAreRefused(t *testing.T) {
	g := golden(t)
	c2s := siv(t, g["c2s"])
	h := Header{Version: 4, Mode: ModeClient}
	uid, cookie, nonce := g["one-uid"], make([]byte, 100), make([]byte, 16)
	start := func(h Header, fields ...[]byte) []byte { return append(h.AppendTo(nil), bytes.Join(fields, nil)...) }
	seal := func(h Header, fields ...[]byte) []byte {
		return appendAuthenticator(start(h, fields...), 0, nonce, nil, c2s.Seal)
	}
	u, c, p := AppendField(nil, UniqueIdentifier, uid), AppendField(nil, NTSCookie, cookie), AppendField(nil, CookiePlaceholder, cookie)
	short := AppendField(nil, CookiePlaceholder, cookie[:96])
	auth := func(body ...byte) []byte {
		return start(h, u, c, AppendField(nil, Authenticator, append(body, make([]byte, 28)...)))
	}
	encrypted := func(b ...byte) []byte { return appendAuthenticator(start(h, u, c), 0, nonce, b, c2s.Seal) }
	for _, tt := range []struct {
		name string
		b    []byte
		want Refusal
	}{
		{"nothing", nil, TooShort},
		{"a header without its last octet", h.AppendTo(nil)[:47], TooShort},
		{"N02 mode 4", seal(Header{Version: 4, Mode: ModeServer}, u, c), NotClient},
		{"N02 mode 1", seal(Header{Version: 4, Mode: 1}, u, c), NotClient},
		{"mode 6", start(Header{Version: 2, Mode: 6}), NotClient},
		{"mode 7", start(Header{Version: 2, Mode: 7}), NotClient},
		{"NTP version 2", start(Header{Version: 2, Mode: ModeClient}), OtherVersion},
		{"NTP version 5", start(Header{Version: 5, Mode: ModeClient}), OtherVersion},
		{"NTS in NTP version 3", seal(Header{Version: 3, Mode: ModeClient}, u, c), HasMAC},
		{"a MAC of MD5", start(h, make([]byte, 20)), HasMAC},
		{"a MAC of SHA-1 in version 3", start(Header{Version: 3, Mode: ModeClient}, make([]byte, 24)), HasMAC},
		{"a MAC where the authenticator should be", start(h, u, c, make([]byte, 20)), HasMAC},
		{"a field of length 0", start(h, make([]byte, 28)), BadField},
		{"a field longer than the datagram", start(h, []byte{1, 4, 0, 64}, make([]byte, 24)), BadField},
		{"a field of 30 octets", start(h, []byte{1, 4, 0, 30}, make([]byte, 28)), BadField},
		{"N01 a unique identifier shorter than 32", seal(h, AppendField(nil, UniqueIdentifier, uid[:28]), c), BadUID},
		{"N01 the same without NTS", start(h, AppendField(nil, UniqueIdentifier, uid[:28])), BadUID},
		{"N03 a placeholder shorter than the cookie", seal(h, u, c, short), BadPlaceholder},
		{"N03 a shorter placeholder before the cookie", seal(h, u, short, c), BadPlaceholder},
		{"N03 placeholders of different lengths", seal(h, u, c, p, short), BadPlaceholder},
		{"N03 a placeholder without a cookie or an authenticator", start(h, u, p), BadCookie},
		{"N04 an authenticator of length 0 with a nonce of length 0", auth(0, 0, 0, 16), BadAuthenticator},
		{"N04 a nonce longer than the authenticator", auth(0, 32, 0, 16), BadAuthenticator},
		{"N04 a ciphertext longer than the authenticator", auth(0, 16, 0, 32), BadAuthenticator},
		{"N04 the greatest lengths", auth(0xff, 0xff, 0xff, 0xff), BadAuthenticator},
		{"N07 no unique identifier", seal(h, c), BadUID},
		{"N07 two unique identifiers", seal(h, u, u, c), BadUID},
		{"N07 no cookie", seal(h, u), BadCookie},
		{"N07 two cookies", seal(h, u, c, c), BadCookie},
		{"N07 no authenticator", start(h, u, c), BadAuthenticator},
		{"N07 the cookie after the authenticator", append(seal(h, u), c...), BadCookie},
		{"N07 the unique identifier after the authenticator", append(seal(h, c), u...), BadUID},
		{"CVE-2023-33192 a cookie of 20 octets", cve202333192(t), NotAuthentic},
		{"an encrypted field longer than the plaintext", encrypted(2, 4, 0, 8), BadEncrypted},
		{"an encrypted field of length 0", encrypted(2, 4, 0, 0), BadEncrypted},
		{"two encrypted octets", encrypted(2, 4), BadEncrypted},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := ParseRequest(tt.b)
			if err == nil {
				_, err = r.Verify(nil, 16, c2s.Open)
			}
			if err != tt.want || !errors.Is(err, ErrMalformed) || len(err.Error()) < 20 {
				t.Errorf("%v, want %v", err, tt.want)
			}
		})
	}
}

// cve202333192 makes a packet like the one that crashed a server: a cookie of 20 zero octets.
func cve202333192(t testing.TB) []byte {
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
		{"16 octets", 16, 0, 16, true},
		{"13 octets, which are padded to 16", 13, 0, 16, true},
		{"12 octets", 12, 0, 16, false},
		{"12 octets and 4 of padding", 12, 4, 16, true},
		{"4 octets and 8 of padding", 4, 8, 16, false},
		{"4 octets and 12 of padding", 4, 12, 16, true},
		{"12 octets when the AEAD takes no more", 12, 0, 12, true},
		{"8 octets when the AEAD takes 12", 8, 0, 12, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := ParseRequest(request(c.nonce, c.padding))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := r.Verify(nil, c.longest, c2s.Open); (err == nil) != c.good || err != nil && err != ShortNonce {
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
		if r, err := ParseRequest(b); err == nil && r.NTS() {
			if _, err := r.Verify(nil, 16, c2s.Open); err == nil {
				t.Errorf("bit %d flipped and verified", bit)
			}
		}
		b[bit/8] ^= 1 << (bit % 8)
	}
}

// respond writes a response with n cookies of the given length.
func respond(r *Request, dst []byte, n, length int, seal Seal) []byte {
	var cookie [200]byte
	p := r.Respond(dst, make([]byte, 16))
	for range n {
		p.AddCookie(cookie[:length])
	}
	return p.Finish(Header{Version: 4, Mode: ModeServer, Stratum: 1}, seal)
}

func TestN12AResponseIsNoLongerThanItsRequest(t *testing.T) {
	g := golden(t)
	c2s, s2c := siv(t, g["c2s"]), siv(t, g["s2c"])
	for placeholders := range 10 {
		for _, c := range []struct {
			name           string
			length, fields int // what fits
		}{
			{"as long as the old one", 100, min(8, placeholders+1)},
			{"shorter than the old one", 68, min(8, placeholders+1)},
			{"longer than the old one", 168, min(8, (placeholders+1)*104/172)},
		} {
			req := AppendNTSRequest(nil, Header{Version: 4, Mode: ModeClient}, g["one-uid"], make([]byte, 100), placeholders, make([]byte, 16), c2s.Seal)
			r, err := ParseRequest(req)
			if err != nil {
				t.Fatal(err)
			}
			n, err := r.Verify(nil, 16, c2s.Open)
			if err != nil || n != min(8, placeholders+1) {
				t.Fatal(n, err)
			}
			resp := respond(&r, []byte("before"), n, c.length, s2c.Seal)[6:]
			if c.fields == 0 {
				if len(resp) != 0 {
					t.Errorf("a cookie %s: a response without a cookie: %x", c.name, resp)
				}
				continue
			}
			h, cookies, err := ParseNTSResponse(resp, g["one-uid"], s2c.Open)
			if err != nil || h.Stratum != 1 || len(cookies) != c.fields || len(resp) > len(req) {
				t.Errorf("%d cookies %s: %d in %d octets for %d, %v", n, c.name, len(cookies), len(resp), len(req), err)
			}
		}
	}
}

func TestN11ANAKCarriesTheUniqueIdentifierAndNothingElse(t *testing.T) {
	g := golden(t)
	r, err := ParseRequest(g["nak-request"])
	if err != nil {
		t.Fatal(err)
	}
	b := r.AppendNAK([]byte("before"))[6:]
	h, _, err := ParseNTSResponse(b, g["nak-uid"], siv(t, g["s2c"]).Open)
	if !errors.Is(err, ErrNAK) || h.Leap != 3 || h.Origin != r.Header.Transmit || len(b) != len(g["nak-response"]) {
		t.Errorf("wrote %x: %v", b, err)
	}
}

func TestARequestAndItsResponseAllocateNothing(t *testing.T) {
	g := golden(t)
	open, seal := siv(t, g["c2s"]).Open, siv(t, g["s2c"]).Seal
	dst, scratch, cookie, nonce := make([]byte, 0, 1500), make([]byte, 0, 1500), make([]byte, 100), make([]byte, 16)
	broken := bytes.Clone(g["one-request"])
	broken[len(broken)-1] ^= 1
	for name, b := range map[string][]byte{
		"with eight cookies": g["eight-request"], "that is not authentic": broken, "that is broken": broken[:len(broken)-1],
		"of mode 0": make([]byte, HeaderLen), "of no octet": {}, "with a MAC": append(broken[:HeaderLen:HeaderLen], make([]byte, 20)...),
	} {
		t.Run(name, func(t *testing.T) {
			if n := testing.AllocsPerRun(200, func() {
				r, err := ParseRequest(b)
				if err != nil {
					return
				}
				cookies, err := r.Verify(scratch, 16, open)
				if err != nil {
					dst = r.AppendNAK(dst[:0])
					return
				}
				p := r.Respond(dst[:0], nonce)
				for range cookies {
					p.AddCookie(cookie)
				}
				dst = p.Finish(Header{Version: 4, Mode: ModeServer}, seal)
			}); n != 0 {
				t.Errorf("allocates %v times", n)
			}
		})
	}
}

// FuzzParseRequest checks that nothing is verified that was not sealed, that the strict reading of a server
// implies that of this package's own Fields, and that no response is longer than its request.
func FuzzParseRequest(f *testing.F) {
	g := golden(f)
	c2s, s2c := siv(f, g["c2s"]), siv(f, g["s2c"])
	known := [][]byte{g["one-request"], g["eight-request"], g["nak-request"]}
	for _, b := range known {
		f.Add(b)
	}
	f.Add(AppendField(bytes.Clone(known[0]), CookiePlaceholder, make([]byte, 100)))
	f.Add(AppendField(Header{Version: 4, Mode: ModeClient}.AppendTo(nil), UniqueIdentifier, make([]byte, 32)))
	f.Add(cve202333192(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseRequest(b)
		if err != nil {
			if _, ok := err.(Refusal); !ok || !errors.Is(err, ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		if p, err := parse(b); err != nil || p.sealed != r.NTS() || !bytes.Equal(p.uid, r.UID) || !bytes.Equal(p.cookie, r.Cookie) {
			t.Fatalf("%x is read as %+v and as %+v, %v", b, r, p, err)
		}
		if len(r.AppendPlain(nil, Header{})) > len(b) || len(r.AppendNAK(nil)) > len(b) {
			t.Fatalf("%x is answered with more", b)
		}
		if !r.NTS() {
			return
		}
		n, err := r.Verify(nil, 16, c2s.Open)
		if len(respond(&r, nil, 8, 100, s2c.Seal)) > len(b) {
			t.Fatalf("%x is answered with more", b)
		}
		if err != nil {
			return
		}
		for _, k := range known {
			p, err := ParseRequest(k)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Equal(p.ad, r.ad) && bytes.Equal(p.nonce, r.nonce) && bytes.Equal(p.text, r.text) {
				return
			}
		}
		t.Fatalf("verified %x for %d cookies", b, n)
	})
}
