package ntske

import (
	"errors"
	"io"
	"net"
	"os"

	"ntsagent/ntske/record"
)

// Outcome is how one connection ended. There is exactly one per connection.
type Outcome uint8

// The outcomes, with what the client was told.
const (
	Served               Outcome = iota + 1 // cookies
	BadRequest                              // Error 1
	UnrecognizedCritical                    // Error 0
	NoCommonProtocol                        // an empty Next Protocol record
	NoCommonAEAD                            // an empty AEAD record
	NoKeys                                  // Error 2: no cookie keys that the daemon is known to hold
	InternalError                           // Error 2: anything else of ours
	Timeout                                 // Error 1, if the request was late; nothing, if it does not read
	PeerGone                                // nothing: it hung up before a request or before the answer
	NoALPN                                  // nothing
)

var outcomes = [...]string{
	"unknown", "served", "bad request", "unrecognized critical record", "no common protocol", "no common aead",
	"no keys", "internal error", "timeout", "peer gone", "no alpn",
}

// String returns a stable lower-case name.
func (o Outcome) String() string {
	if int(o) >= len(outcomes) {
		o = 0
	}
	return outcomes[o]
}

// Outcomes lists all outcomes, for counters.
func Outcomes() []Outcome {
	all := make([]Outcome, 0, len(outcomes)-1)
	for o := Served; int(o) < len(outcomes); o++ {
		all = append(all, o)
	}
	return all
}

// verdict turns what stopped an exchange into its Outcome and the code that
// tells the peer (RFC 8915 §4.1.3).
func verdict(err error) (Outcome, record.Code) {
	var told *record.Error
	var network net.Error
	switch {
	case errors.Is(err, errNoKeys):
		return NoKeys, record.InternalError
	case errors.As(err, &told):
		switch told.Code {
		case record.UnrecognizedCritical:
			return UnrecognizedCritical, told.Code
		case record.BadRequest:
			return BadRequest, told.Code
		}
		return InternalError, record.InternalError
	case errors.Is(err, os.ErrDeadlineExceeded):
		return Timeout, record.BadRequest
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.As(err, &network):
		return PeerGone, record.BadRequest
	default:
		return InternalError, record.InternalError
	}
}
