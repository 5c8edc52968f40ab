package keyring

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// lead is what Run knows, and goes on from when it is called again.
type lead struct {
	file     file
	standing Standing // "" before the first verdict
	resume   bool
	lost     bool      // the daemon's key file is not the one we handed over
	lostAt   time.Time // when that was last mended without delay
	wary     bool      // a daemon that is silent now may have read it before it was ours again
	started  time.Time // with its monotonic reading
	provenAt time.Time
	unsaved  bool // file differs from what is on disk

	checkAt, tryAt time.Time
	failures       int // attempts to hand over in a row without proof
	why            string
	lastError      string
	told           string // the last error in the log
}

// Run hands over, proves, publishes, checks and rotates until ctx is done; then
// it returns nil. Called again it goes on where it ended; two at a time take turns.
func (k *Keyring) Run(ctx context.Context) error {
	k.running.Lock()
	defer k.running.Unlock()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		k.heed()
		todo, pause := plan(k.situation(time.Now()))
		switch todo {
		case check:
			k.check(ctx)
		case handOver:
			_ = k.handOver(ctx) // kept in the state
		case rotate:
			_ = k.rotateNow(ctx)
		}
		if ctx.Err() != nil {
			return nil
		}
		if todo != wait {
			k.note()
			continue
		}
		timer.Reset(pause)
		select {
		case <-ctx.Done():
			return nil
		case done := <-k.rotate:
			err := k.rotateNow(ctx)
			k.note()
			done <- err
		case <-k.wake:
		case <-timer.C:
		}
	}
}

func (k *Keyring) situation(now time.Time) situation {
	l := &k.lead
	rotateIn := untilRotation(now, l.file.rotated, l.started, k.cfg.RotateEvery)
	return situation{
		standing: l.standing, resume: l.resume && !l.lost, minting: k.ring.Load() != nil, pending: l.file.pending() || l.lost,
		rotateIn: rotateIn, tryIn: l.tryAt.Sub(now), checkIn: l.checkAt.Sub(now), checkEvery: k.cfg.CheckEvery,
	}
}

// check asks whether the daemon still opens the key we mint under.
func (k *Keyring) check(ctx context.Context) {
	l := &k.lead
	k.saveLate()
	v := k.ask(ctx, l.file.minting)
	if v == undecided {
		return
	}
	l.checkAt = time.Now().Add(k.cfg.CheckEvery)
	k.believe(v)
}

// believe draws the conclusion from a verdict about the key we mint under.
func (k *Keyring) believe(v verdict) {
	l := &k.lead
	was := l.standing
	switch {
	case v == proven:
		l.standing, l.why, l.provenAt = Proven, "", wall(time.Now())
		k.publish(l.file.published())
	case v == unseen: // what is published serves on, if the daemon would find it; see resume
		l.standing, l.why = Unseen, k.help().Unseen
		switch {
		case l.lost:
			l.resume = k.ring.Swap(nil) != nil || l.resume
		case l.resume:
			k.publish(l.file.published())
		}
	case v.isRefusal():
		if k.ring.Swap(nil) != nil { // before anything that takes time
			l.failures, l.tryAt = 0, time.Time{}
		}
		l.standing, l.why = Refuses, k.hint(k.help().Refused)
		if v == noNTS {
			l.why = k.help().NoNTS
		}
		l.file, l.unsaved = l.file.withRefused(), true
		k.saveLate()
	}
	l.wary = false
	l.resume = l.resume && l.lost && v == unseen // until the file is ours again
	if was != l.standing {
		k.logStanding()
	}
}

func (k *Keyring) help() Help { return k.cfg.Help().orGeneral() }

func (k *Keyring) logStanding() {
	switch l := &k.lead; l.standing {
	case Proven:
		k.cfg.Log.Info("daemon opens our cookies", "current", hexID(l.file.minting))
	case Unseen:
		k.cfg.Log.Warn("cannot see the daemon from here", "minting", k.ring.Load() != nil, "hint", l.why)
	case Refuses:
		k.cfg.Log.Error("daemon refuses our cookies, minting stopped", "hint", l.why)
	}
}

// handOver gives the ring on disk to the daemon and publishes it when proven.
// The daemon is asked even when the hand-over failed: somebody else may have
// given it the file.
func (k *Keyring) handOver(ctx context.Context) error {
	l := &k.lead
	k.saveLate()
	k.adopt()
	heeded := k.heeded
	handErr := k.handOverFile(ctx)
	l.lost = !k.held()
	v := k.ask(ctx, l.file.unproven()...)
	if handErr == nil {
		v = k.settle(ctx, v, heeded)
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case v == undecided:
		return errors.New(lostMeanwhile)
	}
	if v == proven {
		failures := l.failures
		k.accept(handErr == nil && !l.lost)
		if l.lost { // it holds them, and would not after its next start
			l.failures = failures
			k.tryLater()
		}
		return nil
	}
	err := k.explain(ctx, v, handErr)
	if k.heeded == heeded { // else at once
		k.tryLater()
	}
	return err
}

// settle asks again a few times after a NAK: where the hand-over is a request
// to a helper, the daemon has the keys a moment later. What is published is
// checked first, for a NAK may also mean that the daemon lost all. One that has
// started since the hand-over takes nothing of its own accord.
func (k *Keyring) settle(ctx context.Context, v verdict, heeded uint64) verdict {
	for _, pause := range [...]time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second} {
		if v != refused || k.heeded != heeded {
			break
		}
		if k.ring.Load() != nil {
			if k.check(ctx); k.ring.Load() == nil {
				break
			}
			k.note()
		}
		if !k.pause(ctx, pause) {
			return undecided
		}
		v = k.ask(ctx, k.lead.file.unproven()...)
	}
	return v
}

// unproven lists the keys to ask about after a hand-over: those that may be
// minted under now or next, and at the first hand-over all.
func (f file) unproven() []uint32 {
	need := []uint32{f.ring.Current().ID()}
	if next := f.next(); next != nil {
		need = append(need, next.ID())
	}
	if f.provenAt.IsZero() {
		for _, key := range f.ring.Keys() {
			if key.ID() != need[0] && (len(need) < 2 || key.ID() != need[1]) {
				need = append(need, key.ID())
			}
		}
	}
	return need
}

func (k *Keyring) handOverFile(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, handOverWithin)
	defer cancel()
	err := k.cfg.HandOver(ctx, k.cfg.Format.AppendKeys(nil, k.lead.file.ring))
	if err != nil {
		err = fmt.Errorf("hand keys over to the daemon: %w", err)
		k.fail(err)
	}
	return err
}

// accept publishes the ring on disk, which the daemon has just proven. taken
// says that the daemon's key file is ours too.
func (k *Keyring) accept(taken bool) {
	l := &k.lead
	now := time.Now()
	l.file, l.unsaved = l.file.withProven(l.file.unproven()...).withAccepted(now), true
	l.failures, l.tryAt = 0, time.Time{}
	l.checkAt = now.Add(k.cfg.CheckEvery)
	k.believe(proven)
	if taken {
		l.told = ""
		k.cfg.Log.Info("keys handed over", "current", hexID(l.file.minting), "proven", true)
	}
	k.saveLate()
}

// explain keeps the reason of an unproven hand-over. What is published goes on
// serving unless the daemon refuses that too, which is asked at once.
func (k *Keyring) explain(ctx context.Context, v verdict, handErr error) error {
	l := &k.lead
	switch {
	case k.ring.Load() == nil:
		k.believe(v)
	case v == unseen:
		k.believe(v)
	default:
		k.check(ctx)
	}
	if handErr != nil {
		l.why = handErr.Error()
		return handErr
	}
	if l.standing == Proven { // then only the new keys are refused
		return errors.New(notTaken)
	}
	return errors.New(l.why)
}

const lostMeanwhile = "the daemon's key file changed meanwhile: the hand-over begins anew"

const notTaken = "the daemon has not taken the new keys yet: minting goes on under the last proven key and the hand-over is tried again"

// tryLater sets the time of the next hand-over after a failed one.
func (k *Keyring) tryLater() {
	k.lead.failures++
	k.lead.tryAt = time.Now().Add(backOff(k.lead.failures))
}

// rotateNow puts one more key on disk and hands the ring over.
func (k *Keyring) rotateNow(ctx context.Context) error {
	l := &k.lead
	if s := k.situation(time.Now()); !s.mayRotate() {
		return errors.New("rotate cookie keys: not now: " + notNow(k.State().Standing, l.why))
	}
	ring, err := k.cfg.Format.Next(l.file.ring, k.cfg.Rand)
	if err == nil {
		next := l.file.withRing(ring, time.Now())
		if err = k.save(next); err == nil {
			l.file, l.unsaved = next, false
		}
	}
	if err != nil {
		k.tryLater()
		err = fmt.Errorf("rotate cookie keys: %w", err)
		k.fail(err)
		return err
	}
	l.tryAt = time.Time{}
	if err := k.handOver(ctx); err != nil {
		return fmt.Errorf("rotate cookie keys: %w", err)
	}
	k.cfg.Log.Info("keys rotated", "current", hexID(l.file.minting), "next", hexID(l.file.next().ID()), "proven", true)
	return nil
}

// notNow says why no keys are rotated, and what is known to do about it.
func notNow(s Standing, why string) string {
	words, known := map[Standing]string{
		Proven: "the last rotation waits for the daemon to take its keys",
		Unseen: "the daemon cannot be seen from here", Refuses: "the daemon refuses the keys there are",
	}[s]
	if !known {
		words = "the keys there are have not been proven yet"
	}
	if why != "" {
		words += ": " + why
	}
	return words
}

// saveLate saves what a verdict changed. It may be lost without harm: a start
// asks the daemon before it believes the file.
func (k *Keyring) saveLate() {
	l := &k.lead
	if !l.unsaved {
		return
	}
	if err := k.save(l.file); err != nil {
		k.fail(err)
		return
	}
	l.unsaved = false
}

// fail keeps an error and shows it at once: what follows may take long. The log
// has it once until a hand-over succeeds.
func (k *Keyring) fail(err error) {
	k.lead.lastError = err.Error()
	k.note()
	if k.lead.told != err.Error() {
		k.lead.told = err.Error()
		k.cfg.Log.Error("cookie keys not handed on", "error", err)
	}
}
