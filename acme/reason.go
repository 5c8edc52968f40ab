package acme

import (
	"fmt"
	"strings"
)

// Reason is why a certificate is revoked: those of RFC 5280 section 5.3.1 that CAs take from whoever has ordered it.
type Reason uint

const (
	Unspecified          Reason = 0
	KeyCompromise        Reason = 1
	Superseded           Reason = 4
	CessationOfOperation Reason = 5
)

// Reasons are all of them, as they are written.
const Reasons = "unspecified, keyCompromise, superseded or cessationOfOperation"

var reasonNames = map[Reason]string{
	Unspecified: "unspecified", KeyCompromise: "keyCompromise", Superseded: "superseded", CessationOfOperation: "cessationOfOperation",
}

// ParseReason reads a reason in any case, with hyphens or without; "" is Unspecified.
func ParseReason(s string) (Reason, error) {
	if s == "" {
		return Unspecified, nil
	}
	for r, name := range reasonNames {
		if strings.EqualFold(name, strings.ReplaceAll(s, "-", "")) {
			return r, nil
		}
	}
	return 0, fmt.Errorf("%.40q is no reason to revoke: use %s", s, Reasons)
}

// String is the reason as RFC 5280 writes it.
func (r Reason) String() string {
	if name, ok := reasonNames[r]; ok {
		return name
	}
	return fmt.Sprintf("reason %d", uint(r))
}
