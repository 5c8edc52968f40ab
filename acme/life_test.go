package acme

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ntsagent/acme/store"
)

// window tells a CA to suggest that window after each certificate's beginning.
func (ca *fakeCA) window(from, to, retry time.Duration) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	ca.info = func(leaf *x509.Certificate) (RenewalInfo, error) {
		return RenewalInfo{Start: leaf.NotBefore.Add(from), End: leaf.NotBefore.Add(to), RetryAfter: retry}, nil
	}
}

func TestRenewalIsWithinTheWindowOfTheCA(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newFakeCA(t)
		ca.life = 90 * day
		ca.window(20*day, 22*day, 12*time.Hour)
		var replaced []*x509.Certificate
		ca.set(func(_ context.Context, o Order) ([]byte, error) {
			replaced = append(replaced, o.Replaces)
			return ca.sign(o.Name.String(), o.CSR.PublicKey, time.Now(), time.Now().Add(ca.life)), nil
		})
		h := newHouse(t, ca, "")
		stop := h.run(t)
		sleep(time.Minute)
		first := h.live.Leaf(h.name)
		asked := ca.questions()
		if asked != 1 {
			t.Errorf("asked %d times right after the certificate, want once", asked)
		}
		drawn := h.State().RenewAt
		if wait := drawn.Sub(first.NotBefore); wait < 20*day || wait > 22*day {
			t.Errorf("renews %v after the beginning, want 20 to 22 days", wait)
		}
		for range 5 { // each restart recalls the point that was drawn
			stop()
			h = newHouse(t, ca, h.dir)
			stop = h.run(t)
			sleep(time.Minute)
			if again := h.State().RenewAt; !again.Equal(drawn) {
				t.Errorf("after a restart it renews at %v, before at %v", again, drawn)
			}
		}
		if ca.questions() != asked {
			t.Errorf("asked %d times more within minutes, want to wait for 12 hours", ca.questions()-asked)
		}
		sleep(22 * day)
		stop()
		if n := ca.count(); n != 2 || !replaced[1].Equal(first) || replaced[0] != nil {
			t.Errorf("%d orders that replace %v; want two, the second in the place of the first", n, replaced)
		}
		if n := ca.questions(); n < 40 || n > 50 {
			t.Errorf("asked %d times in 22 days, want about 45", n)
		}
	})
}

func TestRenewalInfoCannotPutOffARenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newFakeCA(t)
		ca.life = 12 * day
		ca.window(11*day, 20*day, 0)
		h := newHouse(t, ca, "")
		stop := h.run(t)
		sleep(8*day + time.Hour)
		stop()
		if gaps := ca.gaps(); len(gaps) != 1 || gaps[0] < 8*day || gaps[0] > 8*day+tick {
			t.Errorf("waits = %v, want one of 8 days", gaps)
		}
	})
}

func TestCAThatAlwaysWantsARenewalIsNotObeyedWithoutEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newFakeCA(t)
		ca.life = 90 * day
		ca.window(-2*day, -day, time.Hour)
		h := newHouse(t, ca, "")
		stop := h.run(t)
		sleep(14 * day)
		s := h.State()
		stop()
		if n := ca.count(); n < 8 || n > 9 {
			t.Errorf("%d certificates in two weeks, want four a week", n)
		}
		if s.Condition != BudgetSpent || !strings.Contains(s.Why, "used up until 20") {
			t.Errorf("state = %+v, want to be told of the budget", s)
		}
	})
}

func TestLimitOfTheDomainIsAStateOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, newFakeCA(t), "")
		until := time.Now().Add(20 * time.Hour)
		h.ca.set(fails(&Error{Class: ClassLimit, Domain: "pool.example", Until: until, RetryAfter: 20 * time.Hour, Err: errors.New("429")}))
		stop := h.run(t)
		sleep(19 * time.Hour)
		s := h.State()
		if s.Condition != LimitReached || s.Failures != 0 || s.LastError != "" || s.NextAttempt.Before(until) ||
			s.Why != usedUp(store.Limit{Domain: "pool.example", Until: s.NextAttempt}) {
			t.Errorf("state = %+v", s)
		}
		if r := wished(t, h.Manager, true); r.Why != s.Why || !r.Until.Equal(s.NextAttempt) || h.ca.count() != 1 {
			t.Errorf("%d orders, refused with %+v; want to be told what the state tells", h.ca.count(), r)
		}
		if strings.Contains(h.log.String(), "ERROR") || !strings.Contains(h.log.String(), "the CA's limit for pool.example is used up until 2000-01-01T2") {
			t.Errorf("log = %s", h.log)
		}
		h.ca.set(nil)
		sleep(4 * time.Hour)
		stop()
		if s := h.State(); s.Condition != "" || h.ca.count() != 2 || h.served(t) == nil {
			t.Errorf("%d orders, state %+v; want to go on when the CA does", h.ca.count(), s)
		}
	})
}

func TestNothingIsOrderedByAClockThatIsWrong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newFakeCA(t)
		h := newHouse(t, ca, "")
		h.put(t, time.Now().Add(2*day), time.Now().Add(11*day)) // the clock is two days behind
		h.cfg.Built = time.Now().Add(day)
		stop := h.run(t)
		sleep(day)
		var refused *Refused
		if err := h.Renew(t.Context(), true); !errors.As(err, &refused) || !strings.Contains(refused.Why, "clock") {
			t.Errorf("a wish was answered with %v", err)
		}
		sleep(12 * time.Hour)
		s := h.State()
		if ca.count() != 0 || ca.questions() != 0 || s.Condition != ClockUnsane || s.Failures != 0 || h.served(t) != nil {
			t.Errorf("%d orders, %d questions, state %+v; want nothing but to wait", ca.count(), ca.questions(), s)
		}
		if n := strings.Count(h.log.String(), "clock not believed"); n != 1 {
			t.Errorf("told %d times, want once: %s", n, h.log)
		}
		sleep(12 * time.Hour)
		stop()
		if s := h.State(); s.Condition != "" || h.served(t) == nil || ca.count() != 0 {
			t.Errorf("%d orders, state %+v; want the stored certificate in service and no order before it is due", ca.count(), s)
		}
	})
}

func TestDatesOfTheServersCertificateAreNoFailureWhileTheClockIsInDoubt(t *testing.T) {
	for _, synced := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			h := newHouse(t, newFakeCA(t), "")
			h.cfg.Synced = func() bool { return synced }
			h.ca.set(fails(&Error{Class: ClassClock, Err: errors.New("x509: certificate has expired or is not yet valid")}))
			stop := h.run(t)
			sleep(3 * time.Hour)
			stop()
			if s := h.State(); (s.Failures > 0) != synced || s.LastError == "" || h.ca.count() < 4 {
				t.Errorf("synchronized %v: %d orders, state %+v; want failures only if it is", synced, h.ca.count(), s)
			}
			if good := h.renewal.LastGood; good.IsZero() == synced {
				t.Errorf("synchronized %v: the time was noted at %v", synced, good)
			}
		})
	}
}

func TestStagingCertificateDoesNotReplaceARealOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newFakeCA(t)
		h := newHouse(t, ca, "")
		stop := h.run(t)
		sleep(time.Minute)
		stop()
		first := h.served(t)

		h = newHouse(t, ca, h.dir)
		h.cfg.Directory = "https://acme-staging.ca.example/directory"
		stop = h.run(t)
		sleep(5 * day)
		var refused *Refused
		if err := h.Renew(t.Context(), false); !errors.As(err, &refused) || !strings.Contains(refused.Why, "staging") || !strings.Contains(refused.Hint, "--force") {
			t.Errorf("a wish was answered with %v", err)
		}
		sleep(time.Hour)
		if s := h.State(); ca.count() != 1 || s.Condition != WrongAuthority || !bytes.Equal(h.served(t), first) {
			t.Errorf("%d orders, state %+v; want the real certificate left alone", ca.count(), s)
		}
		if n := strings.Count(h.log.String(), "staging CA"); n != 2 { // when it was time, and for the wish
			t.Errorf("told %d times, want twice: %s", n, h.log)
		}
		stop()

		h = newHouse(t, ca, h.dir) // the right directory again
		stop = h.run(t)
		sleep(time.Minute)
		stop()
		if ca.count() != 2 || h.State().Condition != "" {
			t.Errorf("%d orders, state %+v; want the renewal that is due", ca.count(), h.State())
		}
	})
}

func TestDeathBeforeTheCertificateCameCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newFakeCA(t)
		h := newHouse(t, ca, "")
		ca.set(func(ctx context.Context, o Order) ([]byte, error) {
			if err := o.Finalizing(); err != nil {
				t.Error(err)
			}
			r, err := h.store.Renewal(h.name) // what a SIGKILL now would leave
			if err != nil || len(r.Issued) != 1 || len(r.Validations) == 0 || r.Failures != 1 {
				t.Errorf("on disk while the CA signs: %+v, %v; want the certificate counted", r, err)
			}
			return nil, &Error{Class: ClassNetwork, Err: errors.New("no answer")}
		})
		stop := h.run(t)
		synctest.Wait()
		if r, err := h.store.Renewal(h.name); err != nil || len(r.Issued) != 1 || len(r.Validations) != 0 {
			t.Errorf("counted %v and %v, %v; want one certificate and no validation", r.Issued, r.Validations, err)
		}
		ca.set(func(ctx context.Context, o Order) ([]byte, error) {
			if err := o.Finalizing(); err != nil {
				t.Error(err)
			}
			return nil, &Error{Class: ClassCAA, Declined: true, Err: errors.New("CAA says no")}
		})
		sleep(2 * time.Minute)
		stop()
		if n := len(h.renewal.Issued); n != 1 || h.renewal.Failures < 2 {
			t.Errorf("%d certificates counted after the CA said no, want 1", n)
		}
	})
}

func TestAnOrderThatWasLeftBehindIsNotSigned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, newFakeCA(t), "")
		var finalizing func() error
		h.ca.set(func(ctx context.Context, o Order) ([]byte, error) {
			finalizing = o.Finalizing
			<-ctx.Done()
			return nil, ctx.Err()
		})
		stop := h.run(t)
		synctest.Wait()
		stop()
		if finalizing() == nil {
			t.Error("an order may be signed after the Manager has given it up")
		}
	})
}

func TestValidationsAreChargedAsTheCACountsThem(t *testing.T) {
	for _, tt := range []struct {
		name   string
		failed int // validations, before what the order came to
		err    error
		want   int
	}{
		{"none for a certificate by the first challenge", 0, nil, 0},
		{"one for a certificate by the second", 1, nil, 1},
		{"two for none by either", 2, &Error{Class: ClassTLS, Validations: 2, Err: errors.New("no")}, 2},
		{"those that were told of, though the order was left behind", 1, &Error{Class: ClassNetwork, Err: errors.New("no answer")}, 1},
		{"none for a CA that does not answer", 0, &Error{Class: ClassNetwork, Err: errors.New("no answer")}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t, newFakeCA(t), "")
				h.ca.set(func(_ context.Context, o Order) ([]byte, error) {
					r, err := h.store.Renewal(h.name)
					if err != nil || len(r.Validations) != o.MayFail {
						t.Errorf("on disk during the order: %v, %v; want all that may fail", r.Validations, err)
					}
					for range tt.failed {
						o.Failed()
					}
					if tt.err != nil {
						return nil, tt.err
					}
					return h.ca.sign(o.Name.String(), o.CSR.PublicKey, time.Now(), time.Now().Add(9*day)), nil
				})
				stop := h.run(t)
				synctest.Wait()
				stop()
				if n := len(h.renewal.Validations); n != tt.want {
					t.Errorf("%d validations charged, want %d", n, tt.want)
				}
			})
		})
	}
}
