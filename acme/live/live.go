// Package live holds the certificate that is being served for each of the server's names.
//
// A certificate gets in only whole and proven: Verify looks at everything that can be known without asking anyone, and
// Install lets it carry a TLS handshake before one atomic swap puts it in service. On any doubt the one that served
// before goes on serving. Each name stands for itself: one that ends, ends alone. The package does not care where a
// certificate comes from, and it never looks at whether clients trust the issuer.
package live

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"ntsagent/hostcheck"
)

// Certificate is the certificate being served now for one name, or none yet.
type Certificate struct {
	name hostcheck.Name
	now  atomic.Pointer[tls.Certificate]
}

// Set is one Certificate for each name. It is safe for concurrent use; handshakes never wait for an Install.
type Set struct {
	names hostcheck.Set
	certs map[hostcheck.Name]*Certificate                         // never changes after NewSet
	prove func(hostcheck.Name, *tls.Certificate, time.Time) error // selfHandshake; a test puts a refusal here
}

// NewSet makes a Set for names that serves nothing yet.
func NewSet(names []hostcheck.Name) *Set {
	s := &Set{names: hostcheck.NewSet(names), certs: make(map[hostcheck.Name]*Certificate, len(names)), prove: selfHandshake}
	for _, name := range s.names.Names() {
		s.certs[name] = &Certificate{name: name}
	}
	return s
}

// Adopt takes over what old serves for the names both have, so that a change of the other names, or of where certificates
// come from, interrupts none of them. old may be nil.
func (s *Set) Adopt(old *Set) {
	if old == nil {
		return
	}
	for name, c := range s.certs {
		if before, ok := old.certs[name]; ok {
			c.now.Store(before.now.Load())
		}
	}
}

// Install puts a certificate chain with its key in service for name: Verify, then a TLS 1.3 handshake with itself, then
// one atomic swap. It reports changed = false without error when that very certificate is already served. On any error
// what served before still serves.
func (s *Set) Install(name hostcheck.Name, chainPEM, keyPEM []byte, now time.Time) (changed bool, err error) {
	c, ours := s.certs[name]
	if !ours {
		return false, fmt.Errorf("certificate for %s: not one of the configured names", name)
	}
	cert, err := Verify(name, chainPEM, keyPEM, now)
	if err != nil {
		return false, err
	}
	if same(c.now.Load(), cert) {
		return false, nil
	}
	if err := s.carries(name, cert, now); err != nil {
		return false, err
	}
	c.now.Store(cert)
	return true, nil
}

// Check tells whether Install would put a pair in service, and puts nothing: what a store is to keep must be known to serve
// before it takes the place of what does.
func (s *Set) Check(name hostcheck.Name, chainPEM, keyPEM []byte, now time.Time) error {
	cert, err := Verify(name, chainPEM, keyPEM, now)
	if err != nil {
		return err
	}
	return s.carries(name, cert, now)
}

func (s *Set) carries(name hostcheck.Name, cert *tls.Certificate, now time.Time) error {
	if err := s.prove(name, cert, now); err != nil {
		return fmt.Errorf("certificate for %s: does not carry a TLS handshake: %w", name, err)
	}
	return nil
}

// Withdraw takes the certificate of name out of service. Nothing is served for the name until another Install.
func (s *Set) Withdraw(name hostcheck.Name) {
	if c, ours := s.certs[name]; ours {
		c.now.Store(nil)
	}
}

// same says whether b adds nothing to a: same chain, same key (the leaf names the key).
func same(a, b *tls.Certificate) bool {
	return a != nil && slices.EqualFunc(a.Certificate, b.Certificate, bytes.Equal)
}

// Get picks the certificate for a ClientHello; it is the GetCertificate of a tls.Config that has no Certificates. A
// client without SNI, which RFC 8915 allows to one that connects by address, gets that of the first name that has a
// valid one. For another name, an IP address, and a name whose certificate is missing or expired the answer is
// (nil, nil), which crypto/tls turns into the alert unrecognized_name (RFC 6066 §3).
func (s *Set) Get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	now := time.Now()
	if hello.ServerName == "" {
		return s.first(now), nil
	}
	name, ours := s.names.MatchSNI(hello.ServerName)
	if !ours {
		return nil, nil
	}
	return s.certs[name].valid(now), nil
}

// Leaf gives the end-entity certificate in service for name, expired or not, and nil when there is none.
func (s *Set) Leaf(name hostcheck.Name) *x509.Certificate {
	c, ours := s.certs[name]
	if !ours {
		return nil
	}
	if cert := c.now.Load(); cert != nil {
		return cert.Leaf
	}
	return nil
}

// Valid says whether at least one name has a certificate that has not expired at now. When none has, the key exchange
// listener is better closed: a refused connection costs a client seconds, a failed handshake up to days.
func (s *Set) Valid(now time.Time) bool { return s.first(now) != nil }

func (s *Set) first(now time.Time) *tls.Certificate {
	for _, name := range s.names.Names() {
		if cert := s.certs[name].valid(now); cert != nil {
			return cert
		}
	}
	return nil
}

func (c *Certificate) valid(now time.Time) *tls.Certificate {
	cert := c.now.Load()
	if cert == nil || !now.Before(cert.Leaf.NotAfter) {
		return nil
	}
	return cert
}
