package store

import (
	"bytes"
	"crypto/ecdsa"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"ntsagent/hostcheck"
)

func requestKey(t *testing.T, s *Store, name hostcheck.Name) *ecdsa.PrivateKey {
	t.Helper()
	key, err := s.RequestKey(name, P256)
	if err != nil {
		t.Fatal(err)
	}
	return key.(*ecdsa.PrivateKey)
}

func importChain(s *Store, name hostcheck.Name, chain []byte) error {
	key, err := s.KeyFor(name, chain)
	if err != nil {
		return err
	}
	return s.Import(name, chain, key)
}

func TestARequestAndAnOrderHaveEachAKeyOfTheirOwn(t *testing.T) {
	dir, alice := filepath.Join(t.TempDir(), "acme"), mustName(t, "alice.pool.example")
	s := open(t, dir)
	requested := requestKey(t, s, alice)
	info, err := os.Stat(filepath.Join(dir, "names", alice.String(), "csr.key"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("csr.key: %v, %v; want 0600", info, err)
	}
	commit(t, s, alice, 1) // an order goes by
	if again := requestKey(t, open(t, dir), alice); !again.Equal(requested) {
		t.Error("an order or a restart has changed the key of a request that is out")
	}
	pending, err := s.PendingKey(alice, P256) // another order is under way
	if err != nil || pending.(*ecdsa.PrivateKey).Equal(requested) {
		t.Fatalf("the order has the key of the request, or %v", err)
	}
	if err := importChain(s, alice, selfSigned(requested, alice, 2)); err != nil {
		t.Fatal(err)
	}
	if got := current(t, s, alice); got != 2 {
		t.Errorf("current certificate = %d, want the imported one", got)
	}
	if after, err := s.PendingKey(alice, P256); err != nil || !after.(*ecdsa.PrivateKey).Equal(pending) {
		t.Errorf("the import took the order's key away: %v", err)
	}
	if next := requestKey(t, s, alice); next.Equal(requested) {
		t.Error("the next request has the key of the certificate in use")
	}
	if err := importChain(s, alice, selfSigned(requested, alice, 3)); err != nil {
		t.Errorf("a second chain for the key in use: %v", err)
	}
	commit(t, s, alice, 4) // the order ends
	if got := current(t, open(t, dir), alice); got != 4 {
		t.Errorf("current certificate = %d, want the ordered one", got)
	}
}

func TestAChainForAnotherKeyIsNotImported(t *testing.T) {
	dir, alice, bob := filepath.Join(t.TempDir(), "acme"), mustName(t, "alice.pool.example"), mustName(t, "bob.pool.example")
	s := open(t, dir)
	commit(t, s, alice, 1)
	requestKey(t, s, alice)
	stranger, err := NewKey(P256)
	if err != nil {
		t.Fatal(err)
	}
	pending, err := s.PendingKey(alice, P256)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]*ecdsa.PrivateKey{
		"a stranger's": stranger, "another name's": requestKey(t, s, bob), "that of the order under way": pending.(*ecdsa.PrivateKey),
	} {
		if err := importChain(s, alice, selfSigned(key, alice, 2)); !errors.Is(err, ErrNoKey) {
			t.Errorf("%s key: %v, want ErrNoKey", name, err)
		}
	}
	if err := importChain(s, alice, []byte("no certificate")); !errors.Is(err, ErrNoKey) {
		t.Errorf("no certificate: %v, want ErrNoKey", err)
	}
	if got := current(t, s, alice); got != 1 {
		t.Errorf("current certificate = %d, want 1", got)
	}
}

// The agent is killed when the imported pair is whole, and before it is current.
func TestAnImportThatWasCutIsFinished(t *testing.T) {
	dir, alice := filepath.Join(t.TempDir(), "acme"), mustName(t, "alice.pool.example")
	s := open(t, dir)
	commit(t, s, alice, 1)
	requested := requestKey(t, s, alice)
	chain := selfSigned(requested, alice, 2)
	key, err := s.KeyFor(alice, chain)
	if err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(dir, "names", alice.String())
	if err := writeGeneration(folder, 2, chain, key); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	if got := current(t, s, alice); got != 2 {
		t.Errorf("current certificate = %d, want 2", got)
	}
	if _, err := os.Stat(filepath.Join(folder, "csr.key")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the key of the certificate in use still waits for one: %v", err)
	}
}

func TestDroppedKeysAreNotHandedOutAgain(t *testing.T) {
	dir, alice := filepath.Join(t.TempDir(), "acme"), mustName(t, "alice.pool.example")
	s := open(t, dir)
	requested := requestKey(t, s, alice)
	pending, err := s.PendingKey(alice, P256)
	if err != nil {
		t.Fatal(err)
	}
	old := keysOf(filepath.Join(dir, "names", alice.String()))
	for range 2 { // the second time there are none
		if err := s.DropKeys(alice); err != nil {
			t.Fatal(err)
		}
	}
	s = open(t, dir)
	if requestKey(t, s, alice).Equal(requested) {
		t.Error("the request's key came back")
	}
	if again, err := s.PendingKey(alice, P256); err != nil || again.(*ecdsa.PrivateKey).Equal(pending) {
		t.Errorf("the order's key came back, or %v", err)
	}
	if len(old) != 2 || bytes.Equal(old[0], old[1]) {
		t.Errorf("%d keys waited, want two that differ", len(old))
	}
}
