package agent

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"ntsagent/agent/daemon/chronytest"
	"ntsagent/agent/daemon/clienttest"
	"ntsagent/agent/setup"
	"ntsagent/agent/status"
	"ntsagent/ntske/aead"
	"ntsagent/ntske/client"
	debian "ntsagent/packaging/parts"
)

// stockMember is an agent, not started, beside a chronyd 4.6.1 that is an NTS
// server of its own, as Debian's would be: with keys it rotates and keeps itself.
func stockMember(t *testing.T) *member {
	t.Helper()
	m := newMember(t, time.Hour, chronytest.Options{Release: debian.Debian13, ExtraConf: []string{"ntsrotate 604800"}})
	m.configure("")
	return m
}

// oldCustomer is a client of a stock chronyd that asks all the time, with an
// association from before and refreshed cookies only.
type oldCustomer struct {
	m    *member
	keys client.Keys
	done chan struct{}
	all  sync.WaitGroup

	mu       sync.Mutex
	purse    [][]byte // refreshed
	kept     [][]byte // cookies from the key exchange, for later
	answered int
	outages  [][2]time.Time // when chronyd is down
	lost     [][2]time.Time // queries
	giveUp   func()         // ends the query under way
	failed   error
}

func (m *member) oldCustomer() *oldCustomer {
	m.t.Helper()
	s := m.chronyd
	var res client.Result
	err := patiently(func() (err error) {
		res, err = client.KeyExchange(m.t.Context(), client.Config{Addr: s.KE(), Name: chronytest.Name, Roots: s.Roots, AEADs: []aead.ID{aead.GCMSIV128}})
		return err
	})
	if err != nil {
		m.t.Fatal(err)
	}
	if len(res.Cookies) != 8 || len(res.Cookies[0]) != 64 {
		m.t.Fatalf("a stock chronyd gives %d cookies of %d octets; these must be AEAD 30 under a key of AEAD 30", len(res.Cookies), len(res.Cookies[0]))
	}
	c := &oldCustomer{m: m, keys: res.Keys, giveUp: func() {}, done: make(chan struct{}), purse: res.Cookies[:1], kept: res.Cookies[1:]}
	c.all.Go(func() {
		next := time.NewTicker(15 * time.Millisecond)
		defer next.Stop()
		for {
			c.ask()
			select {
			case <-c.done:
				return
			case <-next.C:
			}
		}
	})
	return c
}

func (c *oldCustomer) ask() {
	c.mu.Lock()
	if len(c.purse) == 0 {
		c.failed = errors.New("no cookies are left")
		c.mu.Unlock()
		return
	}
	cookie := c.purse[0]
	c.purse = c.purse[1:]
	wanted := min(7, 16-len(c.purse))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c.giveUp = cancel
	begun := time.Now()
	c.mu.Unlock()
	reply, err := client.Query(ctx, c.m.chronyd.Addr, c.keys, cookie, max(wanted, 0))
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err == nil:
		c.answered++
		c.purse = append(c.purse, reply.Cookies...)
	case errors.Is(err, client.ErrSilent), errors.Is(err, context.Canceled):
		c.lost = append(c.lost, [2]time.Time{begun, time.Now()})
		c.purse = append(c.purse, cookie) // it may be spent, but it must not run out: what is asked here is whether it is good
	case c.failed == nil:
		c.failed = err
	}
}

// outage is a time in which chronyd may be silent. Who has asked before its end
// asks again.
func (c *oldCustomer) outage(do func()) {
	begun := time.Now()
	do()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.outages = append(c.outages, [2]time.Time{begun, time.Now()})
	c.giveUp()
}

// spends asks with one cookie from before all that has happened, and waits until
// the others were answered many times.
func (c *oldCustomer) spends(when string) {
	c.m.t.Helper()
	c.mu.Lock()
	cookie, from := c.kept[0], c.answered
	c.kept = c.kept[1:]
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	reply, err := client.Query(ctx, c.m.chronyd.Addr, c.keys, cookie, 1)
	if err != nil || len(reply.Cookies) != 2 || len(reply.Cookies[0]) != 64 {
		c.m.t.Errorf("%s: a cookie from before brings %d: %v", when, len(reply.Cookies), err)
	}
	c.m.until("old customers are served "+when, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.answered >= from+20 || c.failed != nil
	})
}

func (c *oldCustomer) stop() {
	c.m.t.Helper()
	close(c.done)
	c.all.Wait()
	if c.failed != nil {
		c.m.t.Errorf("an old customer was lost: %v", c.failed)
	}
	for _, l := range c.lost {
		during := false
		for _, o := range c.outages {
			during = during || l[0].Before(o[1]) && o[0].Before(l[1])
		}
		if !during {
			c.m.t.Errorf("a query from %v to %v was not answered, though chronyd did not start then", l[0], l[1])
		}
	}
}

// applied sets chronyd up for the agent and restarts it; the func undoes it.
func (m *member) applied(c *oldCustomer) (revert func()) {
	t, s := m.t, m.chronyd
	t.Helper()
	h := setup.Host{Root: "/", Proc: "/proc"}
	p, err := setup.PlanFor(h, setup.Daemon{Kind: setup.Chrony, Program: "chronyd", Config: s.Conf}, setup.Options{Address: s.Addr, KeysDir: s.Dir, ParkedKEPort: s.KE().Port()})
	if err != nil {
		t.Fatal(err)
	}
	if err := setup.Apply(h, p, m.state, time.Now()); err != nil {
		t.Fatal(err)
	}
	if diff := p.Diff(); !strings.Contains(diff, "ntsrotate 0") {
		t.Fatalf("this test proves nothing: apply changes\n%s", diff)
	}
	c.outage(s.StartAgain)
	return func() {
		t.Helper()
		u, err := setup.PlanRevert(h, m.state)
		if err == nil {
			err = setup.Revert(h, u, m.state)
		}
		if err != nil {
			t.Fatal(err)
		}
		c.outage(s.StartAgain)
	}
}

// A stock chronyd is an NTS server with clients. It is set up for the agent, which
// leads it for a while, and given back. Nobody sees a NAK.
func TestALiveServerIsTakenOverAndGivenBackAndNobodyIsLost(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		sentence string
		first    bool // the agent starts before chronyd is set up
	}{
		{"the agent starts when chronyd is set up", false},
		{"the agent runs before chronyd is set up", true},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			t.Parallel()
			m := stockMember(t)
			ke := m.chronyd.KE()
			// Once a second: with eight cookies it outlives a chronyd that takes long to start.
			real := clienttest.Chrony(t, debian.Debian13, m.chronyd.CA, []clienttest.Server{{Name: chronytest.Name, Port: ke.Port(), Addr: ke.Addr()}})
			if a := real.Reaches(t, chronytest.Name, 4); a.AEAD != 30 || a.Length != 64 {
				t.Fatalf("the client has no cookies of 64 octets: %+v", a)
			}
			met := time.Now() // it has exchanged keys before
			old := m.oldCustomer()
			old.spends("before all")
			stop := func() {}
			if c.first {
				stop = m.start()
				d := m.knows(15, 30) // chronyd writes its keys when it makes them
				if d.State != status.Degraded || !strings.Contains(strings.Join(d.Reasons, " "), "`ntsrotate 604800`") {
					t.Errorf("%s, %q: chronyd will rotate its keys itself", d.State, d.Reasons)
				}
				old.spends("while chronyd is not set up")
			}
			revert := m.applied(old)
			if !c.first {
				old.spends("when chronyd is set up")
				stop = m.start()
			}
			d := m.knows(15, 30)
			old.spends("when the agent leads")
			m.agrees(d, aead.GCMSIV128, 64)
			m.agrees(d, aead.SIVCMAC256, 96)
			if err := m.rotate(); err != nil {
				t.Fatal(err)
			}
			m.agrees(m.knows(15, 30), aead.GCMSIV128, 64)
			old.spends("after a rotation")
			stop()
			revert()
			old.spends("when chronyd is given back")
			old.outage(m.chronyd.StartAgain)
			old.spends("when it has kept its keys by itself")
			ago := time.Since(met) // and more when the client is asked
			a := real.Reaches(t, chronytest.Name, 4)
			if a.NAKs != 0 || a.Length != 64 || a.AEAD != 30 || a.Since+time.Second < ago {
				t.Errorf("the client has lost its association: %+v, %v after it had one", a, ago)
			}
			old.stop()
		})
	}
}
