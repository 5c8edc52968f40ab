package acme

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
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
				d.say(c.verdict)
				sleep(8*day - time.Minute)
				if d.looks.Load() != 1 {
					t.Errorf("%d looks before the second order was due, want that of the first", d.looks.Load())
				}
				sleep(2 * time.Minute)
				if s := h.State(); s.Condition != c.first || !strings.Contains(s.Why, c.verdict.Text) || s.LastHint != c.verdict.Hint || s.Failures != 0 {
					t.Errorf("at first: %+v", s)
				}
				sleep(2 * time.Hour)
				stop()
				h = d.house(t, ca, h.dir) // a restart forgets nothing and does not look in a circle
				looks := d.looks.Load()
				stop = h.run(t)
				synctest.Wait()
				if s := h.State(); s.Condition != c.settled || !s.NextAttempt.After(time.Now()) || d.looks.Load() != looks {
					t.Errorf("after a restart: %+v, %d looks more", s, d.looks.Load()-looks)
				}
				sleep(day)
				if n := d.looks.Load() - looks; n < 4 || n > 12 {
					t.Errorf("%d looks in a day, want some every six hours after the first few", n)
				}
				var refused *Refused
				if err := h.Renew(t.Context(), true); !errors.As(err, &refused) || refused.Why != c.verdict.Text || refused.Hint != c.verdict.Hint {
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
