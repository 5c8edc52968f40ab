package issuer

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	"github.com/go-acme/lego/v4/acme/api"
	"github.com/go-acme/lego/v4/certificate"
	"github.com/go-acme/lego/v4/challenge/resolver"

	"ntsagent/acme"
	"ntsagent/acme/store"
)

const (
	maxChain = 10 // certificates in an answer

	userAgent = "ntsagent"
)

// job is one Issue.
type job struct {
	issuer  *Issuer
	order   acme.Order
	session *session
	proofs  *proofs
}

// run obtains the chain. It runs in Issue's goroutine and holds the slot.
func (j *job) run() (chain []byte, failure *acme.Error) {
	defer j.survive(&failure)
	account, err := j.issuer.storedAccount()
	if err != nil {
		return nil, j.classify(err, "")
	}
	core, err := j.core(account)
	if err != nil {
		return nil, j.classify(err, "")
	}
	if _, err := j.issuer.ensureRegistered(core, account); err != nil {
		return nil, j.classify(err, "")
	}
	return j.tryChallenges(core)
}

// survive is to be deferred: lego indexes what the server sends without looking (an order with more authorizations than names is
// enough), and a server's mistake must not end the agent.
func (j *job) survive(failure **acme.Error) {
	if r := recover(); r != nil {
		err := fmt.Errorf("the ACME client could not cope with an answer: %v", r)
		*failure = &acme.Error{Class: acme.ClassMalformed, Err: err, Hint: hintNotACME}
	}
}

// core is lego's client of the protocol for an account.
func (j *job) core(account store.Account) (*api.Core, error) {
	core, err := api.New(j.session.client(), userAgent, j.issuer.cfg.Directory, account.URI, account.Key)
	if err != nil {
		return nil, err
	}
	// lego has put a check for https around our transport whose errors have no type; ours does the same.
	core.HTTPClient.Transport = j.session
	return core, nil
}

// tryChallenges makes one order for each challenge type in turn until one succeeds. A challenge cannot be repeated within an
// authorization, so a failure costs a new order (RFC 8555 section 8.2), and one of the few that a CA lets fail in an hour.
func (j *job) tryChallenges(core *api.Core) ([]byte, *acme.Error) {
	profile := j.profile(core)
	var first *acme.Error
	failed := 0
	for _, kind := range j.issuer.cfg.Challenges {
		if first != nil && j.order.MayFail > 0 && failed >= j.order.MayFail {
			break
		}
		if e := j.askFront(kind); e != nil {
			first = combine(first, e)
			continue
		}
		shown := j.proofs.count()
		j.session.forget()
		chain, err := j.obtain(core, kind, profile)
		if err == nil {
			return chain, nil
		}
		err = j.session.why(err)
		// That the CA has said nothing does not mean that it has not counted.
		if j.proofs.count() > shown && j.session.signed() == notAsked {
			failed++
			if j.order.Failed != nil {
				j.order.Failed()
			}
		}
		e := j.classify(err, kind)
		first = combine(first, e)
		if !validationFailed(err) || j.session.ctx.Err() != nil || j.session.signed() != notAsked { // asked to sign once, never twice
			break
		}
		j.issuer.cfg.Log.Debug("challenge failed", "name", j.order.Name.String(), "challenge", kind, "cause", e.Error())
	}
	if first != nil {
		first.Validations, first.Declined = failed, j.session.signed() == declined
	}
	return nil, first
}

// combine keeps the class and hint of the first failure, which is that of the preferred challenge, and the words of both. A
// limit is a limit whichever it came with.
func combine(first, e *acme.Error) *acme.Error {
	if first == nil {
		return e
	}
	both := &acme.Error{Class: first.Class, Hint: first.Hint, RetryAfter: max(first.RetryAfter, e.RetryAfter), Err: fmt.Errorf("%w; %w", first, e),
		InVain: slices.Concat(first.InVain, e.InVain)}
	if first.Class == acme.ClassInternal || first.Class == acme.ClassFront { // nobody but us has judged that one
		both.Class = e.Class
	}
	if e.Class == acme.ClassRateLimited || e.Class == acme.ClassLimit {
		both.Class, both.Hint, both.Domain, both.Until = e.Class, e.Hint, e.Domain, e.Until
	}
	return both
}

// obtain makes one order and answers it by one type of challenge. The solver manager is new each time: given two types, lego
// would choose by itself.
func (j *job) obtain(core *api.Core, kind, profile string) ([]byte, error) {
	solvers := resolver.NewSolversManager(core)
	var err error
	switch kind {
	case HTTP01:
		err = solvers.SetHTTP01Provider(httpProvider{j.proofs})
	case TLSALPN01:
		err = solvers.SetTLSALPN01Provider(tlsProvider{j.proofs})
	}
	if err != nil {
		return nil, err
	}
	certifier := certificate.NewCertifier(core, resolver.NewProber(solvers), certificate.CertifierOptions{Timeout: j.issuer.within.finalize})
	request := certificate.ObtainForCSRRequest{
		CSR:            j.order.CSR,
		Bundle:         true,
		Profile:        profile,
		ReplacesCertID: renewalID(j.order.Replaces),
		// A CA remembers a validation for up to 30 days. The operator of a pool takes a member out by removing its name from
		// the DNS, and that must stop the next order.
		AlwaysDeactivateAuthorizations: true,
	}
	resource, err := certifier.ObtainForCSR(request)
	for err != nil {
		without := simpler(&request, core, err)
		if without == "" {
			break
		}
		j.issuer.cfg.Log.Info("order repeated", "name", j.order.Name.String(), "without", without, "cause", j.classify(err, "").Error())
		resource, err = certifier.ObtainForCSR(request)
	}
	if err != nil {
		return nil, err
	}
	if err := checkChain(resource.Certificate); err != nil {
		return nil, &acme.Error{Class: acme.ClassMalformed, Err: err, Hint: hintNotACME}
	}
	if err := j.fit(resource.Certificate); err != nil {
		return nil, &acme.Error{Class: acme.ClassRejected, Err: fmt.Errorf("certificate from the CA rejected: %w", err), Hint: hintUnfit}
	}
	return resource.Certificate, nil
}

// profile is the ordered profile if the CA offers it. A CA refuses an order with a profile it does not know.
func (j *job) profile(core *api.Core) string {
	want := j.order.Profile
	if want == "" {
		return ""
	}
	offered := core.GetDirectory().Meta.Profiles
	if _, ok := offered[want]; ok {
		return want
	}
	j.issuer.cfg.Log.Info("certificate profile not offered, the CA's default is used", "name", j.order.Name.String(), "profile", want)
	return ""
}

// checkChain bounds what the CA sent before anything looks into it: PEM certificates, nothing else, and not too many.
func checkChain(chain []byte) error {
	n := 0
	for rest := chain; ; n++ {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil {
			if len(bytes.TrimSpace(rest)) > 0 {
				return errors.New("the certificate chain is not PEM")
			}
			break
		}
		if block.Type != "CERTIFICATE" {
			return errors.New("the certificate chain holds something else than certificates")
		}
	}
	if n == 0 || n > maxChain {
		return fmt.Errorf("the certificate chain holds %d certificates, not 1 to %d", n, maxChain)
	}
	return nil
}
