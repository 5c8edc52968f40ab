package issuer

import (
	"errors"
	"fmt"
	"regexp"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"ntsagent/acme"
	"ntsagent/acme/challenge"
	"ntsagent/hostcheck"
)

// proofs are the challenge answers that one Issue has put up. They go when the challenge is over, and all at once when the Issue
// is abandoned.
type proofs struct {
	responder *challenge.Responder
	webroot   challenge.Webroot
	log       hclog.Logger

	mu        sync.Mutex
	withdrawn bool
	shown     int               // proofs so far
	removes   map[string]func() // by type and token
}

// tokenForm is what a token is made of (RFC 8555 section 8.3); the longest known has 43 characters.
var tokenForm = regexp.MustCompile(`^[A-Za-z0-9_-]{1,128}$`)

// present puts a proof of one type up with show, unless the Issue has been abandoned meanwhile.
func (p *proofs) present(kind string, name hostcheck.Name, token string, show func() (remove func(), err error)) error {
	if !tokenForm.MatchString(token) {
		return &acme.Error{Class: acme.ClassMalformed, Err: fmt.Errorf("%s: the token %.40q is not base64url", kind, token), Hint: hintNotACME}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.withdrawn {
		return errors.New("the order has been abandoned")
	}
	remove, err := show()
	if err != nil {
		return err
	}
	if p.removes == nil {
		p.removes = make(map[string]func())
	}
	if old := p.removes[kind+token]; old != nil {
		old()
	}
	p.removes[kind+token] = remove
	p.shown++
	p.log.Info("challenge presented", "name", name.String(), "challenge", kind)
	return nil
}

func (p *proofs) remove(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if remove := p.removes[id]; remove != nil {
		remove()
		delete(p.removes, id)
	}
}

// count is how many proofs were put up so far.
func (p *proofs) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.shown
}

// withdraw removes every proof and lets none be put up again.
func (p *proofs) withdraw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.withdrawn = true
	for _, remove := range p.removes {
		remove()
	}
	p.removes = nil
}

// The two providers below are lego's challenge.Provider on our long-lived listeners. lego's own servers open a listener for each
// challenge, have no deadlines, and answer names they were not asked for.

type httpProvider struct{ *proofs }

func (p httpProvider) Present(domain, token, keyAuth string) error {
	name, err := hostcheck.ParseName(domain)
	if err != nil {
		return err
	}
	return p.present(HTTP01, name, token, func() (func(), error) { return p.show(name, token, keyAuth) })
}

// show puts a proof where the CA, or the web server in front of us, finds it.
func (p httpProvider) show(name hostcheck.Name, token, keyAuth string) (func(), error) {
	if p.webroot == "" {
		return p.responder.PresentHTTP01(name, token, keyAuth)
	}
	remove, err := p.webroot.Present(token, keyAuth)
	if err != nil {
		return nil, err
	}
	return func() {
		if err := remove(); err != nil {
			p.log.Warn("proof not removed", "error", err) // the next start sweeps it
		}
	}, nil
}

func (p httpProvider) CleanUp(_, token, _ string) error {
	p.remove(HTTP01 + token)
	return nil
}

type tlsProvider struct{ *proofs }

func (p tlsProvider) Present(domain, token, keyAuth string) error {
	name, err := hostcheck.ParseName(domain)
	if err != nil {
		return err
	}
	cert, err := challenge.Certificate(name, keyAuth, time.Now())
	if err != nil {
		return err
	}
	return p.present(TLSALPN01, name, token, func() (func(), error) { return p.responder.PresentTLSALPN01(name, cert) })
}

func (p tlsProvider) CleanUp(_, token, _ string) error {
	p.remove(TLSALPN01 + token)
	return nil
}
