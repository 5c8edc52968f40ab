package live

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ntsagent/hostcheck"
)

const alpn = "ntske/1"

// serverConfig is how the agent serves a Set.
func serverConfig(s *Set) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{alpn}, SessionTicketsDisabled: true, GetCertificate: s.Get}
}

// tap keeps what a client reads from the wire.
type tap struct {
	net.Conn
	read bytes.Buffer
}

func (c *tap) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.read.Write(b[:n])
	return n, err
}

// connect makes one handshake with a server that serves s, as a client that trusts roots (nil: that judges nothing).
func connect(s *Set, sni string, roots *x509.CertPool) (leaf *x509.Certificate, wire []byte, err error) {
	near, far := net.Pipe()
	defer near.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	served := make(chan error, 1)
	go func() {
		defer far.Close()
		served <- tls.Server(far, serverConfig(s)).HandshakeContext(ctx)
	}()
	tapped := &tap{Conn: near}
	c := tls.Client(tapped, &tls.Config{ServerName: sni, RootCAs: roots, InsecureSkipVerify: roots == nil, NextProtos: []string{alpn}})
	err = c.HandshakeContext(ctx)
	near.Close()
	if serverErr := <-served; err == nil {
		err = serverErr
	}
	if err != nil {
		return nil, tapped.read.Bytes(), err
	}
	return c.ConnectionState().PeerCertificates[0], tapped.read.Bytes(), nil
}

// wantUnrecognizedName wants the fatal alert 112 and not one octet more.
func wantUnrecognizedName(t *testing.T, s *Set, sni string) {
	t.Helper()
	_, wire, err := connect(s, sni, nil)
	if err == nil || !strings.Contains(err.Error(), "unrecognized name") || len(wire) != 7 || wire[0] != 21 || wire[6] != 112 {
		t.Errorf("sni %q: %v, the server sent % x; want the alert unrecognized_name alone", sni, err, wire)
	}
}

func mustInstall(t testing.TB, s *Set, name hostcheck.Name, chain, key []byte, now time.Time) {
	t.Helper()
	if changed, err := s.Install(name, chain, key, now); err != nil || !changed {
		t.Fatalf("install: %v, %v", changed, err)
	}
}

func TestCheckPutsNothingInService(t *testing.T) {
	now := time.Now()
	ca := newAuthority(t, now)
	name := mustName(t, "alice.pool.example")
	s := NewSet([]hostcheck.Name{name})
	chain, key := ca.pair(t, now, nil, name.String())
	if err := s.Check(name, chain, key, now); err != nil || s.Leaf(name) != nil {
		t.Errorf("a good pair: %v, served %v", err, s.Leaf(name) != nil)
	}
	if err := s.Check(name, chain, keyOf(t, newKey(t)), now); err == nil {
		t.Error("a key of another certificate is good")
	}
	s.prove = func(hostcheck.Name, *tls.Certificate, time.Time) error { return errors.New("no") }
	if err := s.Check(name, chain, key, now); err == nil || !strings.Contains(err.Error(), "does not carry a TLS handshake") {
		t.Errorf("a pair that carries no handshake: %v", err)
	}
}

func TestServingChoosesByName(t *testing.T) {
	now := time.Now()
	ca := newAuthority(t, now)
	alice, bob, carol := mustName(t, "alice.pool.example"), mustName(t, "bob.pool.example"), mustName(t, "carol.pool.example")
	s := NewSet([]hostcheck.Name{carol, alice, bob})
	for _, name := range []hostcheck.Name{alice, bob} {
		chain, key := ca.pair(t, now, nil, name.String())
		mustInstall(t, s, name, chain, key, now)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca.root)
	for sni, want := range map[string]hostcheck.Name{"alice.pool.example": alice, "bob.pool.example": bob, "BOB.pool.example": bob} {
		leaf, _, err := connect(s, sni, roots)
		if err != nil || !leaf.Equal(s.Leaf(want)) {
			t.Errorf("sni %q: %v", sni, err)
		}
	}
	// Go sends no SNI for an address: the first name that has a certificate answers, which is not the first name.
	for _, address := range []string{"", "127.0.0.1", "::1"} {
		leaf, _, err := connect(s, address, nil)
		if err != nil || !leaf.Equal(s.Leaf(alice)) {
			t.Errorf("no sni (%q): %v", address, err)
		}
	}
	for _, sni := range []string{"evil.example", "pool.example", "carol.pool.example", "*.pool.example", "alice.pool.example.evil"} {
		wantUnrecognizedName(t, s, sni)
	}
	for _, sni := range []string{"127.0.0.1", "::1", "[::1]", "alice.pool.example:4460"} {
		if cert, err := s.Get(&tls.ClientHelloInfo{ServerName: sni}); cert != nil || err != nil {
			t.Errorf("sni %q is served: %v", sni, err)
		}
	}
}

func TestAnEmptySetServesNobody(t *testing.T) {
	alice := mustName(t, "alice.pool.example")
	for _, s := range []*Set{NewSet(nil), NewSet([]hostcheck.Name{alice})} {
		wantUnrecognizedName(t, s, "alice.pool.example")
		wantUnrecognizedName(t, s, "")
		if s.Valid(time.Now()) || s.Leaf(alice) != nil {
			t.Error("an empty set has something")
		}
	}
}

func TestInstallSaysWhetherAnythingChanged(t *testing.T) {
	now := time.Now()
	ca := newAuthority(t, now)
	alice := mustName(t, "alice.pool.example")
	s := NewSet([]hostcheck.Name{alice})
	key := newKey(t)
	leaf := ca.leaf(t, key, now, nil, "alice.pool.example")
	for _, step := range []struct {
		rule    string
		chain   []byte
		changed bool
	}{
		{"the first certificate", chainOf(leaf, ca.inter), true},
		{"the same again", chainOf(leaf, ca.inter), false},
		{"the same with other white space", append([]byte("\n"), chainOf(leaf, ca.inter)...), false},
		{"a longer chain", chainOf(leaf, ca.inter, ca.root), true},
		{"another certificate for the same key", chainOf(ca.leaf(t, key, now, nil, "alice.pool.example"), ca.inter), true},
	} {
		if changed, err := s.Install(alice, step.chain, keyOf(t, key), now); err != nil || changed != step.changed {
			t.Errorf("%s: %v, %v", step.rule, changed, err)
		}
	}
}

func TestAdoptTakesOverTheNamesBothHave(t *testing.T) {
	now := time.Now()
	ca := newAuthority(t, now)
	stays, goes, comes := mustName(t, "stays.example"), mustName(t, "goes.example"), mustName(t, "comes.example")
	old := NewSet([]hostcheck.Name{stays, goes})
	for _, name := range []hostcheck.Name{stays, goes} {
		chain, key := ca.pair(t, now, nil, name.String())
		mustInstall(t, old, name, chain, key, now)
	}
	s := NewSet([]hostcheck.Name{comes, stays})
	s.Adopt(old)
	if s.Leaf(stays) == nil || s.Leaf(stays) != old.Leaf(stays) {
		t.Error("the name both have lost its certificate")
	}
	if s.Leaf(comes) != nil || s.Leaf(goes) != nil {
		t.Error("a name got a certificate that is not its own")
	}
	s.Adopt(nil)
	if s.Leaf(stays) == nil {
		t.Error("nothing to adopt is no reason to drop anything")
	}
}

func TestInstallKeepsTheLastGoodOnAnyDoubt(t *testing.T) {
	now := time.Now()
	ca := newAuthority(t, now)
	alice, bob := mustName(t, "alice.pool.example"), mustName(t, "bob.pool.example")
	s := NewSet([]hostcheck.Name{alice})
	chain, key := ca.pair(t, now, nil, "alice.pool.example")
	mustInstall(t, s, alice, chain, key, now)
	good := s.Leaf(alice)
	newChain, newKey := ca.pair(t, now, nil, "alice.pool.example")
	expired, expiredKey := ca.pair(t, now, func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Second) }, "alice.pool.example")
	for _, c := range []struct {
		rule       string
		name       hostcheck.Name
		chain, key []byte
	}{
		{"a new chain beside the old key, half a renewal", alice, newChain, key},
		{"a new key beside the old chain, the other half", alice, chain, newKey},
		{"an empty chain", alice, nil, newKey},
		{"an empty key", alice, newChain, nil},
		{"a chain cut short", alice, newChain[:len(newChain)/3], newKey},
		{"an expired certificate", alice, expired, expiredKey},
		{"a certificate for another name", alice, func() []byte { c, _ := ca.pair(t, now, nil, "bob.pool.example"); return c }(), newKey},
		{"a name that is not configured", bob, newChain, newKey},
		{"no name", hostcheck.Name{}, newChain, newKey},
	} {
		if changed, err := s.Install(c.name, c.chain, c.key, now); err == nil || changed {
			t.Errorf("%s: installed", c.rule)
		} else if strings.ContainsAny(err.Error(), "\n\r") {
			t.Errorf("%s: not one line: %q", c.rule, err)
		}
		if leaf, _, err := connect(s, "alice.pool.example", nil); err != nil || !leaf.Equal(good) {
			t.Errorf("%s: the old certificate does not serve any more: %v", c.rule, err)
		}
	}
	s.prove = func(hostcheck.Name, *tls.Certificate, time.Time) error { return errors.New("no handshake") }
	if changed, err := s.Install(alice, newChain, newKey, now); err == nil || changed || !s.Leaf(alice).Equal(good) {
		t.Errorf("a certificate that carries no handshake: %v, %v", changed, err)
	}
	s.prove = selfHandshake
	mustInstall(t, s, alice, newChain, newKey, now)
	if s.Leaf(alice).Equal(good) || s.Leaf(bob) != nil {
		t.Error("the set has the wrong certificates")
	}
}

func TestTheSelfHandshakeFindsAKeyThatDoesNotSign(t *testing.T) {
	now := time.Now()
	ca := newAuthority(t, now)
	alice := mustName(t, "alice.pool.example")
	chain, key := ca.pair(t, now, nil, "alice.pool.example")
	cert, err := Verify(alice, chain, key, now)
	if err != nil {
		t.Fatal(err)
	}
	if err := selfHandshake(alice, cert, now); err != nil {
		t.Fatal(err)
	}
	if err := selfHandshake(alice, cert, now.Add(10000*time.Hour)); err != nil {
		t.Errorf("the handshake judges dates, which is the business of Verify: %v", err)
	}
	cert.PrivateKey = newKey(t)
	err = selfHandshake(alice, cert, now)
	if err == nil || strings.ContainsAny(err.Error(), "\n") {
		t.Errorf("a wrong key passes: %v", err)
	}
}

func TestANameThatEndsEndsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		ca := newAuthority(t, now)
		alice, bob := mustName(t, "alice.pool.example"), mustName(t, "bob.pool.example")
		s := NewSet([]hostcheck.Name{alice, bob})
		lives := map[hostcheck.Name]time.Duration{alice: time.Hour, bob: 2 * time.Hour}
		for name, life := range lives {
			chain, key := ca.pair(t, now, func(c *x509.Certificate) { c.NotAfter = now.Add(life) }, name.String())
			mustInstall(t, s, name, chain, key, now)
		}
		serves := func(sni string, want hostcheck.Name) {
			t.Helper()
			if leaf, _, err := connect(s, sni, nil); err != nil || !leaf.Equal(s.Leaf(want)) {
				t.Errorf("at %s, sni %q: %v", time.Since(now), sni, err)
			}
		}
		time.Sleep(time.Hour - time.Second) // moves the clock of the bubble; nobody waits
		serves("alice.pool.example", alice)
		serves("", alice)
		time.Sleep(time.Second)
		wantUnrecognizedName(t, s, "alice.pool.example")
		serves("bob.pool.example", bob)
		serves("", bob)
		if !s.Valid(time.Now()) || s.Leaf(alice) == nil {
			t.Error("the set forgets what it has")
		}
		time.Sleep(time.Hour)
		wantUnrecognizedName(t, s, "bob.pool.example")
		wantUnrecognizedName(t, s, "")
		if s.Valid(time.Now()) {
			t.Error("an expired set is valid")
		}
		chain, key := ca.pair(t, time.Now(), nil, "alice.pool.example")
		mustInstall(t, s, alice, chain, key, time.Now())
		serves("alice.pool.example", alice)
		serves("", alice)
		wantUnrecognizedName(t, s, "bob.pool.example")
	})
}

func TestSwapsUnderHandshakesLoseNone(t *testing.T) {
	const swaps, clients = 200, 4
	now := time.Now()
	ca := newAuthority(t, now)
	alice := mustName(t, "alice.pool.example")
	s := NewSet([]hostcheck.Name{alice})
	var chains, keys [2][]byte
	for i := range chains {
		chains[i], keys[i] = ca.pair(t, now, nil, "alice.pool.example")
	}
	mustInstall(t, s, alice, chains[0], keys[0], now)
	roots := x509.NewCertPool()
	roots.AddCert(ca.root)
	stop := make(chan struct{})
	var group sync.WaitGroup
	var mu sync.Mutex
	seen, failed := map[string]int{}, error(nil)
	for range clients {
		group.Go(func() {
			for {
				leaf, _, err := connect(s, "alice.pool.example", roots)
				mu.Lock()
				if err != nil {
					failed = err
				} else {
					seen[leaf.SerialNumber.String()]++
				}
				mu.Unlock()
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	for i := range swaps {
		mustInstall(t, s, alice, chains[(i+1)%2], keys[(i+1)%2], now)
	}
	close(stop)
	group.Wait()
	if failed != nil || len(seen) != 2 {
		t.Errorf("handshakes: %v, failure: %v", seen, failed)
	}
	t.Logf("%d swaps, handshakes by serial: %v", swaps, seen)
}
