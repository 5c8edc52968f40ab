package acme

import (
	"errors"
	"strings"
	"time"
	"unicode"
)

// Class is the kind of a failed attempt. It chooses how soon to try again and what the operator is told.
type Class string

const (
	ClassNetwork     Class = "network"      // the ACME server was not reached, or failed itself (5xx)
	ClassRateLimited Class = "rate-limited" // it asks us to wait
	ClassLimit       Class = "limit"        // its limit for the whole domain is used up, by whoever
	ClassConnection  Class = "connection"   // it could not reach us to validate
	ClassUnauth      Class = "unauthorized" // it reached something that did not show our proof
	ClassDNS         Class = "dns"          // it could not look the name up
	ClassCAA         Class = "caa"          // a CAA record forbids it
	ClassTLS         Class = "tls"          // its TLS handshake with us failed
	ClassMalformed   Class = "malformed"    // one side did not understand the other, or the CA refuses the request for good
	ClassAccount     Class = "account"      // the account is unknown, closed, or lacks consent
	ClassClock       Class = "clock"        // certificates look as if our clock were wrong
	ClassRejected    Class = "rejected"     // a certificate came back and is not fit to be served
	ClassFront       Class = "web server"   // who stands before us would show the CA no proof, as far as we see: no CA was asked
	ClassInternal    Class = "internal"     // the fault is on this machine, or unknown
)

// Error is a failure to obtain a certificate.
type Error struct {
	Class      Class
	RetryAfter time.Duration // what the server asked us to wait; 0 = it did not say
	Hint       string        // one line for the operator: what to do
	Err        error         // what happened

	InVain      []string  // challenges that were not tried, because the CA would have found no proof
	Declined    bool      // the CA was asked to sign, or to revoke, and said no: no certificate counts, and none was revoked
	Validations int       // how many validations the CA has counted as failed
	Domain      string    // of ClassLimit: the domain, "" when the CA did not say
	Until       time.Time // of ClassLimit: when the CA will make certificates again; zero = it did not say
}

// Error is one line, whatever the peer wrote.
func (e *Error) Error() string { return oneLine(e.Err.Error()) }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// asError gives every failure a class and a hint.
func asError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Class: ClassInternal, Err: err, Hint: "look at the log around this line"}
}

// maxText bounds the text of an error that is kept and logged. CAs have been seen to answer with whole web pages.
const maxText = 400

// maxHint is maxText for what is of our own making, and may hold what a web server's configuration needs.
const maxHint = 1600

// oneLine makes text of any origin fit for a log line and a state file: one line, no control characters, bounded.
func oneLine(s string) string { return line(s, maxText) }

// hintLine is oneLine for a hint.
func hintLine(s string) string { return line(s, maxHint) }

func line(s string, most int) string {
	if len(s) > 4*most {
		s = s[:4*most]
	}
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || r == unicode.ReplacementChar {
			return ' '
		}
		return r
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
