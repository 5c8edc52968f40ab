package record

import (
	"bytes"
	"encoding/binary"
	"io"

	"ntsagent/ntske/aead"
)

// MaxResponse is the longest response a client reads, in octets: what chronyd reads, too.
const MaxResponse = 16384

// maxCookie is the longest cookie a client takes, in octets. Eight of them still fit an NTP packet's worth
// of memory; real ones have 64 to 168.
const maxCookie = 1024

// Response is a server's answer to a Request (RFC 8915 §4).
type Response struct {
	Protocols       []Protocol // at most one; none = the server speaks none of those offered
	AEADs           []aead.ID  // at most one; none = no algorithm in common
	Compliant128GCM bool       // keys of AES-128-GCM-SIV are derived as RFC 8915 §5.1 says
	Server          string     // where the NTP server is; "" = at the address of the key exchange
	Port            uint16     // its UDP port; 0 = 123
	Cookies         [][]byte   // at least one when NTPv4 and an AEAD were chosen
}

// AppendTo appends the response in the one form that every known client takes: records in the order
// 1, 4, 1024, 7, 6, 5…, 0. The critical bit is set on 0, 1, 4, and, as chronyd does, on 7 and 6: a client that
// cannot go where it is sent shall fail and not ask the wrong server. With Protocols = [NTPv4] and no AEAD the
// AEAD record is there and empty (RFC 8915 §4.1.5). It does not allocate when dst has room.
func (p *Response) AppendTo(dst []byte) []byte {
	dst = appendUint16s(dst, true, NextProtocol, p.Protocols...)
	if len(p.Protocols) > 0 {
		dst = appendUint16s(dst, true, AEADAlgorithm, p.AEADs...)
	}
	if p.Compliant128GCM {
		dst = appendHeader(dst, false, Compliant128GCM, 0)
	}
	if p.Port != 0 {
		dst = appendUint16s(dst, true, Port, p.Port)
	}
	if p.Server != "" {
		dst = appendHeader(dst, true, Server, len(p.Server))
		dst = append(dst, p.Server...)
	}
	for _, c := range p.Cookies {
		dst = appendHeader(dst, false, NewCookie, len(c))
		dst = append(dst, c...)
	}
	return appendHeader(dst, true, EndOfMessage, 0)
}

// ReadResponse reads and checks one response as a strict client does. An *Error is what the peer answered.
// Any other error is the reader's, wrapped, or says what is wrong with the response: a Warning, an unknown
// critical record, a critical cookie, anything twice, cookies missing or of a length that no extension
// field can carry, names that are not visible ASCII. It waits for nothing after End of Message.
func ReadResponse(r io.Reader) (Response, error) {
	msg, err := read(r, MaxResponse)
	if err != nil {
		return Response{}, err
	}
	return parseResponse(msg)
}

// parseResponse parses a message whose framing is known to be right.
func parseResponse(msg []byte) (Response, error) {
	var p Response
	var seen seen
	for r := range records(msg) {
		if err := p.add(r, &seen); err != nil {
			return Response{}, err
		}
	}
	switch {
	case !seen.protocol:
		return Response{}, fault("no Next Protocol record")
	case len(p.Protocols) == 0 && (len(p.AEADs) > 0 || len(p.Cookies) > 0):
		return Response{}, fault("an AEAD or cookies for no protocol")
	case len(p.Protocols) > 0 && p.Protocols[0] == NTPv4 && !seen.aead:
		return Response{}, fault("NTPv4 without an AEAD Algorithm record")
	case len(p.AEADs) == 0 && len(p.Cookies) > 0:
		return Response{}, fault("cookies for no AEAD")
	case len(p.AEADs) > 0 && p.Protocols[0] == NTPv4 && len(p.Cookies) == 0:
		return Response{}, fault("an AEAD but no cookie")
	}
	return p, nil
}

// add takes one record of a response into p.
func (p *Response) add(r raw, seen *seen) (err error) {
	switch r.kind {
	case EndOfMessage:
		return nil
	case NextProtocol:
		if p.Protocols, err = numbers[Protocol](r); err != nil {
			return err
		}
		if len(p.Protocols) > 1 || !r.critical {
			return fault("Next Protocol record holds more than one or is not critical")
		}
		return once(&seen.protocol, r.kind)
	case ErrorRecord:
		if len(r.body) != 2 || !r.critical {
			return fault("Error record is not two octets or not critical")
		}
		return &Error{Code: Code(binary.BigEndian.Uint16(r.body))}
	case Warning:
		return fault("a Warning")
	case AEADAlgorithm:
		if p.AEADs, err = numbers[aead.ID](r); err != nil {
			return err
		}
		if len(p.AEADs) > 1 {
			return fault("AEAD Algorithm record holds more than one")
		}
		return once(&seen.aead, r.kind)
	case NewCookie:
		if n := len(r.body); r.critical || n == 0 || n > maxCookie || n%4 != 0 {
			return fault("cookie is critical, or its %d octets are not a multiple of 4 from 4 to %d", n, maxCookie)
		}
		p.Cookies = append(p.Cookies, bytes.Clone(r.body))
		return nil
	case Server:
		if p.Server, err = name(r); err != nil {
			return err
		}
		return once(&seen.server, r.kind)
	case Port:
		if p.Port, err = port(r); err != nil {
			return err
		}
		return once(&seen.port, r.kind)
	case Compliant128GCM:
		if len(r.body) != 0 {
			return fault("record of type %d is not empty", r.kind)
		}
		p.Compliant128GCM = true
		return once(&seen.compliant, r.kind)
	}
	if r.critical {
		return fault("record of type %d is critical and unknown", r.kind)
	}
	return nil
}
