// Package issuer obtains certificates from an ACME server (RFC 8555). It is the only package that knows lego.
//
// lego is used as a protocol client and nothing else: the listeners that answer challenges, the HTTP transport, the keys and
// what is kept on disk are ours. Why each of them is replaced is said beside the replacement.
package issuer

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"

	"ntsagent/acme"
	"ntsagent/acme/challenge"
	"ntsagent/acme/disk"
	"ntsagent/acme/store"
	"ntsagent/hostcheck"
)

// Challenge types, in the words of RFC 8555 section 8 and RFC 8737.
const (
	HTTP01    = "http-01"
	TLSALPN01 = "tls-alpn-01"
)

// deadlines bound what a server can make us wait for.
type deadlines struct {
	issue    time.Duration // one Issue, both challenge types included
	request  time.Duration // one request with its whole answer
	finalize time.Duration // the certificate, once the name is validated
}

var patience = deadlines{issue: 5 * time.Minute, request: 30 * time.Second, finalize: time.Minute}

// Config is what an Issuer is made of.
type Config struct {
	Directory    string   // directory URL, https only
	Email        string   // contact of the account, may be empty
	AgreeToTerms bool     // consent to the CA's terms of service; without it no account is made
	Fallback     bool     // this is the fallback CA: advice names its keys of the configuration
	EAB          EAB      // opens the account at a CA that has customers only
	CAFile       string   // PEM roots trusted beside the system's, for a private or test CA; may be empty
	Challenges   []string // HTTP01 and TLSALPN01, tried in this order
	Responder    *challenge.Responder
	Webroot      challenge.Webroot // shows proofs of HTTP01 instead of the Responder; "" = does not
	Front        *Front            // whom the CA meets at port 80 or 443; nil = the Responder itself
	Store        *store.Store
	Log          hclog.Logger
}

// Issuer talks to one ACME server with one account. It is safe for concurrent use and handles one order at a time.
type Issuer struct {
	cfg    Config
	within deadlines
	base   *http.Transport
	slot   chan struct{} // holds one token while an order is under way
}

var _ acme.Issuer = (*Issuer)(nil)

// New checks the configuration. It talks to nobody: the account is registered by the first Issue.
func New(cfg Config) (*Issuer, error) {
	u, err := url.Parse(cfg.Directory)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
		return nil, fmt.Errorf("acme.directory %q is not an https URL", cfg.Directory)
	}
	if len(cfg.Challenges) == 0 {
		return nil, fmt.Errorf("acme.challenges is empty: name %s, %s or both", HTTP01, TLSALPN01)
	}
	for n, c := range cfg.Challenges {
		if c != HTTP01 && c != TLSALPN01 {
			return nil, fmt.Errorf("acme.challenges has %q: use %s and %s", c, HTTP01, TLSALPN01)
		}
		if slices.Contains(cfg.Challenges[:n], c) {
			return nil, fmt.Errorf("acme.challenges names %s twice", c)
		}
	}
	roots, err := trustedRoots(cfg.CAFile)
	if err != nil {
		return nil, err
	}
	redirectLegoLog(cfg.Log)
	return &Issuer{cfg: cfg, within: patience, base: newTransport(roots), slot: make(chan struct{}, 1)}, nil
}

// Roots are those that the ACME server, and a certificate without an intermediate, may go back to; nil is the system's.
func (i *Issuer) Roots() *x509.CertPool { return i.base.TLSClientConfig.RootCAs }

// trustedRoots is the system's pool with the certificates of file added.
func trustedRoots(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil // nil is the system's pool
	}
	pem, err := disk.ReadFile(file, 1<<20)
	if err != nil {
		return nil, fmt.Errorf("acme.ca_file: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("acme.ca_file %s has no PEM certificate", file)
	}
	return pool, nil
}

// job is the work on o, which ends with ctx.
func (i *Issuer) job(ctx context.Context, o acme.Order) *job {
	return &job{issuer: i, order: o, session: i.session(ctx), proofs: &proofs{responder: i.cfg.Responder, webroot: i.cfg.Webroot, log: i.cfg.Log}}
}

// Issue obtains the certificate chain for o. Every error but that of ctx is an *acme.Error.
//
// lego knows no context and sleeps where it pleases, so it runs in a goroutine of its own that is left behind when ctx is done:
// its proofs are withdrawn at once, its requests fail from then on, and it keeps the slot until it has noticed (about
// a minute at most), so that no second order runs beside it.
func (i *Issuer) Issue(ctx context.Context, o acme.Order) ([]byte, error) {
	if err := checkOrder(o); err != nil {
		return nil, &acme.Error{Class: acme.ClassInternal, Err: err, Hint: "this is a fault of the agent: report it"}
	}
	within, cancel := context.WithTimeout(ctx, i.within.issue)
	defer cancel() // not before the outcome is read: it would look as if the time were over
	select {
	case i.slot <- struct{}{}:
	case <-within.Done():
		return nil, i.late(ctx, o.Name, errors.New("another order is under way"), 0)
	}
	job := i.job(within, o)
	job.session.finalizing = o.Finalizing
	type result struct {
		chain []byte
		err   *acme.Error
	}
	done := make(chan result, 1)
	go func() {
		defer func() { <-i.slot }()
		defer i.base.CloseIdleConnections() // the next order is weeks away
		chain, err := job.run()
		done <- result{chain, err}
	}()
	select {
	case r := <-done:
		if r.err == nil {
			return r.chain, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, i.advised(r.err)
	case <-within.Done():
		job.proofs.withdraw()
	}
	mayCount := job.proofs.count()
	if mayCount > 0 && job.session.signed() != notAsked { // the last was not among those that failed
		mayCount--
	}
	return nil, i.late(ctx, o.Name, job.session.lastFault(), mayCount)
}

// session makes what carries requests until ctx is done.
func (i *Issuer) session(ctx context.Context) *session {
	return &session{ctx: ctx, base: i.base, timeout: i.within.request}
}

// late is the error of an Issue whose time is over, the caller's or ours; last is what went wrong before.
func (i *Issuer) late(ctx context.Context, name hostcheck.Name, last error, validations int) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	text := fmt.Sprintf("no certificate from the ACME server within %s", i.within.issue)
	if last != nil {
		_, words := explain(last)
		text += ": " + redact(words)
	}
	return &acme.Error{Class: acme.ClassNetwork, Err: errors.New(text), Hint: hint(acme.ClassNetwork, "", name), Validations: validations}
}

// checkOrder makes sure that the request asks for exactly the ordered name: lego takes the names from the request.
func checkOrder(o acme.Order) error {
	switch {
	case o.Name.IsZero() || o.CSR == nil || len(o.CSR.Raw) == 0:
		return errors.New("order without name or certificate request")
	case o.CSR.Subject.CommonName != "" || len(o.CSR.IPAddresses)+len(o.CSR.EmailAddresses)+len(o.CSR.URIs) > 0,
		!slices.Equal(o.CSR.DNSNames, []string{o.Name.String()}):
		return fmt.Errorf("the certificate request is not for exactly %s", o.Name)
	}
	return nil
}
