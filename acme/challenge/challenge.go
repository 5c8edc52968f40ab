// Package challenge proves to an ACME server that we control our names, and says nothing about any other.
//
// One Responder serves both listeners the CA may come to, for the whole life of the process: port 80 for HTTP-01
// (RFC 8555 §8.3) and port 443 for TLS-ALPN-01 (RFC 8737). It answers exactly while and where a proof is pending. To
// everybody else, browsers led to a pool member's name first of all, there is nothing here: no page, no cookie, no
// redirect, no production certificate.
package challenge

import (
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/time/rate"

	"ntsagent/hostcheck"
)

// Responder holds the pending proofs and shows them on two faces: as an http.Handler and as a tls.Config.
type Responder struct {
	names   hostcheck.Set
	log     hclog.Logger
	pending atomic.Pointer[proofs] // never nil; replaced whole
	present sync.Mutex             // one writer of pending at a time

	answered, refused atomic.Uint64
	talk              rate.Sometimes // a scanner must not write our log, not even at debug level
}

// proofs is one immutable state of what is pending.
type proofs struct {
	tokens map[string]*tokenProof // HTTP-01, by token
	certs  map[hostcheck.Name]*tls.Certificate
}

type tokenProof struct {
	name    hostcheck.Name
	keyAuth string
}

// New makes a Responder for names, with nothing pending. The ports of names are those that a Host header may mention.
func New(names hostcheck.Set, log hclog.Logger) *Responder {
	r := &Responder{names: names, log: log, talk: rate.Sometimes{Interval: time.Second}}
	r.pending.Store(&proofs{})
	return r
}

// PresentHTTP01 answers for name at token with keyAuth until remove is called. Presenting the same proof again, as
// happens when a CA hands out a pending authorization twice, leaves it in place until the newer remove. The token must
// be 1 to 128 characters of base64url: it is the CA's word and goes into a path. keyAuth must be that token, a dot and
// a thumbprint.
func (r *Responder) PresentHTTP01(name hostcheck.Name, token, keyAuth string) (remove func(), err error) {
	switch {
	case !r.names.Contains(name):
		return nil, fmt.Errorf("present http-01 for %q: not one of our names", name)
	case !isToken(token):
		return nil, fmt.Errorf("present http-01 for %s: the token is not 1 to 128 characters of base64url", name)
	case !isKeyAuth(keyAuth, token):
		return nil, fmt.Errorf("present http-01 for %s: the key authorization is not the token and a thumbprint", name)
	}
	r.present.Lock()
	defer r.present.Unlock()
	if old := r.pending.Load().tokens[token]; old != nil && old.name != name {
		return nil, fmt.Errorf("present http-01 for %s: the token is pending for %s", name, old.name)
	}
	proof := &tokenProof{name: name, keyAuth: keyAuth}
	r.change(func(p *proofs) { p.tokens[token] = proof })
	return func() {
		r.present.Lock()
		defer r.present.Unlock()
		if r.pending.Load().tokens[token] == proof {
			r.change(func(p *proofs) { delete(p.tokens, token) })
		}
	}, nil
}

// PresentTLSALPN01 shows cert to whoever asks for name with ALPN acme-tls/1, until remove is called or another is
// presented for name. cert must be a challenge certificate for name alone, as Certificate makes them: by accident or by
// design, no certificate that a client could trust gets out here.
func (r *Responder) PresentTLSALPN01(name hostcheck.Name, cert *tls.Certificate) (remove func(), err error) {
	if !r.names.Contains(name) {
		return nil, fmt.Errorf("present tls-alpn-01 for %q: not one of our names", name)
	}
	if err := checkCertificate(name, cert); err != nil {
		return nil, fmt.Errorf("present tls-alpn-01 for %s: %w", name, err)
	}
	own := *cert // its address tells this presentation from others of the same certificate
	r.present.Lock()
	defer r.present.Unlock()
	r.change(func(p *proofs) { p.certs[name] = &own })
	return func() {
		r.present.Lock()
		defer r.present.Unlock()
		if r.pending.Load().certs[name] == &own {
			r.change(func(p *proofs) { delete(p.certs, name) })
		}
	}, nil
}

// change replaces what is pending by an edited copy. The caller holds r.present.
func (r *Responder) change(edit func(*proofs)) {
	old := r.pending.Load()
	next := &proofs{tokens: maps.Clone(old.tokens), certs: maps.Clone(old.certs)}
	if next.tokens == nil {
		next.tokens = make(map[string]*tokenProof)
	}
	if next.certs == nil {
		next.certs = make(map[hostcheck.Name]*tls.Certificate)
	}
	edit(next)
	r.pending.Store(next)
}

// Counts tells how many proofs were shown and how many requests and handshakes were refused, since the start.
type Counts struct{ Answered, Refused uint64 }

// Counts gives the counters as they are now.
func (r *Responder) Counts() Counts {
	return Counts{Answered: r.answered.Load(), Refused: r.refused.Load()}
}

// refuse counts a refusal and, at most once a second, says so at debug level.
func (r *Responder) refuse(msg string, args ...any) {
	r.refused.Add(1)
	r.talk.Do(func() { r.log.Debug(msg, args...) })
}

var errNotChallenge = errors.New("not a challenge certificate for exactly that name")

// isToken says whether s is base64url (RFC 8555 §8.3) of 1 to 128 characters.
func isToken(s string) bool {
	other := func(c rune) bool {
		return !('A' <= c && c <= 'Z' || 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '_' || c == '-')
	}
	return 1 <= len(s) && len(s) <= 128 && !strings.ContainsFunc(s, other)
}

// isKeyAuth says whether s is token, a dot and a thumbprint (RFC 8555 §8.1).
func isKeyAuth(s, token string) bool {
	thumbprint, ok := strings.CutPrefix(s, token+".")
	return ok && isToken(thumbprint)
}
