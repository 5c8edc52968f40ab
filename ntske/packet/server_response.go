package packet

import "encoding/binary"

// KissNTSN is the reference id of an NTS NAK (RFC 8915 §5.7).
var kissNTSN = [4]byte{'N', 'T', 'S', 'N'}

// tagLen is what every AEAD of NTS adds, and where the ciphertext starts behind the tag.
const tagLen = 16

// AppendPlain appends the response to a plain request: h, and the client's unique identifier if it sent one
// (RFC 8915 §5.3). It is never longer than the request.
func (r *Request) AppendPlain(dst []byte, h Header) []byte {
	dst = h.AppendTo(dst)
	if r.UID != nil {
		dst = AppendField(dst, UniqueIdentifier, r.UID)
	}
	return dst
}

// AppendNAK appends an NTS NAK (RFC 8915 §5.7): the kiss code NTSN with the client's unique identifier and with
// neither cookie, authenticator nor time. It is shorter than the request.
func (r *Request) AppendNAK(dst []byte) []byte {
	return r.AppendPlain(dst, Header{
		Leap: 3, Version: r.Header.Version, Mode: ModeServer, Poll: r.Header.Poll, RefID: kissNTSN, Origin: r.Header.Transmit,
	})
}

// Response is an NTS response (RFC 8915 §5.7) that is being written, in place and in the order in which its
// parts become known: cookies first, the header with its transmit timestamp last, then the seal.
type Response struct {
	b            []byte
	start        int // of the response in b
	auth         int // of the authenticator
	nonce        int // of the nonce
	text         int // of tag and ciphertext
	limit        int // of b: the response is no longer than its request
	nonceOctets  int
	cookieFields int
}

// Respond starts the response behind dst. nonce is fresh and as long as Verify was told.
func (r *Request) Respond(dst, nonce []byte) Response {
	p := Response{start: len(dst), limit: len(dst) + r.length, nonceOctets: len(nonce)}
	dst = appendZeros(dst, HeaderLen)
	dst = AppendField(dst, UniqueIdentifier, r.UID)
	p.auth = len(dst)
	p.nonce = p.auth + fieldHeader + authLengths
	dst = append(dst, byte(Authenticator>>8), byte(Authenticator&0xff), 0, 0, 0, 0, 0, 0)
	dst = append(dst, nonce...)
	dst = appendZeros(dst, padded(len(nonce))-len(nonce))
	p.text = len(dst)
	p.b = appendZeros(dst, tagLen)
	return p
}

// AddCookie adds a fresh cookie to the encrypted fields. It reports false, and adds nothing, if that would make
// the response longer than the request, or more than 8 cookies.
func (p *Response) AddCookie(cookie []byte) bool {
	if len(p.b)+fieldHeader+padded(len(cookie)) > p.limit || p.cookieFields == maxCookies {
		return false
	}
	p.b = appendField(p.b, NTSCookie, cookie, fieldHeader)
	p.cookieFields++
	return true
}

// Finish writes h, seals with the S2C key and returns dst of Respond with the response behind it. seal must read all its inputs
// before it writes, as those of package aead do: it is handed a plaintext that lies where the ciphertext goes.
// A response without a cookie, or longer than its request, is none: Finish then returns dst alone.
func (p *Response) Finish(h Header, seal Seal) []byte {
	if p.cookieFields == 0 || len(p.b) > p.limit {
		return p.b[:p.start]
	}
	h.AppendTo(p.b[:p.start])
	n := len(p.b) - p.text
	head := p.b[p.auth:p.nonce]
	binary.BigEndian.PutUint16(head[2:], uint16(len(p.b)-p.auth))
	binary.BigEndian.PutUint16(head[4:], uint16(p.nonceOctets))
	binary.BigEndian.PutUint16(head[6:], uint16(n))
	return seal(p.b[:p.text], p.b[p.nonce:p.nonce+p.nonceOctets], p.b[p.text+tagLen:], p.b[p.start:p.auth:p.auth])
}
