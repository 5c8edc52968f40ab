package agent

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"ntsagent/ntske/aead"
	"ntsagent/ntske/cookie"
	"ntsagent/ntske/keyring"
)

// algorithms finds out by trial which AEAD algorithms a daemon opens cookies of.
// With the first candidate the keys are proven; the others are offered to
// clients once the daemon has answered a query with each, under the very key
// that mints now. After a rotation, or when the daemon has started, they are
// tried anew: another program may run there.
type algorithms struct {
	format     cookie.Format
	candidates []aead.ID
	current    func() *cookie.Ring
	await      func(context.Context) *cookie.Ring // keys that are proven, or nil when ctx is done
	prove      func(ctx context.Context, cookie []byte, s *cookie.Session) keyring.Answer
	every      time.Duration // between two trials of all
	spacing    time.Duration // between two queries to the daemon, whoever sends them
	asked      *lastAsked
	rand       io.Reader
	log        hclog.Logger
	shown      *atomic.Pointer[shown]
	wake       chan struct{} // there may be another key, or another daemon; capacity 1
}

// shown is what the daemon has answered a query with. A value is never changed:
// who has asked under an old one finds that it is gone.
type shown struct {
	key   string    // what was sealed under
	aeads []aead.ID // besides the first candidate
}

// answerWithin is for one query on the same host.
const answerWithin = 2 * time.Second

// How often in a row an algorithm that is offered must fail to be offered no
// longer: by a NAK, of which one may be about a key that has just been rotated
// out, or by silence beside an answer to the first candidate.
const (
	refusals = 2
	silences = 3
)

// opens lists what the daemon has shown to open under the current key, best first.
func (a *algorithms) opens() []aead.ID {
	var key string
	if ring := a.current(); ring != nil {
		key = nameOf(ring.Current())
	}
	s := a.shown.Load()
	return slices.DeleteFunc(slices.Clone(a.candidates), func(alg aead.ID) bool {
		return alg != a.candidates[0] && (s == nil || s.key != key || !slices.Contains(s.aeads, alg))
	})
}

func nameOf(k *cookie.Key) string { return fmt.Sprintf("%08x %s", k.ID(), k.Fingerprint()) }

// forget says that the daemon has started.
func (a *algorithms) forget() {
	a.shown.Store(&shown{})
	a.look()
}

// look says that there may be another key.
func (a *algorithms) look() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// trial is what run knows of one algorithm.
type trial struct {
	under           *shown    // as it was then
	key             string    // sealed under
	at              time.Time // the last query
	refused, silent int       // times in a row
}

// run tries all of them again and again until ctx is done.
func (a *algorithms) run(ctx context.Context) error {
	trials := map[aead.ID]*trial{}
	for {
		ring := a.await(ctx)
		if ring == nil {
			return nil
		}
		alg, in := a.due(trials, nameOf(ring.Current()), time.Now())
		if in > 0 {
			select {
			case <-time.After(in):
			case <-a.wake:
			case <-ctx.Done():
				return nil
			}
			continue
		}
		if !a.calm(ctx) {
			return nil
		}
		if err := a.try(ctx, trials, alg); err != nil {
			return err
		}
	}
}

// due is what to try next under the key, and in what time.
func (a *algorithms) due(trials map[aead.ID]*trial, key string, now time.Time) (next aead.ID, in time.Duration) {
	s := a.known(key)
	in = a.every
	for _, alg := range a.candidates[1:] {
		t, wait := trials[alg], time.Duration(0)
		if t != nil && t.key == key && t.under == s {
			wait = a.every
			if slices.Contains(s.aeads, alg) && t.refused+t.silent > 0 { // in doubt
				wait = a.spacing
			}
			wait -= now.Sub(t.at)
		}
		if wait < in {
			next, in = alg, wait
		}
	}
	return next, in
}

// known is what is shown under the key: nothing of what was under another.
func (a *algorithms) known(key string) *shown {
	for {
		s := a.shown.Load()
		if s != nil && s.key == key {
			return s
		}
		if n := (&shown{key: key}); a.shown.CompareAndSwap(s, n) {
			return n
		}
	}
}

// pause is false when ctx is done before that time is over.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// try sends one query. Silence is no refusal, unless the daemon answers others.
func (a *algorithms) try(ctx context.Context, trials map[aead.ID]*trial, alg aead.ID) error {
	ring := a.await(ctx)
	if ring == nil {
		return nil
	}
	key := ring.Current()
	s := a.known(nameOf(key))
	t := trials[alg]
	if t == nil || t.key != s.key || t.under != s {
		t = &trial{key: s.key, under: s}
		trials[alg] = t
	}
	answer, err := a.ask(ctx, key, alg)
	if err != nil {
		return err
	}
	switch {
	case answer == keyring.Answered:
		t.refused, t.silent = 0, 0
	case answer == keyring.Refused:
		t.refused, t.silent = t.refused+1, 0
	case !slices.Contains(s.aeads, alg):
	case !a.calm(ctx):
		return nil
	default:
		others, err := a.ask(ctx, key, a.candidates[0])
		if err != nil {
			return err
		}
		if t.silent++; others != keyring.Answered {
			t.silent = 0
		}
	}
	t.at = time.Now()
	if now := a.offer(s, alg, t, answer == keyring.Answered); now != s {
		for _, t := range trials { // what was tried of the others counts on
			if t.under == s {
				t.under = now
			}
		}
	}
	return nil
}

// offer notes whether alg is offered from now on, unless what s says is no longer so.
func (a *algorithms) offer(s *shown, alg aead.ID, t *trial, answered bool) *shown {
	offered := slices.Contains(s.aeads, alg)
	now := &shown{key: s.key}
	switch {
	case answered && !offered:
		now.aeads = append(slices.Clone(s.aeads), alg)
	case offered && (t.refused >= refusals || t.silent >= silences):
		now.aeads = slices.DeleteFunc(slices.Clone(s.aeads), func(other aead.ID) bool { return other == alg })
	default:
		return s
	}
	if !a.shown.CompareAndSwap(s, now) {
		return s
	}
	a.log.Info("algorithms that the daemon opens cookies of", "aeads", fmt.Sprint(a.opens()))
	return now
}

// ask sends the daemon a cookie of alg.
func (a *algorithms) ask(ctx context.Context, key *cookie.Key, alg aead.ID) (keyring.Answer, error) {
	return askWith(ctx, a.format, a.rand, a.prove, key, alg)
}

// askWith sends a cookie with a session nobody else has.
func askWith(ctx context.Context, format cookie.Format, rand io.Reader, prove proveFunc, key *cookie.Key, alg aead.ID) (keyring.Answer, error) {
	n := alg.KeyLen()
	random := make([]byte, 2*n+format.NonceLen(key))
	if _, err := io.ReadFull(rand, random); err != nil {
		return keyring.Silent, fmt.Errorf("mint a cookie for a trial: %w", err)
	}
	session := &cookie.Session{AEAD: alg, C2S: random[:n], S2C: random[n : 2*n]}
	sealed, err := format.Seal(nil, key, random[2*n:], session)
	if err != nil {
		return keyring.Silent, fmt.Errorf("mint a cookie for a trial: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	return prove(ctx, sealed, session), nil
}

// calm waits until the daemon has not been asked for the spacing; false = ctx is done.
func (a *algorithms) calm(ctx context.Context) bool {
	for {
		d := a.spacing - a.asked.since()
		if d <= 0 {
			return ctx.Err() == nil
		}
		if !pause(ctx, d) {
			return false
		}
	}
}

// lastAsked is when the daemon was last sent a query, by the ring or by a trial:
// its rate limit does not tell them apart.
type lastAsked struct{ at atomic.Pointer[time.Time] }

func (l *lastAsked) since() time.Duration {
	at := l.at.Load()
	if at == nil {
		return 1 << 62
	}
	return time.Since(*at)
}

func (l *lastAsked) now() {
	now := time.Now()
	l.at.Store(&now)
}

type proveFunc = func(ctx context.Context, c []byte, s *cookie.Session) keyring.Answer

// noted and notedPlain tell l of every query, at its end.
func (l *lastAsked) noted(prove proveFunc) proveFunc {
	return func(ctx context.Context, c []byte, s *cookie.Session) keyring.Answer {
		defer l.now()
		return prove(ctx, c, s)
	}
}

func (l *lastAsked) notedPlain(plain func(context.Context) bool) func(context.Context) bool {
	return func(ctx context.Context) bool {
		defer l.now()
		return plain(ctx)
	}
}
