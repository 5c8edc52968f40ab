package issuer

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	legoacme "github.com/go-acme/lego/v4/acme"

	"ntsagent/acme"
)

const revokeTimeout = time.Minute // one revocation

// Revoke has the CA revoke leaf, which was ordered with the stored account (RFC 8555 section 7.6). One that is revoked already
// is no error. After an error that is not Declined it may be revoked all the same.
func (i *Issuer) Revoke(ctx context.Context, leaf *x509.Certificate, reason acme.Reason) error {
	within, cancel := context.WithTimeout(ctx, revokeTimeout)
	defer cancel()
	defer i.base.CloseIdleConnections()
	j := &job{issuer: i, session: i.session(within)}
	err := j.revoke(leaf, reason)
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	e := j.classify(err, "")
	e.Declined = e.Declined || saysNo(err, e.Class)
	switch {
	case isType(err, "badRevocationReason"):
		return &acme.Error{Class: e.Class, Declined: e.Declined, Err: e.Err, Hint: fmt.Sprintf("this CA does not take %s for a reason: leave --reason away", reason)}
	case isType(err, "unauthorized"), isType(err, "malformed"), isType(err, "notFound"):
		return i.advised(&acme.Error{Class: e.Class, Declined: e.Declined, Err: e.Err,
			Hint: "only the CA that made the certificate revokes it, for the account that has ordered it: look at acme.directory"})
	case e.Class == acme.ClassMalformed && e.Hint != hintNotACME:
		return &acme.Error{Class: e.Class, Declined: e.Declined, Err: e.Err, Hint: "the CA does not revoke it as asked: revoke it by the CA's own means"}
	}
	return i.advised(e)
}

// saysNo tells whether err is the CA's own word that it does not revoke, and not that it cannot now.
func saysNo(err error, class acme.Class) bool {
	var p *legoacme.ProblemDetails
	if !errors.As(err, &p) || !strings.HasPrefix(p.Type, errNS) || p.HTTPStatus < 400 || p.HTTPStatus >= 500 {
		return false
	}
	return class == acme.ClassMalformed || class == acme.ClassAccount
}

func (j *job) revoke(leaf *x509.Certificate, reason acme.Reason) error {
	account, err := j.issuer.cfg.Store.Account(j.issuer.cfg.Directory)
	if errors.Is(err, fs.ErrNotExist) || err == nil && account.URI == "" {
		return &acme.Error{Class: acme.ClassAccount, Declined: true, Err: fmt.Errorf("there is no account at %s", j.issuer.cfg.Directory),
			Hint: "only the account that has ordered a certificate revokes it: restore state_dir from a backup"}
	}
	if err != nil {
		return &acme.Error{Class: acme.ClassAccount, Err: err, Hint: "see that the agent may read its state_dir"}
	}
	core, err := j.core(account)
	if err != nil {
		return err
	}
	message := legoacme.RevokeCertMessage{Certificate: base64.RawURLEncoding.EncodeToString(leaf.Raw)}
	if reason != acme.Unspecified { // RFC 5280 section 5.3.1 would rather have no reason than this one
		code := uint(reason)
		message.Reason = &code
	}
	if err := core.Certificates.Revoke(message); err != nil && !isType(err, "alreadyRevoked") {
		return err
	}
	return nil
}
