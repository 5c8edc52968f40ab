package issuer

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	legoacme "github.com/go-acme/lego/v4/acme"

	"ntsagent/acme"
	"ntsagent/hostcheck"
)

// errNS begins every ACME error type (RFC 8555 section 6.7).
const errNS = "urn:ietf:params:acme:error:"

const (
	hintNotACME    = "look at acme.directory: what answers there is not a sound ACME server"
	hintServerDown = "the CA has a fault of its own: nothing to do but wait"
	hintLimit      = "nothing to do here: the agent goes on when the CA does; the domain's operator can ask the CA for a higher limit"
	hintWait       = "wait: the agent tries again when the CA allows it; do not remove its state_dir"
)

const notJSON = "the ACME server sent an answer that is not the JSON of ACME"

// notInTime is the text where lego gave up asking, and its error does not say what was wrong.
const notInTime = "the CA did not finish the order in time"

// classes maps the problem types of RFC 8555 section 6.7 that validation and orders end in.
var classes = map[string]acme.Class{
	"rateLimited":             acme.ClassRateLimited,
	"unauthorized":            acme.ClassUnauth,
	"incorrectResponse":       acme.ClassUnauth,
	"connection":              acme.ClassConnection,
	"dns":                     acme.ClassDNS,
	"caa":                     acme.ClassCAA,
	"tls":                     acme.ClassTLS,
	"accountDoesNotExist":     acme.ClassAccount,
	"externalAccountRequired": acme.ClassAccount,
	"userActionRequired":      acme.ClassAccount,
	"serverInternal":          acme.ClassNetwork,
	"badNonce":                acme.ClassNetwork,
}

// classify makes of any error of lego, of the transport or of the store the one the Manager understands. kind is the challenge
// type that was tried, "" before that.
func (j *job) classify(err error, kind string) *acme.Error {
	class, text := explain(err)
	if last := j.session.lastError(); class == acme.ClassInternal && last != nil {
		err = last
		class, text = explain(err)
	}
	if fault := j.session.lastFault(); fault != nil && text == notInTime && strings.Contains(err.Error(), "last error") {
		err = fault // lego has tried again and again
		class, text = explain(err)
	}
	var e *acme.Error
	if errors.As(err, &e) {
		return e
	}
	if kind != "" && fromValidation(err) {
		text = kind + ": " + text
	}
	advice := hint(class, kind, j.order.Name)
	if text == notJSON {
		advice = hintNotACME
	}
	var problem *legoacme.ProblemDetails
	if class == acme.ClassNetwork && errors.As(err, &problem) { // it was reached, then
		advice = hintServerDown
	}
	var unknown x509.UnknownAuthorityError
	if errors.As(err, &unknown) {
		advice = "the ACME server's own certificate is from an unknown CA: name its root in acme.ca_file"
	}
	e = &acme.Error{Class: class, RetryAfter: j.session.asked(), Hint: advice, Err: errors.New(redact(text))}
	if class == acme.ClassRateLimited {
		limited(e, text, j.order.Name, time.Now())
	}
	return e
}

// The words of Let's Encrypt's limits. That on a registered domain counts over all accounts:
//
//	too many certificates (50) already issued for "pool.example" in the last 168h0m0s, retry after 2026-11-25 10:00:00 UTC: see …
var (
	limitedDomain = regexp.MustCompile(`already issued for "([a-z0-9.-]{1,253})"`)
	limitedUntil  = regexp.MustCompile(`(?i)retry after (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC`)
)

// limited adds to the error of a rate limit what its words say: until when, and whether it is on a domain of many.
func limited(e *acme.Error, text string, name hostcheck.Name, now time.Time) {
	if m := limitedUntil.FindStringSubmatch(text); m != nil {
		if at, err := time.Parse(time.DateTime, m[1]); err == nil && at.After(now) && at.Sub(now) < 30*24*time.Hour {
			e.Until, e.RetryAfter = at, max(e.RetryAfter, min(at.Sub(now), 24*time.Hour))
		}
	}
	if m := limitedDomain.FindStringSubmatch(text); m != nil && (name.String() == m[1] || strings.HasSuffix(name.String(), "."+m[1])) {
		e.Class, e.Domain, e.Hint = acme.ClassLimit, m[1], hintLimit
	}
}

// explain finds the class and the plain words of an error.
func explain(err error) (acme.Class, string) {
	var (
		known   *acme.Error
		problem *legoacme.ProblemDetails
		syntax  *json.SyntaxError
		form    *json.UnmarshalTypeError
		fetch   *url.Error
		dates   x509.CertificateInvalidError
		network net.Error
	)
	switch {
	case errors.As(err, &known):
		return known.Class, known.Error()
	case errors.As(err, &problem):
		return problemClass(problem), problemText(problem)
	case errors.As(err, &dates) && dates.Reason == x509.Expired:
		return acme.ClassClock, dates.Error()
	case errors.As(err, &syntax), errors.As(err, &form):
		return acme.ClassMalformed, notJSON
	case errors.As(err, &fetch), errors.As(err, &network), errors.Is(err, context.DeadlineExceeded):
		return acme.ClassNetwork, err.Error()
	case strings.Contains(err.Error(), "could not determine solvers"):
		return acme.ClassMalformed, "not offered by the CA"
	case strings.Contains(err.Error(), "time limit exceeded"), strings.Contains(err.Error(), "didn't respond to our request"):
		return acme.ClassNetwork, notInTime
	}
	return acme.ClassInternal, err.Error()
}

func problemClass(p *legoacme.ProblemDetails) acme.Class {
	kind := strings.TrimPrefix(p.Type, errNS)
	if kind == "compound" && len(p.SubProblems) > 0 {
		kind = strings.TrimPrefix(p.SubProblems[0].Type, errNS)
	}
	// lego notes the request in problems that were its direct answer; those inside an authorization have none.
	direct := p.Method != ""
	if kind == "unauthorized" && direct {
		return acme.ClassAccount // nothing but the account is authorized by a request
	}
	if c, ok := classes[kind]; ok {
		return c
	}
	switch {
	case direct && p.HTTPStatus == http.StatusTooManyRequests:
		return acme.ClassRateLimited
	case direct && p.HTTPStatus >= 500:
		return acme.ClassNetwork
	}
	return acme.ClassMalformed
}

func problemText(p *legoacme.ProblemDetails) string {
	text := fmt.Sprintf("%d %s: %s", p.HTTPStatus, strings.TrimPrefix(p.Type, errNS), p.Detail)
	if p.HTTPStatus == 0 {
		text = strings.TrimPrefix(p.Type, errNS) + ": " + p.Detail
	}
	for _, s := range p.SubProblems {
		text += "; " + strings.TrimPrefix(s.Type, errNS) + ": " + s.Detail
	}
	return text
}

// fromValidation tells whether the CA came to look at the name, or would not look by this type of challenge.
func fromValidation(err error) bool {
	var p *legoacme.ProblemDetails
	if errors.As(err, &p) {
		return p.Method == ""
	}
	return strings.Contains(err.Error(), "could not determine solvers")
}

// validationFailed tells whether another type of challenge may do better: the CA looked and did not like what it saw. A name
// that cannot be looked up fails with every type.
func validationFailed(err error) bool {
	var p *legoacme.ProblemDetails
	if errors.As(err, &p) && problemClass(p) == acme.ClassDNS {
		return false
	}
	return fromValidation(err)
}

// hint is what an operator can do about a failure, in one line.
func hint(class acme.Class, kind string, name hostcheck.Name) string {
	port := "80"
	if kind == TLSALPN01 {
		port = "443"
	}
	switch class {
	case acme.ClassNetwork:
		return "look at this machine's way out, its DNS, and acme.directory"
	case acme.ClassRateLimited:
		return hintWait
	case acme.ClassConnection:
		return fmt.Sprintf("port %s of %s cannot be reached: open it in the firewall, and see that its A and AAAA records lead here", port, name)
	case acme.ClassUnauth:
		if kind == TLSALPN01 {
			return fmt.Sprintf("something else answers on port 443 of %s, or nothing does: let TLS with ALPN acme-tls/1 reach the agent", name)
		}
		return fmt.Sprintf("something else answers on port 80 of %s: let /.well-known/acme-challenge/ reach the agent, with the Host field as it came", name)
	case acme.ClassDNS:
		return fmt.Sprintf("the CA cannot look up %s: look at its A and AAAA records, or ask the pool's operator", name)
	case acme.ClassCAA:
		return fmt.Sprintf("a CAA record of %s or a parent does not allow this CA, account or challenge: ask who runs that zone", name)
	case acme.ClassTLS:
		return fmt.Sprintf("TLS on port %s of %s is not the agent's: see what listens there", port, name)
	case acme.ClassAccount:
		return "the CA does not accept the stored account: restore state_dir from a backup, or remove its folder below acme/accounts to register anew"
	case acme.ClassClock:
		return "look at this machine's clock: the ACME server's certificate seems not to be valid now"
	case acme.ClassMalformed:
		return "the CA refuses the order as it is: look at names, acme.profile and acme.key_type"
	}
	return "look at the agent's log and at state_dir"
}

// keyAuthorization is a challenge answer: token, dot, thumbprint. Some CAs quote it in their errors. It opens nothing once the
// challenge is over, but it is nobody's business before.
var keyAuthorization = regexp.MustCompile(`[A-Za-z0-9_-]{16,128}\.[A-Za-z0-9_-]{43}\b`)

func redact(s string) string { return keyAuthorization.ReplaceAllString(s, "[key authorization]") }
