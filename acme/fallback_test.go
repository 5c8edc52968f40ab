package acme

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"ntsagent/acme/dnscheck"
	"ntsagent/acme/store"
	"ntsagent/hostcheck"
)

func TestTurn(t *testing.T) {
	young, backstop, quarter := certificate(50*day, 40*day), certificate(60*day, 30*day), certificate(68*day, 22*day)
	row := func(class Class, n int) store.Renewal {
		return store.Renewal{Row: map[string]int{string(class): n}}
	}
	kept := func(class Class, wait time.Duration) store.Renewal {
		r := row(class, 1)
		r.RetryAfter = noon.Add(wait)
		return r
	}
	limit := row(ClassLimit, 1)
	limit.Limit = store.Limit{Domain: "pool.example", Until: noon.Add(5 * day)}
	full := store.Renewal{Issued: slices.Repeat([]time.Time{noon.Add(-day)}, weekBudget)}
	fullAndRevoked := full
	fullAndRevoked.Revoked = []store.Revocation{{Certificate: certificateID(backstop)}}
	revoked := row(ClassNetwork, 3)
	revoked.Revoked = []store.Revocation{{Certificate: certificateID(backstop)}}
	const never = time.Duration(1<<63 - 1)
	for _, tt := range []struct {
		name string
		leaf *x509.Certificate
		r    store.Renewal
		want time.Duration // from now; never = not for that
	}{
		{"nothing has failed", backstop, store.Renewal{}, never},
		{"two failures are nothing yet", nil, row(ClassNetwork, 2), never},
		{"three without a certificate are enough", nil, row(ClassNetwork, 3), 0},
		{"or with one that is over", certificate(90*day, -day), row(ClassNetwork, 3), 0},
		{"or with one that was revoked", backstop, revoked, 0},
		{"while there is time the primary keeps a quarter of it", backstop, row(ClassNetwork, 3), 7*day + 12*time.Hour},
		{"from the backstop on, not from now", young, row(ClassNetwork, 3), 17*day + 12*time.Hour},
		{"which is over some day", quarter, row(ClassNetwork, 3), -12 * time.Hour},
		{"a CA that is full says so", nil, limit, 0},
		{"a CA that makes no more certificates this week does not do", nil, full, 0},
		{"nor for a certificate that was revoked", backstop, fullAndRevoked, 0},
		{"while there is time it keeps a quarter of that too", backstop, full, 7*day + 12*time.Hour},
		{"from the backstop on", young, full, 17*day + 12*time.Hour},
		{"four certificates leave one", nil, store.Renewal{Issued: full.Issued[1:]}, never},
		{"a certificate that comes free within the hour is waited for", nil,
			store.Renewal{Issued: slices.Repeat([]time.Time{noon.Add(time.Hour - week)}, weekBudget)}, never},
		{"so are the validations that have failed", nil, store.Renewal{Validations: slices.Repeat([]time.Time{noon}, hourBudget)}, never},
		{"a CA that asks for a long wait does not do", nil, kept(ClassRateLimited, 2*time.Hour), 0},
		{"a CA that asks for a short wait does", nil, kept(ClassRateLimited, time.Hour), never},
		{"a wait that a wrong clock has written is none", nil, kept(ClassRateLimited, 80*365*day), never},
		{"a certificate that is not fit may be so by one CA alone", nil, row(ClassRejected, 3), 0},
		{"an account may be lost at one CA alone", nil, row(ClassAccount, 3), 0},
		{"a name that was never validated is set up wrong", nil, row(ClassConnection, 100), never},
		{"one that was may be out of reach for one CA alone", quarter, row(ClassUnauth, 6), -12 * time.Hour},
		{"though not at once", quarter, row(ClassTLS, 5), never},
		{"the web server that would show no CA a proof is ours", nil, store.Renewal{Row: map[string]int{string(ClassFront): 100, inVain + "http-01": 100}}, never},
		{"the clock is ours", nil, row(ClassClock, 5), never},
		{"though dates that stay wrong may be the CA's", nil, row(ClassClock, 6), 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			at, ok := turn(noon, tt.leaf, tt.r)
			if got := at.Sub(noon); ok != (tt.want != never) || ok && got != tt.want {
				t.Errorf("turn in %v, %v; want %v", got, ok, tt.want)
			}
		})
	}
}

func TestEachCAHasItsOwnCounts(t *testing.T) {
	r := seated(store.Renewal{Directory: simulated, Failures: 4, LastSuccess: noon, Issued: []time.Time{noon}}, places{simulated, simulatedToo})
	second := of(r, true)
	if second.Failures != 0 || len(second.Issued) != 0 || !second.LastSuccess.Equal(noon) || second.Directory != simulatedToo || second.Other != nil {
		t.Fatalf("the fallback begins with %+v", second)
	}
	second = afterFailure(noon, nil, signed(noon, second), &Error{Class: ClassTLS, Validations: 2, Err: errors.New("no")}, 0)
	second.Ordered = simulatedToo
	both := put(r, second, true)
	if both.Failures != 4 || len(both.Validations) != 0 || both.Ordered != simulatedToo || both.Other.Failures != 1 || len(both.Other.Validations) != 2 {
		t.Errorf("together %+v and %+v", both, both.Other)
	}
	if again := of(both, true); !reflect.DeepEqual(again, second) {
		t.Errorf("put and taken: %+v, want %+v", again, second)
	}
	if r.Other.Failures != 0 {
		t.Error("what was put has changed what it was put into")
	}
}

func TestSeated(t *testing.T) {
	const a, b, c, d = "https://a.example", "https://b.example", "https://c.example", "https://d.example"
	counts := func(directory string, n int) store.Renewal { // of a CA that was left
		return store.Renewal{Directory: directory, RetryAfter: noon.Add(time.Hour), NextAttempt: noon.Add(time.Minute), Issued: make([]time.Time, n), Validations: make([]time.Time, n)}
	}
	old := func(directory string, n int) *store.Renewal {
		r := counts(directory, n)
		r.Failures, r.LastError = n, "no"
		return &r
	}
	none := func(directory string) *store.Renewal { return &store.Renewal{Directory: directory} }
	at := func(primary, other *store.Renewal, left ...store.Renewal) store.Renewal {
		r := *primary
		r.LastSuccess, r.Ceased, r.Other, r.Left = noon, noon, other, left
		return r
	}
	back := func(directory string, n int) *store.Renewal { r := counts(directory, n); return &r }
	for _, tt := range []struct {
		name string
		r    store.Renewal
		p    places
		want store.Renewal
	}{
		{"nothing changes", at(old(a, 3), old(b, 1)), places{a, b}, at(old(a, 3), old(b, 1))},
		{"a fallback comes in", at(old(a, 3), nil), places{a, b}, at(old(a, 3), none(b))},
		{"the two change places", at(old(a, 3), old(b, 1)), places{b, a}, at(old(b, 1), old(a, 3))},
		{"the primary is another, and the first counts on", at(old(a, 3), nil), places{b, ""}, at(none(b), nil, counts(a, 3))},
		{"and comes back", at(old(b, 1), nil, counts(a, 3)), places{a, ""}, at(back(a, 3), nil, counts(b, 1))},
		{"the primary alone is another, and both count on", at(old(a, 3), old(b, 1)), places{c, b}, at(none(c), old(b, 1), counts(a, 3))},
		{"and then comes back", at(old(c, 2), old(b, 1), counts(a, 3)), places{a, b}, at(back(a, 3), old(b, 1), counts(c, 2))},
		{"the fallback is another", at(old(a, 3), old(b, 1)), places{a, c}, at(old(a, 3), none(c), counts(b, 1))},
		{"the fallback is gone, and counts on", at(old(a, 3), old(b, 1)), places{a, ""}, at(old(a, 3), nil, counts(b, 1))},
		{"and is the primary", at(old(a, 3), nil, counts(c, 2), counts(b, 1)), places{b, ""}, at(back(b, 1), nil, counts(a, 3), counts(c, 2))},
		{"the fallback takes over", at(old(a, 3), old(b, 1)), places{b, ""}, at(old(b, 1), nil, counts(a, 3))},
		{"both are others", at(old(a, 3), old(b, 1)), places{c, d}, at(none(c), none(d), counts(a, 3), counts(b, 1))},
		{"a file of an agent without fallback", store.Renewal{Ordered: a, Failures: 3}, places{a, ""}, store.Renewal{Directory: a, Ordered: a, Failures: 3}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := seated(tt.r, tt.p); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("%+v with %+v, want %+v with %+v", got, got.Other, tt.want, tt.want.Other)
			}
		})
	}
}

// TestCAThatWasLeftForAWhileHasNotForgotten spends the week at a CA, orders elsewhere, and comes back.
func TestCAThatWasLeftForAWhileHasNotForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		first, second, third := newFakeCA(t), newFakeCA(t), newFakeCA(t)
		h := twoHouses(t, first, second, "")
		stop := h.run(t)
		synctest.Wait()
		for range weekBudget {
			h.Renew(t.Context(), true)
			sleep(time.Minute)
		}
		stop()
		elsewhere := twoHouses(t, third, second, h.dir)
		elsewhere.cfg.Directory = "https://third.example/directory"
		stop = elsewhere.run(t)
		synctest.Wait()
		chain := elsewhere.live.Leaf(h.name)
		if err := elsewhere.Renew(t.Context(), true); err != nil || third.count() != 1 || elsewhere.live.Leaf(h.name).Equal(chain) {
			t.Errorf("%d orders at a CA that has counted nothing: %v", third.count(), err)
		}
		stop()
		h = twoHouses(t, first, second, h.dir)
		stop = h.run(t)
		synctest.Wait()
		if err := h.Renew(t.Context(), true); err == nil || first.count() != weekBudget {
			t.Errorf("%d orders in a week at the first CA, %v", first.count(), err)
		}
		stop()
	})
}

// twoHouses is a house with a second CA to turn to.
func twoHouses(t *testing.T, first, second *fakeCA, dir string) *house {
	h := newHouse(t, first, dir)
	h.cfg.Fallback = Authority{Directory: simulatedToo, Issuer: second}
	return h
}

var errGone = &Error{Class: ClassNetwork, Err: errors.New("connection refused"), Hint: "wait"}

// TestFallbackStepsInWhenThePrimaryIsGoneAndBackWhenItReturns lives through three certificates.
func TestFallbackStepsInWhenThePrimaryIsGoneAndBackWhenItReturns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		first, second := newFakeCA(t), newFakeCA(t)
		first.life, second.life = 8*day, 8*day // the backstop is after four days, the turn after five
		first.window(84*time.Hour, 85*time.Hour, 12*time.Hour)
		second.window(84*time.Hour, 85*time.Hour, 12*time.Hour)
		var replaced []*x509.Certificate
		notes := func(ca *fakeCA) func(context.Context, Order) ([]byte, error) {
			return func(_ context.Context, o Order) ([]byte, error) {
				replaced = append(replaced, o.Replaces)
				return ca.sign(o.Name.String(), o.CSR.PublicKey, time.Now(), time.Now().Add(ca.life)), nil
			}
		}
		first.set(notes(first))
		second.set(notes(second))
		h := twoHouses(t, first, second, "")
		stop := h.run(t)
		restart := func() {
			stop()
			h = twoHouses(t, first, second, h.dir)
			stop = h.run(t)
			synctest.Wait()
		}
		sleep(day)
		if first.count() != 1 || second.count() != 0 || h.State().Fallback || first.questions() == 0 {
			t.Fatalf("%d and %d orders, %+v", first.count(), second.count(), h.State())
		}

		first.set(fails(errGone))
		sleep(3*day + time.Hour) // past the backstop
		restart()
		if first.count() < 8 || second.count() != 0 || h.State().Failures < 8 {
			t.Fatalf("%d and %d orders, %+v; want the primary to be asked for long", first.count(), second.count(), h.State())
		}
		asked := first.questions()
		sleep(day)
		restart() // the counts of both are on disk
		if s := h.State(); second.count() != 1 || !s.Fallback || s.Failures != 0 || s.LastError != "" || s.NotAfter.Before(time.Now().Add(7*day)) {
			t.Fatalf("%d orders at the fallback, %+v; want its certificate", second.count(), s)
		}
		if left := h.live.Leaf(h.name).NotBefore.Sub(first.orders[0]); left < 5*day || left > 5*day+2*time.Hour {
			t.Errorf("it stepped in after %v, want five days", left)
		}
		if replaced[1] != nil {
			t.Error("a certificate of the primary was said to be replaced at the fallback")
		}
		if r, err := h.store.Renewal(h.name); err != nil || r.Failures != 0 || len(r.Other.Row) != 0 {
			t.Errorf("state after success: %+v and %+v, %v", r, r.Other, err)
		}

		sleep(2 * day)
		if second.questions() < 3 || first.questions() > asked+20 {
			t.Errorf("asked %d and %d times; want the maker alone to be asked", first.questions(), second.questions())
		}
		made, orders := h.live.Leaf(h.name), first.count()
		sleep(2 * day) // in the window of the fallback; the primary is tried first, and is still gone
		if first.count() == orders || second.count() != 1 || h.State().RenewAt.Sub(made.NotBefore) > 4*day {
			t.Errorf("%d orders more at the primary, %d at the fallback, %+v", first.count()-orders, second.count(), h.State())
		}
		first.set(notes(first))
		sleep(2 * time.Hour)
		if s := h.State(); s.Fallback || second.count() != 1 || h.live.Leaf(h.name).Equal(made) || replaced[len(replaced)-1] != nil {
			t.Errorf("%d orders at the fallback, replaced %v, %+v; want the primary's again", second.count(), replaced[len(replaced)-1], s)
		}
		stop()
	})
}

func TestFallbackRenewsItsOwnWhileThePrimaryIsGone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		first, second := newFakeCA(t), newFakeCA(t)
		first.set(fails(errGone))
		var replaced []*x509.Certificate
		second.set(func(_ context.Context, o Order) ([]byte, error) {
			replaced = append(replaced, o.Replaces)
			return second.sign(o.Name.String(), o.CSR.PublicKey, time.Now(), time.Now().Add(second.life)), nil
		})
		h := twoHouses(t, first, second, "")
		stop := h.run(t)
		sleep(20 * time.Minute)
		if second.count() != 1 || first.count() != 3 || h.served(t) == nil {
			t.Fatalf("%d and %d orders; want the fallback after three failures", first.count(), second.count())
		}
		made := h.live.Leaf(h.name)
		for h.live.Leaf(h.name).Equal(made) {
			if time.Now().After(made.NotAfter) {
				t.Fatal("it has lapsed")
			}
			sleep(time.Hour)
		}
		stop()
		if len(replaced) != 2 || replaced[0] != nil || replaced[1] == nil || !replaced[1].Equal(made) {
			t.Errorf("replaced %v, want its own", replaced)
		}
	})
}

func TestNothingGoesToTheFallbackThatTheDNSForbids(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		first, second dnscheck.Verdict
		class         string // that the fallback has failed with
	}{
		"the name is withdrawn":                   {gone, gone, ""},
		"the name leads elsewhere":                {dnscheck.Verdict{Finding: dnscheck.Mismatch, Text: "elsewhere"}, dnscheck.Verdict{Finding: dnscheck.Mismatch, Text: "elsewhere"}, ""},
		"the primary may not issue":               {dnscheck.Verdict{Finding: dnscheck.Denied, Text: "CAA"}, dnscheck.Verdict{Finding: dnscheck.OK}, ""},
		"the fallback may not issue":              {dnscheck.Verdict{Finding: dnscheck.OK}, dnscheck.Verdict{Finding: dnscheck.Denied, Text: "CAA names another", Hint: "publish"}, "caa"},
		"the fallback may, and that is all right": {dnscheck.Verdict{Finding: dnscheck.OK}, dnscheck.Verdict{Finding: dnscheck.OK}, "-"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				first, second := newFakeCA(t), newFakeCA(t)
				first.set(fails(errGone))
				h := twoHouses(t, first, second, "")
				var verdict atomic.Pointer[dnscheck.Verdict]
				verdict.Store(&dnscheck.Verdict{Finding: dnscheck.OK})
				h.cfg.Look = func(context.Context, hostcheck.Name) dnscheck.Verdict { return *verdict.Load() }
				h.cfg.Fallback.Look = func(context.Context, hostcheck.Name) dnscheck.Verdict { return c.second }
				stop := h.run(t)
				sleep(3 * time.Minute) // two failures
				verdict.Store(&c.first)
				sleep(2 * day)
				s := h.State()
				stop()
				if c.class == "-" {
					if second.count() != 1 {
						t.Errorf("%d orders at the fallback, want one", second.count())
					}
					return
				}
				if second.count() != 0 || h.served(t) != nil {
					t.Errorf("%d orders at the fallback, want none", second.count())
				}
				if c.class != "" && (h.renewal.Other.Row[c.class] == 0 || s.LastError != "connection refused; fallback CA: "+c.second.Text || s.LastHint != "wait; fallback CA: "+c.second.Hint || s.Condition != "") {
					t.Errorf("state = %+v, want to be told why", s)
				}
			})
		})
	}
}

// TestFallbackStepsInForACAWhoseOwnCertificateIsOver on a machine where nothing tells the kernel that the clock is right.
func TestFallbackStepsInForACAWhoseOwnCertificateIsOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		first, second := newFakeCA(t), newFakeCA(t)
		first.set(fails(&Error{Class: ClassClock, Err: errors.New("x509: certificate has expired or is not yet valid")}))
		h := twoHouses(t, first, second, "")
		stop := h.run(t)
		sleep(time.Hour)
		if second.count() != 0 {
			t.Error("the fallback was turned to while the clock may yet be set")
		}
		sleep(3 * time.Hour)
		stop()
		if second.count() != 1 || h.served(t) == nil {
			t.Errorf("%d and %d orders; want the fallback's certificate", first.count(), second.count())
		}
	})
}

func TestStagingCAIsNoFallback(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		first, second := newFakeCA(t), newFakeCA(t)
		first.set(fails(errGone))
		h := newHouse(t, first, "")
		h.cfg.Fallback = Authority{Directory: "https://acme-staging.ca.example/directory", Issuer: second}
		h.Manager = NewManager(h.cfg)
		stop := h.run(t)
		sleep(2 * day)
		stop()
		if second.count() != 0 || !strings.Contains(h.log.String(), "fallback CA not used") {
			t.Errorf("%d orders, log %s; want none from a CA that no client trusts", second.count(), h.log)
		}
	})
}

func TestWishIsGrantedByTheFallbackWhenThePrimaryHasFailedForLong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		first, second := newFakeCA(t), newFakeCA(t)
		first.set(fails(&Error{Class: ClassLimit, Domain: "pool.example", Until: time.Now().Add(5 * day), RetryAfter: 5 * day, Err: errors.New("429")}))
		second.set(fails(errGone))
		h := twoHouses(t, first, second, "")
		stop := h.run(t)
		sleep(time.Hour)
		if first.count() != 1 || second.count() < 3 {
			t.Errorf("%d and %d orders; want the fallback to be asked when the primary is full", first.count(), second.count())
		}
		second.set(nil)
		if err := h.Renew(t.Context(), false); err != nil || first.count() != 1 || !h.State().Fallback {
			t.Errorf("%d orders at the primary, answer %v, %+v", first.count(), err, h.State())
		}
		stop()
	})
}

// TestFallbackCountsApart has a fallback whose certificates never arrive: its budget is spent, and the primary's is not.
func TestFallbackCountsApart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		first, second := newFakeCA(t), newFakeCA(t)
		first.set(fails(errGone))
		second.set(func(_ context.Context, o Order) ([]byte, error) {
			if err := o.Finalizing(); err != nil {
				return nil, err
			}
			return nil, errGone
		})
		h := twoHouses(t, first, second, "")
		stop := h.run(t)
		sleep(5 * day)
		if r, err := h.store.Renewal(h.name); err != nil || second.count() != weekBudget || len(r.Issued) != 0 || len(r.Other.Issued) != weekBudget {
			t.Errorf("%d orders at the fallback, counted %v and %v, %v", second.count(), r.Issued, r.Other.Issued, err)
		}
		first.set(nil)
		sleep(2 * time.Hour)
		stop()
		if h.served(t) == nil || h.State().Fallback {
			t.Errorf("state = %+v, want the primary's", h.State())
		}
	})
}

// TestPrimaryIsTriedBeforeEachOrderAtTheFallback has a primary whose next turn is hours away when both CAs come back.
func TestPrimaryIsTriedBeforeEachOrderAtTheFallback(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		first, second := newFakeCA(t), newFakeCA(t)
		first.set(fails(&Error{Class: ClassMalformed, Err: errors.New("not the JSON of ACME")}))
		second.set(fails(errGone))
		h := twoHouses(t, first, second, "")
		h.cfg.Roll = func() float64 { return 0.5 }
		stop := h.run(t)
		sleep(3 * day)
		if first.count() < second.count() || second.count() < 48 {
			t.Errorf("%d and %d orders, want the primary to be asked before the fallback each time", first.count(), second.count())
		}
		first.set(nil)
		second.set(nil)
		sleep(2 * time.Hour)
		stop()
		if h.served(t) == nil || h.State().Fallback {
			t.Errorf("state = %+v, want the primary's", h.State())
		}
	})
}

func TestWhatACAHasCountedOutlivesACertificateOfTheOther(t *testing.T) {
	p, leaf := places{simulated, simulatedToo}, certificate(0, 90*day)
	failure := func(r store.Renewal) store.Renewal {
		r = signed(noon, r)
		return afterFailure(noon, nil, r, &Error{Class: ClassRateLimited, RetryAfter: 5 * time.Hour, Validations: 1, Err: errors.New("429")}, 0)
	}
	for _, fallback := range []bool{false, true} {
		r := seated(store.Renewal{}, p)
		r = put(r, failure(of(r, false)), false)
		r = put(r, failure(of(r, true)), true)
		r = obtained(noon, leaf, r, signed(noon, of(r, fallback)), p, fallback)
		maker, other := of(r, fallback), of(r, !fallback)
		if len(maker.Issued) != 2 || len(maker.Validations) != 1 || maker.Failures != 0 || !maker.RetryAfter.IsZero() {
			t.Errorf("fallback %v: what its maker has counted: %+v", fallback, maker)
		}
		if len(other.Issued) != 1 || len(other.Validations) != 1 || !other.RetryAfter.Equal(noon.Add(5*time.Hour)) || other.Failures != 0 || len(other.Row) != 0 || other.LastError != "" {
			t.Errorf("fallback %v: what the other has counted: %+v", fallback, other)
		}
		for _, seat := range []store.Renewal{maker, other} {
			if origin(leaf, seat) != p.of(fallback) || !seat.LastSuccess.Equal(noon) || !seat.NextAttempt.Equal(noon.Add(day)) {
				t.Errorf("fallback %v: %+v, want to know the maker and to pause", fallback, seat)
			}
		}
		if r.Directory != simulated || r.Other.Directory != simulatedToo || r.Other.Ordered != "" {
			t.Errorf("fallback %v: %+v and %+v", fallback, r, r.Other)
		}
	}
}

func TestCertificateIsRevokedWhereItWasMade(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		first, second := newFakeCA(t), newFakeCA(t)
		first.set(fails(errGone))
		h := twoHouses(t, first, second, "")
		stop := h.run(t)
		sleep(time.Hour)
		leaf := h.live.Leaf(h.name)
		if leaf == nil || !h.State().Fallback {
			t.Fatalf("state = %+v", h.State())
		}
		if _, err := h.Revoke(t.Context(), leaf.SerialNumber.Text(16), Superseded); err != nil {
			t.Error(err)
		}
		stop()
		if len(first.revoked) != 0 || len(second.revoked) != 1 {
			t.Errorf("%d revocations at the first CA and %d at the fallback, want one there", len(first.revoked), len(second.revoked))
		}
	})
}

func TestImportAndAStepOfTheClockReachTheCountsOfBoth(t *testing.T) {
	ahead := noon.Add(48 * time.Hour)
	r := seated(store.Renewal{}, places{simulated, simulatedToo})
	r = put(r, afterFailure(ahead, nil, signed(ahead, of(r, true)), &Error{Class: ClassTLS, Validations: 1, Err: errors.New("no")}, 0.5), true)
	r.Left = []store.Renewal{{Directory: "https://left.example", Issued: []time.Time{ahead}}}
	back := afterStepBack(noon, r, 48*time.Hour)
	if !back.Left[0].Issued[0].Equal(noon) || !r.Left[0].Issued[0].Equal(ahead) {
		t.Errorf("state of a CA that was left = %+v", back.Left)
	}
	if o := back.Other; !o.LastFailure.Equal(noon) || !o.Validations[0].Equal(noon) || !o.Issued[0].Equal(noon) || !r.Other.LastFailure.Equal(ahead) {
		t.Errorf("state of the fallback = %+v, want it as if the clock had been right, and what it came from as it was", o)
	}
	imported := afterImport(noon, certificate(0, 90*day), back)
	if len(imported.Left) != 1 || len(put(imported, of(imported, true), true).Left) != 1 {
		t.Errorf("after an import %+v is left", imported.Left)
	}
	if o := imported.Other; o == nil || o.Failures != 0 || len(o.Issued) != 1 || o.Directory != simulatedToo || imported.Directory != simulated {
		t.Errorf("after an import %+v and %+v, want the counts alone", imported, o)
	}
}

// TestASpentBudgetTurnsARevokedNameToTheFallback has an operator who has forced orders until the primary makes no more this week.
func TestASpentBudgetTurnsARevokedNameToTheFallback(t *testing.T) {
	t.Parallel()
	for _, reason := range []Reason{Superseded, KeyCompromise} {
		t.Run(reason.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				first, second := newFakeCA(t), newFakeCA(t)
				first.life, second.life = 90*day, 90*day
				h := twoHouses(t, first, second, "")
				stop := h.run(t)
				synctest.Wait()
				for range weekBudget - 1 {
					if err := h.Renew(t.Context(), true); err != nil {
						t.Fatal(err)
					}
				}
				var refused *Refused
				if err := h.Renew(t.Context(), true); !errors.As(err, &refused) {
					t.Fatalf("a wish for another certificate comes to %v; want the budget to be spent", err)
				}
				sleep(day)
				if first.count() != weekBudget || second.count() != 0 || h.State().Fallback {
					t.Fatalf("%d and %d orders; want none at the fallback for a certificate that is in force", first.count(), second.count())
				}
				old := h.served(t)
				if replacement, err := h.Revoke(t.Context(), h.serial(), reason); err != nil || replacement != nil {
					t.Errorf("revoked: %v, replaced: %v", err, replacement)
				}
				if s := h.State(); first.count() != weekBudget || second.count() != 1 || !s.Fallback || s.Revoked != "" || bytes.Equal(h.served(t), old) {
					t.Errorf("%d and %d orders, %+v; want the fallback's certificate", first.count(), second.count(), s)
				}
				if err := h.Renew(t.Context(), true); !errors.As(err, &refused) {
					t.Errorf("a wish for another one comes to %v; want the fallback left alone", err)
				}
				stop()
			})
		})
	}
}
