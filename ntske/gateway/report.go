package gateway

import (
	"errors"
	"syscall"
	"time"

	"ntsagent/ntske/packet"
)

// Report is what an operator is told of the daemon behind.
type Report struct {
	Known     bool // whether it has ever answered; if not, all below is zero but Condition and Fault
	Condition Condition
	Header    packet.Header // of its last answer
	Age       time.Duration // of that
	// Offset is how far the time the daemon serves is ahead of the clock of the system, and Uncertainty the
	// bound on the error of that.
	Offset, Uncertainty time.Duration
	Synchronised        bool   // the daemon said in its last answer that it has the time
	Fault               string // why the last poll brought nothing, or ""
}

// Report tells what is known of the daemon now.
func (m *Mirror) Report() Report {
	s, now := m.State(), m.clock()
	r := Report{Condition: s.Condition(now)}
	if fault := m.fault.Load(); fault != nil {
		r.Fault = *fault
	}
	if s == nil {
		return r
	}
	r.Known, r.Header, r.Age, r.Synchronised = true, s.header, time.Duration(now.Mono-s.at.Mono), s.synchronised()
	r.Offset, r.Uncertainty = s.Offset(now)
	return r
}

// inWords says why a poll brought nothing, without the addresses that an operator knows; nil if it did.
func inWords(err error) *string {
	if err == nil {
		return nil
	}
	text := err.Error()
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		text = "nothing listens there"
	case errors.Is(err, errNoAnswer):
		text = errNoAnswer.Error()
	}
	return &text
}
