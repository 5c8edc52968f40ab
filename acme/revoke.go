package acme

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"ntsagent/acme/store"
)

// NameCeased is the condition of a name whose last certificate was revoked because operation has ended.
const NameCeased Condition = "ceased"

const hintCeased = "to begin again: ntsagent cert renew --force"

// maxRevoked is how many revocations are remembered: more than certificates are kept.
const maxRevoked = 8

// ErrOther says that the certificate in use is not the one that was named.
var ErrOther = errors.New("another certificate is in use by now")

// Revoke has the CA revoke the certificate in use, which must have that serial number, in hexadecimal. Another one with a new key
// is ordered at once, and what that comes to is replacement, as of Renew; the one that was revoked serves until then. But for
// CessationOfOperation nothing more is ordered, and nothing is served. After KeyCompromise no key of this name that exists now
// is used again. An error says that nothing was revoked.
func (m *Manager) Revoke(ctx context.Context, serial string, reason Reason) (replacement, err error) {
	w := wish{answer: make(chan error, 1)}
	err = m.run(ctx, func(ctx context.Context) error {
		if err := m.revoke(ctx, serial, reason); err != nil {
			return err
		}
		if reason != CessationOfOperation {
			m.wished = append(m.wished, w) // to be answered by the order that follows
		}
		return nil
	})
	if err != nil || reason == CessationOfOperation {
		return nil, err
	}
	return m.await(ctx, w.answer), nil
}

func (m *Manager) revoke(ctx context.Context, serial string, reason Reason) error {
	leaf := m.leaf()
	switch {
	case m.unread != "":
		return &Error{Class: ClassInternal, Err: errors.New(unread(m.unread)), Hint: hintUnread}
	case leaf == nil:
		return errors.New("there is no certificate to revoke")
	case leaf.SerialNumber.Text(16) != serial:
		return fmt.Errorf("%w: %s", ErrOther, leaf.SerialNumber.Text(16))
	}
	ca := m.maker(leaf)
	if from := origin(leaf, m.renewal); from != "" && from != ca.Directory {
		return &Error{Class: ClassAccount, Err: fmt.Errorf("the certificate came from %s", from),
			Hint: "set acme.directory to that CA, reload, and revoke again"}
	}
	if reason == KeyCompromise { // before all else: an order that follows must not find them
		if err := m.cfg.Store.DropKeys(m.cfg.Name); err != nil {
			return &Error{Class: ClassInternal, Err: err, Hint: "see that the agent may write to its state_dir"}
		}
	}
	if err := ca.Issuer.Revoke(ctx, leaf, reason); err != nil {
		if ctx.Err() != nil {
			return ErrStopped
		}
		return asError(err)
	}
	now, r := time.Now(), noted(leaf, m.renewal)
	r.Revoked = append(slices.Clone(r.Revoked), revocation(now, leaf, reason))
	r.Revoked = r.Revoked[max(0, len(r.Revoked)-maxRevoked):]
	r.NextAttempt = time.Time{} // of a wait that was chosen for a certificate in force
	if r.Other != nil {
		other := *r.Other
		other.NextAttempt = time.Time{}
		r.Other = &other
	}
	if reason == CessationOfOperation {
		r.Ceased = now
		m.cfg.Live.Withdraw(m.cfg.Name)
	}
	if err := m.save(r); err != nil {
		m.log.Warn("renewal state not saved", "error", err)
	}
	m.log.Warn("certificate revoked", "serial", serial, "reason", reason.String())
	m.event(Revoked, reason.String())
	return nil
}

// begun tells whether certificates are ordered at all. After operation has ended they are not until an operator forces one, and
// from then on as ever.
func (m *Manager) begun(forced bool) bool {
	r := m.renewal
	if r.Ceased.IsZero() {
		return true
	}
	if !forced {
		return false
	}
	r.Ceased = time.Time{}
	if err := m.save(r); err != nil {
		m.log.Warn("renewal state not saved", "error", err)
	}
	return true
}

func ceased(r store.Renewal) string {
	return "the certificate was revoked at " + minute(r.Ceased) + ", for operation has ended"
}

func revocation(now time.Time, leaf *x509.Certificate, reason Reason) store.Revocation {
	r := store.Revocation{Certificate: certificateID(leaf), At: now, Reason: reason.String()}
	if reason == KeyCompromise {
		r.Key = fingerprint(leaf.RawSubjectPublicKeyInfo)
	}
	return r
}

// inForce is leaf as the schedule sees it: one that was revoked is as good as none.
func inForce(leaf *x509.Certificate, r store.Renewal) *x509.Certificate {
	if leaf == nil || revokedAs(leaf, r) != nil {
		return nil
	}
	return leaf
}

// mayServe tells whether a stored certificate may be put into service. One that was revoked serves on until its successor is
// there, and never comes back after that; nor does one whose operation has ended.
func mayServe(leaf *x509.Certificate, r store.Renewal) bool {
	if !r.Ceased.IsZero() {
		return false
	}
	v := revokedAs(leaf, r)
	return v == nil || r.Origin.Certificate == certificateID(leaf) && v.Reason != CessationOfOperation.String()
}

// revokedAs is how leaf, or its key, was revoked; nil when it was not.
func revokedAs(leaf *x509.Certificate, r store.Renewal) *store.Revocation {
	id, key := certificateID(leaf), fingerprint(leaf.RawSubjectPublicKeyInfo)
	n := slices.IndexFunc(r.Revoked, func(v store.Revocation) bool { return v.Certificate == id || v.Key == key })
	if n < 0 {
		return nil
	}
	return &r.Revoked[n]
}

// fingerprint is the SHA-256 of a certificate, or of its key, in hexadecimal.
func fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}
