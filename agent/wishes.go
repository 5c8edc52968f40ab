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
		return status.Outcome{Certificate: a.certificateOf(w.Name), NotDue: true}, nil
	}
	if err != nil {
		return status.Outcome{}, told(w.Name, err)
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
// mend it.
func told(name string, err error) error {
	var refused *acme.Refused
	var failed *acme.Error
	switch {
	case errors.As(err, &refused):
		class := status.ErrFailed
		if !refused.Until.IsZero() || refused.Clock {
			class = status.ErrTemporary
		}
		return status.Refuse(class, withFix(refused.Error(), refused.Hint))
	case errors.As(err, &failed):
		class := status.ErrFailed
		switch failed.Class {
		case acme.ClassNetwork, acme.ClassRateLimited, acme.ClassLimit, acme.ClassClock:
			class = status.ErrTemporary
		}
		return status.Refuse(class, withFix("certificate not obtained: "+nameless(name, failed.Error()), failed.Hint))
	case errors.Is(err, acme.ErrStopped):
		return status.Refuse(status.ErrTemporary, err.Error())
	}
	return err
}

func withFix(text, fix string) string {
	if fix == "" {
		return text
	}
	return text + "; fix: " + fix
}
