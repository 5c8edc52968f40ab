package packet

// This is the other end of the wire, for the tests: what a server does with the requests written here.

// minUID is the shortest unique identifier of a request, in octets (RFC 8915 §5.3).
const minUID = 32

// ntsRequest is a client's NTS-protected request (RFC 8915 §5.7) before it is verified. Its slices alias the packet.
type ntsRequest struct {
	Header Header
	UID    []byte
	Cookie []byte
	p      protected
	room   int // octets for the nonce: itself, its padding and the additional padding
}

// parseNTSRequest reads b as an NTS request of mode 3 with exactly one unique identifier of at least 32 octets,
// one cookie and one authenticator. Nothing of it is authentic before verify has said so.
func parseNTSRequest(b []byte) (ntsRequest, error) {
	p, err := parse(b)
	switch {
	case err != nil:
		return ntsRequest{}, err
	case p.header.Mode != ModeClient:
		return ntsRequest{}, malformed("request of mode %d", p.header.Mode)
	case p.header.Version != 4:
		return ntsRequest{}, malformed("NTP version %d", p.header.Version)
	case len(p.uid) < minUID:
		return ntsRequest{}, malformed("unique identifier of %d octets", len(p.uid))
	case p.cookie == nil:
		return ntsRequest{}, malformed("no cookie")
	case !p.sealed:
		return ntsRequest{}, malformed("no authenticator")
	}
	r := ntsRequest{Header: p.header, UID: p.uid, Cookie: p.cookie, p: p}
	for f := range Fields(b) {
		if f.Type == CookiePlaceholder && len(f.Body) != len(p.cookie) {
			return ntsRequest{}, malformed("placeholder of %d octets for a cookie of %d", len(f.Body), len(p.cookie))
		}
		if f.Type == Authenticator {
			r.room = len(f.Body) - 4 - padded(len(p.text))
			break
		}
	}
	return r, nil
}

// verify opens the request with the C2S key from its cookie and returns how many cookies the client may be
// sent: one and one for each placeholder, at most 8. What was encrypted is appended to dst and forgotten.
// longest is the longest nonce the AEAD takes, in octets (16 where there is no limit): a request that has less
// room than that for the nonce of the response is refused (RFC 8915 §5.6).
func (r ntsRequest) verify(dst []byte, longest int, open Open) (cookies int, err error) {
	if r.room < padded(min(16, longest)) {
		return 0, malformed("authenticator with room for a nonce of %d octets", r.room)
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

// appendCookie appends a cookie as an encrypted extension field, for the plaintext of appendNTSResponse.
func appendCookie(dst, cookie []byte) []byte {
	return appendField(dst, NTSCookie, cookie, fieldHeader)
}

// appendNTSResponse appends the answer to a request: h, the client's uid, and the authenticator that seal makes
// with the S2C key over the encrypted fields in plaintext.
func appendNTSResponse(dst []byte, h Header, uid, plaintext, nonce []byte, seal Seal) []byte {
	start := len(dst)
	dst = h.AppendTo(dst)
	dst = AppendField(dst, UniqueIdentifier, uid)
	return appendAuthenticator(dst, start, nonce, plaintext, seal)
}
