package issuer

import (
	"crypto/rand"
	"errors"
	"fmt"
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

// tried is a way to prove a name.
type tried struct {
	name hostcheck.Name
	kind string
}

// maxInVain is how often in a row the web server's answer to us keeps us from asking the CA. What we are answered need not be
// what the CA is, and a certificate must not lapse for it; by then the next attempts are a day apart.
const maxInVain = 3

// askFront asks who stands before us for a proof as the CA will, before the CA counts a failure. It returns why an order
// would be in vain, and tells of whatever else a stranger can see there.
func (j *job) askFront(kind string) *acme.Error {
	f, name, log := j.issuer.cfg.Front, j.order.Name, j.issuer.cfg.Log
	if !f.meets(kind) {
		return nil
	}
	look := f.http
	if kind == TLSALPN01 {
		look = f.tls
	}
	faults, e := look(j)
	if e != nil {
		return e
	}
	var fatal *acme.Error
	for _, fault := range faults {
		if j.session.ctx.Err() != nil {
			return nil // it was not answered because we ended it; what follows fails at once
		}
		if fault.Fatal {
			fatal = &acme.Error{Class: acme.ClassInternal, Err: errors.New(kind + " not tried: " + fault.What), Hint: fault.Hint()}
			continue
		}
		log.Error("web server must be mended", "name", name.String(), "cause", fault.What, "hint", fault.Hint())
	}
	way := tried{name, kind}
	if fatal == nil {
		delete(j.issuer.inVain, way)
		return nil
	}
	if j.issuer.inVain[way]++; j.issuer.inVain[way] > maxInVain {
		log.Warn("the CA is asked all the same", "name", name.String(), "cause", fatal.Error(), "hint", fatal.Hint)
		return nil
	}
	return fatal
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
