package gateway

import "fmt"

// Mode says how a Gateway comes to know the time the daemon serves.
type Mode uint8

// The modes. In both the leap flag, stratum and all else come from an answer of the daemon, and both timestamps are
// readings of the clock of the system, corrected to what the daemon serves.
const (
	// MirrorMode answers from the Mirror's State, and asks the daemon as RelayMode does while the Mirror's
	// Condition is RelayWanted. If the daemon does not answer in time, the State is good enough.
	MirrorMode Mode = iota
	// RelayMode asks the daemon anew for every batch of requests, at most 8 of one socket. It is for daemons
	// whose served time nobody can predict from one second to the next, and costs the daemon a query each time.
	RelayMode
)

// String is what ParseMode reads.
func (m Mode) String() string { return [...]string{"mirror", "relay"}[m] }

// ParseMode reads "mirror" or "relay".
func ParseMode(s string) (Mode, error) {
	for _, m := range []Mode{MirrorMode, RelayMode} {
		if s == m.String() {
			return m, nil
		}
	}
	return 0, fmt.Errorf("gateway mode %q is neither mirror nor relay", s)
}
