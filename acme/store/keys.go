package store

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

// KeyType names the kind of key a certificate is ordered for, in the words of the configuration. The zero value is P-256.
type KeyType string

const (
	P256 KeyType = "ecdsa-p256"
	P384 KeyType = "ecdsa-p384"
)

// curve returns the curve of a key type.
func (t KeyType) curve() (elliptic.Curve, error) {
	switch t {
	case "", P256:
		return elliptic.P256(), nil
	case P384:
		return elliptic.P384(), nil
	}
	return nil, fmt.Errorf("unknown key type %q: use %s or %s", string(t), P256, P384)
}

// NewKey makes a fresh key. It is nowhere on disk yet.
func NewKey(t KeyType) (*ecdsa.PrivateKey, error) {
	curve, err := t.curve()
	if err != nil {
		return nil, err
	}
	return ecdsa.GenerateKey(curve, rand.Reader)
}

// EncodeKey writes a key as PKCS#8 PEM, the form every file of the store has.
func EncodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// decodeKey reads what EncodeKey wrote. Errors say nothing of the content.
func decodeKey(b []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New("not a PKCS#8 PEM private key")
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("not a PKCS#8 private key")
	}
	key, ok := k.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errors.New("not an ECDSA private key")
	}
	return key, nil
}
