package live

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"ntsagent/hostcheck"
)

// Bounds on what a CA, or whoever renews the files, may hand us.
const (
	maxChainBytes = 1 << 20
	maxKeyBytes   = 64 << 10
	maxCerts      = 10
	maxSentBytes  = 96 << 10 // what TLS sends of it; OpenSSL clients take 100 KiB by default, GnuTLS 128, Go 256
	minRSABits    = 2048
	maxRSABits    = 4096 // the largest public CAs sign; beyond, each handshake costs a flooder nothing and us much
	maxIssuerBits = 8192 // of an RSA key in the rest of the chain; Go clients refuse more
	clockSkew     = 5 * time.Minute
)

// Verify makes a certificate chain and its private key, both PEM, into what TLS serves, with Leaf set. It refuses
//
//   - input over 1 MiB, over 10 certificates or with over 96 KiB of them, and PEM with anything but the expected blocks and blank lines;
//   - a key that does not belong to the first certificate, and any but ECDSA P-256 or P-384 or RSA of 2048 to 4096 bits
//     (no public CA issues for Ed25519 or P-521, and not every NTS client can verify them);
//   - a first certificate that is a CA, may not sign for TLS servers, or does not cover name by a dNSName, exactly or by
//     a wildcard for one label (RFC 9525 §6.3; the Common Name counts for nothing);
//   - a chain with a certificate that is over, or not yet valid in five minutes;
//   - a chain in which some certificate is not signed by the next, or by an RSA key of more than 8192 bits.
//
// Whether the chain ends at a root that clients trust cannot be known here. Each error is one line for the operator.
func Verify(name hostcheck.Name, chainPEM, keyPEM []byte, now time.Time) (*tls.Certificate, error) {
	cert, err := verify(name, chainPEM, keyPEM, now)
	if err != nil {
		return nil, fmt.Errorf("certificate for %s: %w", name, err)
	}
	return cert, nil
}

func verify(name hostcheck.Name, chainPEM, keyPEM []byte, now time.Time) (*tls.Certificate, error) {
	chain, err := parseChain(chainPEM)
	if err != nil {
		return nil, err
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		return nil, err
	}
	leaf := chain[0]
	if err := checkKey(key, leaf); err != nil {
		return nil, err
	}
	if err := checkLeaf(leaf, name); err != nil {
		return nil, err
	}
	if err := checkDates(chain, now); err != nil {
		return nil, err
	}
	if err := checkOrder(chain); err != nil {
		return nil, err
	}
	cert := &tls.Certificate{PrivateKey: key, Leaf: leaf}
	for _, c := range chain {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	return cert, nil
}

// publicKey is what every public key of the standard library can do.
type publicKey interface{ Equal(crypto.PublicKey) bool }

// checkKey holds the key to the kinds we serve and to the certificate.
func checkKey(key crypto.Signer, leaf *x509.Certificate) error {
	switch k := key.(type) {
	case *ecdsa.PrivateKey:
		if k.Curve != elliptic.P256() && k.Curve != elliptic.P384() {
			return fmt.Errorf("key is ECDSA on %s; use P-256 or P-384", k.Curve.Params().Name)
		}
	case *rsa.PrivateKey:
		if bits := k.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return fmt.Errorf("key is RSA of %d bits; use %d to %d, or ECDSA P-256", bits, minRSABits, maxRSABits)
		}
	default:
		return fmt.Errorf("key type %T is not served; use ECDSA P-256", key)
	}
	if pub, ok := key.Public().(publicKey); !ok || !pub.Equal(leaf.PublicKey) {
		return errors.New("private key does not belong to the first certificate of the chain (a renewal half written, or the wrong key file)")
	}
	return nil
}

// checkLeaf holds the first certificate to what a TLS server's own certificate must be.
func checkLeaf(leaf *x509.Certificate, name hostcheck.Name) error {
	switch {
	case leaf.IsCA:
		return errors.New("first certificate is a CA; the server's own certificate must come first")
	case len(leaf.UnhandledCriticalExtensions) > 0:
		return fmt.Errorf("first certificate has the critical extension %s, which clients refuse", leaf.UnhandledCriticalExtensions[0])
	case leaf.KeyUsage != 0 && leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return errors.New("key usage of the certificate does not allow signatures, which TLS 1.3 needs")
	case !forServers(leaf):
		return errors.New("extended key usage of the certificate does not allow TLS servers")
	}
	if leaf.VerifyHostname(name.String()) != nil {
		return fmt.Errorf("first certificate is valid for %s only; have one made for %s", describeNames(leaf.DNSNames), name)
	}
	return nil
}

func forServers(leaf *x509.Certificate) bool {
	if len(leaf.ExtKeyUsage) == 0 && len(leaf.UnknownExtKeyUsage) == 0 {
		return true
	}
	return slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth) || slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny)
}

// describeNames lists the first few names a certificate is for; they come from outside and are quoted.
func describeNames(names []string) string {
	const shown = 3
	if len(names) == 0 {
		return "no dNSName"
	}
	var b strings.Builder
	for i, n := range names[:min(len(names), shown)] {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%+.80q", n)
	}
	if more := len(names) - shown; more > 0 {
		fmt.Fprintf(&b, " and %d more", more)
	}
	return b.String()
}

// checkDates refuses a chain of which a part is over or has not begun. Our clock may be a little behind the CA's.
func checkDates(chain []*x509.Certificate, now time.Time) error {
	for i, c := range chain {
		if !now.Before(c.NotAfter) {
			return fmt.Errorf("%s expired at %s", ordinal(i, len(chain)), c.NotAfter.UTC().Format(time.RFC3339))
		}
		if c.NotBefore.After(now.Add(clockSkew)) {
			return fmt.Errorf("%s is not valid before %s (is this host's clock right?)", ordinal(i, len(chain)), c.NotBefore.UTC().Format(time.RFC3339))
		}
	}
	return nil
}

// checkOrder wants each certificate signed by the one that follows (RFC 8446 §4.4.2 allows more; some clients do not).
func checkOrder(chain []*x509.Certificate) error {
	for i, c := range chain[:len(chain)-1] {
		next := chain[i+1]
		if c.Equal(next) {
			return fmt.Errorf("%s is there twice", ordinal(i, len(chain)))
		}
		if !bytes.Equal(c.RawIssuer, next.RawSubject) {
			return fmt.Errorf("%s is not issued by the one after it (wrong order, or one is missing)", ordinal(i, len(chain)))
		}
		if k, ok := next.PublicKey.(*rsa.PublicKey); ok && k.N.BitLen() > maxIssuerBits {
			return fmt.Errorf("%s has an RSA key of %d bits; clients refuse more than %d", ordinal(i+1, len(chain)), k.N.BitLen(), maxIssuerBits)
		}
		if err := c.CheckSignatureFrom(next); err != nil {
			return fmt.Errorf("%s is not signed by the one after it: %w", ordinal(i, len(chain)), err)
		}
	}
	return nil
}

func ordinal(i, n int) string { return fmt.Sprintf("certificate %d of %d", i+1, n) }
