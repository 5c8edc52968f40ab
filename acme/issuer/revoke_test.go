package issuer_test

import (
	"bytes"
	"context"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"ntsagent/acme"
	"ntsagent/acme/issuer"
	"ntsagent/acme/live"
	"ntsagent/hostcheck"
)

// certStatus is what pebble says of a certificate.
type certStatus struct {
	Status string
	Reason *uint
}

func (w *world) certStatus(t *testing.T, leaf *x509.Certificate) certStatus {
	t.Helper()
	rec := httptest.NewRecorder()
	w.manage.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/cert-status-by-serial/"+leaf.SerialNumber.Text(16), nil))
	var s certStatus
	if err := json.Unmarshal(rec.Body.Bytes(), &s); err != nil {
		t.Fatalf("pebble answers %d %q", rec.Code, rec.Body)
	}
	return s
}

func TestACertificateIsRevokedByTheAccountThatOrderedIt(t *testing.T) {
	t.Parallel()
	name := mustName(t, "alice.members.pool.example")
	w := newWorld(t, settings{}, name)
	dir := t.TempDir()
	i := w.issuer(t, only(issuer.HTTP01), withStore(openStore(t, dir)))
	obtain := func() *x509.Certificate {
		order, _ := newOrder(t, name, elliptic.P256())
		return leafOf(t, issue(t, i, order))
	}
	compromised, plain, kept := obtain(), obtain(), obtain()

	for range 2 { // again: it is revoked, which is what was wanted
		if err := i.Revoke(t.Context(), compromised, acme.KeyCompromise); err != nil {
			t.Fatal(err)
		}
	}
	if s := w.certStatus(t, compromised); s.Status != "Revoked" || s.Reason == nil || *s.Reason != 1 {
		t.Errorf("pebble has it as %+v, want it revoked for key compromise", s)
	}
	if err := i.Revoke(t.Context(), plain, acme.Unspecified); err != nil {
		t.Fatal(err)
	}
	if s := w.certStatus(t, plain); s.Status != "Revoked" || s.Reason != nil {
		t.Errorf("pebble has it as %+v, want it revoked without a reason", s)
	}

	// Nobody but that account may.
	stranger := w.issuer(t, only(issuer.HTTP01))
	for what, i := range map[string]*issuer.Issuer{"no account": stranger, "another account": func() *issuer.Issuer {
		other := w.issuer(t, only(issuer.HTTP01))
		order, _ := newOrder(t, name, elliptic.P256())
		issue(t, other, order)
		return other
	}()} {
		err := i.Revoke(t.Context(), kept, acme.Unspecified)
		var e *acme.Error
		if !errors.As(err, &e) || e.Class != acme.ClassAccount || !strings.Contains(e.Hint, "only the") {
			t.Errorf("%s: %v, want it refused for the account", what, err)
		}
	}
	if s := w.certStatus(t, kept); s.Status != "Valid" {
		t.Errorf("pebble has the other one as %+v, want it valid", s)
	}
}

func TestARevocationThatFailsSaysWhy(t *testing.T) {
	t.Parallel()
	name := mustName(t, "alice.members.pool.example")
	const ns = `"urn:ietf:params:acme:error:`
	for _, c := range []struct {
		name   string
		answer http.Handler
		class  acme.Class
		hint   string
		no     bool // the CA's last word
	}{
		{"a reason the CA does not take", always(400, `{"type": `+ns+`badRevocationReason", "detail": "no"}`, "Content-Type: application/problem+json"), acme.ClassMalformed, "--reason", true},
		{"a certificate it does not know", always(404, `{"type": `+ns+`malformed", "detail": "no such certificate"}`, "Content-Type: application/problem+json"), acme.ClassMalformed, "acme.directory", true},
		{"too many of them", always(429, `{"type": `+ns+`rateLimited", "detail": "later"}`, "Content-Type: application/problem+json", "Retry-After: 60"), acme.ClassRateLimited, "wait", false},
		{"a fault of its own", always(500, "<html>oops</html>"), acme.ClassNetwork, "fault of its own", false},
		{"somebody else who answers", always(403, "<html>log in</html>"), acme.ClassMalformed, "acme.directory", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, settings{front: at("/revoke-cert", c.answer)}, name)
			i := w.issuer(t, only(issuer.HTTP01))
			order, _ := newOrder(t, name, elliptic.P256())
			leaf := leafOf(t, issue(t, i, order))
			var e *acme.Error
			if err := i.Revoke(t.Context(), leaf, acme.Superseded); !errors.As(err, &e) || e.Class != c.class || e.Declined != c.no || !strings.Contains(e.Hint, c.hint) {
				t.Errorf("got %v with hint %q, declined %v; want class %s, a hint with %q, declined %v", err, e.Hint, e.Declined, c.class, c.hint, c.no)
			}
		})
	}
}

// The whole line with a real server: what served is revoked, and by then another has taken its place.
func TestAManagerReplacesWhatItHasRevoked(t *testing.T) {
	t.Parallel()
	name := mustName(t, "alice.members.pool.example")
	w := newWorld(t, settings{}, name)
	s, set := openStore(t, t.TempDir()), live.NewSet([]hostcheck.Name{name})
	events := make(chan acme.Event, 100)
	m := acme.NewManager(acme.Config{Name: name, Issuer: w.issuer(t, only(issuer.HTTP01), withStore(s)), Store: s, Live: set, Log: nullLog,
		Directory: w.directory, Event: func(e acme.Event) { events <- e }})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { m.Run(ctx) })
	defer running.Wait()
	defer cancel()
	await(t, events, acme.Obtained)
	old := set.Leaf(name)
	replacement, err := m.Revoke(t.Context(), old.SerialNumber.Text(16), acme.KeyCompromise)
	if err != nil || replacement != nil {
		t.Fatalf("%v, replacement %v", err, replacement)
	}
	if s := w.certStatus(t, old); s.Status != "Revoked" || s.Reason == nil || *s.Reason != 1 {
		t.Errorf("pebble has the old one as %+v", s)
	}
	now := set.Leaf(name)
	if bytes.Equal(now.RawSubjectPublicKeyInfo, old.RawSubjectPublicKeyInfo) {
		t.Error("the compromised key serves on")
	}
	if s := w.certStatus(t, now); s.Status != "Valid" {
		t.Errorf("pebble has the new one as %+v", s)
	}

	if replacement, err := m.Revoke(t.Context(), now.SerialNumber.Text(16), acme.CessationOfOperation); err != nil || replacement != nil {
		t.Fatalf("%v, replacement %v", err, replacement)
	}
	if s := w.certStatus(t, now); s.Status != "Revoked" || s.Reason == nil || *s.Reason != 5 || set.Leaf(name) != nil {
		t.Errorf("pebble has it as %+v, and something is served: %v", s, set.Leaf(name) != nil)
	}
}
