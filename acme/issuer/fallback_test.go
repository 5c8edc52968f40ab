package issuer_test

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"ntsagent/acme"
	"ntsagent/acme/issuer"
	"ntsagent/acme/live"
	"ntsagent/acme/store"
	"ntsagent/hostcheck"
)

func asFallback(c *issuer.Config) { c.Fallback = true }

// TestFallbackWithTwoRealServers has a CA that is gone and, to turn to, one that has customers only.
func TestFallbackWithTwoRealServers(t *testing.T) {
	t.Parallel()
	name := mustName(t, "alice.members.pool.example")
	first, second := newWorld(t, settings{}, name), newWorld(t, settings{eab: true}, name)
	goDown(t, first.server)
	dir := filepath.Join(t.TempDir(), "acme")
	s, set, events := openStore(t, dir), live.NewSet([]hostcheck.Name{name}), make(chan acme.Event, 100)
	// It has failed for long: whoever restarts does not wait again for what has been waited for.
	if err := s.SaveRenewal(name, store.Renewal{Directory: first.directory, Failures: 3, Row: map[string]int{"network": 3}, LastFailure: time.Now().Add(-time.Hour)}); err != nil {
		t.Fatal(err)
	}
	eab := issuer.EAB{KID: customer, HMACFile: keyFile(t, customerKey, 0o600)}
	m := acme.NewManager(acme.Config{Name: name, Issuer: first.issuer(t, withStore(s)), Directory: first.directory, Store: s, Live: set, Log: nullLog,
		Event:    func(e acme.Event) { events <- e },
		Fallback: acme.Authority{Directory: second.directory, Issuer: second.issuer(t, withStore(s), withEAB(eab), asFallback)}})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { m.Run(ctx) })
	if e := await(t, events, acme.Failed); !strings.Contains(e.Text, "connection refused") {
		t.Errorf("failure = %q, want the primary to be tried first", e.Text)
	}
	await(t, events, acme.Obtained)
	shown(t, set, name)
	if state := m.State(); !state.Fallback || state.Failures != 0 {
		t.Errorf("state = %+v", state)
	}
	// A wish asks the maker first when it is best renewed.
	var refused *acme.Refused
	if err := m.Renew(t.Context(), false); !errors.As(err, &refused) {
		t.Errorf("a wish for what is not due: %v", err)
	}
	var failed *acme.Error
	if err := m.Renew(t.Context(), true); !errors.As(err, &failed) || failed.Class != acme.ClassNetwork {
		t.Errorf("a forced wish: %v, want the primary to be tried", err)
	}
	cancel()
	running.Wait()

	r, err := s.Renewal(name)
	if err != nil || r.Window.Start.IsZero() || r.Origin.Directory != second.directory || r.Other == nil || len(r.Other.Issued) != 1 || len(r.Issued) != 0 {
		t.Errorf("state on disk = %+v and %+v, %v; want the window of the maker, and its count", r, r.Other, err)
	}
	a, err := store.ReadAccount(dir, second.directory)
	if err != nil || !strings.HasPrefix(a.URI, second.server.URL) || !slices.Equal(a.CAAIdentities, []string{"ca.example"}) {
		t.Errorf("account at the fallback = %+v, %v", a, err)
	}
}

func TestAccountIsOpenedBeforeItIsNeeded(t *testing.T) {
	t.Parallel()
	name := mustName(t, "alice.members.pool.example")
	w := newWorld(t, settings{eab: true}, name)
	dir := t.TempDir()
	s := openStore(t, dir)
	var e *acme.Error
	if err := w.issuer(t, withStore(s), asFallback).Register(t.Context()); !errors.As(err, &e) || e.Class != acme.ClassAccount || !strings.Contains(e.Hint, "acme.fallback_eab") {
		t.Fatalf("without what the CA wants: %v", err)
	}
	i := w.issuer(t, withStore(s), asFallback, withEAB(issuer.EAB{KID: customer, HMACFile: keyFile(t, customerKey, 0o600)}))
	if err := i.Register(t.Context()); err != nil {
		t.Fatal(err)
	}
	a, err := store.ReadAccount(dir, w.directory)
	if err != nil || a.URI == "" || len(a.CAAIdentities) != 1 {
		t.Fatalf("account = %+v, %v", a, err)
	}
	goDown(t, w.server)
	if err := i.Register(t.Context()); err != nil {
		t.Errorf("the account that is there: %v", err)
	}
	none := w.issuer(t, asFallback)
	if err := none.Register(t.Context()); !errors.As(err, &e) || e.Class != acme.ClassNetwork || !strings.Contains(e.Hint, "acme.fallback_directory") {
		t.Errorf("at a CA that is gone: %v", err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := none.Register(over); !errors.Is(err, context.Canceled) {
		t.Errorf("when it is ended: %v", err)
	}
	<-none.Idle() // it goes on for a moment when nobody waits for it, and would find its folder gone
}
