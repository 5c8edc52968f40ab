package keyring

import (
	"context"
	"errors"
	"fmt"
	"time"

	"ntsagent/ntske/cookie"
)

// owned is all that decides what an Own does next.
type owned struct {
	proven     bool          // the newest key is published
	rotateIn   time.Duration // until the next rotation is due
	tryIn      time.Duration // until a rotation may be tried again
	checkIn    time.Duration // until our server is to be asked
	checkEvery time.Duration
}

// plan decides what to do now, or how long to wait. Nothing is rotated before the
// last rotation is proven, or what is minted under could fall out of the ring.
func (s owned) plan() (action, time.Duration) {
	switch {
	case s.checkIn <= 0:
		return check, 0
	case s.proven && max(s.rotateIn, s.tryIn) <= 0:
		return rotate, 0
	}
	d := min(s.checkEvery, s.checkIn) // never longer: the wall clock may jump in the meantime
	if s.proven {
		d = min(d, max(s.rotateIn, s.tryIn))
	}
	return wait, d
}

// dueIn is the time until the next rotation: by the wall clock as with untilRotation,
// but never before one interval of our own running time after a rotation of ours
// (fresh). So a clock that jumps to and fro costs one key, and one more per start.
func dueIn(now, rotated, since time.Time, fresh bool, every time.Duration) time.Duration {
	d := untilRotation(now, rotated, since, every)
	if fresh {
		d = max(d, since.Add(every).Sub(now))
	}
	return d
}

func (o *Own) situation(now time.Time) owned {
	l := &o.own
	return owned{
		proven:   l.standing == Proven && !o.pending(),
		rotateIn: dueIn(now, l.file.rotated, l.since, l.fresh, o.cfg.RotateEvery),
		tryIn:    l.tryAt.Sub(now), checkIn: l.checkAt.Sub(now), checkEvery: o.cfg.CheckEvery,
	}
}

// Run proves, publishes, checks and rotates until ctx is done; then it returns
// nil. Called again it goes on where it ended; two at a time take turns.
func (o *Own) Run(ctx context.Context) error {
	o.running.Lock()
	defer o.running.Unlock()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		if _, looked := o.take(); looked {
			o.own.checkAt, o.own.failures = time.Time{}, 0
		}
		todo, pause := o.situation(time.Now()).plan()
		switch todo {
		case check:
			o.check(ctx)
		case rotate:
			_ = o.rotateNow(ctx) // kept in the state
		}
		if todo != wait {
			if ctx.Err() == nil {
				o.note()
			}
			continue
		}
		timer.Reset(pause)
		select {
		case <-ctx.Done():
		case done := <-o.rotate:
			err := o.rotateNow(ctx)
			o.note()
			done <- err
		case <-o.wake:
		case <-timer.C:
		}
	}
	return nil
}

// How often our server is asked before it is believed not to answer: one query
// may fall into a moment in which the machine was busy.
const (
	ownTries = 3
	ownPause = 100 * time.Millisecond
)

// check asks whether our server opens the newest key, and draws the conclusion.
// Silence is no refusal: what is published serves on.
func (o *Own) check(ctx context.Context) {
	l := &o.own
	answer := o.ask(ctx)
	if ctx.Err() != nil {
		return
	}
	now, was := time.Now(), l.standing
	switch answer {
	case Answered:
		l.standing, l.why, l.provenAt, l.failures = Proven, "", wall(now), 0
		l.checkAt = now.Add(o.cfg.CheckEvery)
		o.publish(l.file.ring)
		if was != Proven {
			o.cfg.Log.Info("cookies are opened", "current", hexID(l.file.ring.Current().ID()))
		}
		return
	case Refused:
		o.ring.Store(nil) // before anything that takes time
		l.standing, l.why = Refuses, o.help().Refused
	default:
		l.standing, l.why = Unseen, o.help().Unseen
	}
	l.failures++
	l.checkAt = now.Add(min(backOff(l.failures), o.cfg.CheckEvery))
	if was != l.standing {
		o.cfg.Log.Warn("cookies are not opened", "answer", answer.String(), "minting", o.Current() != nil, "hint", l.why)
	}
}

func (o *Own) ask(ctx context.Context) (last Answer) {
	ring := o.own.file.ring
	for n := range ownTries {
		if n > 0 {
			select {
			case <-ctx.Done():
				return last
			case <-time.After(ownPause):
			}
		}
		c, cancel := context.WithTimeout(ctx, answerWithin)
		got, err := o.asker.query(c, question{key: ring.Current().ID()}, ring)
		cancel()
		if err != nil {
			o.own.lastError = err.Error()
			o.cfg.Log.Error("our server was not asked", "error", err)
		}
		if last = got.answer; last == Answered {
			break
		}
	}
	return last
}

func (o *Own) help() Help {
	h := o.cfg.Help()
	if h.Unseen == "" {
		h.Unseen = "no answer to our own query with a cookie of ours"
	}
	if h.Refused == "" {
		h.Refused = "our own query with a cookie of ours is refused: another program answers at our address"
	}
	return h
}

// rotateNow makes one more key, saves it, gives it to our server and asks that.
func (o *Own) rotateNow(ctx context.Context) error {
	l := &o.own
	if !o.situation(time.Now()).proven {
		why := l.why
		if why == "" {
			why = "the newest key is not proven yet"
		}
		return errors.New("rotate cookie keys: not now: " + why)
	}
	now := time.Now()
	ring, err := cookie.Own{}.Next(l.file.ring, o.cfg.Keep, o.cfg.Rand)
	if err == nil {
		err = o.keep(ring, now)
	}
	if err != nil {
		err = fmt.Errorf("rotate cookie keys: %w", err)
		if l.lastError != err.Error() {
			o.cfg.Log.Error("cookie keys not rotated, the old ones serve on", "error", err)
		}
		l.lastError = err.Error()
		l.failures++
		l.tryAt = now.Add(backOff(l.failures))
		return err
	}
	l.since, l.fresh, l.failures, l.tryAt, l.lastError = now, true, 0, time.Time{}, ""
	o.check(ctx)
	o.cfg.Log.Info("keys rotated", "current", hexID(ring.Current().ID()), "held", len(ring.Keys()), "proven", !o.pending())
	if o.pending() {
		return fmt.Errorf("rotate cookie keys: the new key is made, but not proven yet: %s", l.why)
	}
	return nil
}
