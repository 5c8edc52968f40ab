package acme

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"ntsagent/acme/dnscheck"
	"ntsagent/hostcheck"
)

// names is a DNS that says what a test tells it.
type names struct {
	verdict atomic.Pointer[dnscheck.Verdict]
	looks   atomic.Int32
}

func newNames() *names {
	d := new(names)
	d.say(dnscheck.Verdict{Finding: dnscheck.OK})
	return d
}

func (d *names) say(v dnscheck.Verdict) { d.verdict.Store(&v) }

func (d *names) look(context.Context, hostcheck.Name) dnscheck.Verdict {
	d.looks.Add(1)
	return *d.verdict.Load()
}

func (d *names) house(t *testing.T, ca *fakeCA, dir string) *house {
	h := newHouse(t, ca, dir)
	h.cfg.Look = d.look
	return h
}

var (
	gone      = dnscheck.Verdict{Finding: dnscheck.Gone, Sources: 2, Text: "the DNS has no address", Hint: "ask the pool"}
	elsewhere = dnscheck.Verdict{Finding: dnscheck.Mismatch, Text: "leads elsewhere: A 203.0.113.9", Hint: "mend it"}
	denied    = dnscheck.Verdict{Finding: dnscheck.Denied, Text: "the CAA record of pool.example", Hint: "publish this"}
	unclear   = dnscheck.Verdict{Finding: dnscheck.Unknown, Text: "says SERVFAIL", Hint: "look at the DNS"}
)

func TestANameTakenOutOfTheDNSIsNotOrderedForUntilItIsBack(t *testing.T) {
	for _, c := range []struct {
		name           string
		verdict        dnscheck.Verdict
		first, settled Condition
	}{
		{"withdrawn", gone, NameMissing, NameWithdrawn},
		{"mismatch", elsewhere, NameElsewhere, NameElsewhere},
		{"denied", denied, NameDenied, NameDenied},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, ca := newNames(), newFakeCA(t)
				ca.life = 12 * day
				h := d.house(t, ca, "")
				stop := h.run(t)
				synctest.Wait()
				served := h.served(t)
				sleep(8*day - time.Minute)
				if n := d.looks.Load(); n < 24 || n > 45 {
					t.Errorf("%d looks in eight days, want about four a day", n)
				}
				d.say(c.verdict)
				sleep(2 * time.Minute)
				if s := h.State(); s.Condition != c.first || !strings.Contains(s.Why, c.verdict.Text) || s.LastHint != c.verdict.Hint || s.Failures != 0 {
					t.Errorf("at first: %+v", s)
				}
				var refused *Refused
				if err := h.Renew(t.Context(), true); !errors.As(err, &refused) || refused.Mend != (c.first != NameMissing) {
					t.Errorf("a wish was answered with %v at first, %+v", err, refused)
				}
				sleep(2 * time.Hour)
				stop()
				h = d.house(t, ca, h.dir) // a restart forgets nothing, and looks at once if the last look is not just over
				looks := d.looks.Load()
				stop = h.run(t)
				synctest.Wait()
				if s := h.State(); s.Condition != c.settled || !s.NextAttempt.After(time.Now()) || d.looks.Load() > looks+1 {
					t.Errorf("after a restart: %+v, %d looks more", s, d.looks.Load()-looks)
				}
				sleep(day)
				if n := d.looks.Load() - looks; n < 4 || n > 13 {
					t.Errorf("%d looks in a day, want some every six hours after the first few", n)
				}
				if err := h.Renew(t.Context(), true); !errors.As(err, &refused) || refused.Why != c.verdict.Text || refused.Hint != c.verdict.Hint ||
					refused.Mend != (c.settled != NameMissing) {
					t.Errorf("a wish was answered with %v", err)
				}
				if ca.count() != 1 || !bytes.Equal(h.served(t), served) {
					t.Errorf("%d orders in all, served as before: %v; want no second one, not on a wish either", ca.count(), bytes.Equal(h.served(t), served))
				}
				d.say(unclear) // no reason to resume
				sleep(7 * time.Hour)
				if s := h.State(); s.Condition != c.settled || ca.count() != 1 {
					t.Errorf("when the DNS fails: %d orders, %+v", ca.count(), s)
				}
				d.say(dnscheck.Verdict{Finding: dnscheck.OK})
				sleep(7 * time.Hour)
				stop()
				if s := h.State(); ca.count() != 2 || s.Condition != "" || bytes.Equal(h.served(t), served) {
					t.Errorf("when the name is back: %d orders, %+v", ca.count(), s)
				}
			})
		})
	}
}

// barred counts the events, and the lines of the log, that tell of a name held back.
func (h *house) barred() (events, lines int) {
	for _, e := range h.events {
		if e.Kind == Barred {
			events++
		}
	}
	return events, strings.Count(h.log.String(), "no certificate is ordered any more")
}

// TestARemovalIsToldOfLongBeforeARenewal has the DNS change in the middle of a certificate's life, where no order looks at it.
func TestARemovalIsToldOfLongBeforeARenewal(t *testing.T) {
	for _, c := range []struct {
		name    string
		verdict dnscheck.Verdict
		settled Condition
	}{
		{"withdrawn", gone, NameWithdrawn},
		{"mismatch", elsewhere, NameElsewhere},
		{"denied", denied, NameDenied},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, ca := newNames(), newFakeCA(t)
				ca.life = 90 * day
				h := d.house(t, ca, "")
				stop := h.run(t)
				sleep(day)
				served, before := h.served(t), h.State()
				for range 4 { // what one look alone finds is no news
					looks := d.looks.Load()
					d.say(c.verdict)
					for d.looks.Load() == looks {
						sleep(time.Minute)
					}
					d.say(dnscheck.Verdict{Finding: dnscheck.OK})
					sleep(time.Hour)
				}
				if events, lines := h.barred(); events+lines != 0 || !reflect.DeepEqual(h.State(), before) {
					t.Errorf("a hiccup of the DNS: %d events, %d lines; %+v became %+v", events, lines, before, h.State())
				}
				d.say(unclear)
				looks := d.looks.Load()
				sleep(10 * day)
				if n := d.looks.Load() - looks; n < 100 || n > 330 || !reflect.DeepEqual(h.State(), before) {
					t.Errorf("a DNS out of reach: %d looks in ten days; %+v became %+v", n, before, h.State())
				}
				d.say(c.verdict)
				sleep(9 * time.Hour)
				s := h.State()
				if s.Condition != c.settled || !strings.Contains(s.Why, c.verdict.Text) || !strings.Contains(s.Why, "since 2000-01-1") || s.LastHint != c.verdict.Hint ||
					s.Failures != 0 || s.LastError != "" || !s.RenewAt.Equal(before.RenewAt) || time.Until(s.NextAttempt) > 7*time.Hour {
					t.Errorf("within hours: %+v", s)
				}
				sleep(10 * day)
				stop()
				h2 := d.house(t, ca, h.dir)
				stop = h2.run(t)
				sleep(day)
				events, lines := h.barred()
				again, more := h2.barred()
				if events != 1 || lines != 1 || again+more != 0 {
					t.Errorf("told by %d events and %d lines, by %d and %d more after a restart; want once", events, lines, again, more)
				}
				if s := h2.State(); s.Condition != c.settled || !bytes.Equal(h2.served(t), served) || ca.count() != 1 {
					t.Errorf("days later: %d orders, %+v", ca.count(), s)
				}
				d.say(dnscheck.Verdict{Finding: dnscheck.OK})
				sleep(7 * time.Hour)
				stop()
				if s := h2.State(); s.Condition != "" || s.LastHint != "" || !bytes.Equal(h2.served(t), served) || ca.count() != 1 {
					t.Errorf("back before a renewal is due: %d orders, %+v", ca.count(), s)
				}
			})
		})
	}
}

// TestANewConfigurationIsHeldAgainstTheDNSAtOnce is what an operator does who mends public_addresses: it must not take the six
// hours that the old one would have waited. But an agent that is started again and again does not ask as often.
func TestANewConfigurationIsHeldAgainstTheDNSAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newNames()
		d.say(elsewhere)
		h := d.house(t, newFakeCA(t), "")
		stop := h.run(t)
		sleep(3*day + 10*time.Minute)
		stop()
		d.say(dnscheck.Verdict{Finding: dnscheck.OK})
		h = d.house(t, h.ca, h.dir)
		stop = h.run(t)
		sleep(6 * time.Minute)
		if s := h.State(); s.Condition != "" || h.ca.count() != 1 {
			t.Errorf("after a restart: %d orders, %+v", h.ca.count(), s)
		}
		looks := d.looks.Load()
		for range 50 {
			stop()
			h = d.house(t, h.ca, h.dir)
			stop = h.run(t)
			sleep(10 * time.Second)
		}
		stop()
		if n := d.looks.Load() - looks; n > 3 {
			t.Errorf("%d looks by 50 starts within 500 s", n)
		}
	})
}

func TestWhatDeservesALookIsShownAndKeepsNoOrderBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newNames()
		d.say(dnscheck.Verdict{Finding: dnscheck.OK, Text: "there is no AAAA record"})
		h := d.house(t, newFakeCA(t), "")
		stop := h.run(t)
		sleep(3 * day)
		stop()
		h = d.house(t, h.ca, h.dir)
		stop = h.run(t)
		synctest.Wait()
		if s := h.State(); s.Note != "there is no AAAA record" || s.Condition != "" || h.ca.count() != 1 {
			t.Errorf("%d orders, %+v", h.ca.count(), s)
		}
		d.say(dnscheck.Verdict{Finding: dnscheck.OK})
		sleep(9 * time.Hour)
		stop()
		if s := h.State(); s.Note != "" {
			t.Errorf("when it is mended: %+v", s)
		}
	})
}

func TestOfTwoNamesTheOneThatIsWithdrawnDoesNotHoldUpTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		left, right := newNames(), newNames()
		left.say(gone)
		a, b := left.house(t, newFakeCA(t), ""), right.house(t, newFakeCA(t), "")
		stopA, stopB := a.run(t), b.run(t)
		sleep(8 * day)
		stopA()
		stopB()
		if a.ca.count() != 0 || a.State().Condition != NameWithdrawn || b.ca.count() < 2 || b.State().Condition != "" {
			t.Errorf("%d and %d orders, %q and %q", a.ca.count(), b.ca.count(), a.State().Condition, b.State().Condition)
		}
	})
}

func TestADNSThatFailsIsAFailureAndNoRemoval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newNames()
		d.say(unclear)
		h := d.house(t, newFakeCA(t), "")
		stop := h.run(t)
		sleep(time.Minute / 2)
		if s := h.State(); s.Failures != 1 || !strings.Contains(s.LastError, "SERVFAIL") || s.Condition != "" || h.ca.count() != 0 {
			t.Errorf("after the first look: %d orders, %+v", h.ca.count(), s)
		}
		sleep(12 * time.Hour) // it may be our own look that is broken
		if n := h.ca.count(); n != 1 {
			t.Errorf("%d orders within 12 hours, want one that goes out although nothing is known", n)
		}
		stop()
	})
}

// TestANameOnceMissedByADNSThatThenFailsIsOrderedForNonetheless has one look miss the name, and no other one see anything.
func TestANameOnceMissedByADNSThatThenFailsIsOrderedForNonetheless(t *testing.T) {
	for name, c := range map[string]struct {
		more  time.Duration // for which looks go on to miss it
		order bool
	}{
		"missed once":                     {0, true},
		"missed for an hour: it is taken": {3 * time.Hour, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, ca := newNames(), newFakeCA(t)
				ca.life = 12 * day
				h := d.house(t, ca, "")
				stop := h.run(t)
				sleep(day)
				d.say(gone)
				for looks := d.looks.Load(); d.looks.Load() == looks; {
					sleep(time.Minute)
				}
				sleep(c.more)
				d.say(unclear)
				sleep(11 * day)
				stop()
				if n := ca.count(); (n > 1) != c.order {
					t.Errorf("%d orders, %+v", n, h.State())
				}
				if s := h.State(); c.order && s.Condition != "" || !c.order && (s.Condition != NameWithdrawn || s.Since.IsZero()) {
					t.Errorf("%+v", s)
				}
				if said := strings.Contains(h.log.String(), "DNS in order again"); said {
					t.Error("the log says that the DNS is in order, of which nothing is known")
				}
			})
		})
	}
}

func TestDamagedDNSStateIsSetAside(t *testing.T) {
	for name, text := range map[string]string{
		"no JSON":            "{",
		"an unknown schema":  `{"schema":2}`,
		"an unknown word":    `{"schema":1,"standing":"x"}`,
		"a time out of time": `{"schema":1,"standing":"withdrawn","next":"9999-12-31T23:59:59Z"}`,
	} {
		h := newNames().house(t, newFakeCA(t), "")
		if err := h.store.SaveStanding(h.name, dnscheck.State{Standing: dnscheck.Withdrawn}); err != nil {
			t.Fatal(err)
		}
		if s, err := h.store.Standing(h.name); err != nil || s.Standing != dnscheck.Withdrawn {
			t.Errorf("what was saved is read as %+v, %v", s, err)
		}
		path := filepath.Join(h.dir, "names", h.name.String(), "dns.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := h.store.Standing(h.name); err != nil || s != (dnscheck.State{}) {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
		if _, err := os.Stat(path + ".corrupt-1"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
