package acme

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ntsagent/acme/store"
	"ntsagent/hostcheck"
)

const day = 24 * time.Hour

var errDown = &Error{Class: ClassConnection, Err: errors.New("http-01: 403\nfrom 192.0.2.7:80"), Hint: "nginx answers on port 80"}

func fails(err error) func(context.Context, Order) ([]byte, error) {
	return func(context.Context, Order) ([]byte, error) { return nil, err }
}

// sleep lets the bubble's time pass and its goroutines settle.
func sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestFirstOrderGoesOutAtOnceAndTheNextWithAThirdOfLifeLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, newFakeCA(t), "")
		h.ca.life = 12 * day
		stop := h.run(t)
		synctest.Wait()
		if h.ca.count() != 1 || h.served(t) == nil {
			t.Fatalf("%d orders, certificate served: %v; want one at once", h.ca.count(), h.served(t) != nil)
		}
		first, key := h.served(t), h.live.Leaf(h.name).PublicKey
		sleep(8*day + time.Hour)
		stop()
		if gaps := h.ca.gaps(); len(gaps) != 1 || gaps[0] < 8*day || gaps[0] > 8*day+tick {
			t.Errorf("waits = %v, want one of 8 days", gaps)
		}
		if bytes.Equal(h.served(t), first) {
			t.Error("the renewed certificate is not served")
		}
		if sameKey(key, h.live.Leaf(h.name).PublicKey) {
			t.Error("the renewed certificate has the old key")
		}
	})
}

func TestBackOffWithoutCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, newFakeCA(t), "")
		h.ca.set(fails(errDown))
		stop := h.run(t)
		sleep(48 * time.Hour)
		stop()
		gaps := h.ca.gaps()
		for i, want := range []time.Duration{time.Minute, 10 * time.Minute, 100 * time.Minute} {
			if lo, hi := want*8/10, want*12/10+tick; gaps[i] < lo || gaps[i] > hi {
				t.Errorf("wait %d = %v, want %v to %v", i, gaps[i], lo, hi)
			}
		}
		for i, gap := range gaps[3:] {
			if gap < 4*time.Hour || gap > maxLateWait+tick {
				t.Errorf("wait %d = %v, want 4 to 6 hours: without certificate there is no time to lose", i+3, gap)
			}
		}
	})
}

func TestBackOffBesideAServingCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, newFakeCA(t), "")
		h.ca.life = 30 * day
		stop := h.run(t)
		synctest.Wait()
		first := h.served(t)
		h.ca.set(fails(errDown))
		sleep(29*day + 12*time.Hour)
		gaps := h.ca.gaps()[1:]
		if !bytes.Equal(h.served(t), first) {
			t.Error("failures have changed what is served")
		}
		daily, six := 0, 0
		for _, gap := range gaps[3:] {
			switch {
			case gap >= 19*time.Hour && gap <= 29*time.Hour:
				daily++
			case gap <= maxLateWait+tick:
				six++
			}
		}
		if daily < 2 || six < 4*5 {
			t.Errorf("%d daily waits and %d of at most six hours, want about 4 and then 24 of the other: %v", daily, six, gaps)
		}
		// The CA comes back: all is forgotten.
		h.ca.set(nil)
		sleep(7 * time.Hour)
		stop()
		if s := h.State(); s.Failures != 0 || s.LastError != "" || bytes.Equal(h.served(t), first) {
			t.Errorf("state after success = %+v", s)
		}
	})
}

func TestFailureIsOnDiskBeforeTheOrderGoesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, newFakeCA(t), "")
		crashed := filepath.Join(t.TempDir(), "acme")
		h.ca.set(func(context.Context, Order) ([]byte, error) {
			if err := os.CopyFS(crashed, os.DirFS(h.dir)); err != nil { // what a SIGKILL now would leave
				t.Error(err)
			}
			return nil, errDown
		})
		stop := h.run(t)
		synctest.Wait()
		stop()

		next := newHouse(t, newFakeCA(t), crashed)
		stop = next.run(t)
		sleep(45 * time.Second)
		if n := next.ca.count(); n != 0 {
			t.Errorf("%d orders within 45 s of a crash during an order, want none", n)
		}
		sleep(validationGap)
		stop()
		if n := next.ca.count(); n != 1 {
			t.Errorf("%d orders after the first wait, want 1", n)
		}
	})
}

func TestCrashLoopDoesNotHammer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newFakeCA(t)
		ca.set(fails(errDown))
		dir := filepath.Join(t.TempDir(), "acme")
		for range 360 { // one restart each 10 s for an hour
			h := newHouse(t, ca, dir)
			stop := h.run(t)
			sleep(10 * time.Second)
			stop()
		}
		if n := ca.count(); n < 2 || n > 4 {
			t.Errorf("%d orders in an hour of restarts, want 3", n)
		}
	})
}

func TestRetryAfterIsHonoured(t *testing.T) {
	for _, tt := range []struct {
		name     string
		class    Class
		asked    time.Duration
		from, to time.Duration
	}{
		{"a rate limit is waited for exactly", ClassRateLimited, 2 * time.Hour, 2 * time.Hour, 2*time.Hour + 12*time.Minute},
		{"ten years become a day", ClassRateLimited, 87600 * time.Hour, 24 * time.Hour, 26*time.Hour + 24*time.Minute},
		{"one second becomes a minute", ClassRateLimited, time.Second, time.Minute, 66 * time.Second},
		{"a rate limit without a time follows the curve", ClassRateLimited, 0, 48 * time.Second, 72 * time.Second},
		{"a server that is down may ask for longer than the curve", ClassNetwork, time.Hour, time.Hour, 66 * time.Minute},
		{"but not for shorter", ClassConnection, time.Second, time.Minute, 72 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t, newFakeCA(t), "")
				h.ca.set(fails(&Error{Class: tt.class, RetryAfter: tt.asked, Err: errors.New("wait")}))
				stop := h.run(t)
				for h.ca.count() < 2 {
					sleep(tick)
				}
				stop()
				if gap := h.ca.gaps()[0]; gap < tt.from || gap > tt.to+tick {
					t.Errorf("wait = %v, want %v to %v", gap, tt.from, tt.to)
				}
			})
		})
	}
}

func TestUnfitCertificateIsRejectedBeforeItIsInstalled(t *testing.T) {
	for _, tt := range []struct {
		name   string
		answer func(t *testing.T, ca *fakeCA, o Order) []byte
	}{
		{"for another key", func(t *testing.T, ca *fakeCA, o Order) []byte {
			return ca.sign(o.Name.String(), strangerKey(t), time.Now(), time.Now().Add(day))
		}},
		{"for another name", func(_ *testing.T, ca *fakeCA, o Order) []byte {
			return ca.sign("bob.members.pool.example", o.CSR.PublicKey, time.Now(), time.Now().Add(day))
		}},
		{"expired", func(_ *testing.T, ca *fakeCA, o Order) []byte {
			return ca.sign(o.Name.String(), o.CSR.PublicKey, time.Now().Add(-2*day), time.Now().Add(-day))
		}},
		{"of the future", func(_ *testing.T, ca *fakeCA, o Order) []byte {
			return ca.sign(o.Name.String(), o.CSR.PublicKey, time.Now().Add(day), time.Now().Add(2*day))
		}},
		{"a web page", func(*testing.T, *fakeCA, Order) []byte { return []byte("<html>") }},
		{"empty", func(*testing.T, *fakeCA, Order) []byte { return nil }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t, newFakeCA(t), "")
				stop := h.run(t)
				synctest.Wait()
				first := h.served(t)
				chain, key, err := h.store.Current(h.name)
				if err != nil {
					t.Fatal(err)
				}
				h.ca.set(func(_ context.Context, o Order) ([]byte, error) { return tt.answer(t, h.ca, o), nil })
				h.wish()
				synctest.Wait()
				stop()
				if s := h.State(); s.Failures != 1 || !strings.Contains(s.LastError, "rejected") || s.LastHint == "" {
					t.Errorf("state = %+v, want one rejection with a hint", s)
				}
				if !bytes.Equal(h.served(t), first) {
					t.Error("what is served has changed")
				}
				chainNow, keyNow, err := h.store.Current(h.name)
				if err != nil || !bytes.Equal(chain, chainNow) || !bytes.Equal(key, keyNow) {
					t.Errorf("what is stored has changed (%v)", err)
				}
			})
		})
	}
}

func TestInterruptedOrderKeepsItsKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, newFakeCA(t), "")
		var first Order
		h.ca.set(func(_ context.Context, o Order) ([]byte, error) { first = o; return nil, errDown })
		stop := h.run(t)
		synctest.Wait()
		h.ca.set(nil)
		sleep(2 * time.Minute)
		stop()
		if !sameKey(first.CSR.PublicKey, h.live.Leaf(h.name).PublicKey) {
			t.Error("the second try had another key: a certificate made for the first is lost")
		}
	})
}

func TestRenewOrdersNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, newFakeCA(t), "")
		stop := h.run(t)
		synctest.Wait()
		h.ca.set(func(_ context.Context, o Order) ([]byte, error) {
			time.Sleep(time.Second) // all have wished by then
			return h.ca.sign(o.Name.String(), o.CSR.PublicKey, time.Now(), time.Now().Add(9*day)), nil
		})
		for range 5 {
			h.wish()
		}
		sleep(time.Minute)
		if n := h.ca.count(); n != 2 {
			t.Errorf("%d orders after five wishes at once, want them to be one", n-1)
		}
		h.ca.set(fails(errDown))
		h.wish()
		synctest.Wait()
		h.ca.set(nil)
		before := h.ca.count()
		h.wish() // in the middle of the back-off
		synctest.Wait()
		stop()
		if h.ca.count() != before+1 || h.State().Failures != 0 {
			t.Errorf("a wish during the back-off was not granted: %+v", h.State())
		}
	})
}

func TestAnOrderUnderWayIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, newFakeCA(t), "")
		var during []State
		slow := func(end error) func(context.Context, Order) ([]byte, error) {
			return func(_ context.Context, o Order) ([]byte, error) {
				time.Sleep(3 * time.Second)
				during = append(during, h.State())
				if end != nil {
					return nil, end
				}
				return h.ca.sign(o.Name.String(), o.CSR.PublicKey, time.Now(), time.Now().Add(9*day)), nil
			}
		}
		h.ca.set(slow(nil))
		stop := h.run(t)
		sleep(time.Minute)
		h.ca.set(slow(errDown))
		h.wish() // fails
		sleep(10 * time.Second)
		h.ca.set(slow(nil))
		h.wish() // succeeds
		sleep(10 * time.Second)
		stop()
		want := []struct {
			failures int
			last     string
		}{{0, ""}, {0, ""}, {1, "http-01: 403 from 192.0.2.7:80"}} // the true failure stays until the order after it has ended
		if len(during) != len(want) {
			t.Fatalf("%d orders, want %d", len(during), len(want))
		}
		for i, s := range during {
			if s.Failures != want[i].failures || s.LastError != want[i].last || !s.OrderingSince.Equal(h.ca.orders[i]) {
				t.Errorf("state during order %d = %+v, want %+v and ordering since %v", i, s, want[i], h.ca.orders[i])
			}
		}
		if s := h.State(); s.Failures != 0 || s.LastError != "" || !s.OrderingSince.IsZero() {
			t.Errorf("state after the last order = %+v", s)
		}
	})
}

func TestACertificateThatAReloadKeptIsNoNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, newFakeCA(t), "")
		h.put(t, time.Now().Add(-day), time.Now().Add(8*day))
		stop := h.run(t)
		synctest.Wait()
		stop()
		if n := strings.Count(h.log.String(), "certificate installed"); n != 1 {
			t.Fatalf("told %d times that a certificate was installed, want once: %s", n, h.log)
		}
		next := newHouse(t, h.ca, h.dir)
		next.live.Adopt(h.live)
		stop = next.run(t)
		synctest.Wait()
		stop()
		if next.log.Len() != 0 || len(next.events) != 0 || next.ca.count() != 0 || next.State().NotAfter.IsZero() {
			t.Errorf("log %q, events %v, %d orders, state %+v; want silence and the certificate", next.log, next.events, next.ca.count(), next.State())
		}
	})
}

func TestStoppedDuringAnOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, newFakeCA(t), "")
		h.ca.set(func(ctx context.Context, _ Order) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() })
		stop := h.run(t)
		synctest.Wait()
		if !h.State().OrderingSince.Equal(time.Now()) {
			t.Errorf("the state tells of an order since %v, want %v", h.State().OrderingSince, time.Now())
		}
		stop()
		if since := h.State().OrderingSince; !since.IsZero() {
			t.Errorf("the state of a Manager that has stopped tells of an order since %v", since)
		}
		r, err := h.store.Renewal(h.name)
		if err != nil || r.Failures != 0 || r.LastError != "" || !r.NextAttempt.After(time.Now()) {
			t.Errorf("renewal = %+v, %v; want no failure and a short wait", r, err)
		}
		if strings.Contains(h.log.String(), "ERROR") {
			t.Errorf("log = %s", h.log)
		}
	})
}

func TestStoredCertificateServesBeforeAnythingIsOrdered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newFakeCA(t)
		ca.set(fails(errDown))
		h := newHouse(t, ca, "")
		h.put(t, time.Now().Add(-day), time.Now().Add(5*day))
		h.put(t, time.Now().Add(-2*day), time.Now().Add(-day)) // newer, but over
		stop := h.run(t)
		synctest.Wait()
		if h.served(t) == nil || ca.count() != 0 {
			t.Errorf("served: %v, orders: %d; want the older pair that is still valid, and no order", h.served(t) != nil, ca.count())
		}
		sleep(4 * day)
		stop()
		if ca.count() == 0 {
			t.Error("no order when a third of the life was left")
		}
		if h.served(t) == nil {
			t.Error("the stored certificate does not serve any more")
		}
	})
}

func TestNothingIsOrderedThatCouldNotBeStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, newFakeCA(t), "")
		// A folder where the state file belongs refuses every write, to root as well. It comes after the state was read.
		h.cfg.LookAround = func(context.Context, hostcheck.Name) []Fault {
			if err := os.MkdirAll(h.renewalFile(), 0o700); err != nil {
				t.Error(err)
			}
			return nil
		}
		stop := h.run(t)
		sleep(30 * time.Minute)
		stop()
		s := h.State()
		if h.ca.count() != 0 || s.Failures == 0 || !strings.Contains(s.LastHint, "state_dir") {
			t.Errorf("%d orders, state %+v; want none and a hint about state_dir", h.ca.count(), s)
		}
		if s.Failures > 4 {
			t.Errorf("%d attempts in half an hour: the back-off does not hold without a disk", s.Failures)
		}
	})
}

func TestLogLinesAndEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, newFakeCA(t), "")
		h.ca.set(func(ctx context.Context, o Order) ([]byte, error) {
			time.Sleep(4100 * time.Millisecond)
			return h.ca.sign(o.Name.String(), o.CSR.PublicKey, time.Now(), time.Now().Add(3*day)), nil
		})
		stop := h.run(t)
		sleep(5 * time.Second)
		h.ca.set(fails(errDown))
		sleep(36*time.Hour + tick)
		stop()
		want := regexp.MustCompile(`^\[INFO\]  certificate ordered: name=alice\.members\.pool\.example reason="first certificate" try=1
\[INFO\]  certificate obtained: name=alice\.members\.pool\.example issuer="Fake CA" not_after=2000-01-04T00:00Z took=4\.1s
\[INFO\]  certificate ordered: name=alice\.members\.pool\.example reason=renewal try=1
\[ERROR\] certificate renewal failed: name=alice\.members\.pool\.example try=1 next=(4[89]s|5\ds|1m) class=connection cause="http-01: 403 from 192\.0\.2\.7:80" hint="nginx answers on port 80"
$`)
		if !want.MatchString(h.log.String()) {
			t.Errorf("log =\n%s\nwant\n%s", h.log, want)
		}
		var kinds []Kind
		for _, e := range h.events {
			kinds = append(kinds, e.Kind)
		}
		if !slices.Equal(kinds, []Kind{Ordered, Obtained, Ordered, Failed}) || h.events[3].Text != "http-01: 403 from 192.0.2.7:80" {
			t.Errorf("events = %+v", h.events)
		}
		s := h.State()
		if s.Issuer != "Fake CA" || !s.NotAfter.Equal(time.Date(2000, 1, 4, 0, 0, 4, 0, time.UTC)) || s.RenewAt.IsZero() ||
			s.LastSuccess.IsZero() || s.Failures != 1 || !s.NextAttempt.After(time.Now()) {
			t.Errorf("state = %+v", s)
		}
	})
}

func TestKeyTypeOfTheConfigurationIsOrdered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, newFakeCA(t), "")
		h.cfg.KeyType = store.P384
		stop := h.run(t)
		synctest.Wait()
		stop()
		if got := h.live.Leaf(h.name); got == nil || got.SignatureAlgorithm == 0 || curveOf(got) != "P-384" {
			t.Errorf("certificate = %v, want one for a P-384 key", got)
		}
	})
}
