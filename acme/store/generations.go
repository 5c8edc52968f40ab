package store

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"ntsagent/acme/disk"
	"ntsagent/hostcheck"
)

// keep is how many generations stay on disk, the current one included.
const keep = 3

// PendingKey returns the key of the order that is under way: the one an interrupted order left, so that a certificate the CA
// has already made for it is not lost, or a new one that is on disk before it is returned.
func (s *Store) PendingKey(name hostcheck.Name, t KeyType) (crypto.Signer, error) {
	return s.keptKey(name, pendingFile, t)
}

// keptKey returns the key in a file of name's folder, or a new one that is in it before it is returned.
func (s *Store) keptKey(name hostcheck.Name, file string, t KeyType) (crypto.Signer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	dir, err := s.nameDir(name)
	if err != nil {
		return nil, err
	}
	curve, err := t.curve()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, file)
	b, err := disk.ReadFile(path, maxKeyFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read pending key: %w", err)
	}
	// A damaged pending key has no certificate yet, one of another type is not wanted any more, and one that is in use already
	// was left behind by a Commit that could not tidy: all three are replaced.
	if key, err := decodeKey(b); err == nil && key.Curve == curve && !inUse(dir, b) {
		return key, nil
	}
	return newPendingKey(path, t)
}

// inUse tells whether keyPEM is the key of the current pair.
func inUse(dir string, keyPEM []byte) bool {
	n, err := currentOf(dir)
	if err != nil {
		return false
	}
	p, err := readPair(dir, n)
	return err == nil && bytes.Equal(p.Key, keyPEM)
}

func newPendingKey(path string, t KeyType) (*ecdsa.PrivateKey, error) {
	key, err := NewKey(t)
	if err != nil {
		return nil, fmt.Errorf("make private key: %w", err)
	}
	b, err := EncodeKey(key)
	if err != nil {
		return nil, err
	}
	if err := disk.WriteFile(path, b, fileMode); err != nil {
		return nil, fmt.Errorf("keep pending key: %w", err)
	}
	return key, nil
}

// Commit makes chainPEM and the pending key the current pair of name, durably and at once, and forgets the pending key. The
// chain must be for that key. On any error the pair that was current still is.
func (s *Store) Commit(name hostcheck.Name, chainPEM []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	dir, err := s.nameDir(name)
	if err != nil {
		return err
	}
	keyPEM, err := disk.ReadFile(filepath.Join(dir, pendingFile), maxKeyFile)
	if err != nil {
		return fmt.Errorf("read pending key: %w", err)
	}
	return commitPair(dir, name, chainPEM, keyPEM)
}

// commitPair makes a pair current and forgets the file that kept its key until now.
func commitPair(dir string, name hostcheck.Name, chainPEM, keyPEM []byte) error {
	if len(chainPEM) > maxChainFile {
		return fmt.Errorf("certificate chain of %s has %d bytes, more than %d", name, len(chainPEM), maxChainFile)
	}
	if _, err := tls.X509KeyPair(chainPEM, keyPEM); err != nil {
		return fmt.Errorf("certificate chain of %s is not for the pending key: %w", name, err)
	}
	have, err := generations(dir)
	if err != nil {
		return err
	}
	n := 1
	if len(have) > 0 {
		n = have[0] + 1
	}
	if err := writeGeneration(dir, n, chainPEM, keyPEM); err != nil {
		return fmt.Errorf("write generation %d of %s: %w", n, name, err)
	}
	if err := pointCurrent(dir, n); err != nil {
		return fmt.Errorf("make generation %d of %s current: %w", n, name, err)
	}
	// The new pair is in use. What is left is tidying, which must not make a success look like a failure: Open and the next
	// commitPair do it again, and keptKey does not hand out a key that is in use.
	_ = forgetKey(dir, keyPEM)
	_ = prune(dir, n)
	return nil
}

// writeGeneration makes generations/n appear whole.
func writeGeneration(dir string, n int, chainPEM, keyPEM []byte) error {
	all := filepath.Join(dir, "generations")
	tmp, err := os.MkdirTemp(all, tmpPrefix)
	if err != nil {
		return err
	}
	err = errors.Join(
		disk.WriteFile(filepath.Join(tmp, "privkey.pem"), keyPEM, fileMode),
		disk.WriteFile(filepath.Join(tmp, "fullchain.pem"), chainPEM, fileMode),
	)
	if err == nil {
		err = os.Rename(tmp, generation(dir, n))
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(tmp))
	}
	return disk.SyncDir(all)
}

// pointCurrent swaps the symbolic link `current` in one step.
func pointCurrent(dir string, n int) error {
	return disk.Symlink(filepath.Join("generations", strconv.Itoa(n)), filepath.Join(dir, "current"))
}

// prune removes all but the newest generations, never the current one, nor the one that holds longest: a CA may give several
// that end sooner, and then none.
func prune(dir string, current int) error {
	have, err := generations(dir)
	if err != nil {
		return err
	}
	for _, n := range have[min(keep, len(have)):] {
		if n == current || n == longest(dir, have) {
			continue
		}
		if err := discard(dir, n); err != nil {
			return fmt.Errorf("remove old generation %s: %w", generation(dir, n), err)
		}
	}
	return disk.SyncDir(filepath.Join(dir, "generations"))
}

// longest is the newest of the generations whose certificate ends last.
func longest(dir string, have []int) (best int) {
	var until time.Time
	for _, n := range have {
		p, err := readPair(dir, n)
		if err != nil {
			continue
		}
		if pair, err := tls.X509KeyPair(p.Chain, p.Key); err == nil && pair.Leaf.NotAfter.After(until) {
			best, until = n, pair.Leaf.NotAfter
		}
	}
	return best
}

// discard removes one generation: first out of sight by a rename, so that no half of it is ever taken for a whole one.
func discard(dir string, n int) error {
	gone := filepath.Join(dir, "generations", tmpPrefix+"gone-"+strconv.Itoa(n))
	if err := os.Rename(generation(dir, n), gone); err != nil {
		return err
	}
	return os.RemoveAll(gone)
}

// Pair is one certificate chain with its key, both PEM. Printing one prints nothing of it.
type Pair struct{ Chain, Key []byte }

// Format prints a pair without its key under every verb.
func (p Pair) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "pair of %d bytes", len(p.Chain)) }

// Current returns the pair of name that is in use, or an error that is os.ErrNotExist when there is none.
func (s *Store) Current(name hostcheck.Name) (chainPEM, keyPEM []byte, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	dir, err := s.nameDir(name)
	if err != nil {
		return nil, nil, err
	}
	n, err := currentOf(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("no certificate of %s in the store: %w", name, err)
	}
	p, err := readPair(dir, n)
	if err != nil {
		return nil, nil, fmt.Errorf("read certificate of %s: %w", name, err)
	}
	return p.Chain, p.Key, nil
}

// Pairs returns every pair of name that is whole: the current one first, the others newest first.
func (s *Store) Pairs(name hostcheck.Name) ([]Pair, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	dir, err := s.nameDir(name)
	if err != nil {
		return nil, err
	}
	order, err := generations(dir)
	if err != nil {
		return nil, err
	}
	if n, err := currentOf(dir); err == nil {
		order = append([]int{n}, slices.DeleteFunc(order, func(i int) bool { return i == n })...)
	}
	var pairs []Pair
	for _, n := range order {
		if p, err := readPair(dir, n); err == nil {
			pairs = append(pairs, p)
		}
	}
	return pairs, nil
}

// readPair reads generation n and makes sure that certificate and key belong together.
func readPair(dir string, n int) (Pair, error) {
	g := generation(dir, n)
	chain, err := disk.ReadFile(filepath.Join(g, "fullchain.pem"), maxChainFile)
	if err != nil {
		return Pair{}, err
	}
	key, err := disk.ReadFile(filepath.Join(g, "privkey.pem"), maxKeyFile)
	if err != nil {
		return Pair{}, err
	}
	if _, err := tls.X509KeyPair(chain, key); err != nil {
		return Pair{}, fmt.Errorf("generation %s: %w", g, err)
	}
	return Pair{chain, key}, nil
}

// currentOf reads the link `current`. Only a link of our own form counts.
func currentOf(dir string) (int, error) {
	target, err := os.Readlink(filepath.Join(dir, "current"))
	if err != nil {
		return 0, err
	}
	rest, ok := strings.CutPrefix(target, "generations/")
	n, err := strconv.Atoi(rest)
	if !ok || err != nil || n < 1 || rest != strconv.Itoa(n) {
		return 0, fmt.Errorf("link %s names no generation", filepath.Join(dir, "current"))
	}
	return n, nil
}

// generations lists the generation numbers of a name, newest first.
func generations(dir string) ([]int, error) {
	entries, err := os.ReadDir(filepath.Join(dir, "generations"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list generations in %s: %w", dir, err)
	}
	var ns []int
	for _, e := range entries {
		if n, err := strconv.Atoi(e.Name()); err == nil && n > 0 && e.IsDir() && e.Name() == strconv.Itoa(n) {
			ns = append(ns, n)
		}
	}
	slices.SortFunc(ns, func(a, b int) int { return b - a })
	return ns, nil
}

func generation(dir string, n int) string {
	return filepath.Join(dir, "generations", strconv.Itoa(n))
}
