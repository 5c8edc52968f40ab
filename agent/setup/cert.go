package setup

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"
)

// pair is a key and its certificate, which only has to exist.
type pair struct {
	key, cert string // paths
	name      string // who wants it
}

func (p pair) says(path string) string {
	if path == p.key {
		return "the key of that certificate, not shown"
	}
	return "a certificate that " + p.name + " wants to have and nobody has to trust"
}

// pair adds the two files, if neither is there. gid is the group that may read the key.
func (p *Plan) pair(t tree, keys pair, gid int) error {
	haveKey, haveCert := t.has(keys.key), t.has(keys.cert)
	switch {
	case haveKey && haveCert:
		return nil
	case haveKey || haveCert:
		there, lacks := keys.key, keys.cert
		if haveCert {
			there, lacks = lacks, there
		}
		return &Failure{What: "make a certificate for " + keys.name, Kind: ErrInTheWay, Err: fmt.Errorf("%s is there without %s", there, lacks),
			Fix: "remove it or put its other half beside it"}
	}
	p.Changes = append(p.Changes,
		Change{Path: keys.key, Perm: 0o640, GID: gid, pair: &keys},
		Change{Path: keys.cert, Perm: 0o644, GID: -1, pair: &keys})
	return nil
}

// make returns the PEM files of a new pair.
func (p pair) make(now time.Time) (keyPEM, certPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "placeholder made by ntsagent"},
		DNSNames:     []string{"placeholder.invalid"},
		NotBefore:    now.Add(-24 * time.Hour),
		NotAfter:     now.AddDate(50, 0, 0),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), nil
}
