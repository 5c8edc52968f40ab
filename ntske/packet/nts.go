package packet

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// What became of a response that does not authenticate. Any other failure wraps ErrMalformed.
var (
	// ErrNAK is the server's NTS NAK (kiss code NTSN) to our request: it cannot open the cookie, or the
	// request does not authenticate under the keys in it (RFC 8915 §5.7). It is not authenticated itself.
	ErrNAK = errors.New("server answered with an NTS NAK")
	// ErrUnauthenticated is a packet with our unique identifier that is not sealed with our key.
	ErrUnauthenticated = errors.New("response is not authenticated")
	// ErrNotOurs is a packet that does not answer this request. The answer may still come.
	ErrNotOurs = errors.New("packet does not answer this request")
)

// Seal appends the sealed plaintext to dst; aead.Box.Seal is one.
type Seal = func(dst, nonce, plaintext, ad []byte) []byte

// Open appends the opened plaintext to dst or fails; aead.Box.Open is one.
type Open = func(dst, nonce, sealed, ad []byte) ([]byte, error)

// maxCookies is the most cookies that are asked for, sent and kept at once (RFC 8915 §5.7).
const maxCookies = 8

// protected is the NTS part of a packet, as it stands there. All slices alias the packet.
type protected struct {
	header Header
	uid    []byte // nil if there is none
	cookie []byte // unencrypted, as a client sends it; nil if there is none

	placeholders int // how many there are

	sealed bool   // the packet has an authenticator; then:
	ad     []byte // all before it
	nonce  []byte
	text   []byte // ciphertext and tag
}

// parse reads an NTP packet with NTS fields. What follows the authenticator is not looked at (RFC 8915 §5.7).
func parse(b []byte) (protected, error) {
	h, err := ParseHeader(b)
	if err != nil {
		return protected{}, err
	}
	p := protected{header: h}
	for f, err := range Fields(b) {
		if err != nil {
			return protected{}, err
		}
		switch f.Type {
		case UniqueIdentifier:
			if p.uid != nil {
				return protected{}, malformed("two unique identifiers")
			}
			p.uid = f.Body
		case NTSCookie:
			if p.cookie != nil {
				return protected{}, malformed("two unencrypted cookies")
			}
			p.cookie = f.Body
		case CookiePlaceholder:
			p.placeholders++
		case Authenticator:
			p.sealed, p.ad = true, b[:f.Offset]
			return p, p.parseAuthenticator(f.Body)
		}
	}
	return p, nil
}

// parseAuthenticator reads the body of the authenticator (RFC 8915 §5.6).
func (p *protected) parseAuthenticator(b []byte) error {
	if len(b) < 4 {
		return malformed("authenticator of %d octets", len(b))
	}
	n, t := int(binary.BigEndian.Uint16(b)), int(binary.BigEndian.Uint16(b[2:]))
	b = b[4:]
	if padded(n)+padded(t) > len(b) {
		return malformed("nonce of %d and ciphertext of %d octets in %d", n, t, len(b))
	}
	p.nonce = b[:n:n]
	p.text = b[padded(n) : padded(n)+t : padded(n)+t]
	return nil
}

// appendAuthenticator seals plaintext and all of the packet that dst holds from start on, and appends both.
// dst[start:] must be a whole packet so far.
func appendAuthenticator(dst []byte, start int, nonce, plaintext []byte, seal Seal) []byte {
	at := len(dst)
	dst = append(dst, byte(Authenticator>>8), byte(Authenticator&0xff), 0, 0, 0, 0, 0, 0)
	dst = append(dst, nonce...)
	dst = appendZeros(dst, padded(len(nonce))-len(nonce))
	text := len(dst)
	dst = seal(dst, nonce, plaintext, dst[start:at:at])
	n := len(dst) - text
	dst = appendZeros(dst, padded(n)-n)
	dst = appendZeros(dst, minField-(len(dst)-at))
	binary.BigEndian.PutUint16(dst[at+2:], uint16(len(dst)-at))
	binary.BigEndian.PutUint16(dst[at+4:], uint16(len(nonce)))
	binary.BigEndian.PutUint16(dst[at+6:], uint16(n))
	return dst
}

// AppendNTSRequest appends the request of an NTS client (RFC 8915 §5.7): h, uid, the cookie, as many
// placeholders of its length, and the authenticator made by seal with the C2S key.
//
// uid is at least 32 random octets; nonce is fresh and as long as the AEAD asks for, or 16 octets if it takes
// any length, so that no additional padding is needed (RFC 8915 §5.6). Both, and the cookie, should have
// whole words: fields are padded with zeros, which a server cannot tell from content.
func AppendNTSRequest(dst []byte, h Header, uid, cookie []byte, placeholders int, nonce []byte, seal Seal) []byte {
	start := len(dst)
	dst = h.AppendTo(dst)
	dst = AppendField(dst, UniqueIdentifier, uid)
	dst = AppendField(dst, NTSCookie, cookie)
	for range placeholders {
		at := len(dst)
		dst = AppendField(dst, CookiePlaceholder, cookie)
		clear(dst[at+fieldHeader:])
	}
	return appendAuthenticator(dst, start, nonce, nil, seal)
}

// ParseNTSResponse reads b as the answer to the request that carried uid and opens it with the S2C key. It
// returns the header and the cookies it brought, at most 8, which do not alias b. The header is authentic if
// err is nil; if err is ErrNAK or wraps ErrUnauthenticated it is there for the log and must not be believed.
//
// The caller still has to compare Header.Origin with what it sent, and to look at Leap and Kiss: also an
// authentic packet may be a kiss.
func ParseNTSResponse(b, uid []byte, open Open) (Header, [][]byte, error) {
	p, err := parse(b)
	switch {
	case err != nil:
		return Header{}, nil, err
	case p.placeholders > 0:
		return Header{}, nil, malformed("cookie placeholder in a response")
	case p.header.Version != 4:
		return Header{}, nil, malformed("NTP version %d", p.header.Version)
	case p.header.Mode != ModeServer || len(uid) == 0 || !bytes.Equal(p.uid, uid):
		return Header{}, nil, ErrNotOurs
	case !p.sealed && p.header.Kiss() == "NTSN":
		return p.header, nil, ErrNAK
	case !p.sealed && p.header.Stratum == 0:
		return p.header, nil, fmt.Errorf("%w: kiss code %s", ErrUnauthenticated, p.header.Kiss())
	case !p.sealed:
		return p.header, nil, fmt.Errorf("%w: no authenticator", ErrUnauthenticated)
	}
	plaintext, err := open(nil, p.nonce, p.text, p.ad)
	if err != nil {
		return p.header, nil, fmt.Errorf("%w: %w", ErrUnauthenticated, err)
	}
	cookies, err := parseCookies(plaintext)
	if err != nil {
		return Header{}, nil, err
	}
	return p.header, cookies, nil
}

// parseCookies reads encrypted extension fields, which may be as short as 4 octets, and keeps the cookies.
func parseCookies(b []byte) (cookies [][]byte, err error) {
	for len(b) > 0 {
		var f Field
		if f, b, err = takeField(b, fieldHeader); err != nil {
			return nil, fmt.Errorf("encrypted %w", err)
		}
		if f.Type == NTSCookie && len(f.Body) > 0 && len(cookies) < maxCookies {
			cookies = append(cookies, f.Body)
		}
	}
	return cookies, nil
}
