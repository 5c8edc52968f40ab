package acme

import (
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"ntsagent/acme/store"
	"ntsagent/hostcheck"
)

// lifetimes of certificates are lived through for each length of life.
const lifetimes = 1000

const simulated = "https://ca.example/directory"

// A world is a CA and a network with a calendar of their own, and one name's agent that is restarted at random. The agent's part
// is the functions that a Manager calls, in the same order; its state goes through the store at each restart.
type world struct {
	t     *testing.T
	rng   *rand.Rand
	store *store.Store
	name  hostcheck.Name

	now, turn time.Time
	down      bool
	away      time.Duration // how long the CA was down altogether
	started   time.Time
	life      time.Duration
	serial    int64

	leaf *x509.Certificate
	r    store.Renewal

	// What the CA and a bookkeeper saw.
	signed, failed                     []time.Time
	orders, unanswered, asks, restarts int
	lost, limited, expired             int
	mostInWeek, mostInHour             int
	worst                              float64 // share of life that was left at the latest renewal
	earliest                           float64 // and at the earliest
}

func newSimulation(t *testing.T, life time.Duration) *world {
	s, err := store.Open(filepath.Join(t.TempDir(), "acme"))
	if err != nil {
		t.Fatal(err)
	}
	name, err := hostcheck.ParseName("alice.members.pool.example")
	if err != nil {
		t.Fatal(err)
	}
	start := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	return &world{t: t, rng: rand.New(rand.NewPCG(8915, uint64(life))), store: s, name: name, now: start, turn: start, started: start, life: life, worst: 1}
}

// chance is true p times out of one.
func (w *world) chance(p float64) bool { return w.rng.Float64() < p }

// pass lets time go by; the CA goes down and comes back meanwhile.
func (w *world) pass(to time.Time) {
	w.now = to
	for !w.turn.After(w.now) {
		w.down = !w.down
		span := time.Duration(w.rng.Int64N(int64(112 * time.Hour))) // up for 56 hours,
		if w.down {
			span = time.Duration(w.rng.Int64N(int64(48 * time.Hour))) // down for 24, two days at most
			w.away += span
		}
		w.turn = w.turn.Add(span)
	}
}

// restart kills the agent: all that is left is what it has saved.
func (w *world) restart() {
	w.restarts++
	if err := w.store.SaveRenewal(w.name, w.r); err != nil {
		w.t.Fatal(err)
	}
	r, err := w.store.Renewal(w.name)
	if err != nil {
		w.t.Fatal(err)
	}
	w.r = r
}

// count notes an event that the CA limits, and gives the most of them in any span.
func count(list *[]time.Time, now time.Time, span time.Duration) int {
	*list = append(*list, now)
	n := 0
	for i := len(*list) - 1; i >= 0 && now.Sub((*list)[i]) < span; i-- {
		n++
	}
	return n
}

// order is an attempt of Manager, with a CA that is in one of many moods.
func (w *world) order() {
	before, roll := w.r, w.rng.Float64()
	may := mayFail(w.now, before)
	w.r = beforeOrder(w.now, w.leaf, before, simulated, roll)
	if w.chance(0.01) { // killed before the CA hears of it
		w.restart()
		return
	}
	start := w.now
	w.pass(w.now.Add(time.Duration(1+w.rng.IntN(20)) * time.Second))
	fail := func(e *Error) {
		w.r = afterFailure(w.now, w.leaf, noted(w.leaf, before), e, roll)
		w.r.Ordered = simulated
	}
	if w.down {
		w.unanswered++
		e := &Error{Class: ClassNetwork, Err: errors.New("connection refused")}
		if w.chance(0.3) {
			e.RetryAfter = time.Duration(w.rng.Int64N(int64(2 * time.Hour)))
		}
		fail(e)
		return
	}
	if w.chance(0.01) { // others have used up the domain's limit; the CA takes no order
		w.limited++
		wait := time.Duration(w.rng.Int64N(int64(12 * time.Hour)))
		fail(&Error{Class: ClassLimit, Domain: "pool.example", Until: w.now.Add(wait), RetryAfter: wait, Err: errors.New("too many certificates")})
		return
	}
	w.orders++
	if w.chance(0.05) { // the name cannot be validated, by either challenge
		n := min(may, 2)
		for range n {
			w.mostInHour = max(w.mostInHour, count(&w.failed, w.now, hour))
		}
		if w.chance(0.2) {
			w.restart()
			return
		}
		fail(&Error{Class: ClassConnection, Validations: n, Err: errors.New("port 80 is closed")})
		return
	}
	w.mostInWeek = max(w.mostInWeek, count(&w.signed, w.now, week))
	before = signed(start, before)
	w.r = signed(start, w.r)
	switch {
	case w.chance(0.02): // killed before the certificate came
		w.lost++
		w.restart()
		return
	case w.chance(0.02): // it came to nothing
		w.lost++
		fail(&Error{Class: ClassNetwork, Err: errors.New("no answer")})
		return
	}
	if w.leaf != nil {
		left := float64(w.leaf.NotAfter.Sub(w.now)) / float64(w.life)
		w.worst, w.earliest = min(w.worst, left), max(w.earliest, left)
	}
	w.serial++
	w.leaf = &x509.Certificate{SerialNumber: big.NewInt(w.serial), NotBefore: w.now.Add(-time.Hour), NotAfter: w.now.Add(w.life - time.Hour)}
	w.r = afterSuccess(w.now, w.leaf, before, simulated)
}

// ask asks for renewal information, as Let's Encrypt gives it: a window of two hundredths of the life around a third left, or
// half of a short one; now and then a malformed one, or one that is past.
func (w *world) ask() {
	w.asks++
	roll := w.rng.Float64()
	if w.down {
		w.r = afterNoRenewalInfo(w.now, w.leaf, w.r, 0, roll)
		return
	}
	mid := RenewAt(w.leaf)
	info := RenewalInfo{Start: mid.Add(-w.life / 100), End: mid.Add(w.life / 100), RetryAfter: 6 * time.Hour}
	switch p := w.rng.Float64(); {
	case p < 0.01:
		info.Start, info.End = info.End, info.Start
	case p < 0.01+0.02*(6*time.Hour).Hours()/w.life.Hours(): // one certificate in fifty is revoked
		info.Start, info.End = w.now.Add(-2*time.Hour), w.now.Add(-time.Hour)
	case p < 0.05:
		info.RetryAfter = time.Duration(w.rng.Int64N(int64(100 * time.Hour)))
	}
	w.r = afterRenewalInfo(w.now, w.leaf, w.r, info, roll)
}

// live runs until the certificates of all lifetimes are renewed.
func (w *world) live() {
	for w.serial <= lifetimes {
		if w.leaf != nil && !w.now.Before(w.leaf.NotAfter) {
			w.expired++
			return
		}
		if w.chance(0.002) {
			w.restart()
		}
		switch do, at := next(w.now, w.leaf, w.r, simulated); do {
		case stepOrder:
			w.order()
		case stepAsk:
			w.ask()
		default:
			if !at.After(w.now) {
				w.t.Fatalf("told at %v to wait until %v", w.now, at)
			}
			w.pass(at.Add(time.Duration(w.rng.Int64N(int64(tick)))))
		}
	}
}

// TestThousandLifetimes lives through many certificates with a CA that is away for a third of the time.
func TestThousandLifetimes(t *testing.T) {
	t.Parallel()
	fmt.Fprintln(t.Output(), "| life | renewals | CA down | restarts | orders per renewal | attempts unanswered | validations failed | certificates lost | limit of the domain | least life left at a renewal | most | most certificates in a week | most failed validations in an hour | expired |")
	fmt.Fprintln(t.Output(), "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|")
	for _, tt := range []struct {
		name string
		life time.Duration
	}{{"90 days", 90 * day}, {"45 days", 45 * day}, {"160 hours", 160 * time.Hour}} {
		w := newSimulation(t, tt.life)
		w.live()
		perLife := float64(w.orders) / float64(max(w.serial-1, 1))
		down := float64(w.away) / float64(w.now.Sub(w.started))
		fmt.Fprintf(t.Output(), "| %s | %d | %.0f %% | %d | %.2f | %d | %d | %d | %d | %.0f %% | %.0f %% | %d | %d | %d |\n", tt.name, w.serial-1, 100*down, w.restarts,
			perLife, w.unanswered, len(w.failed), w.lost, w.limited, 100*w.worst, 100*w.earliest, w.mostInWeek, w.mostInHour, w.expired)
		if w.expired > 0 || perLife > 1.3 || w.mostInWeek > weekBudget || w.mostInHour > hourBudget {
			t.Errorf("%s: %d expired, %.2f orders per lifetime, %d certificates in a week, %d failed validations in an hour; want none, 1.3, %d and %d at most",
				tt.name, w.expired, perLife, w.mostInWeek, w.mostInHour, weekBudget, hourBudget)
		}
		if w.unanswered < 50 || len(w.failed) < 20 || w.lost < 10 || w.restarts < 100 || down < 0.25 {
			t.Errorf("%s: %d attempts unanswered, %d validations failed, %d certificates lost, %d restarts, CA down %.2f: the test did not test",
				tt.name, w.unanswered, len(w.failed), w.lost, w.restarts, down)
		}
	}
}
