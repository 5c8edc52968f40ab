package issuer

import (
	"crypto/rand"
	"errors"
	"fmt"

	"ntsagent/acme"
	"ntsagent/acme/front"
)

// Front is the web server that has port 80 where we have not, and how it should be set up.
type Front struct {
	Prober front.Prober
	Judge  front.Judge
}

// maxInVain is how often in a row the web server's answer to us keeps us from asking the CA. What we are answered need not be
// what the CA is, and a certificate must not lapse for it; by then the next attempts are a day apart.
const maxInVain = 3

// askFront asks the web server in front of us for a proof as the CA will, before the CA counts a failure. It returns why an
// order would be in vain, and tells of whatever else a stranger can see there.
func (j *job) askFront(kind string) *acme.Error {
	f, name, log := j.issuer.cfg.Front, j.order.Name, j.issuer.cfg.Log
	if f == nil || kind != HTTP01 {
		return nil
	}
	token := rand.Text()
	expected := token + "." + rand.Text()
	remove, err := httpProvider{j.proofs}.show(name, token, expected)
	if err != nil {
		return &acme.Error{Class: acme.ClassInternal, Err: fmt.Errorf("http-01 not tried: %w", err),
			Hint: "acme.http01.webroot must be a folder that the agent's user alone writes to and the web server reads"}
	}
	defer remove()
	var fatal *acme.Error
	for _, fault := range f.Judge.Faults(f.Prober.Ask(j.session.ctx, name, token, expected)) {
		if j.session.ctx.Err() != nil {
			return nil // it was not answered because we ended it; what follows fails at once
		}
		if fault.Fatal {
			fatal = &acme.Error{Class: acme.ClassInternal, Err: errors.New("http-01 not tried: " + fault.What), Hint: fault.Hint()}
			continue
		}
		log.Error("web server must be mended", "name", name.String(), "cause", fault.What, "hint", fault.Hint())
	}
	if fatal == nil {
		delete(j.issuer.inVain, name)
		return nil
	}
	if j.issuer.inVain[name]++; j.issuer.inVain[name] > maxInVain {
		log.Warn("the CA is asked all the same", "name", name.String(), "cause", fatal.Error(), "hint", fatal.Hint)
		return nil
	}
	return fatal
}
