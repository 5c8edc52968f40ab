package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ntsagent/agent/daemon/chronytest"
	"ntsagent/ntske/client"
)

// The load of the test of rotations.
const (
	rotations   = 200 / fraction
	askers      = 3
	perAge      = 12 // queries of each age and generation at least
	kept        = 15 // cookies an asker keeps of each generation for each later age
	stash       = kept * (oldestAsked + 1)
	toStash     = askers * stash / 3 // queries after which one asker at least has that many: each brings three more
	promisedAge = 2                  // chrony holds two old keys beside the current one
	oldestAsked = promisedAge + 1
)

// spent counts the queries made with cookies of one age.
type spent struct{ queries, unanswered, nak atomic.Int64 }

// rotating is what the askers of a test of rotations share. A generation is the
// number of rotations before the key of a cookie became current.
type rotating struct {
	t           *testing.T
	m           *member
	ke          netip.AddrPort
	firstKey    uint32
	begun, done atomic.Int64 // rotations
	ages        [oldestAsked + 1]spent
	crossed     spent                         // grew older than promised while they were asked about
	now         [promisedAge + 1]atomic.Int64 // queries of each age since the last rotation
	firstError
}

// generation is told by the id of the key in the first octets of the cookie,
// which count up with each rotation.
func (r *rotating) generation(cookie []byte) int64 {
	return int64(binary.BigEndian.Uint32(cookie) - r.firstKey)
}

// asker is one association with cookies of several generations.
type asker struct {
	*rotating
	keys    client.Keys
	ntp     netip.AddrPort
	cookies map[int64][][]byte // by generation
}

func (r *rotating) newAsker() (*asker, error) {
	a := &asker{rotating: r, cookies: map[int64][][]byte{}}
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	res, err := r.m.keyExchange(ctx, r.ke)
	if err != nil {
		return nil, err
	}
	a.keys, a.ntp = res.Keys, netip.AddrPortFrom(r.ke.Addr(), res.Port)
	a.keep(res.Cookies)
	return a, nil
}

func (a *asker) keep(cookies [][]byte) {
	for _, c := range cookies {
		g := a.generation(c)
		if len(a.cookies[g]) < stash {
			a.cookies[g] = append(a.cookies[g], c)
		}
	}
}

// ask spends a cookie of that age, if there is one, and keeps the new ones.
func (a *asker) ask(age int64) {
	from := a.done.Load() - age
	later := kept * int(oldestAsked-age) // those of this generation that are for when they are older
	if age == 0 {
		later = 0
		if a.begun.Load() > from && len(a.cookies[from]) <= kept*oldestAsked {
			from++ // which the daemon gives already while the agent still waits for the proof
		}
	}
	have := a.cookies[from]
	if len(have) <= later {
		return
	}
	a.cookies[from] = have[1:]
	ctx, cancel := context.WithTimeout(a.t.Context(), patience)
	defer cancel()
	reply, err := client.Query(ctx, a.ntp, a.keys, have[0], 3)
	// A rotation that began meanwhile may have made the cookie one older. The
	// daemon rotates before the agent does.
	oldest := a.begun.Load() - from
	count := &a.crossed
	switch {
	case oldest <= promisedAge:
		count = &a.ages[age]
		if err == nil {
			a.now[age].Add(1)
		}
	case age == oldestAsked:
		count = &a.ages[age]
	}
	count.queries.Add(1)
	switch {
	case err == nil && len(reply.Cookies) != 4:
		a.fail(fmt.Errorf("%d cookies for 3 placeholders", len(reply.Cookies)))
	case err == nil:
		a.keep(reply.Cookies)
	case errors.Is(err, client.ErrNAK):
		count.nak.Add(1)
	default:
		count.unanswered.Add(1)
	}
	if err != nil && oldest <= promisedAge {
		a.fail(fmt.Errorf("cookie at most %d rotations old: %w", oldest, err))
	}
	if err != nil && !errors.Is(err, client.ErrNAK) {
		a.fail(err)
	}
}

// run asks with cookies of every age in turn until done is closed. Of those that
// the daemon need not open a few are enough.
func (a *asker) run(done <-chan struct{}) {
	tried := int64(-1) // the last rotation after which the oldest were asked about
	for n := int64(0); ; n++ {
		select {
		case <-done:
			return
		default:
		}
		a.ask(n % (promisedAge + 1))
		if at := a.done.Load(); at != tried {
			tried = at
			a.ask(oldestAsked)
			for g := range a.cookies {
				if g < at-oldestAsked {
					delete(a.cookies, g)
				}
			}
		}
	}
}

// fresh has new clients come, each with one query, until done is closed.
func (r *rotating) fresh(done <-chan struct{}, count *spent) {
	for {
		select {
		case <-done:
			return
		default:
		}
		a, err := r.newAsker()
		if err != nil {
			r.fail(err)
			return
		}
		count.queries.Add(1)
		for generation, cookies := range a.cookies {
			ctx, cancel := context.WithTimeout(r.t.Context(), patience)
			_, err := client.Query(ctx, a.ntp, a.keys, cookies[0], 0)
			cancel()
			switch {
			case errors.Is(err, client.ErrNAK) && r.begun.Load()-generation > promisedAge:
				continue // it stood still while the others had the keys rotated
			case errors.Is(err, client.ErrNAK):
				count.nak.Add(1)
			case err != nil:
				count.unanswered.Add(1)
			}
			if err != nil {
				r.fail(fmt.Errorf("cookie of a new client: %w", err))
			}
		}
	}
}

// enough tells that cookies of every age there is were spent since the last
// rotation, and that there are cookies of this generation for later.
func (r *rotating) enough() bool {
	if r.now[0].Load() < toStash {
		return false
	}
	for age := range r.now {
		if int64(age) <= r.done.Load() && r.now[age].Load() < perAge {
			return false
		}
	}
	return true
}

func TestNoQueryIsLostWhileKeysRotate(t *testing.T) {
	t.Parallel()
	m := newMember(t, time.Hour, chronytest.Options{})
	m.configure("")
	a, addr := m.openParts(5 * time.Millisecond) // as installed it asks every 200 ms, and this would take two minutes
	ring := a.parts.Load().keys.ring
	r := &rotating{t: t, m: m, ke: addr, firstKey: ring.Current().Current().ID()}
	start := time.Now()
	stop, fresh := r.crowd()
	for n := range rotations {
		m.until("cookies of every age are spent", func() bool { return r.failure() != nil || r.enough() })
		r.begun.Add(1)
		if err := ring.Rotate(t.Context()); err != nil {
			t.Fatalf("rotation %d: %v", n, err)
		}
		if id := ring.Current().Current().ID(); id != r.firstKey+uint32(n)+1 {
			t.Fatalf("rotation %d made %08x current, the first was %08x", n, id, r.firstKey)
		}
		for age := range r.now {
			r.now[age].Store(0)
		}
		r.done.Add(1)
	}
	m.until("cookies of every age are spent", func() bool { return r.failure() != nil || r.enough() })
	stop()
	r.report(fresh, time.Since(start))
	if err := r.failure(); err != nil {
		t.Errorf("the first failure: %v", err)
	}
	for age := range promisedAge + 1 {
		if n := r.ages[age].queries.Load(); n < rotations*perAge*9/10 {
			t.Errorf("only %d queries with cookies %d rotations old", n, age)
		}
	}
}

func (r *rotating) crowd() (stop func(), fresh *spent) {
	done, fresh := make(chan struct{}), new(spent)
	var all sync.WaitGroup
	for range askers {
		a, err := r.newAsker()
		if err != nil {
			r.t.Fatal(err)
		}
		all.Go(func() { a.run(done) })
	}
	all.Go(func() { r.fresh(done, fresh) })
	var once sync.Once
	stop = func() { once.Do(func() { close(done); all.Wait() }) }
	r.t.Cleanup(stop)
	return stop, fresh
}

func (r *rotating) report(fresh *spent, took time.Duration) {
	tell(r.t, "| cookies' age in rotations (%d in %.1f s) | queries | unanswered | NAK |", rotations, took.Seconds())
	tell(r.t, "|---|---|---|---|")
	row := func(name string, s *spent) {
		tell(r.t, "| %s | %d | %d | %d |", name, s.queries.Load(), s.unanswered.Load(), s.nak.Load())
	}
	row("0, of a key exchange just made", fresh)
	for age := range promisedAge + 1 {
		row(fmt.Sprint(age), &r.ages[age])
	}
	row("2, a third rotation under way (nothing promised)", &r.crossed)
	row("3 (nothing promised)", &r.ages[oldestAsked])
}
