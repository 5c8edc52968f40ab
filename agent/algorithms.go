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
// With the first of its format the keys are proven; the others are offered to
// clients once the daemon has answered a query with each.
type algorithms struct {
	format  cookie.Format
	await   func(context.Context) *cookie.Ring // keys that are proven, or nil when ctx is done
	prove   func(ctx context.Context, cookie []byte, s *cookie.Session) keyring.Answer
	every   time.Duration // between two trials of all
	spacing time.Duration // between two queries
	rand    io.Reader
	log     hclog.Logger
	shown   *atomic.Pointer[[]aead.ID] // the others that were answered; nil = none yet
	refused map[aead.ID]int            // times in a row; run's alone
}

// answerWithin is for one query on the same host.
const answerWithin = 2 * time.Second

// refusals is how often in a row an algorithm must be refused to be offered no
// longer: one NAK may be about a key that has just been rotated out.
const refusals = 2

// opens lists what the daemon has shown to open, best first.
func (a *algorithms) opens() []aead.ID {
	all := a.format.AEADs()
	shown := a.shown.Load()
	return slices.DeleteFunc(all, func(alg aead.ID) bool {
		return alg != all[0] && (shown == nil || !slices.Contains(*shown, alg))
	})
}

// run tries all of them again and again until ctx is done.
func (a *algorithms) run(ctx context.Context) error {
	a.refused = map[aead.ID]int{}
	for {
		for _, alg := range a.format.AEADs()[1:] {
			if !pause(ctx, a.spacing) {
				return nil
			}
			if err := a.try(ctx, alg); err != nil {
				return err
			}
		}
		if !pause(ctx, a.every) {
			return nil
		}
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// try sends one query. Silence is no refusal and changes nothing.
func (a *algorithms) try(ctx context.Context, alg aead.ID) error {
	ring := a.await(ctx)
	if ring == nil {
		return nil
	}
	key, n := ring.Current(), alg.KeyLen()
	random := make([]byte, 2*n+a.format.NonceLen(key))
	if _, err := io.ReadFull(a.rand, random); err != nil {
		return fmt.Errorf("mint a cookie for a trial: %w", err)
	}
	session := &cookie.Session{AEAD: alg, C2S: random[:n], S2C: random[n : 2*n]}
	sealed, err := a.format.Seal(nil, key, random[2*n:], session)
	if err != nil {
		return fmt.Errorf("mint a cookie for a trial: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	switch a.prove(ctx, sealed, session) {
	case keyring.Answered:
		a.refused[alg] = 0
		a.offer(alg, true)
	case keyring.Refused:
		if a.refused[alg]++; a.refused[alg] >= refusals {
			a.offer(alg, false)
		}
	}
	return nil
}

// offer notes whether alg is offered from now on.
func (a *algorithms) offer(alg aead.ID, yes bool) {
	var now []aead.ID
	if old := a.shown.Load(); old != nil {
		now = slices.Clone(*old)
	}
	i := slices.Index(now, alg)
	switch {
	case yes && i < 0:
		now = append(now, alg)
	case !yes && i >= 0:
		now = slices.Delete(now, i, i+1)
	default:
		return
	}
	a.shown.Store(&now)
	a.log.Info("algorithms that the daemon opens cookies of", "aeads", fmt.Sprint(a.opens()))
}
