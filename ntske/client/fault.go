package client

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"

	"ntsagent/ntske/packet"
)

// What a query may come to. Errors of Query and Plain wrap one of these, or
// else are this tool's.
var (
	// ErrNAK: the server says that it cannot open the cookie (RFC 8915 §5.7).
	ErrNAK = packet.ErrNAK
	// ErrSilent: no answer to this request came in time.
	ErrSilent = errors.New("no answer in time")
	// ErrUnauthenticated: an answer came, but not under our key, and no good one followed.
	ErrUnauthenticated = packet.ErrUnauthenticated
)

// Fault says whose failure an Error is.
type Fault uint8

// The two faults.
const (
	Server Fault = iota + 1 // the server did not do what it should
	Tool                    // this tool could not try: no route, no resolver, interrupted
)

// String returns "server" or "tool".
func (f Fault) String() string {
	switch f {
	case Server:
		return "server"
	case Tool:
		return "tool"
	default:
		return "none"
	}
}

// MarshalText is String.
func (f Fault) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// Error is a step that failed, in words that say whose failure it is.
type Error struct {
	Fault Fault
	Step  string // resolve, connect, tls, ntske, ntp
	text  string
	err   error
}

// Error says what was not done and why, in one printable line.
func (e *Error) Error() string {
	s := "the server did not "
	if e.Fault == Tool {
		s = "this tool could not "
	}
	s += e.text
	if e.err != nil {
		s += ": " + e.err.Error()
	}
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "") + "…" // a certificate's names alone can fill pages
	}
	return printable(s)
}

const maxText = 600

// Unwrap returns the cause, if there is one.
func (e *Error) Unwrap() error { return e.err }

// did says what the server did not do.
func did(step, not string, err error) *Error { return &Error{Server, step, not, err} }

// couldNot says what this tool could not do.
func couldNot(step, not string, err error) *Error { return &Error{Tool, step, not, err} }

// netError tells a server that does not answer from a network we are not on.
func netError(step, not string, err error) *Error {
	switch {
	case errors.Is(err, context.Canceled):
		return couldNot(step, "go on", context.Canceled)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT):
		return did(step, not+" in time", nil)
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE),
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return did(step, not, cause(err))
	}
	if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op == "remote error" { // a TLS alert
		return did(step, not, cause(err))
	}
	return couldNot(step, "reach the server", cause(err))
}

// tlsError does the same for a handshake, where what is no network failure is
// the server's: a certificate, a version, a protocol.
func tlsError(err error) *Error {
	var verify *tls.CertificateVerificationError
	var network net.Error
	switch {
	case errors.As(err, &verify):
		return did("tls", "show a certificate that verifies", verify.Err)
	case errors.Is(err, context.Canceled), errors.As(err, &network), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return netError("tls", "complete a TLS 1.3 handshake", err)
	}
	return did("tls", "complete a TLS 1.3 handshake", err)
}

// cause takes off what repeats addresses that are printed already.
func cause(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	var call *os.SyscallError
	if errors.As(err, &call) {
		err = call.Err
	}
	return err
}

// printable keeps what a server wrote from driving a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || 0x80 <= r && r < 0xa0 || r == '\u2028' || r == '\u2029' {
			return '?'
		}
		return r
	}, s)
}
