package issuer_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ntsagent/acme"
	"ntsagent/acme/challenge"
	"ntsagent/acme/issuer"
)

// TestAssaults has what a hostile server can do at one step only.
func TestAssaults(t *testing.T) {
	t.Parallel()
	g := newSiege(t)
	yard := t.TempDir()
	www := filepath.Join(yard, "www")
	if err := os.Mkdir(www, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for dir, want := range map[string]int{yard: 1, www: 0} {
			if left, err := os.ReadDir(dir); err != nil || len(left) != want {
				t.Errorf("%s holds %v, %v: a token became a path", dir, left, err)
			}
		}
	})
	webroot := func(c *issuer.Config) { c.Webroot = challenge.Webroot(www) }
	short := func(c *acme.Config) { c.Profile = "short" }
	limit := func(retryAfter ...string) wall {
		for i := range retryAfter {
			retryAfter[i] = "Retry-After: " + retryAfter[i]
		}
		return at("/order-plz", always(429, `{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too much","status":429}`, retryAfter...))
	}
	token := func(old string) wall { return rewrite("/authZ/", `"token": "`, `"token": "`+old) }
	hurried := func(issue, request, finalize time.Duration) [3]time.Duration {
		return [3]time.Duration{issue, request, finalize}
	}
	for _, tt := range []assault{
		{name: "429 for an hour", front: limit("3600"), class: acme.ClassRateLimited, text: "429 rateLimited: too much", retry: time.Hour, next: 63 * time.Minute},
		{name: "429 until a date", front: at("/order-plz", inTwoHours), class: acme.ClassRateLimited, text: "429", retry: 2 * time.Hour, slack: 10 * time.Minute, next: 126 * time.Minute},
		{name: "429 without a time", front: limit(), class: acme.ClassRateLimited, text: "429", next: time.Minute},
		{name: "429 until the day before", front: limit("-86400"), class: acme.ClassRateLimited, text: "429", next: time.Minute},
		{name: "429 until a date that is over", front: limit("Mon, 23 Nov 2020 12:00:00 GMT"), class: acme.ClassRateLimited, text: "429", next: time.Minute},
		{name: "429 for a second", front: limit("1"), class: acme.ClassRateLimited, text: "429", retry: time.Second, next: 63 * time.Second},
		{name: "429 for ten years", front: limit("315360000"), class: acme.ClassRateLimited, text: "429", retry: 24 * time.Hour, next: 25*time.Hour + 12*time.Minute},
		{name: "429 for longer than can be counted", front: limit("999999999999999999999999"), class: acme.ClassRateLimited, text: "429", next: time.Minute},
		{name: "429 at the directory", front: at("/dir", always(429, "<html>", "Retry-After: 3600")), class: acme.ClassRateLimited, text: "429", retry: time.Hour, next: 63 * time.Minute},
		{name: "429 instead of a certificate", front: at("/finalize-order/", always(429, "<html>", "Retry-After: 3600")), class: acme.ClassRateLimited, text: "429", retry: time.Hour, next: 63 * time.Minute},

		{name: "an octet at a time from the directory", front: at("/dir", drip), hurry: hurried(0, 2*time.Second, 0), class: acme.ClassNetwork, text: "deadline", next: time.Minute},
		{name: "an octet at a time from the order", front: at("/order-plz", drip), hurry: hurried(0, 2*time.Second, 0), class: acme.ClassNetwork, text: "deadline", next: time.Minute},
		{name: "an octet at a time from a fault", front: at("/order-plz", dripped(503)), hurry: hurried(0, 2*time.Second, 0), class: acme.ClassNetwork, text: "deadline", next: time.Minute},
		{name: "silence at the order", front: at("/order-plz", silent), hurry: hurried(0, 2*time.Second, 0), class: acme.ClassNetwork, text: "deadline", next: time.Minute},
		{name: "a validation that never ends", front: rewrite("/authZ/", `"status": "valid"`, `"status": "pending"`), hurry: hurried(20*time.Second, 0, 0),
			class: acme.ClassNetwork, text: "no certificate from the ACME server within 20s", validations: 1, next: 12 * time.Minute},
		{name: "an order that is never finished", front: rewrite("/my-order/", `"status": "valid"`, `"status": "processing"`), hurry: hurried(0, 0, time.Second),
			class: acme.ClassNetwork, text: "did not finish the order in time", signed: true, next: time.Minute},

		{name: "CVE-2025-54799 links of the directory without TLS", front: rewrite("/dir", `"https:`, `"http:`), class: acme.ClassMalformed, text: "is not https", next: time.Hour},
		{name: "CVE-2025-54799 an authorization without TLS", front: insecureAuthz, class: acme.ClassMalformed, text: "is not https", next: time.Hour},
		{name: "CVE-2025-54799 a finalize link without TLS", front: rewrite("/order-plz", `"finalize": "https:`, `"finalize": "http:`), class: acme.ClassMalformed, text: "is not https", next: time.Hour},
		{name: "CVE-2025-54799 a Location of the order without TLS", front: relocate("/order-plz"), class: acme.ClassMalformed, text: "is not https", next: time.Hour},
		{name: "CVE-2025-54799 a challenge without TLS", front: rewrite("/authZ/", `"url": "https:`, `"url": "http:`), class: acme.ClassMalformed, text: "is not https", validations: 1, next: time.Hour},
		{name: "CVE-2025-54799 a certificate without TLS", front: rewrite("/my-order/", `"certificate": "https:`, `"certificate": "http:`), hurry: hurried(0, 0, time.Second),
			class: acme.ClassMalformed, text: "is not https", signed: true, next: time.Hour},
		{name: "CVE-2025-54799 an order that has moved to http", front: at("/order-plz", always(308, "", "Location: http://127.0.0.1:1/")), class: acme.ClassMalformed, text: "redirected to http://127.0.0.1:1/", next: time.Hour},
		{name: "a finalize link that is a file", front: rewrite("/order-plz", `"finalize": "https:`, `"finalize": "file:`), class: acme.ClassMalformed, text: "is not https", next: time.Hour},

		{name: "nine of ten nonces are bad", front: badNonces(10), hurry: hurried(20*time.Second, 0, 0), class: acme.ClassNetwork, text: "badNonce: not this one", next: time.Minute},
		{name: "no nonce", front: withoutNonce(false), class: acme.ClassMalformed, text: "nonce", next: time.Hour},
		{name: "the nonce bug of acme.sh: an empty nonce", front: withoutNonce(true), class: acme.ClassMalformed, text: "nonce", next: time.Hour},

		{name: "a profile that is offered and unknown, and so is the default", front: at("/order-plz", always(400, `{"type":"urn:ietf:params:acme:error:invalidProfile","detail":"not for you","status":400}`)),
			config: short, class: acme.ClassMalformed, text: "invalidProfile: not for you", next: time.Hour},

		{name: "CVE-2026-40611 a token that is a path", front: token("../x"), edit: webroot, class: acme.ClassMalformed, text: `the token "../x`, next: time.Hour},
		{name: "CVE-2026-40611 a token that begins at the root", front: token(yard + "/x"), edit: webroot, class: acme.ClassMalformed, text: "is not base64url", next: time.Hour},
		{name: "CVE-2026-40611 a token with NUL", front: token(`x\u0000`), edit: webroot, class: acme.ClassMalformed, text: `is not base64url`, next: time.Hour},
		{name: "CVE-2026-40611 a token of 10 KiB", front: token(strings.Repeat("x", 10<<10)), edit: webroot, class: acme.ClassMalformed, text: `is not base64url`, next: time.Hour},
		{name: "CVE-2026-40611 a token that is a path, by tls-alpn-01", front: token("../x"), edit: only(issuer.TLSALPN01), class: acme.ClassMalformed, text: `tls-alpn-01: the token "../x`, next: time.Hour},
		{name: "CVE-2023-38198 a token that is a command", front: token("$(touch " + www + "/x)`touch " + www + "/x`;"), edit: webroot, class: acme.ClassMalformed, text: "is not base64url", next: time.Hour},

		{name: "CVE-2026-42507 a header line of controls", front: at("/order-plz", raw("HTTP/1.1 201 Created\r\n\x1b[31m{\"level\":\n\"x\" y\r\n\r\n")), class: acme.ClassNetwork, text: "malformed", next: time.Minute},
		{name: "CVE-2026-42507 a problem of controls", front: at("/order-plz", always(400, `{"type":"urn:ietf:params:acme:error:malformed","detail":"a\n{\"@level\":\"error\"}\u001b[31mb\u2028c","status":400}`)),
			class: acme.ClassMalformed, text: `a {"@level":"error"} [31mb c`, next: time.Hour},
	} {
		t.Run(tt.name, func(t *testing.T) { g.run(t, tt) })
	}
}
