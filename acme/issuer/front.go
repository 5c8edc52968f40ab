package issuer

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"ntsagent/acme"
	"ntsagent/acme/challenge"
	"ntsagent/acme/front"
	"ntsagent/hostcheck"
)

// Front is who has port 80 or 443 where we have not, and how he should be set up.
type Front struct {
	Prober front.Prober
	Judge  front.Judge
}

// meets says whether the CA meets somebody else than us.
func (f *Front) meets(kind string) bool {
	switch {
	case f == nil:
		return false
	case kind == TLSALPN01:
		return f.Judge.TLS.IsValid()
	}
	return f.Judge.Agent.IsValid() || f.Judge.Webroot != ""
}

// askFront asks who stands before us for a proof as the CA will, before the CA counts a failure. It returns why an order
// would be in vain.
func (j *job) askFront(kind string) *acme.Error {
	f := j.issuer.cfg.Front
	if !f.meets(kind) {
		return nil
	}
	faults, e := f.look(j, kind)
	if e != nil {
		return e
	}
	for _, fault := range faults {
		if j.session.ctx.Err() != nil {
			return nil // it was not answered because we ended it; what follows fails at once
		}
		if !fault.Fatal {
			continue
		}
		fatal := &acme.Error{Class: acme.ClassFront, Err: errors.New(kind + " not tried: " + fault.What), Hint: fault.Hint(), InVain: []string{kind}}
		if slices.Contains(j.order.Insist, kind) {
			j.issuer.cfg.Log.Warn("the CA is asked all the same", "name", j.order.Name.String(), "cause", fatal.Error(), "hint", fatal.Hint)
			return nil
		}
		return fatal
	}
	return nil
}

// LookAround asks who stands before us, if anybody does, what a stranger is shown of name: faults that would keep the CA from
// finding a proof, and whatever else is to be mended. It must not run beside an order for the same name.
func (i *Issuer) LookAround(ctx context.Context, name hostcheck.Name) (all []acme.Fault) {
	for _, kind := range i.cfg.Challenges {
		if !i.cfg.Front.meets(kind) {
			continue
		}
		faults, e := i.cfg.Front.look(i.job(ctx, acme.Order{Name: name}), kind)
		if e != nil {
			all = append(all, acme.Fault{What: e.Error(), Hint: e.Hint})
		}
		for _, f := range faults { // either look sees what browsers are shown
			if !slices.ContainsFunc(all, func(o acme.Fault) bool { return o.What == f.What }) {
				all = append(all, acme.Fault{What: f.What, Hint: f.Hint()})
			}
		}
	}
	return all
}

func (f *Front) look(j *job, kind string) ([]front.Fault, *acme.Error) {
	if kind == TLSALPN01 {
		return f.tls(j)
	}
	return f.http(j)
}

// http looks at port 80 while a proof of nothing is shown.
func (f *Front) http(j *job) ([]front.Fault, *acme.Error) {
	token := rand.Text()
	expected := token + "." + rand.Text()
	remove, err := httpProvider{j.proofs}.show(j.order.Name, token, expected)
	if err != nil {
		return nil, &acme.Error{Class: acme.ClassInternal, Err: fmt.Errorf("http-01 not tried: %w", err),
			Hint: "acme.http01.webroot must be a folder that the agent's user alone writes to and the web server reads"}
	}
	defer remove()
	return f.Judge.Faults(f.Prober.Ask(j.session.ctx, j.order.Name, token, expected)), nil
}

// tls is http for port 443.
func (f *Front) tls(j *job) ([]front.Fault, *acme.Error) {
	proof, err := challenge.Certificate(j.order.Name, rand.Text(), time.Now())
	if err == nil {
		var remove func()
		if remove, err = j.issuer.cfg.Responder.PresentTLSALPN01(j.order.Name, proof); err == nil {
			defer remove()
			return f.Judge.FaultsTLS(f.Prober.AskTLS(j.session.ctx, j.order.Name, proof.Certificate[0])), nil
		}
	}
	return nil, &acme.Error{Class: acme.ClassInternal, Err: fmt.Errorf("tls-alpn-01 not tried: %w", err), Hint: "this is a fault of the agent: report it"}
}
