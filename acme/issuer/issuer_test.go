package issuer_test

import (
	"context"
	"crypto/elliptic"
	"encoding/pem"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"ntsagent/acme"
	"ntsagent/acme/issuer"
	"ntsagent/hostcheck"
)

func issue(t *testing.T, i *issuer.Issuer, o acme.Order) []byte {
	t.Helper()
	chain, err := i.Issue(t.Context(), o)
	if err != nil {
		t.Fatalf("Issue: %v", err)
	}
	return chain
}

func TestIssue(t *testing.T) {
	t.Parallel()
	name := mustName(t, "alice.members.pool.example")
	for _, tt := range []struct {
		name       string
		challenges []string
		curve      elliptic.Curve
		set        settings
	}{
		{"http-01 gets a P-256 certificate", []string{issuer.HTTP01}, elliptic.P256(), settings{}},
		{"tls-alpn-01 gets a P-256 certificate", []string{issuer.TLSALPN01}, elliptic.P256(), settings{}},
		{"http-01 gets a P-384 certificate", []string{issuer.HTTP01}, elliptic.P384(), settings{}},
		{"a server that refuses half of all nonces is borne with", []string{issuer.HTTP01}, elliptic.P256(), settings{front: badNonces(2)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, tt.set, name)
			order, key := newOrder(t, name, tt.curve)
			chain := issue(t, w.issuer(t, only(tt.challenges...)), order)
			leaf := leafOf(t, chain)
			if !key.PublicKey.Equal(leaf.PublicKey) {
				t.Error("the certificate is not for our key")
			}
			if len(leaf.DNSNames) != 1 || leaf.DNSNames[0] != name.String() {
				t.Errorf("names = %q, want %s alone", leaf.DNSNames, name)
			}
			if _, rest := pem.Decode(chain); len(rest) == 0 {
				t.Error("the chain has no intermediate")
			}
			w.mustHaveNoProof(t, name)
		})
	}
}

func TestIssueAgainUsesTheSameAccount(t *testing.T) {
	t.Parallel()
	name := mustName(t, "alice.members.pool.example")
	w := newWorld(t, settings{}, name)
	dir := t.TempDir()
	first, _ := newOrder(t, name, elliptic.P256())
	a := leafOf(t, issue(t, w.issuer(t, withStore(openStore(t, dir))), first))
	before, err := openStore(t, dir).Account(w.directory)
	if err != nil || before.URI == "" {
		t.Fatalf("account after the first order: %v, %v", before, err)
	}

	second, _ := newOrder(t, name, elliptic.P256())
	b := leafOf(t, issue(t, w.issuer(t, withStore(openStore(t, dir))), second))
	after, err := openStore(t, dir).Account(w.directory)
	if err != nil || after.URI != before.URI {
		t.Errorf("account = %v, %v; want %v", after, err, before)
	}
	if a.SerialNumber.Cmp(b.SerialNumber) == 0 {
		t.Error("the second order gave the first certificate again")
	}
}

func TestAccountIsFoundByItsKeyWhenTheURIIsLost(t *testing.T) {
	t.Parallel()
	name := mustName(t, "alice.members.pool.example")
	w := newWorld(t, settings{}, name)
	s := openStore(t, t.TempDir())
	first, _ := newOrder(t, name, elliptic.P256())
	issue(t, w.issuer(t, withStore(s)), first)
	known, err := s.Account(w.directory)
	if err != nil {
		t.Fatal(err)
	}
	forgetful := known
	forgetful.URI = ""
	if err := s.SaveAccount(forgetful); err != nil {
		t.Fatal(err)
	}
	second, _ := newOrder(t, name, elliptic.P256())
	// No consent is asked for again: the account exists.
	issue(t, w.issuer(t, withStore(s), func(c *issuer.Config) { c.AgreeToTerms = false }), second)
	if again, err := s.Account(w.directory); err != nil || again.URI != known.URI {
		t.Errorf("account = %v, %v; want %v", again, err, known)
	}
}

func TestFallBackToTLSALPNWhenPort80IsClosed(t *testing.T) {
	t.Parallel()
	name := mustName(t, "alice.members.pool.example")
	w := newWorld(t, settings{}, name)
	goDown(t, w.http)
	order, _ := newOrder(t, name, elliptic.P256())
	issue(t, w.issuer(t), order)
}

func TestFallBackKeepsWithinTheFailureBudget(t *testing.T) {
	t.Parallel()
	name := mustName(t, "alice.members.pool.example")
	w := newWorld(t, settings{}, name)
	goDown(t, w.http)
	w.zone.set(name, "127.0.0.2") // nobody listens there on either port
	i := w.issuer(t)
	for _, tt := range []struct{ mayFail, want int }{{0, 2}, {2, 2}, {1, 1}} {
		order, _ := newOrder(t, name, elliptic.P256())
		order.MayFail = tt.mayFail
		order.Finalizing = func() error { t.Error("the CA is asked to sign for a name that is not validated"); return nil }
		_, err := i.Issue(t.Context(), order)
		var e *acme.Error
		if !errors.As(err, &e) {
			t.Fatalf("err = %v, want an *acme.Error", err)
		}
		if !strings.HasPrefix(e.Error(), "http-01: ") {
			t.Errorf("error = %q, want it to begin with the first challenge", e)
		}
		if tried := 1 + strings.Count(e.Error(), "tls-alpn-01: "); tried != tt.want || e.Validations != tt.want {
			t.Errorf("where %d may fail, %d challenges were tried and %d counted, want %d", tt.mayFail, tried, e.Validations, tt.want)
		}
	}
}

func TestRemovedNameIsNotIssuedAgain(t *testing.T) {
	t.Parallel()
	name := mustName(t, "alice.members.pool.example")
	w := newWorld(t, settings{authzReuse: 100}, name)
	i := w.issuer(t, only(issuer.HTTP01))
	order, _ := newOrder(t, name, elliptic.P256())
	issue(t, i, order)
	w.zone.set(name, "")
	order, _ = newOrder(t, name, elliptic.P256())
	if chain, err := i.Issue(t.Context(), order); err == nil {
		t.Fatalf("a name without address was issued for again: %d bytes", len(chain))
	}
}

func TestProfile(t *testing.T) {
	t.Parallel()
	name := mustName(t, "alice.members.pool.example")
	w := newWorld(t, settings{}, name)
	for _, tt := range []struct {
		name, profile string
		short         bool
	}{
		{"an offered profile is ordered", "short", true},
		{"a profile that is not offered gives way to the default", "no-such-profile", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			order, _ := newOrder(t, name, elliptic.P256())
			order.Profile = tt.profile
			leaf := leafOf(t, issue(t, w.issuer(t, only(issuer.HTTP01)), order))
			life := leaf.NotAfter.Sub(leaf.NotBefore)
			if tt.short && life > 7*24*time.Hour {
				t.Errorf("life = %v, want six days", life)
			}
		})
	}
}

func TestFailuresHaveAClassAndAHint(t *testing.T) {
	t.Parallel()
	name := mustName(t, "alice.members.pool.example")
	for _, tt := range []struct {
		name  string
		set   settings
		spoil func(*testing.T, *world)
		edit  func(*issuer.Config)
		class acme.Class
		hint  string
	}{
		{"an ACME server that is down", settings{}, func(t *testing.T, w *world) { goDown(t, w.server) }, nil, acme.ClassNetwork, "way out"},
		{"an ACME server of an unknown CA", settings{}, nil, func(c *issuer.Config) { c.CAFile = "" }, acme.ClassNetwork, "acme.ca_file"},
		{"an ACME server whose certificate is over, or our clock ahead", settings{expired: true}, nil, nil, acme.ClassClock, "clock"},
		{"a directory that is not there", settings{}, nil, func(c *issuer.Config) { c.Directory += "/nothing" }, acme.ClassMalformed, "acme.directory"},
		{"no consent to the terms", settings{}, nil, func(c *issuer.Config) { c.AgreeToTerms = false }, acme.ClassAccount, "acme.agree_to_terms"},
		{"a CA for customers only", settings{eab: true}, nil, nil, acme.ClassAccount, "set acme.eab: {kid: …, hmac_file: …}"},
		{"another web server on port 80", settings{}, func(_ *testing.T, w *world) { w.http.Config.Handler = always(http.StatusTeapot, "") }, only(issuer.HTTP01), acme.ClassUnauth, "port 80 of alice"},
		{"an app on port 80 that answers everything", settings{}, func(_ *testing.T, w *world) { w.http.Config.Handler = always(http.StatusOK, "<html>") }, only(issuer.HTTP01), acme.ClassUnauth, "port 80 of alice"},
		{"nothing on port 443", settings{}, func(_ *testing.T, w *world) { w.zone.set(name, "127.0.0.2") }, only(issuer.TLSALPN01), acme.ClassUnauth, "port 443 of alice"},
		{"nothing on port 80", settings{}, func(t *testing.T, w *world) { goDown(t, w.http) }, only(issuer.HTTP01), acme.ClassConnection, "port 80 of alice"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, tt.set, name)
			if tt.spoil != nil {
				tt.spoil(t, w)
			}
			edit := func(*issuer.Config) {}
			if tt.edit != nil {
				edit = tt.edit
			}
			order, _ := newOrder(t, name, elliptic.P256())
			_, err := w.issuer(t, edit).Issue(t.Context(), order)
			var e *acme.Error
			if !errors.As(err, &e) {
				t.Fatalf("err = %v, want an *acme.Error", err)
			}
			if e.Class != tt.class || !strings.Contains(e.Hint, tt.hint) {
				t.Errorf("class %s, hint %q, text %q; want class %s and a hint with %q", e.Class, e.Hint, e, tt.class, tt.hint)
			}
			if strings.ContainsAny(e.Error(), "\r\n") || keyAuthorization.MatchString(e.Error()) {
				t.Errorf("error is not one line without key authorization: %q", e)
			}
		})
	}
}

func TestAccountUnknownToTheServerIsNotReplaced(t *testing.T) {
	t.Parallel()
	name := mustName(t, "alice.members.pool.example")
	w := newWorld(t, settings{}, name)
	s := openStore(t, t.TempDir())
	order, _ := newOrder(t, name, elliptic.P256())
	issue(t, w.issuer(t, withStore(s)), order)
	a, err := s.Account(w.directory)
	if err != nil {
		t.Fatal(err)
	}
	a.URI = w.server.URL + "/my-account/no-such-account"
	if err := s.SaveAccount(a); err != nil {
		t.Fatal(err)
	}
	order, _ = newOrder(t, name, elliptic.P256())
	_, err = w.issuer(t, withStore(s)).Issue(t.Context(), order)
	var e *acme.Error
	if !errors.As(err, &e) || e.Class != acme.ClassAccount {
		t.Fatalf("err = %v, want class account", err)
	}
	if after, err := s.Account(w.directory); err != nil || after.URI != a.URI {
		t.Errorf("account = %v, %v; want it untouched", after, err)
	}
}

func TestCancelledIssueReturnsAtOnceAndWithdrawsItsProof(t *testing.T) {
	t.Parallel()
	name := mustName(t, "alice.members.pool.example")
	w := newWorld(t, settings{}, name)
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan struct{})
	// The CA has come to look, so the order is in the middle of it.
	w.http.Config.Handler = w.record(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { cancel(); <-gone }))
	i := w.issuer(t, only(issuer.HTTP01))
	order, _ := newOrder(t, name, elliptic.P256())
	_, err := i.Issue(ctx, order)
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("err = %v, want context.Canceled", err)
	}
	select {
	case <-i.Idle():
		t.Error("the order had ended by itself: the test did not test")
	default:
	}
	w.mustHaveNoProof(t, name)
	close(gone)

	// The slot comes free when the abandoned order has noticed; meanwhile others wait for it, no longer than they want to.
	impatient, stop := context.WithCancel(t.Context())
	stop()
	if _, err := i.Issue(impatient, order); !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v, want context.Canceled", err)
	}
	<-i.Idle()
}

func TestNewRefusesBadConfigurations(t *testing.T) {
	t.Parallel()
	good := issuer.Config{Directory: "https://ca.example/directory", Challenges: []string{issuer.HTTP01}, Log: nullLog}
	for _, tt := range []struct {
		name string
		edit func(*issuer.Config)
		want string
	}{
		{"CVE-2025-54799 a directory without TLS", func(c *issuer.Config) { c.Directory = "http://ca.example/directory" }, "acme.directory"},
		{"a directory without host", func(c *issuer.Config) { c.Directory = "https:///directory" }, "acme.directory"},
		{"no challenge", func(c *issuer.Config) { c.Challenges = nil }, "acme.challenges"},
		{"an unknown challenge", func(c *issuer.Config) { c.Challenges = []string{"dns-01"} }, "dns-01"},
		{"a challenge twice", func(c *issuer.Config) { c.Challenges = []string{issuer.HTTP01, issuer.HTTP01} }, "twice"},
		{"a root file that is not there", func(c *issuer.Config) { c.CAFile = "/nonexistent/root.pem" }, "acme.ca_file"},
		{"a root file without certificate", func(c *issuer.Config) { c.CAFile = "issuer_test.go" }, "acme.ca_file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := good
			tt.edit(&cfg)
			if _, err := issuer.New(cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("err = %v, want one about %q", err, tt.want)
			}
		})
	}
	if _, err := issuer.New(good); err != nil {
		t.Errorf("New of a good configuration: %v", err)
	}
}

func TestOrderMustAskForExactlyItsName(t *testing.T) {
	t.Parallel()
	good := issuer.Config{Directory: "https://ca.example/directory", Challenges: []string{issuer.HTTP01}, Log: nullLog}
	i, err := issuer.New(good)
	if err != nil {
		t.Fatal(err)
	}
	order, _ := newOrder(t, mustName(t, "alice.members.pool.example"), elliptic.P256())
	order.Name = mustName(t, "bob.members.pool.example")
	for _, o := range []acme.Order{order, {}, {Name: hostcheck.Name{}, CSR: order.CSR}} {
		var e *acme.Error
		if _, err := i.Issue(t.Context(), o); !errors.As(err, &e) || e.Class != acme.ClassInternal {
			t.Errorf("err = %v, want class internal", err)
		}
	}
}
