package store

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"ntsagent/acme/disk"
	"ntsagent/hostcheck"
)

// The keys of a name that have no certificate yet. An order and a request that an operator carries elsewhere never share one: each
// ends without the other.
const (
	pendingFile   = "pending.key"
	requestedFile = "csr.key"
)

// ErrNoKey says that a chain is for none of our keys.
var ErrNoKey = errors.New("the chain is for no key that is kept here")

// RequestKey returns the key of the request that an operator has signed elsewhere: the same until a chain for it is imported, so
// that a request that is out already stays good.
func (s *Store) RequestKey(name hostcheck.Name, t KeyType) (crypto.Signer, error) {
	return s.keptKey(name, requestedFile, t)
}

// KeyFor finds the key, as PEM, that the first certificate of a chain is for: that of RequestKey or of the current pair. The
// error is ErrNoKey where it is for neither, and otherwise about the chain.
func (s *Store) KeyFor(name hostcheck.Name, chainPEM []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	dir, err := s.nameDir(name)
	if err != nil {
		return nil, err
	}
	var keys [][]byte
	switch b, err := disk.ReadFile(filepath.Join(dir, requestedFile), maxKeyFile); {
	case err == nil:
		keys = append(keys, b)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("read the key of the request: %w", err)
	}
	if n, err := currentOf(dir); err == nil {
		if p, err := readPair(dir, n); err == nil {
			keys = append(keys, p.Key)
		}
	}
	for _, key := range keys {
		if _, err := tls.X509KeyPair(chainPEM, key); err == nil {
			return key, nil
		}
	}
	return nil, ErrNoKey
}

// Import makes a chain the current pair of name, with the key that KeyFor has found for it. As with Commit, the pair that was
// current stays on any error.
func (s *Store) Import(name hostcheck.Name, chainPEM, keyPEM []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	dir, err := s.nameDir(name)
	if err != nil {
		return err
	}
	return commitPair(dir, name, chainPEM, keyPEM)
}

// DropKeys forgets the keys of name that have no certificate yet: whoever could read the key in use could read these.
func (s *Store) DropKeys(name hostcheck.Name) error {
	return s.drop(name, pendingFile, requestedFile)
}

// DropPendingKey forgets the key of the order that is under way, as DropKeys does.
func (s *Store) DropPendingKey(name hostcheck.Name) error { return s.drop(name, pendingFile) }

func (s *Store) drop(name hostcheck.Name, files ...string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	dir, err := s.nameDir(name)
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := os.Remove(filepath.Join(dir, file)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove key: %w", err)
		}
	}
	return disk.SyncDir(dir)
}

// keysOf reads the keys of a folder that have no certificate yet. What is no key of ours is replaced when one is wanted.
func keysOf(dir string) [][]byte {
	var keys [][]byte
	for _, file := range []string{pendingFile, requestedFile} {
		if b, err := disk.ReadFile(filepath.Join(dir, file), maxKeyFile); err == nil {
			keys = append(keys, b)
		}
	}
	return keys
}

// forgetKey removes the files that keep a key which has its certificate now.
func forgetKey(dir string, keyPEM []byte) error {
	for _, file := range []string{pendingFile, requestedFile} {
		path := filepath.Join(dir, file)
		if b, err := disk.ReadFile(path, maxKeyFile); err != nil || !bytes.Equal(b, keyPEM) {
			continue
		}
		if err := os.Remove(path); err != nil {
			return err
		}
		if err := disk.SyncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// holds tells whether key is one of keys.
func holds(keys [][]byte, key []byte) bool {
	return slices.ContainsFunc(keys, func(k []byte) bool { return bytes.Equal(k, key) })
}
