package store

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"ntsagent/hostcheck"
)

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// commit makes a new current pair with that serial number.
func commit(t *testing.T, s *Store, name hostcheck.Name, serial int64) {
	t.Helper()
	key, err := s.PendingKey(name, P256)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(name, selfSigned(key.(*ecdsa.PrivateKey), name, serial)); err != nil {
		t.Fatal(err)
	}
}

func current(t *testing.T, s *Store, name hostcheck.Name) int64 {
	t.Helper()
	chain, _, err := s.Current(name)
	if err != nil {
		t.Fatal(err)
	}
	return serialOf(chain)
}

func TestCommitKeepsThreeGenerationsAndNamesStayApart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "acme")
	s, alice, bob := open(t, dir), mustName(t, "alice.pool.example"), mustName(t, "bob.pool.example")
	for n := range int64(5) {
		commit(t, s, alice, n+1)
	}
	commit(t, s, bob, 77)
	if got := current(t, s, alice); got != 5 {
		t.Errorf("current certificate = %d, want 5", got)
	}
	if got := current(t, s, bob); got != 77 {
		t.Errorf("current certificate of the other name = %d, want 77", got)
	}
	pairs, err := s.Pairs(alice)
	if err != nil || len(pairs) != keep {
		t.Fatalf("%d pairs, %v; want %d", len(pairs), err, keep)
	}
	for i, want := range []int64{5, 4, 3} {
		if got := serialOf(pairs[i].Chain); got != want {
			t.Errorf("pair %d = %d, want %d", i, got, want)
		}
	}
	if left := leftovers(t, dir); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	if got := current(t, open(t, dir), alice); got != 5 {
		t.Errorf("current certificate after restart = %d, want 5", got)
	}
}

func TestPendingKey(t *testing.T) {
	s, name := open(t, t.TempDir()), mustName(t, "alice.pool.example")
	first, err := s.PendingKey(name, P256)
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.PendingKey(name, P256)
	if err != nil || !first.(*ecdsa.PrivateKey).Equal(again) {
		t.Errorf("an interrupted order's key was not found again: %v", err)
	}
	other, err := s.PendingKey(name, P384)
	if err != nil || other.(*ecdsa.PrivateKey).Curve != elliptic.P384() {
		t.Errorf("key of another type: %v", err)
	}
	if _, err := s.PendingKey(name, "rsa"); err == nil {
		t.Error("an unknown key type was accepted")
	}
	commit(t, s, name, 1)
	next, err := s.PendingKey(name, P256)
	if err != nil {
		t.Fatal(err)
	}
	if _, key, err := s.Current(name); err != nil || bytes.Equal(key, mustEncode(t, next.(*ecdsa.PrivateKey))) {
		t.Errorf("the key in use was handed out for the next order (%v)", err)
	}
	if _, err := s.PendingKey(hostcheck.Name{}, P256); err == nil {
		t.Error("no name was accepted")
	}
}

func TestCommitRefusesAChainForAnotherKey(t *testing.T) {
	s, name := open(t, t.TempDir()), mustName(t, "alice.pool.example")
	commit(t, s, name, 1)
	if _, err := s.PendingKey(name, P256); err != nil {
		t.Fatal(err)
	}
	stranger, err := NewKey(P256)
	if err != nil {
		t.Fatal(err)
	}
	for what, chain := range map[string][]byte{
		"for another key": selfSigned(stranger, name, 2), "empty": nil, "not PEM": []byte("<html>"), "huge": make([]byte, maxChainFile+1),
	} {
		if err := s.Commit(name, chain); err == nil {
			t.Errorf("a chain that is %s was committed", what)
		}
	}
	if got := current(t, s, name); got != 1 {
		t.Errorf("current certificate = %d, want 1", got)
	}
}

// TestOpenRepairs puts a folder into states that crashes and people leave, and looks at what Open makes of them.
func TestOpenRepairs(t *testing.T) {
	name := "alice.pool.example"
	for _, tt := range []struct {
		name  string
		spoil func(t *testing.T, own string) // own holds generations 1 to 3, of which 3 is current
		want  int64
	}{
		{"a complete generation whose swap was interrupted is taken up", func(t *testing.T, own string) {
			must(t, os.WriteFile(filepath.Join(own, "pending.key"), read(t, filepath.Join(own, "generations/3/privkey.pem")), 0o600))
			relink(t, own, "generations/2")
		}, 3},
		{"an older generation chosen on purpose is respected", func(t *testing.T, own string) { relink(t, own, "generations/2") }, 2},
		{"a missing link is made again", func(t *testing.T, own string) { must(t, os.Remove(filepath.Join(own, "current"))) }, 3},
		{"a link to nothing is mended", func(t *testing.T, own string) { relink(t, own, "generations/9") }, 3},
		{"a link out of the folder is not followed", func(t *testing.T, own string) { relink(t, own, "/etc/ssl") }, 3},
		{"half a generation gives way to the one before", func(t *testing.T, own string) { must(t, os.Remove(filepath.Join(own, "generations/3/privkey.pem"))) }, 2},
		{"a pair that does not match gives way to the one before", func(t *testing.T, own string) {
			must(t, os.WriteFile(filepath.Join(own, "generations/3/privkey.pem"), read(t, filepath.Join(own, "generations/1/privkey.pem")), 0o600))
		}, 2},
		{"an empty generation folder is removed", func(t *testing.T, own string) { must(t, os.Mkdir(filepath.Join(own, "generations/4"), 0o700)) }, 3},
		{"temporary names of every kind go", func(t *testing.T, own string) {
			must(t, os.WriteFile(filepath.Join(own, tmpPrefix+"a"), nil, 0o600))
			must(t, os.MkdirAll(filepath.Join(own, "generations", tmpPrefix+"b", "c"), 0o700))
			must(t, os.Symlink("generations/1", filepath.Join(own, tmpPrefix+"d")))
		}, 3},
		{"a used pending key is forgotten", func(t *testing.T, own string) {
			must(t, os.WriteFile(filepath.Join(own, "pending.key"), read(t, filepath.Join(own, "generations/3/privkey.pem")), 0o600))
		}, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "acme")
			s, n := open(t, dir), mustName(t, name)
			for i := range int64(3) {
				commit(t, s, n, i+1)
			}
			tt.spoil(t, filepath.Join(dir, "names", name))
			s = open(t, dir)
			if got := checkCurrent(t, s, dir, n); got != tt.want {
				t.Errorf("current certificate = %d, want %d", got, tt.want)
			}
			if left := leftovers(t, dir); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
			commit(t, s, n, 99)
			if got := current(t, s, n); got != 99 {
				t.Errorf("certificate after the next commit = %d, want 99", got)
			}
		})
	}
}

func TestAccount(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "acme")
	s := open(t, dir)
	if _, err := s.Account(directory); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("err = %v, want os.ErrNotExist", err)
	}
	key, err := NewKey(P256)
	if err != nil {
		t.Fatal(err)
	}
	a := Account{URI: "https://ca.example/acct/1", Directory: directory, Email: "ops@alice.example", Key: key}
	must(t, s.SaveAccount(a))
	got, err := open(t, dir).Account(directory)
	if err != nil || got.URI != a.URI || got.Email != a.Email || !key.Equal(got.Key) {
		t.Errorf("account = %v, %v; want %v", got, err, a)
	}
	if _, err := s.Account(directory + "/other"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("another directory of the same host: err = %v, want os.ErrNotExist", err)
	}
	stranger, err := NewKey(P256)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SaveAccount(Account{Directory: directory, Key: stranger}); err == nil {
		t.Error("another key was put over the account's")
	}
}

func TestDamagedAccount(t *testing.T) {
	for _, tt := range []struct {
		name, file string
		spoil      func(path string) error
		uri        string // "" = forgotten
		err        string // "" = none
	}{
		{"a damaged account.json costs the URI only", "account.json", truncate, "", ""},
		{"a missing account.json costs the URI only", "account.json", os.Remove, "", ""},
		{"a damaged key is an error, never replaced", "key.pem", truncate, "", "backup"},
		{"a missing key is an error, never replaced", "key.pem", os.Remove, "", "backup"},
		{"another key does not inherit the URI", "key.pem", func(path string) error {
			key, err := NewKey(P256)
			if err != nil {
				return err
			}
			b, err := EncodeKey(key)
			if err != nil {
				return err
			}
			return os.WriteFile(path, b, 0o600)
		}, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, t.TempDir())
			key, err := NewKey(P256)
			if err != nil {
				t.Fatal(err)
			}
			must(t, s.SaveAccount(Account{URI: "https://ca.example/acct/1", Directory: directory, Key: key}))
			must(t, tt.spoil(filepath.Join(s.accountDir(directory), tt.file)))
			a, err := s.Account(directory)
			if tt.err != "" {
				if err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("err = %v, want one with %q that is not os.ErrNotExist", err, tt.err)
				}
				return
			}
			if err != nil || a.URI != tt.uri {
				t.Errorf("account = %v, %v; want URI %q", a, err, tt.uri)
			}
		})
	}
}

func TestRenewal(t *testing.T) {
	dir, name := t.TempDir(), mustName(t, "alice.pool.example")
	s := open(t, dir)
	if r, err := s.Renewal(name); err != nil || !reflect.DeepEqual(r, Renewal{}) {
		t.Errorf("renewal of a new name = %+v, %v", r, err)
	}
	now := time.Date(2026, 11, 23, 9, 11, 0, 5, time.UTC)
	want := Renewal{Failures: 3, FirstFailure: now, LastFailure: now.Add(1), NextAttempt: now.Add(2), RetryAfter: now.Add(3),
		LastError: "http-01: 403", LastHint: "look at port 80", LastSuccess: now.Add(-time.Hour),
		Row: map[string]int{"network": 2, "connection": 1}, Issued: []time.Time{now.Add(-time.Hour)}, Validations: []time.Time{now, now.Add(1)},
		Window:  Window{Certificate: "1f", Start: now, End: now.Add(5), At: now.Add(4), AskAt: now.Add(3), Why: "https://ca.example/why"},
		Limit:   Limit{Domain: "pool.example", Until: now.Add(6)},
		Origin:  Origin{Certificate: "1f", Directory: "https://ca.example/dir", Life: 24 * time.Hour},
		Ordered: "https://ca.example/dir", LastGood: now.Add(7), Directory: "https://ca.example/dir",
		Other: &Renewal{Directory: "https://other.example/dir", Failures: 1, Row: map[string]int{"caa": 1}, NextAttempt: now.Add(8), Issued: []time.Time{now}},
		Left:  []Renewal{{Directory: "https://left.example/dir", RetryAfter: now.Add(9), Validations: []time.Time{now}}, {Directory: "https://long.example/dir"}}}
	must(t, s.SaveRenewal(name, want))
	if got, err := open(t, dir).Renewal(name); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("renewal = %+v, %v; want %+v", got, err, want)
	}
	path := filepath.Join(dir, "names", name.String(), "renewal.json")
	whole := read(t, path)
	for n := range whole[:len(whole)-2] {
		must(t, os.WriteFile(path, whole[:n], 0o600))
		if got, err := s.Renewal(name); err != nil || !reflect.DeepEqual(got, Renewal{}) {
			t.Fatalf("renewal cut after %d bytes = %+v, %v; want nothing", n, got, err)
		}
		must(t, os.Rename(path+".corrupt-1", path)) // it was set aside, not lost
	}
}

// TestRenewalOfAnOlderAgent reads the file as the first version wrote it, and lets that version read ours.
func TestRenewalOfAnOlderAgent(t *testing.T) {
	const old = `{"schema":1,"failures":2,"first_failure":"2026-11-23T09:11:00Z","last_failure":"2026-11-23T09:12:00Z",` +
		`"next_attempt":"2026-11-23T09:22:00Z","last_error":"http-01: 403","last_hint":"look at port 80"}`
	at := time.Date(2026, 11, 23, 9, 11, 0, 0, time.UTC)
	want := Renewal{Failures: 2, FirstFailure: at, LastFailure: at.Add(time.Minute), NextAttempt: at.Add(11 * time.Minute),
		LastError: "http-01: 403", LastHint: "look at port 80"}
	got, ok := parseRenewal([]byte(old))
	if !ok || !reflect.DeepEqual(got, want) {
		t.Errorf("renewal = %+v, %v; want %+v", got, ok, want)
	}
	got.Row, got.Issued = map[string]int{"connection": 3}, []time.Time{at}
	ours, err := json.Marshal(encodeRenewal(got))
	must(t, err)
	var first struct { // all that the first version knew
		Schema, Failures int
		NextAttempt      time.Time `json:"next_attempt"`
		LastError        string    `json:"last_error"`
	}
	must(t, json.Unmarshal(ours, &first))
	if first.Schema != 1 || first.Failures != 2 || !first.NextAttempt.Equal(want.NextAttempt) || first.LastError != want.LastError {
		t.Errorf("the first version would read %+v from %s", first, ours)
	}
}

func TestKeysAreNotPrinted(t *testing.T) {
	key, err := NewKey(P256)
	if err != nil {
		t.Fatal(err)
	}
	b := mustEncode(t, key)
	scalar, err := key.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	secret := new(big.Int).SetBytes(scalar).String() // as fmt prints the number inside a key
	for _, v := range []any{Account{Key: key}, &Account{Key: key}, Pair{Key: b}, &Pair{Key: b}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
			out := fmt.Sprintf(verb, v)
			if strings.Contains(out, secret) || strings.Contains(out, "PRIVATE") || len(out) > 100 {
				t.Errorf("%s of %T prints %q", verb, v, out)
			}
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mustEncode(t *testing.T, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	b, err := EncodeKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func truncate(path string) error { return os.Truncate(path, 20) }

func relink(t *testing.T, own, target string) {
	t.Helper()
	link := filepath.Join(own, "current")
	must(t, os.Remove(link))
	must(t, os.Symlink(target, link))
}
