package acme

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"time"
)

// Complete refuses a chain of the server's own certificate alone, unless one of roots has signed that, as the CAs of some houses
// do: clients know no intermediates. roots nil is the system's. Package live cannot ask for it, for whoever renews files may have
// reasons of his own. What cannot be read, names and dates are left to it.
func Complete(chainPEM []byte, roots *x509.CertPool, now time.Time) error {
	block, rest := pem.Decode(chainPEM)
	if block == nil || len(bytes.TrimSpace(rest)) > 0 {
		return nil
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil
	}
	if leaf.NotBefore.After(now) { // a clock that is a little behind
		now = leaf.NotBefore
	}
	_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	var unknown x509.UnknownAuthorityError
	if errors.As(err, &unknown) {
		return errors.New("the intermediate certificate is missing, and no root that is known here has signed the certificate itself " +
			"(if one has, name it in acme.ca_file)")
	}
	return nil
}
