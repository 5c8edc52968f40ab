package issuer_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"ntsagent/acme/disk"
)

// TestAnAgentKilledBetweenAnyTwoStepsLosesNothing kills an agent before each change it makes to a file during its first order,
// and again during a renewal, and starts it anew each time.
func TestAnAgentKilledBetweenAnyTwoStepsLosesNothing(t *testing.T) {
	t.Parallel()
	office, homes := newRegistry(), t.TempDir()
	w := newWorld(t, settings{front: office.stand})
	w.http.Config.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { // each home's web server
		name, _, _ := strings.Cut(r.Host, ":")
		http.ServeFile(rw, r, filepath.Join(homes, filepath.Base(name), "webroot", filepath.Base(r.URL.Path)))
	})
	settle := func(t *testing.T, label string) home {
		name := label + ".members.pool.example"
		w.zone.set(mustName(t, name), "127.0.0.1")
		h := home{Dir: filepath.Join(homes, name), Name: name, Email: name + "@ops.example", Directory: w.directory, CAFile: w.caFile}
		if err := os.MkdirAll(h.webroot(), 0o755); err != nil {
			t.Fatal(err)
		}
		return h
	}

	unhurt, last := settle(t, "unhurt"), 0
	for _, what := range []string{"first order", "renewal"} {
		changes, killed, err := unhurt.liveUntil(0)
		if err != nil || killed || len(changes) < 40 {
			t.Fatalf("%s that nobody kills: %v, killed %v, %d changes: %q", what, err, killed, len(changes), changes)
		}
		last = max(last, len(changes))
		unhurt = unhurt.renewing(t)
	}
	var toll toll
	t.Cleanup(func() { toll.tell(t) })
	lane := func(label string, kills [2][]int) {
		t.Run(label, func(t *testing.T) {
			t.Parallel()
			h := settle(t, strings.ReplaceAll(label, " ", "-"))
			for _, at := range kills {
				if deaths, change := h.obtain(t, at); deaths > 0 {
					repeated, lost := h.startAnew(t, office, deaths, change)
					toll.add(deaths, repeated, lost)
				}
				h = h.renewing(t)
				office.forget(h.Name)
			}
		})
	}
	for at := 1; at <= last; at += stride {
		lane(fmt.Sprintf("killed at change %d", at), [2][]int{{at}, {at}})
	}
	for at := 1; killTwice && at <= last; at++ {
		kills := [2][]int{}
		kills[at%2] = []int{at, 1 + at%40} // the budget of an hour has no room for more
		lane(fmt.Sprintf("killed at change %d and once more", at), kills)
	}
}

// obtain lets agents obtain a certificate, each killed at one of the changes, and returns how many died, the last before change.
func (h home) obtain(t *testing.T, kills []int) (deaths int, change string) {
	t.Helper()
	if len(kills) == 0 {
		kills = []int{0}
	}
	for _, at := range kills {
		changes, killed, err := h.liveUntil(at)
		if err != nil {
			t.Fatal(err)
		}
		if killed {
			deaths, change = deaths+1, changes[len(changes)-1]
		}
	}
	return deaths, change
}

// startAnew looks at what an agent left that was killed that many times, the last time before change, and starts it again. It
// returns how many orders were repeated, and certificates made for nothing.
func (h home) startAnew(t *testing.T, office *registry, deaths int, change string) (repeated, lost int) {
	t.Helper()
	fail := func(format string, args ...any) {
		t.Helper()
		t.Errorf("killed before %s: %s", change, fmt.Sprintf(format, args...))
	}
	if h.Old != nil {
		h.certificate(t) // another program reads it at any time
	}
	before := office.of(h.Name)
	a, err := h.open()
	if err != nil {
		t.Fatalf("killed before %s: start: %v", change, err)
	}
	if left := h.temporary(t); len(left) > 0 {
		fail("left after the start: %q", left)
	}
	done := h.done(a)
	r, err := a.store.Renewal(a.name)
	if err != nil || len(r.Issued) < before.signed {
		fail("%d certificates on record (%v), the CA has been asked for %d", len(r.Issued), err, before.signed)
	}
	if wait := r.NextAttempt.Sub(r.LastFailure); before.orders > 0 && !done && (wait < 30*time.Second || wait > 15*time.Minute) {
		fail("the next order is %v after the one that was cut off, want about a minute, or ten", wait)
	}
	state, err := h.finish(t.Context(), a)
	if err != nil {
		t.Fatalf("killed before %s: %v", change, err)
	}
	if next := time.Until(state.NextAttempt); next < time.Hour {
		fail("the next order is due in %v", next)
	}
	after, now := office.of(h.Name), h.certificate(t)
	repeated, lost = after.orders-1, after.signed-1
	if repeated > deaths || repeated > 0 && done && deaths == 1 || after.accounts != 1 {
		fail("%d orders and %d accounts; want one account, and one order more for a kill at most", after.orders, after.accounts)
	}
	if len(after.keys) != 1 || !bytes.Equal(after.keys[0], now.RawSubjectPublicKeyInfo) {
		fail("%d keys were certified, want the one in use and no other", len(after.keys))
	}
	if !h.done(a) || !now.Equal(a.set.Leaf(a.name)) {
		fail("what is served is not what is in the store, or not new")
	}
	if r, err := a.store.Renewal(a.name); err != nil || len(r.Issued) < after.signed {
		fail("%d certificates on record (%v) in the end, the CA has been asked for %d", len(r.Issued), err, after.signed)
	}
	if left := h.temporary(t); len(left) > 0 {
		fail("left in the end: %q", left)
	}
	return max(repeated, 0), max(lost, 0)
}

// certificate is the one in use, as another program reads it.
func (h home) certificate(t *testing.T) *x509.Certificate {
	t.Helper()
	current := filepath.Join(h.state(), "names", h.Name, "current")
	pair, err := tls.LoadX509KeyPair(filepath.Join(current, "fullchain.pem"), filepath.Join(current, "privkey.pem"))
	if err != nil {
		t.Fatalf("the pair in use: %v", err)
	}
	return pair.Leaf
}

// renewing is h when its certificate is to be renewed. The first time it is given two older ones, so that the next makes one too
// many.
func (h home) renewing(t *testing.T) home {
	t.Helper()
	h.Old = h.certificate(t).Raw
	dir := filepath.Join(h.state(), "names", h.Name)
	for _, n := range []string{"2", "3"} {
		if err := os.Mkdir(filepath.Join(dir, "generations", n), 0o700); errors.Is(err, fs.ErrExist) {
			return h
		} else if err != nil {
			t.Fatal(err)
		}
		for _, file := range []string{"privkey.pem", "fullchain.pem"} {
			b, err := os.ReadFile(filepath.Join(dir, "generations", "1", file))
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, "generations", n, file), b, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := disk.Symlink(filepath.Join("generations", "3"), filepath.Join(dir, "current")); err != nil {
		t.Fatal(err)
	}
	return h
}

// temporary lists what no start may leave: half-made files, proofs, and all that others can read.
func (h home) temporary(t *testing.T) (left []string) {
	t.Helper()
	err := filepath.WalkDir(h.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == h.Dir || path == h.webroot() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		open := d.Type() != fs.ModeSymlink && info.Mode().Perm()&0o077 != 0
		if open || strings.HasPrefix(d.Name(), ".") || strings.Contains(d.Name(), "corrupt") || filepath.Dir(path) == h.webroot() {
			left = append(left, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return left
}

// toll is what all the kills came to.
type toll struct {
	mu                            sync.Mutex
	kills, repeated, lost, atMost int
}

func (l *toll) add(deaths, repeated, lost int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kills += deaths
	l.repeated += repeated
	l.lost += lost
	l.atMost = max(l.atMost, (repeated+deaths-1)/deaths)
}

func (l *toll) tell(t *testing.T) {
	fmt.Fprintln(t.Output(), "| kills between two changes of files | orders repeated | at most, for a kill | certificates made for nothing |")
	fmt.Fprintln(t.Output(), "|---|---|---|---|")
	fmt.Fprintf(t.Output(), "| %d | %d | %d | %d |\n", l.kills, l.repeated, l.atMost, l.lost)
	if l.repeated == 0 || l.repeated == l.kills || l.lost == 0 {
		t.Errorf("%d kills, %d orders repeated, %d certificates made for nothing: the kills did not fall everywhere", l.kills, l.repeated, l.lost)
	}
}
