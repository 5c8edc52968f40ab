package issuer_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"ntsagent/acme"
	"ntsagent/acme/dnscheck"
	"ntsagent/acme/live"
	"ntsagent/hostcheck"
)

// keepAuthorizations lets nobody give an authorization up, and counts the orders.
func keepAuthorizations(orders *atomic.Int32) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/order-plz" {
				orders.Add(1)
			}
			body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
			if err != nil {
				return
			}
			var jws struct{ Payload string }
			if json.Unmarshal(body, &jws) == nil {
				if payload, err := base64.RawURLEncoding.DecodeString(jws.Payload); err == nil && strings.Contains(string(payload), "deactivated") {
					w.WriteHeader(http.StatusInternalServerError)
					return
				}
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
			next.ServeHTTP(w, r)
		})
	}
}

// TestARemovedNameIsNotOrderedForAlthoughTheCAWouldReuseItsAuthorization is the trap: the CA still holds a valid authorization
// and looks nothing up, so that only our own look at the DNS keeps the name from a new certificate.
func TestARemovedNameIsNotOrderedForAlthoughTheCAWouldReuseItsAuthorization(t *testing.T) {
	t.Parallel()
	name := mustName(t, "alice.members.pool.example")
	var orders atomic.Int32
	w := newWorld(t, settings{authzReuse: 100, front: keepAuthorizations(&orders)}, name)
	resolver := netip.MustParseAddrPort(w.zone.addr)
	look := func(ctx context.Context, name hostcheck.Name) dnscheck.Verdict {
		o := dnscheck.Config{Resolvers: []netip.AddrPort{resolver}}.Look(ctx, name)
		return dnscheck.Judge(o, dnscheck.Want{Public: []netip.Addr{netip.MustParseAddr("127.0.0.1")}})
	}
	for _, c := range []struct {
		name   string
		look   func(context.Context, hostcheck.Name) dnscheck.Verdict
		orders int32
		then   acme.Kind
	}{
		{"without a look of our own the trap snaps shut", nil, 2, acme.Obtained},
		{"with it no order goes out", look, 1, acme.PutOff},
	} {
		orders.Store(0)
		w.zone.set(name, "127.0.0.1")
		s, set := openStore(t, t.TempDir()), live.NewSet([]hostcheck.Name{name})
		events := make(chan acme.Event, 100)
		m := acme.NewManager(acme.Config{Name: name, Issuer: w.issuer(t, withStore(s)), Store: s, Live: set, Log: nullLog,
			Event: func(e acme.Event) { events <- e }, Look: c.look})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { m.Run(ctx) })
		await(t, events, acme.Obtained)
		served := shown(t, set, name)
		w.zone.set(name, "")
		if err := m.Renew(t.Context(), true); (err == nil) != (c.look == nil) {
			t.Errorf("%s: the wish was answered with %v", c.name, err)
		}
		await(t, events, c.then)
		if n := orders.Load(); n != c.orders {
			t.Errorf("%s: %d orders reached the CA, want %d", c.name, n, c.orders)
		}
		if same := bytes.Equal(shown(t, set, name), served); same != (c.look != nil) {
			t.Errorf("%s: the certificate stayed: %v", c.name, same)
		}
		cancel()
		running.Wait()
	}
}
