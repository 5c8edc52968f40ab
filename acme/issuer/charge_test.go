package issuer_test

import (
	"crypto/elliptic"
	"net/http"
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
