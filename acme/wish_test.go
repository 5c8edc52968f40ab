package acme

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// wished is the refusal that a wish comes to.
func wished(t *testing.T, m *Manager, force bool) *Refused {
	t.Helper()
	var refused *Refused
	if err := m.Renew(t.Context(), force); !errors.As(err, &refused) || refused.Why == "" || refused.Hint == "" {
		t.Fatalf("the wish was answered with %v, want a refusal with its reason and what to do", err)
	}
	return refused
}

func TestWishThatIsNotForcedWaitsUntilTheRenewalIsDueAndNotForTheBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, newFakeCA(t), "")
		stop := h.run(t)
		synctest.Wait()
		if r := wished(t, h.Manager, false); !r.Until.Equal(h.State().RenewAt) || !strings.Contains(r.Hint, "--force") || h.ca.count() != 1 {
			t.Errorf("%d orders, %+v; want to be told when it is due", h.ca.count(), r)
		}
		if err := h.Renew(t.Context(), true); err != nil || h.ca.count() != 2 {
			t.Errorf("%d orders, forced: %v; want a second one", h.ca.count(), err)
		}
		h.ca.set(fails(errDown))
		sleep(6*day + time.Minute) // due for a day and a half: hours to wait
		before := h.ca.count()
		var failed *Error
		if err := h.Renew(t.Context(), false); !errors.As(err, &failed) || failed.Class != ClassConnection || h.ca.count() != before+1 {
			t.Errorf("%d orders more, answer %v; want one whose failure is the answer", h.ca.count()-before, err)
		}
		h.ca.set(nil)
		if err := h.Renew(t.Context(), false); err != nil {
			t.Errorf("answer %v, want a certificate", err)
		}
		stop()
		if err := h.Renew(t.Context(), true); !errors.Is(err, ErrStopped) {
			t.Errorf("one that has stopped answers %v", err)
		}
	})
}

func TestForceLiftsTheStagingGuard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newFakeCA(t)
		h := newHouse(t, ca, "")
		stop := h.run(t)
		synctest.Wait()
		stop()
		first := h.served(t)

		h = newHouse(t, ca, h.dir)
		h.cfg.Directory = "https://acme-staging.ca.example/directory"
		stop = h.run(t)
		sleep(5 * day)
		if r := wished(t, h.Manager, false); !strings.Contains(r.Why, "staging") || !strings.Contains(r.Hint, "--force") || ca.count() != 1 {
			t.Errorf("%d orders, %+v", ca.count(), r)
		}
		if err := h.Renew(t.Context(), true); err != nil || ca.count() != 2 || bytes.Equal(h.served(t), first) || h.State().Condition != "" {
			t.Errorf("%d orders, answer %v, state %+v; want the rehearsal that was forced", ca.count(), err, h.State())
		}
		sleep(5 * day) // from now on it rehearses
		stop()
		if ca.count() != 3 {
			t.Errorf("%d orders, want the rehearsed certificate renewed", ca.count())
		}
	})
}

func TestForceLiftsNoBudgetAndNoWordOfTheCA(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, newFakeCA(t), "")
		h.ca.set(func(_ context.Context, o Order) ([]byte, error) {
			if err := o.Finalizing(); err != nil {
				return nil, err
			}
			return h.ca.sign(o.Name.String(), o.CSR.PublicKey, time.Now(), time.Now().Add(9*day)), nil
		})
		stop := h.run(t)
		synctest.Wait()
		for n := 2; n <= weekBudget; n++ {
			sleep(time.Minute)
			if err := h.Renew(t.Context(), true); err != nil {
				t.Fatalf("wish %d: %v", n, err)
			}
		}
		if r := wished(t, h.Manager, true); h.ca.count() != weekBudget || r.Until.Before(time.Now().Add(week-time.Hour)) || !strings.Contains(r.Why, "week") {
			t.Errorf("%d orders, %+v; want to wait for a week", h.ca.count(), r)
		}
		sleep(week + time.Hour) // it renews by itself meanwhile
		h.ca.set(fails(&Error{Class: ClassRateLimited, RetryAfter: 3 * time.Hour, Err: errors.New("429")}))
		if err := h.Renew(t.Context(), true); err == nil {
			t.Error("granted by a CA that refuses")
		}
		before := h.ca.count()
		r := wished(t, h.Manager, true)
		stop()
		if h.ca.count() != before || r.Until.Before(time.Now().Add(3*time.Hour)) || !strings.Contains(r.Why, "asked to wait") {
			t.Errorf("%d orders more, %+v; want to wait as the CA has asked", h.ca.count()-before, r)
		}
	})
}

func TestWishesThatComeDuringAnOrderAreAnsweredByIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, newFakeCA(t), "")
		h.ca.set(func(_ context.Context, o Order) ([]byte, error) {
			time.Sleep(10 * time.Second)
			return h.ca.sign(o.Name.String(), o.CSR.PublicKey, time.Now(), time.Now().Add(9*day)), nil
		})
		stop := h.run(t)
		sleep(time.Second)
		answers := make(chan error, 3)
		for range cap(answers) {
			go func() { answers <- h.Renew(t.Context(), true) }()
		}
		hasty, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := h.Renew(hasty, true); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("one who waits a second is told %v", err)
		}
		sleep(20 * time.Second)
		for range cap(answers) {
			if err := <-answers; err != nil {
				t.Errorf("answer %v", err)
			}
		}
		stop()
		if h.ca.count() != 1 {
			t.Errorf("%d orders, want one", h.ca.count())
		}
	})
}
