package acme

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"ntsagent/acme/store"
)

// TestSignatureCountsFromWhenItWasAskedFor has a first order that takes minutes, and others that do not: a week after it began
// is not yet a week after what the CA has counted.
func TestSignatureCountsFromWhenItWasAskedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ca := newFakeCA(t)
		ca.life = 90 * day
		var signatures []time.Time
		takes := 270 * time.Second
		ca.set(func(ctx context.Context, o Order) ([]byte, error) {
			time.Sleep(takes)
			if err := o.Finalizing(); err != nil {
				return nil, err
			}
			signatures = append(signatures, time.Now())
			return ca.sign(o.Name.String(), o.CSR.PublicKey, time.Now(), time.Now().Add(ca.life)), nil
		})
		began := time.Now()
		h := newHouse(t, ca, "")
		stop := h.run(t)
		sleep(10 * time.Minute)
		takes = time.Second
		for range weekBudget {
			h.Renew(t.Context(), true)
			sleep(time.Minute)
		}
		if len(signatures) != weekBudget {
			t.Errorf("%d signatures, want the budget of a week", len(signatures))
		}
		sleep(time.Until(began.Add(week + budgetSlack + time.Second)))
		if err := h.Renew(t.Context(), true); err == nil || len(signatures) != weekBudget {
			t.Errorf("a sixth signature %v after the first: %v", time.Since(signatures[0]), err)
		}
		sleep(takes + 270*time.Second)
		if err := h.Renew(t.Context(), true); err != nil || len(signatures) != weekBudget+1 {
			t.Errorf("%d signatures, %v; want one more a week after the first", len(signatures), err)
		}
		stop()
	})
}

func TestClockThatWasAheadForgetsNothing(t *testing.T) {
	for _, step := range []bool{true, false} { // whether the agent sees the clock go back, or starts after that
		t.Run(fmt.Sprintf("seen %v", step), func(t *testing.T) {
			r := store.Renewal{Directory: simulated}
			for range weekBudget {
				r = signed(noon, r)
			}
			r = spent(noon, r, 4)
			const by = 8 * day
			r = signed(noon.Add(by), r)
			r = afterFailure(noon.Add(by), nil, r, &Error{Class: ClassTLS, Validations: 1, Err: errors.New("no")}, 0.5)
			back := noon.Add(2 * time.Minute)
			if step {
				r = afterStepBack(back, r, by)
			}
			if n, m := len(within(r.Issued, back, week)), len(within(r.Validations, back, hour)); n != weekBudget+1 || m != hourBudget {
				t.Errorf("%d signatures and %d failed validations are remembered, want 6 and 5", n, m)
			}
			if at, why := allowed(back, nil, r, true); !at.After(back.Add(6 * day)) {
				t.Errorf("allowed in %v, %s", at.Sub(back), why)
			}
		})
	}
}

func TestCountsAreBounded(t *testing.T) {
	r := store.Renewal{Issued: []time.Time{noon.Add(-day)}}
	before := r.Issued
	for n := range 2 * store.MaxTimes {
		r = spent(noon.Add(time.Duration(n)*time.Minute), signed(noon.Add(time.Duration(n)*time.Minute), r), 3)
	}
	if len(r.Issued) != store.MaxTimes || len(r.Validations) != store.MaxTimes || !r.Issued[0].Equal(noon.Add(store.MaxTimes*time.Minute)) || len(before) != 1 {
		t.Errorf("%d signatures from %v on, %d validations; want the newest %d", len(r.Issued), r.Issued[0], len(r.Validations), store.MaxTimes)
	}
}
