package issuer_test

import (
	"bytes"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ntsagent/acme"
	"ntsagent/acme/issuer"
)

// tell makes the server answer questions about leaf with those very bytes.
func (w *world) tell(t *testing.T, leaf *x509.Certificate, answer string) {
	t.Helper()
	body, err := json.Marshal(map[string]string{
		"Certificate": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Raw})), "ARIResponse": answer})
	if err != nil {
		t.Fatal(err)
	}
	rec := httptest.NewRecorder()
	req := httptest.NewRequest(http.MethodPost, "/set-renewal-info/", bytes.NewReader(body))
	req.Header.Set("User-Agent", "test")
	w.manage.ServeHTTP(rec, req)
	if rec.Code != http.StatusOK {
		t.Fatalf("set renewal info: %d %s", rec.Code, rec.Body)
	}
}

func TestRenewalInfo(t *testing.T) {
	t.Parallel()
	name := mustName(t, "alice.members.pool.example")
	w := newWorld(t, settings{}, name)
	i := w.issuer(t, only(issuer.HTTP01))
	order, _ := newOrder(t, name, elliptic.P256())
	leaf := leafOf(t, issue(t, i, order))
	info, err := i.RenewalInfo(t.Context(), leaf)
	if err != nil || !info.Start.Before(acme.RenewAt(leaf)) || !info.End.After(acme.RenewAt(leaf)) || info.RetryAfter != 6*time.Hour {
		t.Errorf("renewal info = %+v, %v; want a window around %v and 6 hours", info, err, acme.RenewAt(leaf))
	}
	at := func(s string) time.Time {
		at, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	for _, tt := range []struct {
		name, answer string
		want         acme.RenewalInfo // zero: an error
	}{
		{"a window with an explanation", `{"suggestedWindow":{"start":"2026-11-01T00:00:00Z","end":"2026-11-02T00:00:00+01:00"},"explanationURL":"https://ca.example/why"}`,
			acme.RenewalInfo{Start: at("2026-11-01T00:00:00Z"), End: at("2026-11-01T23:00:00Z"), RetryAfter: 6 * time.Hour, Why: "https://ca.example/why"}},
		{"an explanation that is a script", `{"suggestedWindow":{"start":"2026-11-01T00:00:00Z","end":"2026-11-02T00:00:00Z"},"explanationURL":"javascript:alert(1)"}`,
			acme.RenewalInfo{Start: at("2026-11-01T00:00:00Z"), End: at("2026-11-02T00:00:00Z"), RetryAfter: 6 * time.Hour}},
		{"an end before the start is the caller's to see", `{"suggestedWindow":{"start":"2026-11-02T00:00:00Z","end":"2026-11-01T00:00:00Z"}}`,
			acme.RenewalInfo{Start: at("2026-11-02T00:00:00Z"), End: at("2026-11-01T00:00:00Z"), RetryAfter: 6 * time.Hour}},
		{"no window is the caller's to see", `{}`, acme.RenewalInfo{RetryAfter: 6 * time.Hour}},
		{"a web page", `<html>busy`, acme.RenewalInfo{}},
		{"half an answer", `{"suggestedWindow":{"start":"2026-11-01T00`, acme.RenewalInfo{}},
		{"a time that is none", `{"suggestedWindow":{"start":"soon","end":"later"}}`, acme.RenewalInfo{}},
		{"an endless answer", strings.Repeat(" ", 1<<20) + "{}", acme.RenewalInfo{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w.tell(t, leaf, tt.answer)
			got, err := i.RenewalInfo(t.Context(), leaf)
			if (tt.want == acme.RenewalInfo{}) {
				var e *acme.Error
				if !errors.As(err, &e) || e.Hint == "" || strings.ContainsAny(e.Error(), "\n\r") {
					t.Errorf("err = %v (%+v), want an *acme.Error of one line", err, got)
				}
				return
			}
			if err != nil || !got.Start.Equal(tt.want.Start) || !got.End.Equal(tt.want.End) || got.RetryAfter != tt.want.RetryAfter || got.Why != tt.want.Why {
				t.Errorf("renewal info = %+v, %v; want %+v", got, err, tt.want)
			}
		})
	}
	t.Run("a certificate that the CA does not know", func(t *testing.T) {
		_, err := i.RenewalInfo(t.Context(), &x509.Certificate{SerialNumber: big.NewInt(4711), AuthorityKeyId: leaf.AuthorityKeyId})
		var e *acme.Error
		if !errors.As(err, &e) || !strings.Contains(e.Error(), "404") {
			t.Errorf("err = %v, want an *acme.Error with 404", err)
		}
	})
	t.Run("a certificate without the id of its issuer's key", func(t *testing.T) {
		if _, err := i.RenewalInfo(t.Context(), &x509.Certificate{SerialNumber: big.NewInt(4711)}); !errors.Is(err, acme.ErrNoRenewalInfo) {
			t.Errorf("err = %v, want ErrNoRenewalInfo", err)
		}
	})
}

func TestRenewalInfoOfAServerThatMisbehaves(t *testing.T) {
	t.Parallel()
	name := mustName(t, "alice.members.pool.example")
	leaf := &x509.Certificate{SerialNumber: big.NewInt(4711), AuthorityKeyId: []byte{1, 2, 3}}
	const path, window = "/draft-ietf-acme-ari-03/", `{"suggestedWindow":{"start":"2026-11-01T00:00:00Z","end":"2026-11-02T00:00:00Z"}}`
	for _, tt := range []struct {
		name  string
		front func(http.Handler) http.Handler
		class acme.Class // "" = an answer
		wait  time.Duration
	}{
		{"500 with a window in it is no answer", at(path, always(500, window)), acme.ClassNetwork, 0},
		{"404 with a window in it is no answer", at(path, always(404, window)), acme.ClassMalformed, 0},
		{"503 says when to come back", at(path, always(503, "<html>", "Retry-After: 120")), acme.ClassNetwork, 2 * time.Minute},
		{"429 says when to come back", at(path, always(429, "{}", "Retry-After: 86400")), acme.ClassRateLimited, 24 * time.Hour},
		{"a redirect is not followed", at(path, always(302, "", "Location: http://127.0.0.1:1/")), acme.ClassMalformed, 0},
		{"a link without TLS is not followed", rewrite("/dir", `"renewalInfo": "https:`, `"renewalInfo": "http:`), acme.ClassMalformed, 0},
		{"ten years until the next question are the caller's to bound", at(path, always(200, window, "Retry-After: 315360000")), "", 24 * time.Hour},
		{"a wait below zero is none", at(path, always(200, window, "Retry-After: -5")), "", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, settings{front: tt.front}, name)
			info, err := w.issuer(t).RenewalInfo(t.Context(), leaf)
			if tt.class == "" {
				if err != nil || info.RetryAfter != tt.wait {
					t.Errorf("renewal info = %+v, %v; want a wait of %v", info, err, tt.wait)
				}
				return
			}
			var e *acme.Error
			if !errors.As(err, &e) || e.Class != tt.class || e.RetryAfter != tt.wait {
				t.Errorf("err = %#v, want class %s and a wait of %v", err, tt.class, tt.wait)
			}
		})
	}
	t.Run("a CA without renewal information", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, settings{front: rewrite("/dir", `"renewalInfo"`, `"x"`)}, name)
		if _, err := w.issuer(t).RenewalInfo(t.Context(), leaf); !errors.Is(err, acme.ErrNoRenewalInfo) {
			t.Errorf("err = %v, want ErrNoRenewalInfo", err)
		}
	})
}

// ordersSeen notes what new orders ask for.
type ordersSeen struct {
	mu   sync.Mutex
	list []map[string]any
}

func (o *ordersSeen) front(real http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/order-plz") {
			body, _ := io.ReadAll(r.Body)
			var jws struct{ Payload string }
			_ = json.Unmarshal(body, &jws)
			payload, _ := base64.RawURLEncoding.DecodeString(jws.Payload)
			var order map[string]any
			_ = json.Unmarshal(payload, &order)
			o.mu.Lock()
			o.list = append(o.list, order)
			o.mu.Unlock()
			r.Body = io.NopCloser(bytes.NewReader(body))
		}
		real.ServeHTTP(w, r)
	})
}

func (o *ordersSeen) take() []map[string]any {
	o.mu.Lock()
	defer o.mu.Unlock()
	list := o.list
	o.list = nil
	return list
}

func TestReplaces(t *testing.T) {
	t.Parallel()
	name := mustName(t, "alice.members.pool.example")
	seen := new(ordersSeen)
	w := newWorld(t, settings{front: seen.front}, name)
	i := w.issuer(t, only(issuer.HTTP01))
	order := func(replaces *x509.Certificate) (*x509.Certificate, []map[string]any) {
		t.Helper()
		o, _ := newOrder(t, name, elliptic.P256())
		signed := 0
		o.Replaces, o.Finalizing = replaces, func() error { signed++; return nil }
		seen.take()
		leaf := leafOf(t, issue(t, i, o))
		if signed != 1 {
			t.Errorf("the CA was asked to sign %d times, want to hear of it once", signed)
		}
		return leaf, seen.take()
	}
	first, asked := order(nil)
	if _, ok := asked[0]["replaces"]; len(asked) != 1 || ok {
		t.Errorf("the first order asks for %v, want it to replace nothing", asked)
	}
	for first.SerialNumber.BitLen()%8 == 0 { // its number begins with an octet of zero, and pebble 2.10.1 does not find it
		first, _ = order(nil)
	}
	_, asked = order(first)
	if id, _ := asked[0]["replaces"].(string); len(asked) != 1 || !strings.Contains(id, ".") {
		t.Errorf("the renewal asks for %v, want it to replace the first", asked)
	}
	// The same once more is refused with alreadyReplaced, and so is a certificate that the CA has forgotten, in other words.
	for what, old := range map[string]*x509.Certificate{"replaced": first, "forgotten": {SerialNumber: big.NewInt(4711), AuthorityKeyId: first.AuthorityKeyId}} {
		_, asked = order(old)
		if len(asked) != 2 || asked[1]["replaces"] != nil {
			t.Errorf("renewing a %s certificate asks for %v, want a second order without replaces", what, asked)
		}
	}
}

func TestProfileThatTheCARefusesIsDropped(t *testing.T) {
	t.Parallel()
	name := mustName(t, "alice.members.pool.example")
	seen := new(ordersSeen)
	w := newWorld(t, settings{front: func(real http.Handler) http.Handler {
		var refused atomic.Bool
		return seen.front(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/order-plz") && refused.CompareAndSwap(false, true) {
				w.Header().Set("Replay-Nonce", "bm9uY2U")
				always(400, `{"type":"urn:ietf:params:acme:error:invalidProfile","detail":"not for you","status":400}`).ServeHTTP(w, r)
				return
			}
			real.ServeHTTP(w, r)
		}))
	}}, name)
	o, _ := newOrder(t, name, elliptic.P256())
	o.Profile = "short"
	issue(t, w.issuer(t, only(issuer.HTTP01)), o)
	asked := seen.take()
	if last := asked[len(asked)-1]; asked[0]["profile"] != "short" || last["profile"] != nil {
		t.Errorf("orders ask for %v, want the profile only at first", asked)
	}
}

func TestNothingIsSignedThatNobodyCounted(t *testing.T) {
	t.Parallel()
	name := mustName(t, "alice.members.pool.example")
	w := newWorld(t, settings{front: at("/finalize-order", always(200, "must not be asked"))}, name)
	o, _ := newOrder(t, name, elliptic.P256())
	o.Finalizing = func() error { return errors.New("the disk is full") }
	_, err := w.issuer(t, only(issuer.HTTP01)).Issue(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), "the disk is full") {
		t.Errorf("err = %v, want the refusal", err)
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	name := mustName(t, "alice.members.pool.example")
	until := time.Now().Add(5 * time.Hour).UTC().Truncate(time.Second)
	when := ", retry after " + until.Format(time.DateTime) + " UTC: see https://letsencrypt.org/docs/rate-limits/"
	for _, tt := range []struct {
		name, detail string
		class        acme.Class
		domain       string
		until        time.Time
	}{
		{"50 certificates a week for the pool's domain", `too many certificates (50) already issued for \"pool.example\" in the last 168h0m0s` + when, acme.ClassLimit, "pool.example", until},
		{"5 certificates a week for the name", `too many certificates (5) already issued for this exact set of identifiers in the last 168h0m0s` + when, acme.ClassRateLimited, "", until},
		{"a domain that is not ours", `too many certificates (50) already issued for \"bank.example\" in the last 168h0m0s` + when, acme.ClassRateLimited, "", until},
		{"no words that are known", `slow down`, acme.ClassRateLimited, "", time.Time{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			body := `{"type":"urn:ietf:params:acme:error:rateLimited","detail":"` + tt.detail + `","status":429}`
			w := newWorld(t, settings{front: at("/order-plz", always(429, body))}, name)
			o, _ := newOrder(t, name, elliptic.P256())
			_, err := w.issuer(t).Issue(t.Context(), o)
			var e *acme.Error
			if !errors.As(err, &e) || e.Class != tt.class || e.Domain != tt.domain || !e.Until.Equal(tt.until) || e.Hint == "" {
				t.Fatalf("err = %+v, want class %s, domain %q until %v", e, tt.class, tt.domain, tt.until)
			}
			if left := time.Until(until); !tt.until.IsZero() && (e.RetryAfter < left-time.Minute || e.RetryAfter > left+time.Minute) {
				t.Errorf("wait = %v, want %v", e.RetryAfter, left)
			}
		})
	}
}
