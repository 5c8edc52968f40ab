package issuer_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"ntsagent/acme"
	"ntsagent/acme/issuer"
)

// assault is one hostile server and what must come of it. The literals are for a schedule without jitter.
type assault struct {
	name   string
	front  wall
	hurry  [3]time.Duration // for Issuer.Hurry
	edit   func(*issuer.Config)
	config func(*acme.Config)

	class       acme.Class
	text, hint  string        // in what status tells
	retry       time.Duration // what the server's wish for a wait is taken for, at most slack less
	slack       time.Duration
	signed      bool // a certificate may have been made
	validations int  // that may have failed
	next        time.Duration
}

func (g *siege) run(t *testing.T, tt assault) {
	t.Parallel()
	c := g.pitch(t, tt.front, 61*24*time.Hour)
	before := c.files(t)
	var edits []func(*issuer.Config)
	if tt.edit != nil {
		edits = append(edits, tt.edit)
	}
	i := c.issuerOf(t, edits...)
	i.Hurry(tt.hurry[0], tt.hurry[1], tt.hurry[2])
	heard := &hearing{Issuer: i}
	got := c.attempt(t, c.store, heard, acme.Failed, tt.config)
	c.mustBeUntouched(t, before)

	e := &acme.Error{Class: acme.ClassRejected, Err: errors.New(got.state.LastError)} // what the agent says where the CA gave something
	if heard.err != nil && !errors.As(heard.err, &e) {
		t.Fatalf("the order ended with %v", heard.err)
	}
	if e.Class != tt.class || e.RetryAfter > tt.retry || e.RetryAfter < tt.retry-tt.slack || got.renewal.Row[string(tt.class)] != 1 || got.state.Failures != 1 {
		t.Errorf("class %s, wait %v, row %v; want %s, %v\ntext %q", e.Class, e.RetryAfter, got.renewal.Row, tt.class, tt.retry, e)
	}
	if policy := c.policy(t, tt.signed, acme.Error{Class: tt.class, RetryAfter: e.RetryAfter, Validations: tt.validations}); got.next != policy {
		t.Errorf("next attempt after %v, want %v as the policy has it", got.next, policy)
	}
	if slack := tt.slack * 21 / 20; got.next > tt.next || got.next < tt.next-slack {
		t.Errorf("next attempt after %v, want %v", got.next, tt.next)
	}
	if n := len(got.renewal.Issued); (n == 1) != tt.signed || n > 1 {
		t.Errorf("%d certificates counted, want some: %v", n, tt.signed)
	}
	if n := len(got.renewal.Validations); n != tt.validations {
		t.Errorf("%d failed validations counted, want %d", n, tt.validations)
	}
	text := got.state.LastError
	if !strings.Contains(text, tt.text) || len(text) > 410 || strings.ContainsAny(text, "\n\r\x1b\x00") || got.state.LastHint == "" {
		t.Errorf("status tells %q (hint %q), want one line with %q", text, got.state.LastHint, tt.text)
	}
	if !strings.Contains(got.state.LastHint, tt.hint) {
		t.Errorf("status gives the hint %q, want one with %q", got.state.LastHint, tt.hint)
	}
	if r, w := c.requests.Load(), c.written.Load(); r > 250 || w > 64<<20 {
		t.Errorf("%d requests and %d octets of answers", r, w)
	}
}

// The steps of an order, in the words of pebble.
var steps = []struct {
	name        string
	f           func(http.Handler) wall
	signed      bool
	validations int
}{
	{"the directory", func(h http.Handler) wall { return at("/dir", h) }, false, 0},
	{"a nonce", func(h http.Handler) wall { return at("/nonce-plz", h) }, false, 0},
	{"the order", func(h http.Handler) wall { return at("/order-plz", h) }, false, 0},
	{"the authorization", func(h http.Handler) wall { return at("/authZ/", h) }, false, 0},
	{"the challenge", func(h http.Handler) wall { return at("/chalZ/", h) }, false, 1},
	{"the validation", func(h http.Handler) wall { return after("/chalZ/", "/authZ/", h) }, false, 1},
	{"finalizing", func(h http.Handler) wall { return at("/finalize-order/", h) }, true, 0},
	{"the finished order", func(h http.Handler) wall { return at("/my-order/", h) }, true, 0},
	{"the certificate", func(h http.Handler) wall { return at("/certZ/", h) }, true, 0},
}

// TestBesieged puts every fault into every step of an order: live files stay as they are, the next attempt is when the policy
// says, and status tells why.
func TestBesieged(t *testing.T) {
	t.Parallel()
	g := newSiege(t)
	for _, fault := range []struct {
		name  string
		h     http.Handler
		die   bool
		class acme.Class
		text  string
		hint  string
		retry time.Duration
		next  time.Duration
		head  bool // shows in an answer without a body, too
	}{
		{"the server is killed at %s", reset, true, acme.ClassNetwork, "connection reset", "way out", 0, time.Minute, true},
		{"a load balancer is busy at %s", always(503, "<html>busy</html>", "Retry-After: 120"), false, acme.ClassNetwork, "503", "nothing to do but wait", 2 * time.Minute, 126 * time.Second, true},
		{"the server has a fault of its own at %s", always(500, `{"type":"urn:ietf:params:acme:error:serverInternal","detail":"oops","status":500}`), false, acme.ClassNetwork, "oops", "nothing to do but wait", 0, time.Minute, false},
		{"a web page at %s", always(200, "<html>hello</html>", "Content-Type: text/html"), false, acme.ClassMalformed, "", "look at acme.directory", 0, time.Hour, false},
		{"an endless answer at %s", endless, false, acme.ClassMalformed, "larger than", "look at acme.directory", 0, time.Hour, false},
		{"a loop of redirects at %s", around, false, acme.ClassMalformed, "redirected", "look at acme.directory", 0, time.Hour, true},
	} {
		for _, step := range steps {
			if step.name == "a nonce" && !fault.head {
				continue
			}
			f := step.f(fault.h)
			if fault.die {
				f = killed(step.f)
			}
			next := fault.next
			if step.validations > 0 {
				next = max(next, 12*time.Minute)
			}
			t.Run(strings.Replace(fault.name, "%s", step.name, 1), func(t *testing.T) {
				g.run(t, assault{front: f, hurry: [3]time.Duration{0, 0, time.Second}, class: fault.class, text: fault.text, hint: fault.hint, retry: fault.retry,
					signed: step.signed, validations: step.validations, next: next})
			})
		}
	}
}
