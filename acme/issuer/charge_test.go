package issuer_test

import (
	"crypto/elliptic"
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"ntsagent/acme/issuer"
)

// TestEachValidationThatTheCACountsIsChargedOnceThoughAnotherChallengeSucceeds: a CA lets five validations of a name fail in an
// hour, and counts those of an order that was given up for another one like any other.
func TestEachValidationThatTheCACountsIsChargedOnceThoughAnotherChallengeSucceeds(t *testing.T) {
	t.Parallel()
	name := mustName(t, "alice.members.pool.example")
	for _, tt := range []struct {
		name  string
		spoil func(*world)
		edit  func(*issuer.Config)
		want  int32
	}{
		{"the first challenge succeeds", nil, nil, 0},
		{"the second does", func(w *world) { w.http.Config.Handler = always(http.StatusTeapot, "") }, nil, 1},
		{"the first does, the other way round", nil, only(issuer.TLSALPN01, issuer.HTTP01), 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, settings{}, name)
			if tt.spoil != nil {
				tt.spoil(w)
			}
			edit := func(*issuer.Config) {}
			if tt.edit != nil {
				edit = tt.edit
			}
			order, _ := newOrder(t, name, elliptic.P256())
			var failed atomic.Int32
			order.Failed = func() { failed.Add(1) }
			issue(t, w.issuer(t, edit), order)
			if n := failed.Load(); n != tt.want {
				t.Errorf("%d validations failed, want %d", n, tt.want)
			}
		})
	}
}

// TestSignatureIsCountedHoweverTheServerSpellsItsLink: what goes to the CA is the agent's to count, not what the CA calls it.
func TestSignatureIsCountedHoweverTheServerSpellsItsLink(t *testing.T) {
	t.Parallel()
	name := mustName(t, "alice.members.pool.example")
	for _, tt := range []struct {
		name  string
		front func(http.Handler) http.Handler
	}{
		{"as ever", nil},
		{"in capitals", rewrite("/order-plz", `"finalize": "https:`, `"finalize": "HTTPS:`)},
		{"with an empty fragment", edit("/order-plz", func(_ http.Header, body []byte) []byte {
			return regexp.MustCompile(`("finalize": "[^"]*)"`).ReplaceAll(body, []byte(`$1#"`))
		})},
		{"and another one in an authorization", rewrite("/authZ/", `"identifier":`, `"finalize": "https://elsewhere.example/", "identifier":`)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var asked, failed, arrived atomic.Int32
			w := newWorld(t, settings{front: finalizes(&arrived, tt.front)}, name)
			order, _ := newOrder(t, name, elliptic.P256())
			order.Finalizing = func() error { asked.Add(1); return nil }
			order.Failed = func() { failed.Add(1) }
			_, err := w.issuer(t, only(issuer.HTTP01)).Issue(t.Context(), order)
			if asked.Load() != 1 || failed.Load() != 0 || arrived.Load() != 1 {
				t.Errorf("%d signatures and %d failed validations counted where the CA was asked to sign %d times: %v", asked.Load(), failed.Load(), arrived.Load(), err)
			}
		})
	}
}

// TestCAIsAskedToSignOnce has an order that becomes invalid when it is to be signed, as if a validation had failed.
func TestCAIsAskedToSignOnce(t *testing.T) {
	t.Parallel()
	name := mustName(t, "alice.members.pool.example")
	var asked, arrived atomic.Int32
	invalid := edit("/finalize-order", func(_ http.Header, body []byte) []byte {
		var o map[string]any
		if err := json.Unmarshal(body, &o); err != nil {
			t.Errorf("%v: %s", err, body)
		}
		o["status"] = "invalid"
		o["error"] = map[string]any{"type": "urn:ietf:params:acme:error:connection", "detail": "timeout", "status": 400}
		b, err := json.Marshal(o)
		if err != nil {
			t.Error(err)
		}
		return b
	})
	w := newWorld(t, settings{front: finalizes(&arrived, invalid)}, name)
	order, _ := newOrder(t, name, elliptic.P256())
	order.Finalizing = func() error { asked.Add(1); return nil }
	if _, err := w.issuer(t, only(issuer.HTTP01, issuer.TLSALPN01)).Issue(t.Context(), order); err == nil || asked.Load() != 1 || arrived.Load() != 1 {
		t.Errorf("%d signatures counted where the CA was asked %d times, %v; want one and an error", asked.Load(), arrived.Load(), err)
	}
}

// finalizes counts how often the CA is asked to sign, in front of which something may stand.
func finalizes(arrived *atomic.Int32, front func(http.Handler) http.Handler) func(http.Handler) http.Handler {
	return func(real http.Handler) http.Handler {
		counting := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/finalize-order") {
				arrived.Add(1)
			}
			real.ServeHTTP(w, r)
		})
		if front == nil {
			return counting
		}
		return front(counting)
	}
}
