package acme

import (
	"crypto/x509"
	"errors"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"ntsagent/acme/store"
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
