package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"ntsagent/acme"
	"ntsagent/agent/config"
	"ntsagent/agent/status"
)

// RevocationReasons are the reasons to revoke a certificate, as they are written.
const RevocationReasons = acme.Reasons

// ReasonCessation is the reason after which no other certificate is ordered.
var ReasonCessation = acme.CessationOfOperation.String()

// RevocationReason is a reason to revoke a certificate as RFC 5280 writes it; "" is unspecified.
func RevocationReason(s string) (string, error) {
	r, err := acme.ParseReason(s)
	return r.String(), err
}

// keeper is who keeps the certificate that a wish is about.
func (a *agent) keeper(w status.Wish) (*acme.Manager, error) {
	certs := a.parts.Load().certs
	if certs.source != config.SourceACME {
		return nil, status.Refuse(status.ErrPointless,
			"certificate.source is "+certs.source+": whoever writes the files renews the certificate, and the agent takes it up by itself")
	}
	n := slices.IndexFunc(certs.managers, func(m *acme.Manager) bool { return m.State().Name == w.Name })
	if n < 0 {
		return nil, status.Refuse(status.ErrPointless, fmt.Sprintf("%.260q is none of this agent's names", w.Name))
	}
	return certs.managers[n], nil
}

// renew has a certificate ordered.
func (a *agent) renew(ctx context.Context, w status.Wish) (status.Outcome, error) {
	m, err := a.keeper(w)
	if err != nil {
		return status.Outcome{}, err
	}
	err = m.Renew(ctx, w.Force)
	var refused *acme.Refused
	if errors.As(err, &refused) && refused.Early {
		return status.Outcome{Certificate: a.certificateOf(w.Name), NotDue: true, Hint: refused.Hint}, nil
	}
	if err != nil {
		return status.Outcome{}, told(w.Name, "certificate not obtained", err)
	}
	return status.Outcome{Certificate: a.certificateOf(w.Name)}, nil
}

// revoke has a certificate revoked, and another one ordered.
func (a *agent) revoke(ctx context.Context, w status.Wish) (status.Outcome, error) {
	const failed = "certificate not revoked"
	m, err := a.keeper(w)
	if err != nil {
		return status.Outcome{}, err
	}
	reason, err := acme.ParseReason(w.Reason)
	if err != nil {
		return status.Outcome{}, told(w.Name, failed, err)
	}
	replacement, err := m.Revoke(ctx, w.Serial, reason)
	if errors.Is(err, acme.ErrUnfinished) {
		return status.Outcome{}, told(w.Name, "certificate "+w.Serial, err)
	}
	if err != nil {
		return status.Outcome{}, told(w.Name, failed, err)
	}
	out := status.Outcome{Certificate: a.certificateOf(w.Name), Revoked: w.Serial}
	if reason == acme.CessationOfOperation {
		for _, e := range a.parts.Load().exports.report() {
			if e.Name == w.Name {
				out.Copies = append(out.Copies, e.Cert)
			}
		}
	}
	if replacement != nil {
		out.Missing = told(w.Name, "certificate not obtained", replacement).Error()
	}
	return out, nil
}

// request makes a request for a certificate that is to be made elsewhere.
func (a *agent) request(_ context.Context, w status.Wish) (status.Outcome, error) {
	m, err := a.keeper(w)
	if err != nil {
		return status.Outcome{}, err
	}
	csr, err := m.Request()
	if err != nil {
		return status.Outcome{}, told(w.Name, "no request made", err)
	}
	return status.Outcome{Certificate: a.certificateOf(w.Name), Request: string(csr)}, nil
}

// importChain serves a certificate that was made elsewhere.
func (a *agent) importChain(ctx context.Context, w status.Wish) (status.Outcome, error) {
	m, err := a.keeper(w)
	if err != nil {
		return status.Outcome{}, err
	}
	if err := m.Import(ctx, []byte(w.Chain)); err != nil {
		return status.Outcome{}, told(w.Name, "certificate not imported, the one in use stays", err)
	}
	return status.Outcome{Certificate: a.certificateOf(w.Name)}, nil
}

// certificateOf is the certificate of a name as the status has it.
func (a *agent) certificateOf(name string) status.Certificate {
	all := a.document(time.Now()).Certificates
	if n := slices.IndexFunc(all, func(c status.Certificate) bool { return c.Name == name }); n >= 0 {
		return all[n]
	}
	return status.Certificate{Name: name}
}

// told is an error of a Manager in the one line that an operator reads, and its class: trying again helps where time will
// mend it. what has failed stands before it.
func told(name, what string, err error) error {
	var refused *acme.Refused
	var failed *acme.Error
	switch {
	case errors.As(err, &refused):
		class := status.ErrFailed
		if !refused.Mend && !refused.Until.IsZero() || refused.Clock {
			class = status.ErrTemporary
		}
		return status.Refuse(class, withFix(refused.Error(), refused.Hint))
	case errors.As(err, &failed):
		class := status.ErrFailed
		switch failed.Class {
		case acme.ClassNetwork, acme.ClassRateLimited, acme.ClassLimit, acme.ClassClock:
			class = status.ErrTemporary
		}
		return status.Refuse(class, withFix(what+": "+nameless(name, failed.Error()), failed.Hint))
	case errors.Is(err, acme.ErrStopped), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return status.Refuse(status.ErrTemporary, what+": "+err.Error())
	case errors.Is(err, acme.ErrInUse):
		return status.Refuse(status.ErrPointless, err.Error())
	}
	return status.Refuse(status.ErrFailed, what+": "+nameless(name, err.Error()))
}

func withFix(text, fix string) string {
	if fix == "" {
		return text
	}
	return text + "; fix: " + fix
}
