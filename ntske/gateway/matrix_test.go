package gateway

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"ntsagent/ntske/aead"
	"ntsagent/ntske/cookie"
	"ntsagent/ntske/packet"
)

// The rows N01 to N15 of RFC 8915 that bind a server, by their numbers in the project's matrix.

func field(t packet.FieldType, body []byte) []byte { return packet.AppendField(nil, t, body) }

func TestN01EveryResponseEchoesTheUniqueIdentifier(t *testing.T) {
	d := newDesk(t)
	for _, n := range []int{32, 36, 64, 252} {
		uid, c := random(n), d.cookie(t, d.ring.Current())
		d.served(t, d.seal(clientHeader(), random(16), nil, field(packet.UniqueIdentifier, uid), field(packet.NTSCookie, c)), uid, 1)
		c[30] ^= 1
		d.nak(t, d.seal(clientHeader(), random(16), nil, field(packet.UniqueIdentifier, uid), field(packet.NTSCookie, c)), uid, NAKCookie)

		plain := packet.AppendField(clientHeader().AppendTo(nil), packet.UniqueIdentifier, uid)
		out, outcome := d.answer(plain)
		if outcome != ServedPlain || len(out) != len(plain) || !bytes.Equal(out[48:], plain[48:]) {
			t.Errorf("plain with a unique identifier of %d octets: %v, %x", n, outcome, out)
		}
	}
	d.silent(t, packet.AppendField(clientHeader().AppendTo(nil), packet.UniqueIdentifier, random(28)), Refused+Outcome(packet.BadUID))
}

func TestN02OnlyMode3IsAnswered(t *testing.T) {
	d := newDesk(t)
	for mode := range uint8(8) {
		h := clientHeader()
		h.Mode = mode
		uid, c := random(32), d.cookie(t, d.ring.Current())
		nts := d.seal(h, random(16), nil, field(packet.UniqueIdentifier, uid), field(packet.NTSCookie, c))
		if mode == packet.ModeClient {
			d.served(t, nts, uid, 1)
			continue
		}
		d.silent(t, nts, Refused+Outcome(packet.NotClient))
		d.silent(t, h.AppendTo(nil), Refused+Outcome(packet.NotClient))
	}
	// What the gateway says is no request to another.
	b, _ := d.request(t, 0)
	out, _ := d.answer(b)
	d.silent(t, out, Refused+Outcome(packet.NotClient))
}

func TestN03APlaceholderIsAsLongAsTheCookie(t *testing.T) {
	d := newDesk(t)
	uid, c := random(32), d.cookie(t, d.ring.Current())
	u, k := field(packet.UniqueIdentifier, uid), field(packet.NTSCookie, c)
	for _, n := range []int{16, 96, 104, 200} {
		d.silent(t, d.seal(clientHeader(), random(16), nil, u, k, field(packet.CookiePlaceholder, make([]byte, n))), Refused+Outcome(packet.BadPlaceholder))
	}
	d.served(t, d.seal(clientHeader(), random(16), nil, u, field(packet.CookiePlaceholder, random(100)), k), uid, 2) // content is ignored
}

func TestN04TheAuthenticatorIsReadAsItIsLaidOut(t *testing.T) {
	d := newDesk(t)
	uid, c := random(32), d.cookie(t, d.ring.Current())
	u, k := field(packet.UniqueIdentifier, uid), field(packet.NTSCookie, c)
	for _, n := range []int{13, 14, 15, 16, 17, 31, 64} { // padded to words
		d.served(t, d.seal(clientHeader(), random(n), nil, u, k), uid, 1)
	}
	out, _ := d.answer(d.seal(clientHeader(), random(16), nil, u, k))
	for f := range packet.Fields(out) {
		if f.Type == packet.Authenticator && !bytes.Equal(f.Body[:4], []byte{0, 16, 0, 16 + 104}) {
			t.Errorf("lengths of nonce and ciphertext %x", f.Body[:4])
		}
	}
}

func TestN05AllBeforeTheAuthenticatorIsAuthenticated(t *testing.T) {
	d := newDesk(t)
	b, uid := d.request(t, 1)
	for at := range len(b) - 40 {
		b[at] ^= 0x10
		if _, outcome := d.answer(b); outcome == Served {
			t.Errorf("served although octet %d was changed", at)
		}
		b[at] ^= 0x10
	}
	d.served(t, b, uid, 2)
	out, _ := d.answer(b)
	for at := range len(out) {
		out[at] ^= 0x10
		if _, _, err := packet.ParseNTSResponse(out, uid, d.s2c.Open); err == nil {
			t.Errorf("octet %d of the response is not authenticated", at)
		}
		out[at] ^= 0x10
	}
}

func TestN06ARequestWithTooLittleRoomForANonceIsDiscarded(t *testing.T) {
	d := newDesk(t)
	uid, c := random(32), d.cookie(t, d.ring.Current())
	u, k := field(packet.UniqueIdentifier, uid), field(packet.NTSCookie, c)
	for n := 1; n <= 12; n++ {
		d.silent(t, d.seal(clientHeader(), random(n), nil, u, k), Refused+Outcome(packet.ShortNonce))
	}
	for n := 1; n <= 12; n++ { // with the additional padding
		b := d.seal(clientHeader(), random(n), nil, u, k)
		padding := 16 - (n+3)&^3
		at := 48 + len(u) + len(k) + 2
		b = append(b, make([]byte, padding)...)
		b[at+1] += byte(padding)
		d.served(t, b, uid, 1)
	}
}

func TestN07ExactlyOneOfEach(t *testing.T) {
	d := newDesk(t)
	uid, c := random(32), d.cookie(t, d.ring.Current())
	u, k := field(packet.UniqueIdentifier, uid), field(packet.NTSCookie, c)
	h, nonce := clientHeader(), random(16)
	for _, tt := range []struct {
		name string
		b    []byte
		want packet.Refusal
	}{
		{"no unique identifier", d.seal(h, nonce, nil, k), packet.BadUID},
		{"two unique identifiers", d.seal(h, nonce, nil, u, u, k), packet.BadUID},
		{"no cookie", d.seal(h, nonce, nil, u), packet.BadCookie},
		{"two cookies", d.seal(h, nonce, nil, u, k, k), packet.BadCookie},
		{"an encrypted cookie alone", d.seal(h, nonce, k, u), packet.BadCookie},
		{"an encrypted unique identifier alone", d.seal(h, nonce, u, k), packet.BadUID},
		{"no authenticator", append(h.AppendTo(nil), append(bytes.Clone(u), k...)...), packet.BadAuthenticator},
	} {
		t.Run(tt.name, func(t *testing.T) { d.silent(t, tt.b, Refused+Outcome(tt.want)) })
	}
	d.served(t, d.seal(h, nonce, nil, k, u), uid, 1) // in any order
}

func TestN08EncryptedFieldsMayBeShort(t *testing.T) {
	d := newDesk(t)
	uid, c := random(32), d.cookie(t, d.ring.Current())
	u, k := field(packet.UniqueIdentifier, uid), field(packet.NTSCookie, c)
	for _, plaintext := range [][]byte{{0x20, 5, 0, 4}, {0x20, 5, 0, 4, 0x20, 5, 0, 8, 1, 2, 3, 4}, field(packet.UniqueIdentifier, uid), k} {
		d.served(t, d.seal(clientHeader(), random(16), plaintext, u, k), uid, 1)
	}
	for _, plaintext := range [][]byte{{0x20}, {0x20, 5, 0, 0}, {0x20, 5, 0, 3, 0}, {0x20, 5, 0, 8}} {
		d.silent(t, d.seal(clientHeader(), random(16), plaintext, u, k), Refused+Outcome(packet.BadEncrypted))
	}
}

func TestN09OneCookieAndOneForEachPlaceholder(t *testing.T) {
	d := newDesk(t)
	for placeholders := range 13 {
		b, uid := d.request(t, placeholders)
		d.served(t, b, uid, min(8, 1+placeholders))
	}
	uid, c := random(32), d.cookie(t, d.ring.Current())
	placeholder := field(packet.CookiePlaceholder, make([]byte, 100))
	b := d.seal(clientHeader(), random(16), bytes.Repeat(placeholder, 3), field(packet.UniqueIdentifier, uid), field(packet.NTSCookie, c), placeholder)
	d.served(t, b, uid, 5) // placeholders may be encrypted
}

func TestN10WhatFollowsTheAuthenticatorIsDiscarded(t *testing.T) {
	d := newDesk(t)
	for name, tail := range map[string][]byte{
		"a placeholder":              field(packet.CookiePlaceholder, make([]byte, 100)),
		"a cookie":                   field(packet.NTSCookie, make([]byte, 100)),
		"another unique identifier":  field(packet.UniqueIdentifier, make([]byte, 32)),
		"another authenticator":      field(packet.Authenticator, make([]byte, 40)),
		"a MAC":                      make([]byte, 20),
		"what is no extension field": {1, 2, 3},
	} {
		t.Run(name, func(t *testing.T) {
			b, uid := d.request(t, 0)
			d.served(t, append(b, tail...), uid, 1)
		})
	}
}

func TestN11WhatCannotBeOpenedGetsANAK(t *testing.T) {
	d := newDesk(t)
	t.Run("a cookie under a key that is gone", func(t *testing.T) {
		b, uid := d.request(t, 0)
		d.ring = newRing(t)
		d.nak(t, b, uid, NAKKey)
	})
	t.Run("a cookie with a flipped bit", func(t *testing.T) {
		b, uid := d.request(t, 0)
		b[48+36+4+50] ^= 1
		d.nak(t, b, uid, NAKCookie)
	})
	t.Run("a request with a flipped bit", func(t *testing.T) {
		b, uid := d.request(t, 0)
		b[len(b)-1] ^= 1
		d.nak(t, b, uid, NAKRequest)
	})
	t.Run("cookies of every length to 512, all zero", func(t *testing.T) { // CVE-2023-33192
		for n := 0; n <= 512; n++ {
			uid := random(32)
			b := d.seal(clientHeader(), random(16), nil, field(packet.UniqueIdentifier, uid), field(packet.NTSCookie, make([]byte, n)))
			out, outcome := d.answer(b)
			if outcome != NAKCookie && outcome != NAKKey || len(out) > len(b) {
				t.Errorf("%d octets: %v, %d octets for %d", n, outcome, len(out), len(b))
			}
		}
	})
	t.Run("without a state of the daemon all the same", func(t *testing.T) {
		b, uid := d.request(t, 0)
		d.ring, d.state = newRing(t), nil
		d.nak(t, b, uid, NAKKey)
	})
}

func TestN12NoResponseIsLongerThanItsRequest(t *testing.T) {
	d := newDesk(t)
	for placeholders := range 10 {
		for n := 32; n < 64; n += 4 {
			uid, c := random(n), d.cookie(t, d.ring.Current())
			fields := [][]byte{field(packet.UniqueIdentifier, uid), field(packet.NTSCookie, c)}
			for range placeholders {
				fields = append(fields, field(packet.CookiePlaceholder, make([]byte, 100)))
			}
			b := d.seal(clientHeader(), random(16), nil, fields...)
			d.served(t, b, uid, min(8, 1+placeholders)) // looks at the lengths
		}
	}
}

// What is never sent for want of room: a client would be without cookies before it knew.
func TestN12ThereIsRoomForACookieUnlessTheKeysWentBackToLongerCookies(t *testing.T) {
	algs := []aead.ID{aead.SIVCMAC256, aead.GCMSIV128} // all that a ring of this layout may hold
	for _, session := range (cookie.Chrony{}).Carries() {
		for _, was := range algs {
			for _, is := range algs {
				t.Run(fmt.Sprintf("a session of %v, keys of %v and then %v", session, was, is), func(t *testing.T) {
					d := newDeskFor(t, session)
					var keys []*cookie.Key
					for i, alg := range []aead.ID{was, is} {
						k, err := cookie.NewKey(uint32(i), alg, random(alg.KeyLen()))
						if err != nil {
							t.Fatal(err)
						}
						keys = append(keys, k)
					}
					ring, err := cookie.NewRing(keys, 1)
					if err != nil {
						t.Fatal(err)
					}
					d.ring = ring
					c, err := cookie.Chrony{}.Seal(nil, keys[0], random(was.NonceLen()), &d.session)
					if err != nil {
						t.Fatal(err)
					}
					n := session.NonceLen() // the least there may be room for
					for uidLen := 32; uidLen <= 64; uidLen += 4 {
						uid := random(uidLen)
						b := d.seal(clientHeader(), random(n), nil, field(packet.UniqueIdentifier, uid), field(packet.NTSCookie, c))
						if was == aead.GCMSIV128 && is == aead.SIVCMAC256 {
							d.silent(t, b, SilentRoom)
						} else {
							d.served(t, b, uid, 1)
						}
					}
				})
			}
		}
	}
}

func TestN13AKeyThatIsDroppedIsDroppedAtOnce(t *testing.T) {
	d := newDesk(t)
	b, uid := d.request(t, 0)
	d.served(t, b, uid, 1)
	var kept []*cookie.Key
	for _, k := range d.ring.Keys() {
		if k != d.ring.Current() {
			kept = append(kept, k)
		}
	}
	ring, err := cookie.NewRing(kept, 2)
	if err != nil {
		t.Fatal(err)
	}
	d.ring = ring
	d.nak(t, b, uid, NAKKey)
}

func TestN14CookiesOfRotatedKeysAreOpenedUntilTheyGo(t *testing.T) {
	d := newDesk(t)
	b, uid := d.request(t, 0)
	for range 2 { // the third rotation drops the key
		d.served(t, b, uid, 1)
		ring, err := cookie.Chrony{}.Next(d.ring, bytes.NewReader(random(64)))
		if err != nil {
			t.Fatal(err)
		}
		d.ring = ring
	}
	d.served(t, b, uid, 1)
	ring, err := cookie.Chrony{}.Next(d.ring, bytes.NewReader(random(64)))
	if err != nil {
		t.Fatal(err)
	}
	d.ring = ring
	d.nak(t, b, uid, NAKKey)
}

func TestN15NothingThatIsSentIsSentTwice(t *testing.T) {
	d := newDesk(t)
	seen := map[string]bool{}
	b, uid := d.request(t, 7)
	for range 50 { // the same request, replayed
		out, _ := d.answer(b)
		_, cookies, err := packet.ParseNTSResponse(out, uid, d.s2c.Open)
		if err != nil || len(cookies) != 8 {
			t.Fatal(err)
		}
		for _, c := range append(cookies, out[48+36+8:][:16]) { // and the nonce
			if seen[string(c)] {
				t.Fatalf("%x once more", c)
			}
			seen[string(c)] = true
		}
		d.after(time.Millisecond)
	}
}
