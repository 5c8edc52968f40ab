package issuer_test

import (
	"crypto/elliptic"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"ntsagent/acme"
	"ntsagent/acme/issuer"
	"ntsagent/acme/store"
)

// What the CA calls itself is kept with the account, by an account that an
// earlier version made, too, and a CAA record can be made of it.
func TestTheNamesOfTheCAForCAARecordsAreKeptWithTheAccount(t *testing.T) {
	t.Parallel()
	name := mustName(t, "alice.members.pool.example")
	w := newWorld(t, settings{}, name)
	dir := t.TempDir()
	i := w.issuer(t, only(issuer.HTTP01), withStore(openStore(t, dir)))
	order, _ := newOrder(t, name, elliptic.P256())
	issue(t, i, order)
	kept := mustReadAccount(t, dir, w.directory)
	if record, err := acme.CAARecord(name, kept.CAAIdentities[0], kept.URI, []string{issuer.HTTP01}); err != nil {
		t.Errorf("no record: %v", err)
	} else if want := `alice.members.pool.example. CAA 0 issue "ca.example; validationmethods=http-01; accounturi=` + kept.URI + `"`; record != want {
		t.Errorf("the record is %s, want %s", record, want)
	}

	files, err := filepath.Glob(filepath.Join(dir, "accounts", "*", "account.json"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%q, %v", files, err)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	older := regexp.MustCompile(`,\s*"caa_identities": \[[^\]]*\]`).ReplaceAll(b, nil)
	if len(older) == len(b) {
		t.Fatalf("no names of the CA in %s", b)
	}
	if err := os.WriteFile(files[0], older, 0o600); err != nil {
		t.Fatal(err)
	}
	issue(t, i, order)
	mustReadAccount(t, dir, w.directory)
}

func mustReadAccount(t *testing.T, dir, directory string) store.Account {
	t.Helper()
	a, err := store.ReadAccount(dir, directory)
	if err != nil || a.URI == "" || a.Key != nil || !slices.Equal(a.CAAIdentities, []string{"ca.example"}) {
		t.Fatalf("the account reads as %v with %q, %v", a, a.CAAIdentities, err)
	}
	return a
}
