package acme

import (
	"crypto/x509"
	"net/url"
	"slices"
	"strings"
	"time"

	"ntsagent/acme/store"
)

// staging tells whether a directory URL is that of a CA for rehearsals, whose certificates no client trusts.
func staging(directory string) bool {
	u, err := url.Parse(directory)
	if err != nil {
		return false
	}
	words := strings.FieldsFunc(strings.ToLower(u.Hostname()), func(r rune) bool { return r == '.' || r == '-' })
	return slices.Contains(words, "staging") || slices.Contains(words, "test")
}

// rehearsed tells whether leaf came from such a CA.
func rehearsed(leaf *x509.Certificate, r store.Renewal) bool {
	if from := origin(leaf, r); from != "" {
		return staging(from)
	}
	issuer := strings.ToLower(leaf.Issuer.String())
	return strings.Contains(issuer, "staging") || strings.Contains(issuer, "fake le")
}

const hintSpoils = "set acme.directory back, or use another name for rehearsals; renew with --force if it is meant so"

// spoils says why an order to directory must not go out: it would put a certificate that no client trusts in the place of one
// that they do. "" when it would not.
func spoils(now time.Time, leaf *x509.Certificate, r store.Renewal, directory string) string {
	if leaf == nil || !now.Before(leaf.NotAfter) || !staging(directory) || rehearsed(leaf, r) {
		return ""
	}
	return "acme.directory is a staging CA, and the certificate in use is not from one: no client would trust the next one"
}
