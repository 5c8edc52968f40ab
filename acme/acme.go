// Package acme keeps a valid certificate for each name of the agent.
//
// One Manager looks after one name: it decides when to order, asks an Issuer, verifies what came back, puts it in the store
// and only then into service. Whatever goes wrong on the way, the certificate that serves stays as it is; the failure is
// remembered on disk, told in one line, and tried again later and later. Package acme/issuer has the Issuer that speaks ACME
// (RFC 8555).
package acme

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"fmt"

	"ntsagent/hostcheck"
)

// Order is the wish for one certificate with one name.
type Order struct {
	Name    hostcheck.Name
	CSR     *x509.CertificateRequest // signed with the certificate's own key, which the Issuer never sees; Raw is set
	Profile string                   // wanted certificate profile, "" for the CA's default

	// Replaces is the certificate in use, if it came from the same CA and still holds (RFC 9773 section 5); nil = none. CAs do
	// not count such an order towards their limits.
	Replaces *x509.Certificate

	// MayFail is how many validations may fail in this order before no other challenge is tried; 0 = as many as there are.
	MayFail int

	// Insist are the challenges to try although who stands before the agent would not show the CA a proof, as far as can be
	// seen from here.
	Insist []string

	// Failed is called for each validation that the CA has counted as failed, from a goroutine of the Issuer; those of an order
	// that failed are in its *Error, too. nil = nobody counts.
	Failed func()

	// Finalizing is called before the CA is asked to sign, from a goroutine of the Issuer: from then on the certificate counts,
	// whatever becomes of the answer. An error ends the order. nil = nobody counts.
	Finalizing func() error
}

// Issuer obtains certificates: all the agent asks of an ACME library.
type Issuer interface {
	// Issue returns the PEM chain, leaf first, that the CA made for o.CSR. It returns soon after ctx is done, and within
	// minutes in any case. An *Error tells what kind of failure it was. The answer has yet to be verified by the caller.
	Issue(ctx context.Context, o Order) (chainPEM []byte, err error)

	// RenewalInfo asks when leaf, which the same CA made, is best renewed. It is not called for one that has expired. The error
	// is ErrNoRenewalInfo where the CA does not tell; a window that makes no sense is left to the caller.
	RenewalInfo(ctx context.Context, leaf *x509.Certificate) (RenewalInfo, error)

	// Revoke has the CA take back leaf, which was ordered with the same account. Every error but that of ctx is an *Error; one
	// that is revoked already is none.
	Revoke(ctx context.Context, leaf *x509.Certificate, reason Reason) error
}

// newRequest makes the certificate signing request for one name: one dNSName and no common name, as RFC 9525 has it.
func newRequest(name hostcheck.Name, key crypto.Signer) (*x509.CertificateRequest, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{name.String()}}, key)
	if err != nil {
		return nil, fmt.Errorf("make certificate request for %s: %w", name, err)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("read back certificate request for %s: %w", name, err)
	}
	return csr, nil
}
