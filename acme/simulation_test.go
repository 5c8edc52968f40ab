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

const simulated, simulatedToo = "https://ca.example/directory", "https://other.example/directory"

// A site is a CA of a world: it goes down and comes back, and counts what it limits.
type site struct {
	directory  string
	dead       bool // down for good
	down       bool
	turn       time.Time
	away       time.Duration // how long it was down altogether
	unanswered int
	orders     int

	signed, failed         []time.Time
	mostInWeek, mostInHour int
	made                   int // certificates that arrived
}

// pass lets the CA go down and come back until now.
func (s *site) pass(rng *rand.Rand, now time.Time) {
	for !s.turn.After(now) {
		s.down = !s.down
		span := time.Duration(rng.Int64N(int64(112 * time.Hour))) // up for 56 hours,
		if s.down {
			span = time.Duration(rng.Int64N(int64(48 * time.Hour))) // down for 24, two days at most
			s.away += span
		}
		s.turn = s.turn.Add(span)
	}
}

// A world is a CA and a network with a calendar of their own, and one name's agent that is restarted at random. The agent's part
// is the functions that a Manager calls, in the same order; its state goes through the store at each restart.
type world struct {
	t     *testing.T
	rng   *rand.Rand
	store *store.Store
	name  hostcheck.Name

	now, started time.Time
	life         time.Duration
	serial       int64
	cas          []*site // the primary, and a fallback if there is one

	leaf *x509.Certificate
	r    store.Renewal

	// What a bookkeeper saw.
	asks, restarts         int
	lost, limited, expired int
	worst                  float64 // share of life that was left at the latest renewal
	earliest               float64 // and at the earliest
}

func newSimulation(t *testing.T, seed uint64, life time.Duration, directories ...string) *world {
	s, err := store.Open(filepath.Join(t.TempDir(), "acme"))
	if err != nil {
		t.Fatal(err)
	}
	name, err := hostcheck.ParseName("alice.members.pool.example")
	if err != nil {
		t.Fatal(err)
	}
	start := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	w := &world{t: t, rng: rand.New(rand.NewPCG(seed, uint64(life))), store: s, name: name, now: start, started: start, life: life, worst: 1}
	for _, d := range directories {
		w.cas = append(w.cas, &site{directory: d, turn: start})
	}
	w.r = seated(w.r, w.places())
	return w
}

// places are what the agent knows of the CAs.
func (w *world) places() places {
	if len(w.cas) == 1 {
		return places{primary: w.cas[0].directory}
	}
	return places{w.cas[0].directory, w.cas[1].directory}
}

// chance is true p times out of one.
func (w *world) chance(p float64) bool { return w.rng.Float64() < p }

// pass lets time go by.
func (w *world) pass(to time.Time) {
	w.now = to
	for _, ca := range w.cas {
		ca.pass(w.rng, to)
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
	w.r = seated(r, w.places())
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

// order is an attempt of Manager at one of the CAs, which is in one of many moods.
func (w *world) order(fallback bool) {
	ca := w.cas[0]
	if fallback {
		ca = w.cas[1]
	}
	whole, roll := noted(w.leaf, w.r), w.rng.Float64()
	before := of(whole, fallback)
	may := mayFail(w.now, before)
	dead := beforeOrder(w.now, w.leaf, before, ca.directory, roll)
	w.r = put(whole, dead, fallback)
	if w.chance(0.01) { // killed before the CA hears of it
		w.restart()
		return
	}
	start := w.now
	w.pass(w.now.Add(time.Duration(1+w.rng.IntN(20)) * time.Second))
	before.Ordered = ca.directory
	fail := func(e *Error) { w.r = put(whole, afterFailure(w.now, w.leaf, before, e, roll), fallback) }
	if ca.down || ca.dead {
		ca.unanswered++
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
	ca.orders++
	failed := 0
	switch p := w.rng.Float64(); {
	case p < 0.05: // the name cannot be validated, by either challenge
		n := min(may, 2)
		for range n {
			ca.mostInHour = max(ca.mostInHour, count(&ca.failed, w.now, hour))
		}
		if w.chance(0.2) {
			w.restart()
			return
		}
		fail(&Error{Class: ClassConnection, Validations: n, Err: errors.New("port 80 is closed")})
		return
	case p < 0.1 && may > 1: // by the first challenge
		failed++
		ca.mostInHour = max(ca.mostInHour, count(&ca.failed, w.now, hour))
	}
	ca.mostInWeek = max(ca.mostInWeek, count(&ca.signed, w.now, week))
	before = signed(start, before)
	w.r = put(whole, signed(start, dead), fallback)
	switch {
	case w.chance(0.02): // killed before the certificate came
		w.lost++
		w.restart()
		return
	case w.chance(0.02): // it came to nothing
		w.lost++
		fail(&Error{Class: ClassNetwork, Validations: failed, Err: errors.New("no answer")})
		return
	}
	if w.leaf != nil {
		left := float64(w.leaf.NotAfter.Sub(w.now)) / float64(w.life)
		w.worst, w.earliest = min(w.worst, left), max(w.earliest, left)
	}
	w.serial++
	ca.made++
	w.leaf = &x509.Certificate{SerialNumber: big.NewInt(w.serial), NotBefore: w.now.Add(-time.Hour), NotAfter: w.now.Add(w.life - time.Hour)}
	w.r = obtained(w.now, w.leaf, whole, spent(start, before, failed), w.places(), fallback)
}

// ask asks for renewal information, as Let's Encrypt gives it: a window of two hundredths of the life around a third left, or
// half of a short one; now and then a malformed one, or one that is past.
func (w *world) ask() {
	w.asks++
	roll, ca := w.rng.Float64(), w.cas[0]
	if from := origin(w.leaf, w.r); from != ca.directory {
		ca = w.cas[1]
		if ca.directory != from {
			w.t.Fatalf("asked about a certificate that is from %q", from)
		}
	}
	if ca.down || ca.dead {
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
func (w *world) live(lifetimes int64) {
	for w.serial <= lifetimes {
		if w.leaf != nil && !w.now.Before(w.leaf.NotAfter) {
			w.expired++
			return
		}
		if w.chance(0.002) {
			w.restart()
		}
		switch do, fallback, at := next(w.now, w.leaf, w.r, w.places()); do {
		case stepOrder:
			w.order(fallback)
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

// TestThousandLifetimes lives through many certificates with a CA that is away for a third of the time; then with another one to
// turn to that is no better; and with the CA of choice gone for good, at the start or in the middle. The calendar is always the
// same: TestLifetimesUnderOtherCalendars, of make test-slow, tells what others come to.
func TestThousandLifetimes(t *testing.T) {
	t.Parallel()
	fmt.Fprintln(t.Output(), "| life | renewals | CA down | restarts | orders per renewal | attempts unanswered | validations failed | certificates lost | limit of the domain | least life left at a renewal | most | most certificates in a week | most failed validations in an hour | by the fallback CA | expired |")
	fmt.Fprintln(t.Output(), "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|")
	both := []string{simulated, simulatedToo}
	for _, tt := range []struct {
		name string
		life time.Duration
		many int64 // lifetimes
		cas  []string
		dead bool
	}{
		{"90 days", 90 * day, 1000, both[:1], false}, {"45 days", 45 * day, 1000, both[:1], false}, {"160 hours", 160 * time.Hour, 1000, both[:1], false},
		{"90 days and a fallback", 90 * day, 200, both, false}, {"45 days and a fallback", 45 * day, 200, both, false}, {"160 hours and a fallback", 160 * time.Hour, 200, both, false},
		{"90 days, the fallback alone", 90 * day, 100, both, true}, {"45 days, the fallback alone", 45 * day, 100, both, true}, {"160 hours, the fallback alone", 160 * time.Hour, 100, both, true},
	} {
		w := newSimulation(t, 8915, tt.life, tt.cas...)
		w.cas[0].dead = tt.dead
		tt.many /= fraction
		w.live(tt.many)
		var all site
		byFallback := 0
		for n, ca := range w.cas {
			all.orders += ca.orders
			all.unanswered += ca.unanswered
			all.failed = append(all.failed, ca.failed...)
			all.mostInWeek, all.mostInHour = max(all.mostInWeek, ca.mostInWeek), max(all.mostInHour, ca.mostInHour)
			if n > 0 {
				byFallback = ca.made
			}
		}
		perLife := float64(all.orders) / float64(max(w.serial-1, 1))
		down := float64(w.cas[0].away) / float64(w.now.Sub(w.started))
		if tt.dead {
			down = 1
		}
		fmt.Fprintf(t.Output(), "| %s | %d | %.0f %% | %d | %.2f | %d | %d | %d | %d | %.0f %% | %.0f %% | %d | %d | %d | %d |\n", tt.name, w.serial-1, 100*down, w.restarts,
			perLife, all.unanswered, len(all.failed), w.lost, w.limited, 100*w.worst, 100*w.earliest, all.mostInWeek, all.mostInHour, byFallback, w.expired)
		if w.expired > 0 || perLife > 1.3 || all.mostInWeek > weekBudget || all.mostInHour > hourBudget {
			t.Errorf("%s: %d expired, %.2f orders per lifetime, %d certificates in a week, %d failed validations in an hour; want none, 1.3, %d and %d at most",
				tt.name, w.expired, perLife, all.mostInWeek, all.mostInHour, weekBudget, hourBudget)
		}
		// The backstop is at a third of the life, or half of a short one: what is left after a long absence of the CA.
		if least := map[bool]float64{true: 0.05, false: 0.15}[tt.life < shortLife]; w.worst < least {
			t.Errorf("%s: renewed with %.0f %% of the life left, want %.0f %% at least", tt.name, 100*w.worst, 100*least)
		}
		if n := int(tt.many); all.unanswered < 50 || len(all.failed) < n/50 || w.lost < n/100 || w.restarts < n/12 || down < 0.25 {
			t.Errorf("%s: %d attempts unanswered, %d validations failed, %d certificates lost, %d restarts, CA down %.2f: the test did not test",
				tt.name, all.unanswered, len(all.failed), w.lost, w.restarts, down)
		}
		if len(w.cas) > 1 && (tt.dead != (w.cas[0].made == 0) || !tt.dead && byFallback > int(tt.many)/5) {
			t.Errorf("%s: %d certificates by the primary and %d by the fallback; want it to step in where the primary has failed for long, and to step back",
				tt.name, w.cas[0].made, byFallback)
		}
	}
}
