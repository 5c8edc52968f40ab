package gateway

import (
	"time"

	"ntsagent/ntske/packet"
)

// Report is what an operator is told of the daemon behind.
type Report struct {
	Known     bool // whether it has ever answered; all below but Condition is zero if not
	Condition Condition
	Header    packet.Header // of its last answer
	Age       time.Duration // of that
	// Offset is how far the time the daemon serves is ahead of the clock of the system, and Uncertainty the
	// bound on the error of that.
	Offset, Uncertainty time.Duration
	Synchronised        bool // the daemon said in its last answer that it has the time
}

// Report tells what is known of the daemon now.
func (m *Mirror) Report() Report {
	s, now := m.State(), m.clock()
	r := Report{Condition: s.Condition(now)}
	if s == nil {
		return r
	}
	r.Known, r.Header, r.Age, r.Synchronised = true, s.header, time.Duration(now.Mono-s.at.Mono), s.synchronised()
	r.Offset, r.Uncertainty = s.Offset(now)
	return r
}
