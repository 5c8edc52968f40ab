package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// benchName is whom all servers' one certificate is for. .test is reserved
// (RFC 6761).
const benchName = "bench.pool.test"

// identity is the certificate every server shows: P-256, signed by a throw-away
// P-256 authority.
type identity struct {
	cert, key string         // PEM files; the key is PKCS#8, which GnuTLS wants
	roots     *x509.CertPool // the authority
}

func newIdentity(dir string, now time.Time) (identity, error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return identity{}, fmt.Errorf("make the authority's key: %w", err)
	}
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return identity{}, fmt.Errorf("make the servers' key: %w", err)
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ntsbench throw-away CA"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(0, 0, 365),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return identity{}, fmt.Errorf("make the authority's certificate: %w", err)
	}
	if ca, err = x509.ParseCertificate(caDER); err != nil {
		return identity{}, fmt.Errorf("make the authority's certificate: %w", err)
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: benchName}, DNSNames: []string{benchName},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(0, 0, 90), BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, leafKey.Public(), caKey)
	if err != nil {
		return identity{}, fmt.Errorf("make the servers' certificate: %w", err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(leafKey)
	if err != nil {
		return identity{}, fmt.Errorf("encode the servers' key: %w", err)
	}
	id := identity{cert: filepath.Join(dir, "server.pem"), key: filepath.Join(dir, "server.key"), roots: x509.NewCertPool()}
	id.roots.AddCert(ca)
	for path, block := range map[string]pem.Block{
		id.cert: {Type: "CERTIFICATE", Bytes: leafDER},
		id.key:  {Type: "PRIVATE KEY", Bytes: pkcs8},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(&block), 0o600); err != nil {
			return identity{}, fmt.Errorf("write the servers' certificate: %w", err)
		}
	}
	return id, nil
}
