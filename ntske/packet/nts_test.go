package packet

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"ntsagent/ntske/aead"
)

func siv(t testing.TB, key []byte) *aead.Box {
	t.Helper()
	s, err := aead.New(aead.SIVCMAC256, key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestARequestIsWrittenAsARealChronydTookIt(t *testing.T) {
	g := golden(t)
	for name, placeholders := range map[string]int{"one": 0, "eight": 7} {
		want := g[name+"-request"]
		h, err := ParseHeader(want)
		if err != nil {
			t.Fatal(err)
		}
		cookie, nonce := want[HeaderLen+36+4:][:100], want[len(want)-32:len(want)-16]
		got := AppendNTSRequest([]byte("before"), h, g[name+"-uid"], cookie, placeholders, nonce, siv(t, g["c2s"]).Seal)
		if !bytes.Equal(got, append([]byte("before"), want...)) {
			t.Errorf("wrote %x, want %x", got, want)
		}
	}
}

func TestResponsesOfARealChronydAreOpened(t *testing.T) {
	g := golden(t)
	for name, cookies := range map[string]int{"one": 1, "eight": 8} {
		b := g[name+"-response"]
		h, got, err := ParseNTSResponse(b, g[name+"-uid"], siv(t, g["s2c"]).Open)
		if err != nil || len(got) != cookies || h.Stratum != 1 || len(b) != len(g[name+"-request"]) {
			t.Errorf("%s: stratum %d, %d cookies, %v", name, h.Stratum, len(got), err)
		}
		for _, c := range got {
			if len(c) != 100 {
				t.Errorf("%s: cookie of %d octets", name, len(c))
			}
		}
	}
	_, _, err := ParseNTSResponse(g["nak-response"], g["nak-uid"], siv(t, g["s2c"]).Open)
	if !errors.Is(err, ErrNAK) {
		t.Errorf("nak: %v", err)
	}
}

func TestResponsesThatAreNotBelieved(t *testing.T) {
	g := golden(t)
	uid, s2c := g["one-uid"], siv(t, g["s2c"])
	h := Header{Version: 4, Mode: ModeServer, Stratum: 2}
	kiss := func(code string) Header { return Header{Version: 4, Mode: ModeServer, RefID: [4]byte([]byte(code))} }
	withUID := func(h Header) []byte { return AppendField(h.AppendTo(nil), UniqueIdentifier, uid) }
	sealed := func(h Header, uid, plaintext []byte) []byte {
		return appendNTSResponse(nil, h, uid, plaintext, make([]byte, 16), s2c.Seal)
	}
	// before puts a field in front of the authenticator of a response that is sealed all the same.
	before := func(field []byte) []byte {
		return appendAuthenticator(append(withUID(h), field...), 0, make([]byte, 16), nil, s2c.Seal)
	}
	for _, c := range []struct {
		name string
		b    []byte
		want error
	}{
		{"nothing", nil, ErrMalformed},
		{"a plain NTP response", h.AppendTo(nil), ErrNotOurs},
		{"a plain response with a MAC", append(h.AppendTo(nil), make([]byte, 20)...), ErrNotOurs},
		{"another unique identifier", sealed(h, g["eight-uid"], nil), ErrNotOurs},
		{"a longer unique identifier", sealed(h, append(bytes.Clone(uid), 0, 0, 0, 0), nil), ErrNotOurs},
		{"our own request, reflected", g["one-request"], ErrNotOurs},
		{"an NTS NAK for another", AppendField(kiss("NTSN").AppendTo(nil), UniqueIdentifier, g["eight-uid"]), ErrNotOurs},
		{"an NTS NAK without unique identifier", kiss("NTSN").AppendTo(nil), ErrNotOurs},
		{"an NTS NAK to our request", withUID(kiss("NTSN")), ErrNAK},
		{"a kiss that is no NAK", withUID(kiss("DENY")), ErrUnauthenticated},
		{"our unique identifier and no authenticator", withUID(h), ErrUnauthenticated},
		{"sealed with the other key", appendNTSResponse(nil, h, uid, nil, make([]byte, 16), siv(t, g["c2s"]).Seal), ErrUnauthenticated},
		{"an NTS NAK with an authenticator that does not open",
			appendNTSResponse(nil, kiss("NTSN"), uid, nil, make([]byte, 16), siv(t, g["c2s"]).Seal), ErrUnauthenticated},
		{"NTP version 3", sealed(Header{Version: 3, Mode: ModeServer, Stratum: 2}, uid, nil), ErrMalformed},
		{"two unique identifiers", before(AppendField(nil, UniqueIdentifier, uid)), ErrMalformed},
		{"a cookie placeholder", before(AppendField(nil, CookiePlaceholder, make([]byte, 100))), ErrMalformed},
		{"two unencrypted cookies", before(AppendField(AppendField(nil, NTSCookie, uid), NTSCookie, uid)), ErrMalformed},
		{"an encrypted field longer than the plaintext", sealed(h, uid, []byte{2, 4, 0, 8}), ErrMalformed},
		{"an encrypted field of length 0", sealed(h, uid, []byte{2, 4, 0, 0}), ErrMalformed},
		{"an encrypted field of 3 octets", sealed(h, uid, []byte{2, 4, 0}), ErrMalformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, cookies, err := ParseNTSResponse(c.b, uid, s2c.Open)
			if !errors.Is(err, c.want) || cookies != nil {
				t.Errorf("%d cookies, %v; want %v", len(cookies), err, c.want)
			}
		})
	}
	_, _, err := ParseNTSResponse(withUID(kiss("DENY")), uid, s2c.Open)
	if err == nil || !strings.Contains(err.Error(), "DENY") {
		t.Errorf("error %v does not tell the kiss code", err)
	}
	if _, _, err := ParseNTSResponse(h.AppendTo(nil), nil, s2c.Open); !errors.Is(err, ErrNotOurs) {
		t.Errorf("no unique identifier on either side: %v", err)
	}
}

func TestResponsesThatAreBelieved(t *testing.T) {
	g := golden(t)
	uid, s2c := g["one-uid"], siv(t, g["s2c"])
	h := Header{Version: 4, Mode: ModeServer, Stratum: 2}
	var ten []byte
	for i := range 10 {
		ten = appendCookie(ten, bytes.Repeat([]byte{byte(i)}, 8))
	}
	sealed := func(plaintext []byte, nonce int) []byte {
		return appendNTSResponse(nil, h, uid, plaintext, make([]byte, nonce), s2c.Seal)
	}
	start := AppendField(h.AppendTo(nil), UniqueIdentifier, uid)
	for _, c := range []struct {
		name    string
		b       []byte
		cookies int
	}{
		{"no cookie", sealed(nil, 16), 0},
		{"an empty cookie does not count", sealed([]byte{2, 4, 0, 4}, 16), 0},
		{"other encrypted fields are ignored", sealed([]byte{0x12, 0x34, 0, 4, 2, 4, 0, 8, 1, 2, 3, 4, 0xff, 0xff, 0, 4}, 16), 1},
		{"of ten cookies eight are kept", sealed(ten, 16), 8},
		{"a nonce of 13 octets is padded", sealed(appendCookie(nil, uid), 13), 1},
		{"a field after the authenticator is ignored", AppendField(sealed(nil, 16), UniqueIdentifier, uid), 0},
		{"octets after the authenticator are ignored", append(sealed(nil, 16), 1, 2, 3), 0},
		{"another field before the authenticator", appendAuthenticator(AppendField(bytes.Clone(start), 0x2005, nil), 0, make([]byte, 16), nil, s2c.Seal), 0},
		{"an unencrypted cookie is not kept", appendAuthenticator(AppendField(bytes.Clone(start), NTSCookie, uid), 0, make([]byte, 16), nil, s2c.Seal), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, cookies, err := ParseNTSResponse(c.b, uid, s2c.Open)
			if err != nil || got != h || len(cookies) != c.cookies {
				t.Errorf("%+v, %d cookies, %v; want %d", got, len(cookies), err, c.cookies)
			}
		})
	}
}

func TestNoFlippedBitOfAResponseIsBelieved(t *testing.T) {
	g := golden(t)
	b, s2c := g["one-response"], siv(t, g["s2c"])
	for bit := range 8 * len(b) {
		b[bit/8] ^= 1 << (bit % 8)
		if h, cookies, err := ParseNTSResponse(b, g["one-uid"], s2c.Open); err == nil {
			t.Errorf("bit %d flipped: %+v with %d cookies", bit, h, len(cookies))
		}
		b[bit/8] ^= 1 << (bit % 8)
	}
	for n := range b {
		if _, _, err := ParseNTSResponse(b[:n], g["one-uid"], s2c.Open); err == nil {
			t.Errorf("cut to %d octets and believed", n)
		}
	}
}

func TestAuthenticatorsWhoseLengthsLie(t *testing.T) {
	g := golden(t)
	h := Header{Version: 4, Mode: ModeServer, Stratum: 2}
	for name, body := range map[string][]byte{
		"a nonce longer than the field":        {0, 200, 0, 16},
		"a ciphertext longer than the field":   {0, 16, 0xff, 0xff},
		"both, together longer than the field": {0, 16, 0, 16},
		"both the longest":                     {0xff, 0xff, 0xff, 0xff},
	} {
		b := AppendField(h.AppendTo(nil), UniqueIdentifier, g["one-uid"])
		b = AppendField(b, Authenticator, slices.Concat(body, make([]byte, 24)))
		if _, _, err := ParseNTSResponse(b, g["one-uid"], siv(t, g["s2c"]).Open); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParseNTSResponse(f *testing.F) {
	g := golden(f)
	s2c := siv(f, g["s2c"])
	uid := g["one-uid"]
	// Packets sealed with the key: whatever is believed must have been sealed as one of these.
	known := [][]byte{
		g["one-response"],
		appendNTSResponse(nil, Header{Version: 4, Mode: ModeServer, Stratum: 2}, uid, appendCookie(nil, make([]byte, 8)), make([]byte, 13), s2c.Seal),
		appendNTSResponse(nil, Header{Version: 4, Mode: ModeServer}, uid, []byte{2, 4, 0, 0}, make([]byte, 16), s2c.Seal),
	}
	for _, b := range known {
		f.Add(b)
		f.Add(AppendField(bytes.Clone(b), NTSCookie, uid))
	}
	f.Add(g["eight-response"])
	f.Add(g["nak-response"])
	f.Add(g["one-request"])
	f.Fuzz(func(t *testing.T, b []byte) {
		_, cookies, err := ParseNTSResponse(b, uid, s2c.Open)
		if err != nil {
			if cookies != nil {
				t.Fatal("cookies beside an error")
			}
			return
		}
		got, err := parse(b)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range known {
			p, err := parse(k)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Equal(p.ad, got.ad) && bytes.Equal(p.nonce, got.nonce) && bytes.Equal(p.text, got.text) {
				return
			}
		}
		t.Fatalf("believed %x", b)
	})
}
