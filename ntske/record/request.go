package record

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"ntsagent/ntske/aead"
)

// MaxMessage is the longest request that is read, in octets. RFC 8915 §4 asks for at least 1024; no known
// client sends more than a few hundred.
const MaxMessage = 4096

// Request is a peer's complete and valid wish for a key exchange (RFC 8915 §4).
type Request struct {
	Protocols       []Protocol // at least one, in the peer's order of preference
	AEADs           []aead.ID  // at least one if Protocols holds NTPv4, in the peer's order of preference
	Compliant128GCM bool       // the peer derives keys of AES-128-GCM-SIV as RFC 8915 §5.1 says
	Server          string     // the NTP server the peer wishes for: visible ASCII, at most 255 octets; "" = none
	Port            uint16     // the UDP port it wishes for; 0 = none
}

// ReadRequest reads one request and not one octet more than is needed to see its end. It waits for nothing
// after End of Message, but what already came with it makes the request bad.
//
// An *Error is to be told to the peer; also a stream that ends too early is one, for RFC 8915 §4.1.3 wants
// an answer to every request that is not complete. Any other error is the reader's, wrapped.
func ReadRequest(r io.Reader) (Request, error) {
	msg, err := read(r, MaxMessage)
	if err != nil {
		return Request{}, asBadRequest(err)
	}
	return parseRequest(msg)
}

// asBadRequest turns a fault of the message into what the peer is told; other errors it leaves.
func asBadRequest(err error) error {
	if f, ok := errors.AsType[*messageFault](err); ok {
		return &Error{BadRequest, f.reason}
	}
	return err
}

// parseRequest parses a message whose framing is known to be right. The result shares no memory with it.
func parseRequest(msg []byte) (Request, error) {
	var req Request
	var seen seen
	for r := range records(msg) {
		if err := req.add(r, &seen); err != nil {
			return Request{}, asBadRequest(err)
		}
	}
	switch {
	case !seen.protocol:
		return Request{}, &Error{BadRequest, "no Next Protocol record"}
	case !seen.aead && slices.Contains(req.Protocols, NTPv4):
		return Request{}, &Error{BadRequest, "NTPv4 without an AEAD Algorithm record"}
	}
	return req, nil
}

// add takes one record of a request into req.
func (req *Request) add(r raw, seen *seen) (err error) {
	switch r.kind {
	case EndOfMessage:
		return nil
	case NextProtocol:
		if req.Protocols, err = numbers[Protocol](r); err != nil {
			return err
		}
		if len(req.Protocols) == 0 || !r.critical {
			return fault("Next Protocol record is empty or not critical")
		}
		return once(&seen.protocol, r.kind)
	case AEADAlgorithm:
		if req.AEADs, err = numbers[aead.ID](r); err != nil {
			return err
		}
		if len(req.AEADs) == 0 {
			return fault("AEAD Algorithm record is empty")
		}
		return once(&seen.aead, r.kind)
	case ErrorRecord, Warning, NewCookie:
		return fault("record of type %d in a request", r.kind)
	case Server:
		if req.Server, err = name(r); err != nil {
			return err
		}
		return once(&seen.server, r.kind)
	case Port:
		if req.Port, err = port(r); err != nil {
			return err
		}
		return once(&seen.port, r.kind)
	case Compliant128GCM:
		if len(r.body) != 0 {
			return fault("record of type %d is not empty", r.kind)
		}
		req.Compliant128GCM = true
		return once(&seen.compliant, r.kind)
	}
	if r.critical {
		return &Error{UnrecognizedCritical, fmt.Sprintf("record of type %d", r.kind)}
	}
	return nil
}

// AppendTo appends the request as a client sends it: Next Protocol and End of Message critical, the rest
// not (RFC 8915 §4.1; the AEAD record may be either).
func (req Request) AppendTo(dst []byte) []byte {
	dst = appendUint16s(dst, true, NextProtocol, req.Protocols...)
	if len(req.AEADs) > 0 {
		dst = appendUint16s(dst, false, AEADAlgorithm, req.AEADs...)
	}
	if req.Compliant128GCM {
		dst = appendHeader(dst, false, Compliant128GCM, 0)
	}
	if req.Server != "" {
		dst = appendHeader(dst, false, Server, len(req.Server))
		dst = append(dst, req.Server...)
	}
	if req.Port != 0 {
		dst = appendUint16s(dst, false, Port, req.Port)
	}
	return appendHeader(dst, true, EndOfMessage, 0)
}
