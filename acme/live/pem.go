package live

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"ntsagent/acme/disk"
)

// ReadPair reads a certificate chain and its key that somebody else renews. Symbolic links are followed; what is no
// regular file, or larger than a pair can be, is refused. The two may be from different renewals: Install finds out.
func ReadPair(certPath, keyPath string) (chainPEM, keyPEM []byte, err error) {
	chainPEM, err = disk.ReadFile(certPath, maxChainBytes)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate: %w", err)
	}
	keyPEM, err = disk.ReadFile(keyPath, maxKeyBytes)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate key: %w", err)
	}
	return chainPEM, keyPEM, nil
}

// parseChain reads one to ten certificates and nothing else.
func parseChain(chainPEM []byte) ([]*x509.Certificate, error) {
	if len(chainPEM) > maxChainBytes {
		return nil, fmt.Errorf("chain is larger than %d bytes", maxChainBytes)
	}
	blocks, err := parseBlocks(chainPEM)
	if err != nil {
		return nil, fmt.Errorf("chain: %w", err)
	}
	if len(blocks) > maxCerts {
		return nil, fmt.Errorf("chain has %d certificates, at most %d are served", len(blocks), maxCerts)
	}
	sent := 0
	for _, b := range blocks {
		sent += len(b.Bytes)
	}
	if sent > maxSentBytes { // and nobody parses it
		return nil, fmt.Errorf("certificates take %d bytes; clients refuse more than about %d", sent, maxSentBytes)
	}
	chain := make([]*x509.Certificate, len(blocks))
	for i, b := range blocks {
		if b.Type != "CERTIFICATE" || len(b.Headers) > 0 {
			return nil, fmt.Errorf("chain: block %d is a %.40q, not a plain CERTIFICATE", i+1, b.Type)
		}
		if chain[i], err = x509.ParseCertificate(b.Bytes); err != nil {
			return nil, fmt.Errorf("chain: %s: %w", ordinal(i, len(blocks)), err)
		}
	}
	return chain, nil
}

// parseKey reads one unencrypted private key. No error of it carries anything of the key.
func parseKey(keyPEM []byte) (crypto.Signer, error) {
	if len(keyPEM) > maxKeyBytes {
		return nil, fmt.Errorf("key is larger than %d bytes", maxKeyBytes)
	}
	blocks, err := parseBlocks(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	if blocks[0].Type == "EC PARAMETERS" { // openssl ecparam -genkey puts it before the key, which names its curve too
		blocks = blocks[1:]
	}
	if len(blocks) != 1 {
		return nil, fmt.Errorf("key file has %d blocks; exactly one private key is needed", len(blocks))
	}
	block := blocks[0]
	if block.Type == "ENCRYPTED PRIVATE KEY" || len(block.Headers) > 0 {
		return nil, errors.New("key is encrypted; a server that starts unattended needs it without a passphrase")
	}
	key, err := parseKeyBytes(block)
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("key type %T cannot sign; use ECDSA P-256", key)
	}
	return signer, nil
}

func parseKeyBytes(block *pem.Block) (key any, err error) {
	switch block.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	default:
		return nil, fmt.Errorf("key: block is a %.40q, not a private key", block.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("key: the %s does not parse", block.Type)
	}
	return key, nil
}

// parseBlocks reads at least one PEM block, and blank space between blocks, and nothing else. encoding/pem alone would
// step over whatever it does not know, a damaged certificate in the middle of a chain included.
func parseBlocks(data []byte) ([]*pem.Block, error) {
	var blocks []*pem.Block
	for {
		data = bytes.TrimLeft(data, " \t\r\n")
		if len(data) == 0 {
			break
		}
		n := len(blocks) + 1
		if !bytes.HasPrefix(data, []byte("-----BEGIN ")) {
			return nil, fmt.Errorf("before block %d: %s", n, describeJunk(data))
		}
		block, rest := pem.Decode(data)
		if block == nil || bytes.Count(data[:len(data)-len(rest)], []byte("-----BEGIN ")) != 1 {
			return nil, fmt.Errorf("block %d is damaged or cut short", n)
		}
		blocks = append(blocks, block)
		data = rest
	}
	if len(blocks) == 0 {
		return nil, errors.New("is empty")
	}
	return blocks, nil
}

// describeJunk says what stands where a PEM block should begin, without showing it: it might be part of a key.
func describeJunk(data []byte) string {
	switch {
	case data[0] == 0x30:
		return "is not PEM text (DER? convert it with openssl, -outform PEM)"
	case bytes.HasPrefix(data, []byte("\xef\xbb\xbf")):
		return "there is a byte order mark; save the file without it"
	case strings.Contains(string(data), "-----BEGIN "):
		return "there is text that is no PEM block; keep only the blocks"
	default:
		return "is not PEM text"
	}
}
