package packet

// minUID is the shortest unique identifier of a request, in octets (RFC 8915 §5.3).
const minUID = 32

// Request is a client's NTS-protected request (RFC 8915 §5.7) before it is verified. Its slices alias the packet.
type Request struct {
	Header Header
	UID    []byte
	Cookie []byte
	p      protected
}

// ParseNTSRequest reads b as an NTS request of mode 3 with exactly one unique identifier of at least 32 octets,
// one cookie and one authenticator. Nothing of it is authentic before Verify has said so.
func ParseNTSRequest(b []byte) (Request, error) {
	p, err := parse(b)
	switch {
	case err != nil:
		return Request{}, err
	case p.header.Mode != ModeClient:
		return Request{}, malformed("request of mode %d", p.header.Mode)
	case p.header.Version != 4:
		return Request{}, malformed("NTP version %d", p.header.Version)
	case len(p.uid) < minUID:
		return Request{}, malformed("unique identifier of %d octets", len(p.uid))
	case p.cookie == nil:
		return Request{}, malformed("no cookie")
	case p.placeholders > 0 && len(p.placeholder) != len(p.cookie):
		return Request{}, malformed("placeholder of %d octets for a cookie of %d", len(p.placeholder), len(p.cookie))
	case !p.sealed:
		return Request{}, malformed("no authenticator")
	}
	return Request{p.header, p.uid, p.cookie, p}, nil
}

// Verify opens the request with the C2S key from its cookie and returns how many cookies the client may be
// sent: one and one for each placeholder, at most 8. What was encrypted is appended to dst and forgotten.
// longest is the longest nonce the AEAD takes, in octets (16 where there is no limit): a request that has less
// room than that for the nonce of the response is refused (RFC 8915 §5.6).
func (r Request) Verify(dst []byte, longest int, open Open) (cookies int, err error) {
	if r.p.room < padded(min(16, longest)) {
		return 0, malformed("authenticator with room for a nonce of %d octets", r.p.room)
	}
	plaintext, err := open(dst, r.p.nonce, r.p.text, r.p.ad)
	if err != nil {
		return 0, ErrUnauthenticated
	}
	cookies = 1 + r.p.placeholders
	for b := plaintext[len(dst):]; len(b) > 0; {
		var f Field
		if f, b, err = takeField(b, fieldHeader); err != nil {
			return 0, err
		}
		if f.Type == CookiePlaceholder && len(f.Body) == len(r.Cookie) {
			cookies++
		}
	}
	return min(cookies, maxCookies), nil
}

// AppendCookie appends a cookie as an encrypted extension field, for the plaintext of AppendNTSResponse.
func AppendCookie(dst, cookie []byte) []byte {
	return appendField(dst, NTSCookie, cookie, fieldHeader)
}

// AppendNTSResponse appends the answer to a request: h, the client's uid, and the authenticator that seal makes
// with the S2C key over the encrypted fields in plaintext.
func AppendNTSResponse(dst []byte, h Header, uid, plaintext, nonce []byte, seal Seal) []byte {
	start := len(dst)
	dst = h.AppendTo(dst)
	dst = AppendField(dst, UniqueIdentifier, uid)
	return appendAuthenticator(dst, start, nonce, plaintext, seal)
}
