package keyring

import (
	"context"
	"fmt"
	"time"

	"ntsagent/ntske/cookie"
)

// followed is all that decides what a Follower does next.
type followed struct {
	pending    bool          // the newest key file waits for its proof
	ask        bool          // there is a proven key that is minted under, or waits to be again
	tryIn      time.Duration // until the newest key file may be asked about
	checkIn    time.Duration // until the next check of what is proven is due
	checkEvery time.Duration
}

// plan decides what to do now, or how long to wait.
func (s followed) plan() (action, time.Duration) {
	switch {
	case s.pending && s.tryIn <= 0:
		return proveNew, 0
	case s.ask && s.checkIn <= 0:
		return check, 0
	}
	d := s.checkEvery
	if s.pending {
		d = min(d, s.tryIn)
	}
	if s.ask {
		d = min(d, s.checkIn)
	}
	return wait, d
}

// askUnseen is how often at least a daemon is asked that does not answer and whose
// key file cannot be read.
const askUnseen = 4 * time.Second

func (f *Follower) situation(now time.Time) followed {
	l := &f.follow
	return followed{
		pending: l.pending(), ask: l.doubt || f.Current() != nil,
		tryIn: l.tryAt.Sub(now), checkIn: l.checkAt.Sub(now), checkEvery: f.cfg.CheckEvery,
	}
}

// Run reads, proves, publishes and checks until ctx is done; then it returns
// nil. Called again it goes on where it ended; two at a time take turns. The key
// file is read when Look says so, and at least as often as the daemon is checked.
func (f *Follower) Run(ctx context.Context) error {
	f.running.Lock()
	defer f.running.Unlock()
	f.look()
	f.note()
	for ctx.Err() == nil {
		f.heed()
		todo, pause := f.situation(time.Now()).plan()
		switch todo {
		case proveNew:
			f.proveNew(ctx)
		case check:
			f.check(ctx)
		default:
			f.pause(ctx, pause, f.heed)
			f.look()
		}
		if ctx.Err() == nil {
			f.note()
		}
	}
	return nil
}

// heed takes up what somebody has seen, and tells whether that makes what is
// under way moot. In doubt the daemon is asked at once, for it knows of no query
// before.
func (f *Follower) heed() bool {
	l := &f.follow
	doubt, looked := f.take()
	if !doubt && !looked {
		return false
	}
	moot := f.look()
	if doubt {
		f.asker.forget()
		l.doubt = l.proven != nil
		l.checkAt, l.tryAt, l.failures = time.Time{}, time.Time{}, 0
		moot = true
	}
	if moot {
		l.moot++
	}
	f.note()
	return moot
}

// look reads the key file and tells whether there is something to do: it is a
// whole one with other keys than before, or one again while the daemon is in
// doubt. What is not whole changes nothing in what we mint with: it is being
// written, or lost, while the daemon goes on with what it holds. But it may hide
// that the daemon has started with other keys, so the daemon is asked.
func (f *Follower) look() bool {
	l := &f.follow
	ring, err := f.readKeys()
	if err != nil {
		if l.fault == nil || l.fault.Error() != err.Error() {
			l.fault, l.lastError = err, err.Error()
			f.cfg.Log.Warn("daemon's key file not read, keeping what is proven", "error", err)
			l.checkAt = time.Time{}
			return true
		}
		return false
	}
	mended := l.fault != nil
	l.fault = nil
	if sameRing(ring, l.read) {
		if mended && l.doubt {
			l.checkAt = time.Time{}
		}
		return mended && l.doubt
	}
	l.failures, l.tryAt = 0, time.Time{}
	if l.proven != nil && holds(ring, l.proven.Current()) {
		l.tryAt = time.Now().Add(f.cfg.Behind)
	}
	l.read = ring
	if sameRing(ring, l.proven) {
		l.read = l.proven
	}
	f.cfg.Log.Info("daemon's key file read", "keys", len(ring.Keys()), "current", hexID(ring.Current().ID()))
	return true
}

func (f *Follower) readKeys() (*cookie.Ring, error) {
	b, err := f.cfg.Read()
	if err != nil {
		return nil, fmt.Errorf("read the daemon's key file: %w", err)
	}
	return f.cfg.Format.ParseKeys(b)
}

// ask queries the daemon about the key that ring mints with until judge has
// decided. What somebody sees meanwhile interrupts it, and what was interrupted
// says nothing.
func (f *Follower) ask(ctx context.Context, ring *cookie.Ring) verdict {
	need := []uint32{ring.Current().ID()}
	var round []observation
	for {
		v, q := judge(round, need)
		if v != undecided {
			return v
		}
		o, whole := f.askOnce(ctx, q, ring, answerWithin)
		if !whole {
			return undecided
		}
		round = append(round, o)
	}
}

// askOnce sends one query when it may be sent, and waits that long for the
// answer; not whole, it was interrupted.
func (f *Follower) askOnce(ctx context.Context, q question, ring *cookie.Ring, within time.Duration) (o observation, whole bool) {
	moot := f.follow.moot
	if !f.pause(ctx, f.asker.untilNext(), f.heed) || moot != f.follow.moot {
		return o, false
	}
	c, cancel := f.query(ctx)
	defer cancel()
	c, tooLate := context.WithTimeout(c, within)
	defer tooLate()
	o, err := f.asker.query(c, q, ring)
	if err != nil {
		f.follow.lastError = err.Error()
		f.cfg.Log.Error("daemon not asked", "error", err)
	}
	f.heed()
	return o, ctx.Err() == nil && moot == f.follow.moot
}

// proveNew asks about the newest key file and publishes it when proven. What is
// published goes on serving unless the daemon refuses that too, which is asked
// at once.
func (f *Follower) proveNew(ctx context.Context) {
	l := &f.follow
	candidate := l.read
	if l.doubt && !sameKey(candidate.Current(), l.proven.Current()) && f.glance(ctx, candidate) {
		return
	}
	v := f.ask(ctx, candidate)
	switch {
	case v == undecided:
		return
	case v == proven:
		f.adopt(candidate)
		return
	case l.proven != nil && v != unseen && !sameKey(candidate.Current(), l.proven.Current()):
		f.check(ctx)
	default:
		f.believe(v)
	}
	if l.read == candidate { // else something was seen meanwhile
		l.failures++
		l.tryAt = time.Now().Add(backOff(l.failures))
	}
}

// adopt publishes what the daemon has shown to open.
func (f *Follower) adopt(candidate *cookie.Ring) {
	l := &f.follow
	l.proven, l.failures = candidate, 0
	f.cfg.Log.Info("following the daemon's keys", "current", hexID(candidate.Current().ID()), "proven", true)
	f.believe(proven)
}

// glance sends, while the daemon is in doubt, one query about the newest key file
// and one about what was proven, and tells whether that was enough to know. Where
// somebody writes a key file and the daemon goes on with what it holds, the
// silence of some to the other key would keep clients out for seconds. That
// silence says nothing here, so it is not waited for long.
func (f *Follower) glance(ctx context.Context, candidate *cookie.Ring) bool {
	const within = 300 * time.Millisecond
	for _, ring := range []*cookie.Ring{candidate, f.follow.proven} {
		o, whole := f.askOnce(ctx, question{key: ring.Current().ID()}, ring, within)
		f.asker.unanswered = 0
		switch {
		case !whole:
			return true // what was interrupted says nothing
		case o.answer == Answered && ring == candidate:
			f.adopt(candidate)
			return true
		case o.answer == Answered:
			f.believe(proven) // and the newest one is asked about without haste
			return true
		}
	}
	return false
}

// check asks whether the daemon still opens the key we mint under.
func (f *Follower) check(ctx context.Context) {
	if v := f.ask(ctx, f.follow.proven); v != undecided {
		f.believe(v)
	}
}

// believe draws the conclusion from a verdict about what is proven, or about the
// newest key file while nothing is.
func (f *Follower) believe(v verdict) {
	l := &f.follow
	was := l.standing
	now := time.Now()
	l.checkAt = now.Add(f.cfg.CheckEvery)
	switch {
	case v == proven:
		l.standing, l.why, l.provenAt, l.doubt = Proven, "", wall(now), false
		f.publish(l.proven)
	case v == unseen: // what is published serves on: silence is not refusal
		l.standing, l.why = Unseen, f.help().Unseen
		if l.fault != nil { // nothing else will tell when it has started
			l.checkAt = now.Add(min(f.cfg.CheckEvery, backOff(f.asker.unanswered-1), askUnseen))
		}
		if l.doubt && wouldOpen(f.cfg.Read, f.cfg.Format, l.proven) {
			l.doubt = false
			f.publish(l.proven)
		}
	case v.isRefusal():
		f.ring.Store(nil) // before anything that takes time
		l.standing, l.why = Refuses, f.help().Refused
		if v == noNTS {
			l.why = f.help().NoNTS
		}
		if l.proven != nil {
			l.proven, l.doubt, l.failures, l.tryAt = nil, false, 0, time.Time{}
		}
	}
	if was != l.standing {
		f.logStanding()
	}
}

func (f *Follower) help() Help { return f.cfg.Help().orFollowed() }

func (f *Follower) logStanding() {
	switch l := &f.follow; l.standing {
	case Proven:
		f.cfg.Log.Info("daemon opens our cookies", "current", hexID(l.proven.Current().ID()))
	case Unseen:
		f.cfg.Log.Warn("cannot see the daemon from here", "minting", f.Current() != nil, "hint", l.why)
	case Refuses:
		f.cfg.Log.Error("daemon refuses cookies made with its key file, minting stopped", "hint", l.why)
	}
}
