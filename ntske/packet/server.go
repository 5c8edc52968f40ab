package packet

import "encoding/binary"

// A Refusal says why a datagram gets no answer, or only an NTS NAK. It is an error that costs no memory, since
// whoever floods a server decides how many there are. All wrap ErrMalformed.
type Refusal uint8

// The reasons not to answer a datagram.
const (
	TooShort         Refusal = iota + 1 // shorter than an NTP header
	NotClient                           // a mode other than 3
	OtherVersion                        // an NTP version other than 3 and 4
	HasMAC                              // a legacy MAC, whose key a server here never holds
	BadField                            // the framing of extension fields is broken (RFC 7822 §7.5)
	BadUID                              // two unique identifiers, a short one, or none beside a cookie (RFC 8915 §5.3)
	BadCookie                           // no cookie, or two (RFC 8915 §5.7)
	BadPlaceholder                      // a placeholder that is not as long as the cookie (RFC 8915 §5.5)
	BadAuthenticator                    // an authenticator that cannot be taken apart, or a cookie without one
	ShortNonce                          // less room for a nonce than a response may need (RFC 8915 §5.6)
	NotAuthentic                        // not sealed with the key in the cookie; the client is told by a NAK
	BadEncrypted                        // authentic, but the encrypted fields are broken

	refusals
)

var refusalText = [refusals]string{
	"", "shorter than an NTP header", "not of mode 3", "neither NTP version 3 nor 4", "legacy MAC under a key that is not known here",
	"broken extension field", "unique identifier missing, doubled or too short", "no cookie or two", "placeholder not as long as the cookie",
	"authenticator missing or broken", "too little room for the nonce of the response", "not authentic", "broken encrypted extension field",
}

// Error says what is wrong with the request.
func (r Refusal) Error() string {
	if r >= refusals {
		return "malformed NTP request"
	}
	return "NTP request: " + refusalText[r]
}

// Is makes every Refusal an ErrMalformed.
func (r Refusal) Is(target error) bool { return target == ErrMalformed }

const (
	leastUID    = 32 // octets (RFC 8915 §5.3)
	authLengths = 4  // the two lengths an authenticator starts with
)

// Request is a request of mode 3 as a server sees it: plain NTP of version 3 or 4, or NTS. Its slices alias
// the datagram. Of an NTS request nothing is authentic until Verify has said so.
type Request struct {
	Header Header
	UID    []byte // unique identifier; plain requests may have one too. nil: none
	Cookie []byte // nil: plain NTP

	length       int // of the datagram
	placeholders int

	ad, nonce, text []byte
	room            int // octets the authenticator has for a nonce: its own, the padding, the additional padding
}

// NTS reports whether the request asks for an authenticated response.
func (r *Request) NTS() bool { return r.Cookie != nil }

// ParseRequest reads the datagram b. An NTS request (RFC 8915 §5.7) has exactly one unique identifier of at
// least 32 octets, one cookie and one authenticator; fields of other types are passed over, and so is all that
// follows the authenticator. The error is a Refusal. Nothing is allocated.
func ParseRequest(b []byte) (Request, error) {
	if len(b) < HeaderLen {
		return Request{}, TooShort
	}
	if b[0]&7 != ModeClient {
		return Request{}, NotClient
	}
	version := b[0] >> 3 & 7
	if version != 3 && version != 4 {
		return Request{}, OtherVersion
	}
	if version == 3 && len(b) > HeaderLen { // NTP version 3 knows no other trailer
		return Request{}, HasMAC
	}
	h, err := ParseHeader(b)
	if err != nil {
		return Request{}, TooShort
	}
	r := Request{Header: h, length: len(b)}
	if refusal := r.parseFields(b); refusal != 0 {
		return Request{}, refusal
	}
	return r, nil
}

func (r *Request) parseFields(b []byte) Refusal {
	held := -1 // body length of the placeholders so far
	for at := HeaderLen; at < len(b); {
		if isMAC(b[at:]) {
			return HasMAC
		}
		t, n := cutField(b[at:], minField)
		if n == 0 {
			return BadField
		}
		body := b[at+fieldHeader : at+n : at+n]
		switch t {
		case UniqueIdentifier:
			if r.UID != nil || len(body) < leastUID {
				return BadUID
			}
			r.UID = body
		case NTSCookie:
			if r.Cookie != nil {
				return BadCookie
			}
			r.Cookie = body
		case CookiePlaceholder:
			if held >= 0 && held != len(body) {
				return BadPlaceholder
			}
			held = len(body)
			r.placeholders++
		case Authenticator:
			r.ad = b[:at:at]
			return r.parseAuthenticator(body, held)
		}
		at += n
	}
	switch {
	case r.Cookie != nil:
		return BadAuthenticator
	case held >= 0:
		return BadCookie
	}
	return 0
}

// parseAuthenticator reads the body of the authenticator and looks whether what came before it is complete.
func (r *Request) parseAuthenticator(b []byte, held int) Refusal {
	switch {
	case r.UID == nil:
		return BadUID
	case r.Cookie == nil:
		return BadCookie
	case held >= 0 && held != len(r.Cookie):
		return BadPlaceholder
	case len(b) < authLengths:
		return BadAuthenticator
	}
	n, t := int(binary.BigEndian.Uint16(b)), int(binary.BigEndian.Uint16(b[2:]))
	b = b[authLengths:]
	if n == 0 || padded(n)+padded(t) > len(b) {
		return BadAuthenticator
	}
	r.room = len(b) - padded(t)
	r.nonce = b[:n:n]
	r.text = b[padded(n) : padded(n)+t : padded(n)+t]
	return 0
}

// Verify opens the request with the C2S key from its cookie and returns how many cookies the client is to be
// sent: one, and one for each placeholder, at most 8. nonceLen is the length in octets of the nonce of the
// response, 16 or the most the AEAD takes: a request with less room than that is refused (RFC 8915 §5.6).
//
// The encrypted fields are decrypted behind dst, looked through for placeholders and wiped. The error is
// a Refusal, NotAuthentic if open says so. Nothing is allocated if dst has room for the datagram.
func (r *Request) Verify(dst []byte, nonceLen int, open Open) (cookies int, err error) {
	if r.room < padded(nonceLen) {
		return 0, ShortNonce
	}
	plaintext, err := open(dst, r.nonce, r.text, r.ad)
	if err != nil {
		return 0, NotAuthentic
	}
	plaintext = plaintext[len(dst):]
	defer clear(plaintext)
	cookies = 1 + r.placeholders
	for b := plaintext; len(b) > 0; {
		t, n := cutField(b, fieldHeader)
		if n == 0 {
			return 0, BadEncrypted
		}
		if t == CookiePlaceholder && n-fieldHeader == len(r.Cookie) {
			cookies++
		}
		b = b[n:]
	}
	return min(cookies, maxCookies), nil
}

// cutField returns the type and the whole length of the extension field at the start of b, of at least shortest
// octets, or a length of 0 if there is none. It is takeField without an error to be paid for.
func cutField(b []byte, shortest int) (FieldType, int) {
	if len(b) < fieldHeader {
		return 0, 0
	}
	n := int(binary.BigEndian.Uint16(b[2:]))
	if n < shortest || n%4 != 0 || n > len(b) {
		return 0, 0
	}
	return FieldType(binary.BigEndian.Uint16(b)), n
}
