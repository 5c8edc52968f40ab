package issuer_test

import (
	"crypto/elliptic"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"ntsagent/acme/challenge"
	"ntsagent/acme/issuer"
)

// A web server serves a folder, and the CA finds the proof in it; afterwards
// nothing is left there. The Responder never hears of the proof.
func TestAProofIsShownByAWebServersFolder(t *testing.T) {
	t.Parallel()
	name := mustName(t, "alice.members.pool.example")
	w := newWorld(t, settings{}, name)
	dir := t.TempDir()
	var mu sync.Mutex
	var held []string
	files := http.StripPrefix("/.well-known/acme-challenge/", http.FileServer(http.Dir(dir)))
	w.http.Config.Handler = w.record(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		entries, _ := os.ReadDir(dir)
		mu.Lock()
		for _, e := range entries {
			held = append(held, e.Name())
		}
		mu.Unlock()
		files.ServeHTTP(rw, r)
	}))
	i := w.issuer(t, only(issuer.HTTP01), func(c *issuer.Config) { c.Webroot = challenge.Webroot(dir) })
	order, key := newOrder(t, name, elliptic.P256())
	if leaf := leafOf(t, issue(t, i, order)); !key.PublicKey.Equal(leaf.PublicKey) {
		t.Error("the certificate is for another key")
	}
	w.mu.Lock()
	asked := strings.TrimPrefix(w.asked[0], "/.well-known/acme-challenge/")
	w.mu.Unlock()
	mu.Lock()
	defer mu.Unlock()
	if len(held) == 0 || slices.ContainsFunc(held, func(s string) bool { return s != asked }) {
		t.Errorf("the folder held %q, and the CA asked for %q", held, asked)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	w.mustHaveNoProof(t, name)
}
