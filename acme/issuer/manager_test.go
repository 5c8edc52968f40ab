package issuer_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"ntsagent/acme"
	"ntsagent/acme/live"
	"ntsagent/hostcheck"
)

// shown is what a client of name is shown, in DER.
func shown(t *testing.T, set *live.Set, name hostcheck.Name) []byte {
	t.Helper()
	cert, err := set.Get(&tls.ClientHelloInfo{ServerName: name.String()})
	if err != nil || cert == nil {
		t.Fatalf("nothing served for %s: %v", name, err)
	}
	return cert.Certificate[0]
}

// await gives the next event of that kind, and fails on one that tells of a failure unless that is what is awaited.
func await(t *testing.T, events <-chan acme.Event, kind acme.Kind) acme.Event {
	t.Helper()
	deadline := time.NewTimer(2 * time.Minute)
	defer deadline.Stop()
	for {
		select {
		case e := <-events:
			if e.Kind == kind {
				return e
			}
			if e.Kind == acme.Failed {
				t.Fatalf("failed: %s", e.Text)
			}
		case <-deadline.C:
			t.Fatalf("no %s within two minutes", kind)
		}
	}
}

// TestManagersWithARealServer walks the whole line: two names, each with its own order, key and certificate, one account; a
// renewal; a restart; and a server that goes away.
func TestManagersWithARealServer(t *testing.T) {
	t.Parallel()
	names := []hostcheck.Name{mustName(t, "alice.members.pool.example"), mustName(t, "bob.members.pool.example")}
	w := newWorld(t, settings{}, names...)
	dir := filepath.Join(t.TempDir(), "acme")

	type house struct {
		set      *live.Set
		managers []*acme.Manager
		events   []chan acme.Event
		stop     func()
	}
	open := func() *house {
		s := openStore(t, dir)
		h := &house{set: live.NewSet(names)}
		i := w.issuer(t, withStore(s))
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		for _, name := range names {
			events := make(chan acme.Event, 100)
			m := acme.NewManager(acme.Config{Name: name, Issuer: i, Store: s, Live: h.set, Log: nullLog, Event: func(e acme.Event) { events <- e }})
			running.Go(func() { m.Run(ctx) })
			h.managers, h.events = append(h.managers, m), append(h.events, events)
		}
		h.stop = func() { cancel(); running.Wait() }
		return h
	}

	h := open()
	for n := range names {
		await(t, h.events[n], acme.Obtained)
	}
	alice, bob := shown(t, h.set, names[0]), shown(t, h.set, names[1])
	aliceKey := h.set.Leaf(names[0]).RawSubjectPublicKeyInfo
	if bytes.Equal(aliceKey, h.set.Leaf(names[1]).RawSubjectPublicKeyInfo) {
		t.Error("two names share a key")
	}
	accounts, err := filepath.Glob(filepath.Join(dir, "accounts", "*"))
	if err != nil || len(accounts) != 1 {
		t.Errorf("accounts = %q, %v; want one", accounts, err)
	}

	if err := h.managers[0].Renew(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	await(t, h.events[0], acme.Obtained)
	renewed := shown(t, h.set, names[0])
	if bytes.Equal(renewed, alice) || bytes.Equal(h.set.Leaf(names[0]).RawSubjectPublicKeyInfo, aliceKey) {
		t.Error("the renewal brought no new certificate with a new key")
	}
	if !bytes.Equal(shown(t, h.set, names[1]), bob) {
		t.Error("the renewal of one name changed the other")
	}
	h.stop()

	goDown(t, w.server) // the CA is gone, and the agent starts again
	h = open()
	defer func() { h.stop() }()
	for n := range names {
		await(t, h.events[n], acme.Installed)
	}
	if h.managers[0].Renew(t.Context(), true) == nil {
		t.Error("a wish for a certificate of a CA that is gone was granted")
	}
	if e := await(t, h.events[0], acme.Failed); !strings.Contains(e.Text, "connection refused") {
		t.Errorf("failure = %q, want one about the connection", e.Text)
	}
	if !bytes.Equal(shown(t, h.set, names[0]), renewed) || !bytes.Equal(shown(t, h.set, names[1]), bob) {
		t.Error("a CA that is down has changed what is served")
	}
	if s := h.managers[0].State(); s.Failures != 1 || s.LastError == "" || s.LastHint == "" || !strings.HasPrefix(s.Issuer, "Pebble") {
		t.Errorf("state = %+v", s)
	}
}
