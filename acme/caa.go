package acme

import (
	"fmt"
	"strings"

	"ntsagent/acme/dnscheck"
	"ntsagent/hostcheck"
)

// CAARecord is the record, as a zone file has it, that lets nobody but one account have certificates for name: the CA
// that calls itself issuer (RFC 8659 section 4.2), and of its accounts the one at that URI, by these methods (RFC 8657).
// An account that is not known or cannot be written in a record is an error.
func CAARecord(name hostcheck.Name, issuer, account string, methods []string) (string, error) {
	ca, err := hostcheck.ParseName(issuer)
	if err != nil {
		return "", fmt.Errorf("the CA's name for CAA records: %w", err)
	}
	// A value is %x21-3A / %x3C-7E (RFC 8659 section 4.2); two more would have to be escaped in a zone file, and no URL has them.
	foreign := func(r rune) bool { return r < 0x21 || r > 0x7e || r == ';' || r == '"' || r == '\\' }
	if account == "" || strings.ContainsFunc(account, foreign) {
		return "", fmt.Errorf("the account's URL %q cannot stand in a CAA record", account)
	}
	return dnscheck.Record(name.String(), ca.String(), account, methods), nil
}
