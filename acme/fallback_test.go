package acme

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"ntsagent/acme/dnscheck"
	"ntsagent/acme/store"
	"ntsagent/hostcheck"
)

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
