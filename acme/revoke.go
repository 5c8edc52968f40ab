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

// maxRevoked is how many revocations are remembered: those whose keys must not come back before all others.
const maxRevoked = store.MaxTimes

// ErrOther says that the certificate in use is not the one that was named.
var ErrOther = errors.New("another certificate is in use by now")

// ErrUnfinished says that a CA was asked to revoke, and that this is not done yet as far as we know.
var ErrUnfinished = errors.New("revocation not finished")

// Revoke has the CA revoke the certificate in use, which must have that serial number, in hexadecimal. Another one with a new key
// is ordered at once, and what that comes to is replacement, as of Renew; the one that was revoked serves until then. But for
// CessationOfOperation nothing more is ordered, and nothing is served. After KeyCompromise no key of this name that exists now
// is used again. An error says that nothing was revoked, but for ErrUnfinished: the CA is then asked again until it answers, over a
// restart too.
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
	case imported(leaf, m.renewal):
		return &Error{Class: ClassAccount, Err: errors.New("it was imported, and no CA that is known here has made it"),
			Hint: "revoke it where it was made; ntsagent cert renew --force orders another, with another key"}
	}
	ca := m.maker(leaf)
	if from := origin(leaf, m.renewal); from != "" && from != ca.Directory {
		return &Error{Class: ClassAccount, Err: fmt.Errorf("the certificate came from %s", from),
			Hint: "set acme.directory to that CA, reload, and revoke again"}
	}
	if reason == KeyCompromise { // an order that follows must not find it
		if err := m.cfg.Store.DropPendingKey(m.cfg.Name); err != nil {
			return &Error{Class: ClassInternal, Err: err, Hint: "see that the agent may write to its state_dir"}
		}
	}
	// The wish goes on disk before it goes out: the answer may be lost, and so may we.
	wanted := revocation(time.Now(), leaf, reason)
	wanted.Open, wanted.Directory = true, ca.Directory
	r := noted(leaf, m.renewal)
	r.Revoked = remembered(r.Revoked, wanted)
	if err := m.cfg.Store.SaveRenewal(m.cfg.Name, r); err != nil {
		_ = m.cfg.Store.SaveRenewal(m.cfg.Name, m.renewal) // it may be there for all that
		return &Error{Class: ClassInternal, Err: err, Hint: "make room on the disk of state_dir and see that the agent may write there"}
	}
	m.renewal = r
	return m.askToRevoke(ctx, leaf, wanted, ca)
}

// askToRevoke asks the CA for what is noted, and notes its answer.
func (m *Manager) askToRevoke(ctx context.Context, leaf *x509.Certificate, v store.Revocation, ca Authority) error {
	reason, err := ParseReason(v.Reason)
	if err != nil {
		return err
	}
	switch err := ca.Issuer.Revoke(ctx, leaf, reason); {
	case err == nil:
		return m.revoked(leaf, v, reason)
	case ctx.Err() != nil:
		return ErrStopped
	case asError(err).Declined:
		m.forget(v)
		return err
	default:
		e := asError(err)
		m.unanswered++
		m.askAgain = time.Now().Add(max(backoff(ClassNetwork, m.unanswered), min(e.RetryAfter, maxRetryAfter)))
		return &Error{Class: e.Class, Err: fmt.Errorf("%w: not known whether the CA has done it: %w", ErrUnfinished, e.Err), Hint: "the agent asks again until it answers; if that does not help: " + e.Hint}
	}
}

// revoked accounts for what the CA has revoked.
func (m *Manager) revoked(leaf *x509.Certificate, v store.Revocation, reason Reason) error {
	if reason == KeyCompromise {
		if err := m.cfg.Store.DropKeys(m.cfg.Name); err != nil {
			m.askAgain = time.Now().Add(time.Minute)
			return &Error{Class: ClassInternal, Err: fmt.Errorf("%w: the CA has done it, but other keys that may be known are still here: %w", ErrUnfinished, err),
				Hint: "see that the agent may write to its state_dir"}
		}
	}
	v.At, v.Open, m.unanswered = time.Now(), false, 0
	r, used := m.renewal, leaf.Equal(m.leaf())
	r.Revoked = remembered(r.Revoked, v)
	if used {
		r = noted(leaf, r)
		r.NextAttempt = time.Time{} // of a wait that was chosen for a certificate in force
		if r.Other != nil {
			other := *r.Other
			other.NextAttempt = time.Time{}
			r.Other = &other
		}
	}
	if used && reason == CessationOfOperation {
		r.Ceased = v.At
		m.cfg.Live.Withdraw(m.cfg.Name)
	}
	if err := m.save(r); err != nil { // the wish is on disk: it is asked again after a restart
		m.log.Warn("renewal state not saved", "error", err)
	}
	m.log.Warn("certificate revoked", "serial", leaf.SerialNumber.Text(16), "reason", reason.String())
	m.event(Revoked, reason.String())
	return nil
}

// forget drops a wish that comes to nothing.
func (m *Manager) forget(v store.Revocation) {
	r := m.renewal
	r.Revoked = slices.DeleteFunc(slices.Clone(r.Revoked), func(o store.Revocation) bool { return o.Open && o.Certificate == v.Certificate })
	m.unanswered = 0
	if err := m.save(r); err != nil {
		m.log.Warn("renewal state not saved", "error", err)
	}
}

// revokeAgain repeats what a CA has not answered yet.
func (m *Manager) revokeAgain(ctx context.Context) {
	if now := time.Now(); m.askAgain.After(now) && m.askAgain.Sub(now) < maxWait {
		return
	}
	for _, v := range m.renewal.Revoked { // a list that is never changed in place
		ca, known := m.at(v.Directory)
		if !v.Open || !known || ctx.Err() != nil {
			continue
		}
		log := m.log.With("reason", v.Reason)
		leaf := m.kept(v.Certificate)
		if leaf == nil || time.Now().After(leaf.NotAfter) {
			log.Warn("revocation given up", "cause", "the certificate is over, or no longer here")
			m.forget(v)
			continue
		}
		switch err := m.askToRevoke(ctx, leaf, v, ca); {
		case err == nil, errors.Is(err, ErrStopped):
		case errors.Is(err, ErrUnfinished):
			log.Warn("revocation not finished: the CA is asked again", "next", short(time.Until(m.askAgain)), "cause", err)
		default:
			log.Error("certificate not revoked", "serial", leaf.SerialNumber.Text(16), "cause", err, "hint", hintLine(asError(err).Hint))
		}
	}
}

// at is the CA of the configuration with that directory URL.
func (m *Manager) at(directory string) (Authority, bool) {
	for _, fallback := range []bool{false, true} {
		if ca := m.authority(fallback); ca.Issuer != nil && ca.Directory == directory {
			return ca, true
		}
	}
	return Authority{}, false
}

// kept finds a certificate by its id.
func (m *Manager) kept(id string) *x509.Certificate {
	if leaf := m.leaf(); leaf != nil && certificateID(leaf) == id {
		return leaf
	}
	pairs, err := m.cfg.Store.Pairs(m.cfg.Name)
	if err != nil {
		m.log.Warn("certificate store not read", "error", err)
	}
	for _, p := range pairs {
		if leaf := leafOf(p.Chain); leaf != nil && certificateID(leaf) == id {
			return leaf
		}
	}
	return nil
}

// remembered is list with v, in the place of a wish for the same certificate. Where there are too many, one goes whose key may
// come back.
func remembered(list []store.Revocation, v store.Revocation) []store.Revocation {
	var out []store.Revocation
	for _, o := range list {
		if !o.Open || o.Certificate != v.Certificate {
			out = append(out, o)
		} else if v.Key == "" {
			v.Key = o.Key
		}
	}
	for out = append(out, v); len(out) > maxRevoked; {
		n := slices.IndexFunc(out[:maxRevoked], func(o store.Revocation) bool { return o.Key == "" })
		n = max(n, 0)
		out = slices.Delete(out, n, n+1)
	}
	return out
}

// ending tells whether the CA is yet to answer that v has ended the operation of leaf.
func ending(v store.Revocation, leaf *x509.Certificate) bool {
	return v.Open && v.Reason == CessationOfOperation.String() && leaf != nil && v.Certificate == certificateID(leaf)
}

// begun tells whether certificates are ordered at all. After operation has ended they are not until an operator forces one, and
// from then on as ever.
func (m *Manager) begun(forced bool) bool {
	r, leaf := m.renewal, m.leaf()
	n := slices.IndexFunc(r.Revoked, func(v store.Revocation) bool { return ending(v, leaf) })
	if r.Ceased.IsZero() && n < 0 {
		return true
	}
	if !forced {
		return false
	}
	r.Ceased = time.Time{}
	if n >= 0 { // it is only that certificate that ends now
		r.Revoked = slices.Clone(r.Revoked)
		r.Revoked[n].Reason = Superseded.String()
	}
	if err := m.save(r); err != nil {
		m.log.Warn("renewal state not saved", "error", err)
	}
	return true
}

func ceased(r store.Renewal) string {
	if r.Ceased.IsZero() {
		return "the CA is asked to revoke the certificate, for operation has ended"
	}
	return "the certificate was revoked at " + minute(r.Ceased) + ", for operation has ended"
}

func revocation(now time.Time, leaf *x509.Certificate, reason Reason) store.Revocation {
	r := store.Revocation{Certificate: certificateID(leaf), At: now, Reason: reason.String()}
	if reason == KeyCompromise {
		r.Key = fingerprint(leaf.RawSubjectPublicKeyInfo)
	}
	return r
}

// inForce is leaf as the schedule sees it: one that was revoked, or may have been, is as good as none.
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
	return v == nil || r.Origin.Certificate == certificateID(leaf) && (v.Open || v.Reason != CessationOfOperation.String())
}

// revokedAs is how leaf, or its key, was revoked, or is to be; nil when neither.
func revokedAs(leaf *x509.Certificate, r store.Renewal) *store.Revocation {
	id, key := certificateID(leaf), fingerprint(leaf.RawSubjectPublicKeyInfo)
	var found *store.Revocation
	for n, v := range r.Revoked {
		if (v.Certificate == id || v.Key == key) && (found == nil || found.Open) {
			found = &r.Revoked[n]
		}
	}
	return found
}

// revocationText is the reason of v, and whether the CA has yet to answer.
func revocationText(v *store.Revocation) string {
	if v.Open {
		return v.Reason + ", not known whether by the CA yet"
	}
	return v.Reason
}

// fingerprint is the SHA-256 of a certificate, or of its key, in hexadecimal.
func fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}
