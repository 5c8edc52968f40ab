package issuer_test

import (
	"crypto/elliptic"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"ntsagent/acme"
	"ntsagent/acme/issuer"
)

// TestHostileServer puts a server that misbehaves at one step in front of the real one. Whatever it does ends in an *acme.Error
// of one bounded line, and soon.
func TestHostileServer(t *testing.T) {
	t.Parallel()
	name := mustName(t, "alice.members.pool.example")
	const problem = `{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many certificates","status":429}`
	huge := strings.Repeat(" ", 1<<20) + "{}"
	for _, tt := range []struct {
		name  string
		front func(http.Handler) http.Handler
		class acme.Class
		text  string
		wait  time.Duration
	}{
		{"a busy load balancer says when to come back", at("/dir", always(503, "<html>busy", "Retry-After: 120")), acme.ClassNetwork, "503", 2 * time.Minute},
		{"a rate limit on orders", at("/order-plz", always(429, problem, "Retry-After: 3600", "Content-Type: application/problem+json")), acme.ClassRateLimited, "rateLimited: too many certificates", time.Hour},
		{"a rate limit for ten years", at("/order-plz", always(429, problem, "Retry-After: 315360000")), acme.ClassRateLimited, "rateLimited", 24 * time.Hour},
		{"a rate limit without words", at("/order-plz", always(429, "slow down", "Retry-After: soon")), acme.ClassRateLimited, "429", 0},
		{"an internal error", at("/finalize-order", always(500, `{"type":"urn:ietf:params:acme:error:serverInternal","detail":"oops"}`)), acme.ClassNetwork, "serverInternal: oops", 0},
		{"a web page as directory", at("/dir", always(200, "<html>hello</html>")), acme.ClassMalformed, "JSON", 0},
		{"a directory without links", at("/dir", always(200, "{}")), acme.ClassInternal, "directory", 0},
		{"an answer of more than a mebibyte", at("/order-plz", always(201, huge)), acme.ClassMalformed, "larger than", 0},
		{"null as a problem", at("/order-plz", always(400, "null")), acme.ClassMalformed, "400", 0},
		{"null as an order", at("/order-plz", always(201, "null")), acme.ClassInternal, "identifiers have been modified", 0},
		{"a redirect", at("/order-plz", always(307, "", "Location: http://127.0.0.1:1/")), acme.ClassMalformed, "redirected to http://127.0.0.1:1/", 0},
		{"links without TLS", rewrite("/dir", `"https:`, `"http:`), acme.ClassMalformed, "not https", 0},
		{"a finalize link without TLS", rewrite("/order-plz", `"finalize": "https:`, `"finalize": "http:`), acme.ClassMalformed, "not https", 0},
		{"an account URL without TLS", relocate("/sign-me-up"), acme.ClassMalformed, "is not https", 0},
		{"more authorizations than names", doubleAuthz, acme.ClassMalformed, "2 authorizations", 0},
		{"a certificate that is a web page", at("/certZ/", always(200, "<html>")), acme.ClassMalformed, "not PEM", 0},
		{"a chain without end", repeat("/certZ/", 6), acme.ClassMalformed, "12 certificates", 0},
		{"a token that is a path", rewrite("/authZ/", `"token": "`, `"token": "../../`), acme.ClassMalformed, "base64url", 0},
		{"no challenge of our types", rewrite("/authZ/", `-01"`, `-99"`), acme.ClassMalformed, "not offered", 0},
		{"nonces are withheld", at("/nonce-plz", always(503, "", "Retry-After: 90")), acme.ClassNetwork, "503", 90 * time.Second},
		{"an account that is closed", at("/order-plz", always(403, `{"type":"urn:ietf:params:acme:error:unauthorized","detail":"account is deactivated","status":403}`)), acme.ClassAccount, "deactivated", 0},
		{"an order that a CAA record forbids", at("/finalize-order", always(403, `{"type":"urn:ietf:params:acme:error:caa","detail":"CAA says no","status":403}`)), acme.ClassCAA, "CAA says no", 0},
		{"colours and line feeds", at("/order-plz", always(400, `{"type":"urn:ietf:params:acme:error:malformed","detail":"a\n\u001b[31mb","status":400}`)), acme.ClassMalformed, "a [31mb", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, settings{front: tt.front}, name)
			order, _ := newOrder(t, name, elliptic.P256())
			_, err := w.issuer(t, only(issuer.HTTP01)).Issue(t.Context(), order)
			var e *acme.Error
			if !errors.As(err, &e) {
				t.Fatalf("err = %v, want an *acme.Error", err)
			}
			if e.Class != tt.class || e.RetryAfter != tt.wait || !strings.Contains(e.Error(), tt.text) {
				t.Errorf("class %s, wait %v, text %q; want %s, %v, text with %q", e.Class, e.RetryAfter, e, tt.class, tt.wait, tt.text)
			}
			if len(e.Error()) > 500 || strings.ContainsAny(e.Error(), "\n\r\x1b") {
				t.Errorf("text is not one short line: %.600q", e.Error())
			}
			if e.Hint == "" {
				t.Error("no hint")
			}
			w.mustHaveNoProof(t, name)
		})
	}
}

// edit changes the real server's answers to paths with prefix.
func edit(prefix string, change func(h http.Header, body []byte) []byte) func(http.Handler) http.Handler {
	return func(real http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !strings.HasPrefix(r.URL.Path, prefix) {
				real.ServeHTTP(w, r)
				return
			}
			rec := httptest.NewRecorder()
			real.ServeHTTP(rec, r)
			body, err := io.ReadAll(rec.Body)
			if err != nil {
				panic(err)
			}
			header := rec.Header()
			header.Del("Content-Length")
			body = change(header, body)
			for k, v := range header {
				w.Header()[k] = v
			}
			w.WriteHeader(rec.Code)
			w.Write(body)
		})
	}
}

func rewrite(prefix, old, new string) func(http.Handler) http.Handler {
	return edit(prefix, func(_ http.Header, body []byte) []byte { return []byte(strings.ReplaceAll(string(body), old, new)) })
}

func relocate(prefix string) func(http.Handler) http.Handler {
	return edit(prefix, func(h http.Header, body []byte) []byte {
		if l := h.Get("Location"); l != "" {
			h.Set("Location", strings.Replace(l, "https:", "http:", 1))
		}
		return body
	})
}

func repeat(prefix string, n int) func(http.Handler) http.Handler {
	return edit(prefix, func(_ http.Header, body []byte) []byte { return []byte(strings.Repeat(string(body), n)) })
}

// doubleAuthz names the one authorization of an order twice.
func doubleAuthz(real http.Handler) http.Handler {
	return edit("/order-plz", func(_ http.Header, body []byte) []byte {
		var order map[string]any
		if err := json.Unmarshal(body, &order); err != nil {
			return body
		}
		if a, ok := order["authorizations"].([]any); ok {
			order["authorizations"] = append(a, a...)
		}
		b, err := json.Marshal(order)
		if err != nil {
			panic(err)
		}
		return b
	})(real)
}
