package acme

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ntsagent/hostcheck"
)

// strangers is whoever stands before the agent.
type strangers struct {
	mu     sync.Mutex
	faults []Fault
	looks  []time.Time
}

func (s *strangers) look(context.Context, hostcheck.Name) []Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.looks = append(s.looks, time.Now())
	return s.faults
}

func (s *strangers) show(faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = faults
}

func (s *strangers) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.looks)
}

var (
	shop   = Fault{What: "port 443 shows browsers the shop", Hint: "nginx: " + strings.Repeat("a long snippet; ", 60)}
	silent = Fault{What: "nobody listens on port 80 of this host", Hint: "start it"}
)

// TestWhatStrangersAreShownIsToldOnceAndUntilItIsMended looks at it in the middle of a certificate's life, and before an order.
func TestWhatStrangersAreShownIsToldOnceAndUntilItIsMended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, ca := new(strangers), newFakeCA(t)
		ca.life = 90 * day
		h := newHouse(t, ca, "")
		h.cfg.LookAround = s.look
		told := func() (events, lines int) {
			for _, e := range h.events {
				if e.Kind == Exposed {
					events++
				}
			}
			return events, strings.Count(h.log.String(), "strangers are shown what must be mended")
		}
		s.show(silent) // as long as the web server is starting
		stop := h.run(t)
		synctest.Wait()
		if s.count() == 0 || s.looks[0].After(ca.orders[0]) {
			t.Errorf("looked at %v, ordered at %v; want a look before the order", s.looks, ca.orders)
		}
		s.show()
		sleep(10 * day)
		if n := s.count(); n < 30 || n > 60 {
			t.Errorf("%d looks in ten days, want about four a day", n)
		}
		if events, lines := told(); events+lines != 0 || h.State().Faults != nil {
			t.Errorf("%d events and %d lines of what was seen once: %+v", events, lines, h.State())
		}
		s.show(shop)
		sleep(8 * time.Hour)
		if events, lines := told(); events != 1 || lines != 1 || !slices.Equal(h.State().Faults, []Fault{shop}) || h.State().Condition != "" || h.State().LastError != "" {
			t.Errorf("%d events and %d lines: %+v", events, lines, h.State())
		}
		s.show(shop, silent)
		sleep(time.Hour)
		if events, lines := told(); events != 2 || lines != 2 || len(h.State().Faults) != 2 {
			t.Errorf("of a second one %d events and %d lines: %+v", events, lines, h.State())
		}
		looks := s.count()
		sleep(day)
		if n := s.count() - looks; n < 70 || n > 140 {
			t.Errorf("%d looks in a day, want some every quarter of an hour while something is to be mended", n)
		}
		s.show()
		sleep(20 * time.Minute)
		stop()
		if h.State().Faults != nil || !strings.Contains(h.log.String(), "mended: ") {
			t.Errorf("when it is mended: %+v", h.State())
		}
		if ca.count() != 1 {
			t.Errorf("%d orders", ca.count())
		}
	})
}

// TestTheLookThatKeepsOrdersBackIsOverruledAcrossRestarts has the agent restarted daily, as machines are: who stands before it
// looks wrong, and is not.
func TestTheLookThatKeepsOrdersBackIsOverruledAcrossRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newFakeCA(t)
		var insisted [][]string
		ca.set(func(_ context.Context, o Order) ([]byte, error) {
			insisted = append(insisted, o.Insist)
			if !slices.Contains(o.Insist, "http-01") {
				return nil, &Error{Class: ClassFront, Err: errors.New("http-01 not tried"), InVain: []string{"http-01"}}
			}
			return ca.sign(o.CSR.DNSNames[0], o.CSR.PublicKey, time.Now(), time.Now().Add(90*day)), nil
		})
		h := newHouse(t, ca, "")
		for range 3 {
			stop := h.run(t)
			sleep(time.Second)
			stop()
			h = newHouse(t, ca, h.dir)
			sleep(day)
		}
		stop := h.run(t)
		sleep(2 * time.Hour)
		stop()
		if h.State().LastSuccess.IsZero() || len(insisted) != maxInVain+1 {
			t.Errorf("insisted on %q: %+v", insisted, h.State())
		}
		if got := insist(h.renewal); got != nil {
			t.Errorf("after a success %q is insisted on", got)
		}
	})
}
