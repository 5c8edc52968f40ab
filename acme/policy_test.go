package acme

import (
	"crypto/x509"
	"errors"
	"math/big"
	"math/rand/v2"
	"testing"
	"time"

	"ntsagent/acme/store"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func certificate(age, left time.Duration) *x509.Certificate {
	return &x509.Certificate{SerialNumber: big.NewInt(7), NotBefore: noon.Add(-age), NotAfter: noon.Add(left)}
}

func TestRenewAt(t *testing.T) {
	for _, tt := range []struct {
		name       string
		age, left  time.Duration
		start, end time.Duration // the CA's window, from now; none if both are 0
		roll       float64
		want       time.Duration
	}{
		{"90 days with a third left", 0, 90 * day, 0, 0, 0, 60 * day},
		{"ten days with a third left", 0, 12 * day, 0, 0, 0, 8 * day},
		{"six days with half left", 0, 160 * time.Hour, 0, 0, 0, 80 * time.Hour},
		{"at the beginning of the window", 0, 90 * day, 50 * day, 52 * day, 0, 50 * day},
		{"within the window", 0, 90 * day, 50 * day, 52 * day, 0.5, 51 * day},
		{"a window that is past", 10 * day, 80 * day, -2 * day, -day, 0.5, -36 * time.Hour},
		{"a window after the backstop", 0, 90 * day, 80 * day, 85 * day, 0.5, 60 * day},
		{"a point after the backstop in a window that begins before it", 0, 90 * day, 59 * day, 62 * day, 0.9, 60 * day},
		{"an end before the start is no answer", 0, 90 * day, 52 * day, 50 * day, 0.5, 60 * day},
		{"an end that is the start is no answer", 0, 90 * day, 50 * day, 50 * day, 0.5, 60 * day},
	} {
		t.Run(tt.name, func(t *testing.T) {
			leaf, r := certificate(tt.age, tt.left), store.Renewal{}
			if tt.end != 0 {
				r = afterRenewalInfo(noon, leaf, r, RenewalInfo{Start: noon.Add(tt.start), End: noon.Add(tt.end)}, tt.roll)
			}
			if got := renewAt(leaf, r).Sub(noon); got != tt.want {
				t.Errorf("renews in %v, want %v", got, tt.want)
			}
		})
	}
}

func TestWindowIsDrawnFromOnce(t *testing.T) {
	leaf := certificate(0, 90*day)
	info := RenewalInfo{Start: noon.Add(50 * day), End: noon.Add(52 * day)}
	r := afterRenewalInfo(noon, leaf, store.Renewal{}, info, 0.25)
	first := r.Window.At
	for _, roll := range []float64{0, 0.5, 0.99} {
		if r = afterRenewalInfo(noon, leaf, r, info, roll); !r.Window.At.Equal(first) {
			t.Fatalf("the same window gave %v and then %v", first, r.Window.At)
		}
	}
	if r = afterNoRenewalInfo(noon, leaf, r, 0, 0.5); !r.Window.At.Equal(first) {
		t.Errorf("an answer that was none took the point away: %+v", r.Window)
	}
	if r = afterRenewalInfo(noon, leaf, r, RenewalInfo{Start: info.Start.Add(-day), End: info.End}, 0.1); r.Window.At.Equal(first) {
		t.Error("the window changed, and its point did not")
	}
	other := certificate(0, 90*day)
	other.SerialNumber = big.NewInt(8)
	if got := renewAt(other, r); !got.Equal(RenewAt(other)) {
		t.Errorf("another certificate is renewed at %v, by the window of the one before", got)
	}
}

func TestAskAt(t *testing.T) {
	leaf := certificate(10*day, 80*day)
	sure := RenewalInfo{Start: noon.Add(50 * day), End: noon.Add(52 * day)}
	after := func(retry time.Duration) store.Renewal {
		info := sure
		info.RetryAfter = retry
		return afterRenewalInfo(noon, leaf, store.Renewal{}, info, 0.5)
	}
	failed := after(time.Minute)
	failed.Failures, failed.NextAttempt = 1, noon.Add(time.Hour)
	for _, tt := range []struct {
		name string
		r    store.Renewal
		want time.Duration
	}{
		{"a new certificate is asked about at once", store.Renewal{}, 0},
		{"every six hours where the CA does not say", after(0), 6 * time.Hour},
		{"when the CA says", after(3 * time.Hour), 3 * time.Hour},
		{"a second is a minute", after(time.Second), time.Minute},
		{"ten years are a day", after(87600 * time.Hour), 24 * time.Hour},
		{"not before a failure has been waited out", failed, time.Hour},
		{"a time written under a wrong clock counts for nothing", store.Renewal{Window: store.Window{Certificate: certificateID(leaf), AskAt: noon.AddDate(80, 0, 0)}}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := max(0, askAt(noon, leaf, tt.r).Sub(noon)); got != tt.want {
				t.Errorf("asks in %v, want %v", got, tt.want)
			}
		})
	}
	ours := store.Renewal{Origin: store.Origin{Certificate: certificateID(leaf), Directory: "https://a.example"}}
	for _, tt := range []struct {
		name      string
		leaf      *x509.Certificate
		r         store.Renewal
		directory string
		want      bool
	}{
		{"its own CA is asked", leaf, ours, "https://a.example", true},
		{"another CA is not", leaf, ours, "https://b.example", false},
		{"nobody is asked about a certificate of unknown origin", leaf, store.Renewal{}, "https://a.example", false},
		{"nobody is asked about an expired certificate", certificate(90*day, -time.Second), ours, "https://a.example", false},
		{"nobody is asked about none", nil, ours, "https://a.example", false},
		{"an agent that died before it noted the origin asks where it ordered", leaf, store.Renewal{Ordered: "https://a.example"}, "https://a.example", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := mayAsk(noon, tt.leaf, tt.r, tt.directory); got != tt.want {
				t.Errorf("mayAsk = %v, want %v", got, tt.want)
			}
		})
	}
}

func TestEachClassHasItsCurve(t *testing.T) {
	leaf := certificate(61*day, 29*day)
	m, h := time.Minute, time.Hour
	for class, want := range map[Class][4]time.Duration{
		ClassNetwork: {m, 5 * m, 15 * m, h}, ClassClock: {m, 5 * m, 15 * m, h},
		ClassConnection: {m, 10 * m, 100 * m, 24 * h}, ClassUnauth: {m, 10 * m, 100 * m, 24 * h}, ClassDNS: {m, 10 * m, 100 * m, 24 * h},
		ClassCAA: {m, 10 * m, 100 * m, 24 * h}, ClassTLS: {m, 10 * m, 100 * m, 24 * h}, ClassInternal: {m, 10 * m, 100 * m, 24 * h},
		ClassFront:     {m, 10 * m, 100 * m, 24 * h},
		ClassMalformed: {h, 24 * h, 24 * h, 24 * h}, ClassAccount: {h, 24 * h, 24 * h, 24 * h}, ClassRejected: {h, 24 * h, 24 * h, 24 * h},
	} {
		var r store.Renewal
		for i, wait := range want {
			r = afterFailure(noon, leaf, r, &Error{Class: class, Err: errors.New("no")}, 0.5)
			if got := r.NextAttempt.Sub(noon); got != wait {
				t.Errorf("%s: wait %d = %v, want %v", class, i+1, got, wait)
			}
		}
	}
	// A CA that was away does not make the first failed validation a day's wait.
	var r store.Renewal
	for range 5 {
		r = afterFailure(noon, leaf, r, &Error{Class: ClassNetwork, Err: errors.New("no")}, 0.5)
	}
	r = afterFailure(noon, leaf, r, &Error{Class: ClassConnection, Err: errors.New("no")}, 0.5)
	if got := r.NextAttempt.Sub(noon); got != m || r.Failures != 6 {
		t.Errorf("wait = %v after %d failures, want a minute after 6", got, r.Failures)
	}
}

func TestLimitOfTheDomainIsNoFailure(t *testing.T) {
	leaf := certificate(61*day, 29*day)
	until := noon.Add(5 * time.Hour)
	e := &Error{Class: ClassLimit, Domain: "pool.example", Until: until, RetryAfter: 5 * time.Hour, Err: errors.New("too many certificates")}
	r := afterFailure(noon, leaf, store.Renewal{}, e, 0)
	if r.Failures != 0 || r.LastError != "" || !r.Limit.Until.Equal(until) || !due(noon, leaf, r).Equal(until) {
		t.Errorf("state = %+v, due %v; want no failure, and to wait until %v", r, due(noon, leaf, r), until)
	}
	if got, want := usedUp(r.Limit), "the CA's limit for pool.example is used up until 2026-11-23T17:00Z"; got != want {
		t.Errorf("told %q, want %q", got, want)
	}
	if r = afterFailure(until, leaf, r, &Error{Class: ClassNetwork, Err: errors.New("no")}, 0); !r.Limit.Until.IsZero() || r.Failures != 1 {
		t.Errorf("state after a failure = %+v, want no limit", r)
	}
}

func TestAllowed(t *testing.T) {
	ago := func(list ...time.Duration) (out []time.Time) {
		for _, d := range list {
			out = append(out, noon.Add(-d))
		}
		return out
	}
	hours := func(n, apart int) (out []time.Time) {
		for i := range n {
			out = append(out, noon.Add(-time.Duration((i+1)*apart)*time.Hour))
		}
		return out
	}
	daily := store.Origin{Directory: "a", Life: day}
	m, healthy, dying := time.Minute, certificate(61*day, 29*day), certificate(85*day, 5*day)
	for _, tt := range []struct {
		name   string
		leaf   *x509.Certificate
		r      store.Renewal
		forced bool
		want   time.Duration // from now; 0 = at once
	}{
		{"nothing spent", healthy, store.Renewal{}, false, 0},
		{"four certificates this week leave one in reserve", healthy, store.Renewal{Issued: ago(6*day, 5*day, 4*day, day)}, false, day + budgetSlack},
		{"which is for a wish", healthy, store.Renewal{Issued: ago(6*day, 5*day, 4*day, day)}, true, 0},
		{"or for a certificate that is dying", dying, store.Renewal{Issued: ago(6*day, 5*day, 4*day, day)}, false, 0},
		{"or for none", nil, store.Renewal{Issued: ago(6*day, 5*day, 4*day, day)}, false, 0},
		{"five are five for a wish too", healthy, store.Renewal{Issued: ago(6*day, 5*day, 4*day, 2*day, day)}, true, day + budgetSlack},
		{"a certificate of last week counts no more", healthy, store.Renewal{Issued: ago(8*day, 5*day, 4*day, day)}, false, 0},
		{"one made by a clock that was ahead counts as made now", healthy, store.Renewal{Issued: ago(-9000*day, 5*day, 4*day, day)}, false, 2*day + budgetSlack},
		{"twelve minutes after a failed validation", healthy, store.Renewal{Failures: 1, Validations: ago(m)}, false, 11 * m},
		{"which a wish need not wait", healthy, store.Renewal{Failures: 1, Validations: ago(m)}, true, 0},
		{"nor an order that was only interrupted", healthy, store.Renewal{Validations: ago(m)}, false, 0},
		{"nor what failed on the way to a success", healthy, store.Renewal{LastSuccess: noon.Add(-m), Validations: ago(2*m, 2*m)}, false, 0},
		{"a success does not lift what fails after it", healthy, store.Renewal{Failures: 1, LastSuccess: noon.Add(-2 * m), Validations: ago(m)}, false, 11 * m},
		{"a CA whose certificates live for a day makes three a day", healthy, store.Renewal{Origin: daily, Directory: "a", Issued: hours(19, 8)}, false, 0},
		{"and no more, one in reserve", healthy, store.Renewal{Origin: daily, Directory: "a", Issued: hours(20, 6)}, false, 48*time.Hour + budgetSlack},
		{"which is nothing to another CA", healthy, store.Renewal{Origin: daily, Directory: "b", Issued: hours(4, 8)}, false, 136*time.Hour + budgetSlack},
		{"nor to one whose certificates live for six days", healthy,
			store.Renewal{Origin: store.Origin{Directory: "a", Life: 6 * day}, Directory: "a", Issued: hours(4, 8)}, false, 136*time.Hour + budgetSlack},
		{"five failed validations are five for a wish too", healthy, store.Renewal{Validations: ago(50*m, 40*m, 30*m, 20*m, m)}, true, 10*m + budgetSlack},
	} {
		t.Run(tt.name, func(t *testing.T) {
			at, why := allowed(noon, tt.leaf, tt.r, tt.forced)
			if got := max(0, at.Sub(noon)); got != tt.want || got > 0 && why == "" {
				t.Errorf("allowed in %v because %q, want %v", got, why, tt.want)
			}
		})
	}
}

// TestBudgetsHoldAgainstAnything has an operator who wishes for an order every few minutes, restarts at any moment, and a CA that
// never delivers. It counts for itself.
func TestBudgetsHoldAgainstAnything(t *testing.T) {
	for _, leaf := range []*x509.Certificate{nil, certificate(61*day, 29*day), certificate(85*day, 5*day)} {
		rng := rand.New(rand.NewPCG(1, 2))
		var r store.Renewal
		var certificates, validations []time.Time
		weekly, hourly := 0, 0
		for now := noon; now.Before(noon.Add(60 * day)); now = now.Add(time.Duration(rng.Int64N(int64(10 * time.Minute)))) {
			wished := rng.Float64() < 0.3
			if at, _ := allowed(now, leaf, r, wished); wished && at.After(now) || !wished && due(now, leaf, r).After(now) {
				continue
			}
			may, before := mayFail(now, r), r
			r = beforeOrder(now, leaf, r, simulated, rng.Float64())
			dies := rng.Float64() < 0.2
			if rng.Float64() < 0.5 {
				n := 1 + rng.IntN(may)
				for range n {
					hourly = max(hourly, count(&validations, now, hour))
				}
				if !dies {
					r = afterFailure(now, leaf, noted(leaf, before), &Error{Class: ClassTLS, Validations: n, Err: errors.New("no")}, rng.Float64())
				}
				continue
			}
			r = signed(now, r)
			weekly = max(weekly, count(&certificates, now, week))
			if !dies {
				r = afterFailure(now, leaf, signed(now, noted(leaf, before)), &Error{Class: ClassNetwork, Err: errors.New("no")}, rng.Float64())
			}
		}
		if weekly != weekBudget || hourly < 4 || hourly > hourBudget {
			t.Errorf("%d certificates in a week and %d failed validations in an hour, want %d and 4 or 5", weekly, hourly, weekBudget)
		}
	}
}

func TestSpoils(t *testing.T) {
	const real, rehearsal = "https://acme-v02.api.letsencrypt.org/directory", "https://acme-staging-v02.api.letsencrypt.org/directory"
	leaf, over := certificate(day, 89*day), certificate(90*day, -day)
	unknown, fake := certificate(day, 89*day), certificate(day, 89*day)
	unknown.Issuer.CommonName, fake.Issuer.CommonName = "E7", "(STAGING) Ersatz Edamame E1"
	from := func(directory string) store.Renewal {
		return store.Renewal{Origin: store.Origin{Certificate: certificateID(leaf), Directory: directory}}
	}
	for _, tt := range []struct {
		name      string
		leaf      *x509.Certificate
		r         store.Renewal
		directory string
		want      bool
	}{
		{"a rehearsal spoils a real certificate", leaf, from(real), rehearsal, true},
		{"one of unknown origin is believed by its issuer", unknown, store.Renewal{}, rehearsal, true},
		{"a rehearsed one may be rehearsed again", leaf, from(rehearsal), rehearsal, false},
		{"one of unknown origin from a staging CA too", fake, store.Renewal{}, rehearsal, false},
		{"an expired one has nothing to spoil", over, from(real), rehearsal, false},
		{"neither has none", nil, store.Renewal{}, rehearsal, false},
		{"a test CA too", leaf, from(real), "https://dv.acme-v02.test-api.pki.goog/directory", true},
		{"the latest is no test", leaf, from(real), "https://latest.example/directory", false},
		{"the same CA spoils nothing", leaf, from(real), real, false},
		{"another real CA spoils nothing", leaf, from("https://acme.zerossl.com/v2/DV90"), real, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := spoils(noon, tt.leaf, tt.r, tt.directory); (got != "") != tt.want {
				t.Errorf("spoils = %q, want it to be so: %v", got, tt.want)
			}
		})
	}
}

func TestDoubt(t *testing.T) {
	built := noon.Add(-100 * day)
	leaf, over, future := certificate(10*day, 80*day), certificate(90*day, -day), certificate(-day, 91*day)
	for _, tt := range []struct {
		name   string
		now    time.Time
		synced bool
		up     time.Duration
		newest *x509.Certificate
		r      store.Renewal
		want   bool
	}{
		{"nothing speaks against it", noon, false, 0, leaf, store.Renewal{}, false},
		{"not synchronized is no reason", noon, false, 0, nil, store.Renewal{LastGood: noon.Add(-time.Hour)}, false},
		{"1970", time.Unix(0, 0), false, 0, nil, store.Renewal{}, true},
		{"before the agent was built, whoever set the clock", built.Add(-time.Hour), true, 0, nil, store.Renewal{}, true},
		{"before the certificate begins", noon, true, 0, future, store.Renewal{}, true},
		{"before it was last known to be right", noon, false, 0, leaf, store.Renewal{LastGood: noon.Add(time.Hour)}, true},
		{"unless something has set it back", noon, true, 0, leaf, store.Renewal{LastGood: noon.Add(time.Hour)}, false},
		{"a few minutes are nothing", noon, false, 0, leaf, store.Renewal{LastGood: noon.Add(4 * time.Minute)}, false},
		{"the certificate is over right after boot", noon, false, time.Minute, over, store.Renewal{}, true},
		{"and ten minutes later", noon, false, 10 * time.Minute, over, store.Renewal{}, false},
		{"and the clock is synchronized", noon, true, time.Minute, over, store.Renewal{}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := doubt(tt.now, built, tt.synced, tt.up, tt.newest, tt.r); (got != "") != tt.want {
				t.Errorf("doubt = %q, want some: %v", got, tt.want)
			}
		})
	}
}

func TestAfterStepBack(t *testing.T) {
	ahead := noon.Add(48 * time.Hour) // the clock was two days ahead
	r := afterFailure(ahead, certificate(61*day, 29*day), signed(noon.Add(-day), store.Renewal{}), &Error{Class: ClassTLS, Validations: 1, Err: errors.New("no")}, 0.5)
	r = afterStepBack(noon, r, 48*time.Hour)
	if !r.LastFailure.Equal(noon) || !r.NextAttempt.Equal(noon.Add(time.Minute)) || !r.Validations[0].Equal(noon) || !r.Issued[0].Equal(noon.Add(-day)) {
		t.Errorf("state = %+v, want it as if the clock had been right", r)
	}
}
