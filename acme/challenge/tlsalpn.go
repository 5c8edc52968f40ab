package challenge

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"slices"
	"time"

	"ntsagent/hostcheck"
)

// ALPN is the one protocol spoken on a TLS-ALPN-01 listener (RFC 8737 §6.2).
const ALPN = "acme-tls/1"

// acmeIdentifier is id-pe-acmeIdentifier (RFC 8737 §3).
var acmeIdentifier = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 31}

// certificateLife is how long a challenge certificate is valid to either side of now; a CA looks within seconds and
// does not look at the dates (RFC 8737 §3), so this only spares clocks that disagree.
const certificateLife = 24 * time.Hour

// TLSConfig gives the server side of TLS-ALPN-01. A handshake succeeds only when the client offers acme-tls/1 and
// nothing else, asks by SNI for a name of ours, and a proof for that name is pending. Every other handshake ends with an
// alert before any certificate: no_application_protocol when acme-tls/1 was not among the protocols offered,
// unrecognized_name otherwise. Neither tickets nor versions before TLS 1.2.
func (r *Responder) TLSConfig() *tls.Config {
	refusal := baseConfig() // no certificate: crypto/tls sends unrecognized_name
	config := baseConfig()
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		cert := r.match(hello)
		if cert == nil {
			r.refuse("tls-alpn-01 handshake refused", "sni", quote(hello.ServerName), "protocols", len(hello.SupportedProtos))
			return refusal, nil
		}
		// A client that offers no ALPN would complete the handshake with any config that has a certificate, so
		// only a client known to offer acme-tls/1 gets one.
		answer := baseConfig()
		answer.Certificates = []tls.Certificate{*cert}
		return answer, nil
	}
	return config
}

func baseConfig() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{ALPN}, SessionTicketsDisabled: true}
}

// match gives the pending certificate a ClientHello asks for, or nil.
func (r *Responder) match(hello *tls.ClientHelloInfo) *tls.Certificate {
	if !slices.Equal(hello.SupportedProtos, []string{ALPN}) {
		return nil
	}
	name, ours := r.names.MatchSNI(hello.ServerName)
	if !ours {
		return nil
	}
	return r.pending.Load().certs[name]
}

// ServeConn closes a connection whose handshake is done: the CA has seen the certificate, and nothing is said after it
// (RFC 8737 §3). It serves as the service that a TLS listener has for ALPN acme-tls/1.
func (r *Responder) ServeConn(_ context.Context, c *tls.Conn) {
	r.answered.Add(1)
	r.log.Debug("tls-alpn-01 answered", "name", c.ConnectionState().ServerName, "peer", c.RemoteAddr())
	c.Close()
}

// Certificate makes the self-signed certificate that proves keyAuth for name (RFC 8737 §3): exactly one dNSName and the
// critical extension acmeIdentifier with the SHA-256 of keyAuth, on a fresh ECDSA P-256 key.
func Certificate(name hostcheck.Name, keyAuth string, now time.Time) (*tls.Certificate, error) {
	cert, err := makeCertificate(name, keyAuth, now)
	if err != nil {
		return nil, fmt.Errorf("make challenge certificate for %s: %w", name, err)
	}
	return cert, nil
}

func makeCertificate(name hostcheck.Name, keyAuth string, now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256([]byte(keyAuth))
	value, err := asn1.Marshal(digest[:])
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:         pkix.Name{CommonName: "ACME challenge"},
		NotBefore:       now.Add(-certificateLife),
		NotAfter:        now.Add(certificateLife),
		DNSNames:        []string{name.String()},
		KeyUsage:        x509.KeyUsageDigitalSignature,
		ExtKeyUsage:     []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		ExtraExtensions: []pkix.Extension{{Id: acmeIdentifier, Critical: true, Value: value}},

		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

// checkCertificate holds a certificate to what may be shown on the TLS-ALPN-01 port for name.
func checkCertificate(name hostcheck.Name, cert *tls.Certificate) error {
	if cert == nil || len(cert.Certificate) != 1 || cert.PrivateKey == nil {
		return errNotChallenge
	}
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		return err
	}
	marked := slices.ContainsFunc(leaf.Extensions, func(e pkix.Extension) bool { return e.Critical && e.Id.Equal(acmeIdentifier) })
	alone := len(leaf.DNSNames) == 1 && len(leaf.IPAddresses)+len(leaf.EmailAddresses)+len(leaf.URIs) == 0
	if !marked || !alone || leaf.DNSNames[0] != name.String() || !bytes.Equal(leaf.RawIssuer, leaf.RawSubject) {
		return errNotChallenge
	}
	return nil
}
