package keyring

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"ntsagent/ntske/cookie"
)

// ask queries the daemon about the keys until judge has decided, never faster
// than the spacing allows. It begins anew when the daemon does. It returns
// undecided when ctx ends first, or when the daemon's key file turns out lost,
// for that cannot wait.
func (k *Keyring) ask(ctx context.Context, need ...uint32) verdict {
	var round []observation
	lost, doubts := k.lead.lost, k.lead.doubts
	for {
		v, q := judge(round, need)
		if v != undecided || !k.pace(ctx) {
			return v
		}
		var o observation
		if lost == k.lead.lost && doubts == k.lead.doubts {
			o = k.query(ctx, q)
			k.heed()
		}
		switch {
		case ctx.Err() != nil || lost != k.lead.lost:
			return undecided // what was interrupted says nothing
		case doubts != k.lead.doubts:
			round, doubts = nil, k.lead.doubts
			continue
		}
		round = append(round, o)
		if o.answer == Silent && !k.lead.wary || o.answer == Answered && o.key == k.lead.file.minting {
			k.resume()
		}
	}
}

// resume publishes what was proven before a restart, ours or the daemon's, as
// soon as the daemon opens it again or stays silent: silence is not refusal, and
// nothing has changed. Where we are wary of silence the verdict is waited for.
func (k *Keyring) resume() {
	if k.lead.resume {
		k.lead.resume = false
		k.publish(k.lead.file.published())
		k.note()
	}
}

// pace waits until the next query may be sent; see pause.
func (k *Keyring) pace(ctx context.Context) bool {
	if k.lead.asked.IsZero() {
		return ctx.Err() == nil
	}
	return k.pause(ctx, time.Until(k.lead.asked.Add(gap(k.cfg.Spacing, k.lead.unanswered))))
}

// pause waits that long, or until there is something to heed; false = ctx is done.
func (k *Keyring) pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-k.doubts.wake:
			if k.heed() {
				return true
			}
		case <-timer.C:
			return true
		}
	}
}

func (k *Keyring) query(ctx context.Context, q question) observation {
	l := &k.lead
	o := observation{at: time.Now(), plain: q.plain, key: q.key}
	c, cancel := k.asking(ctx)
	defer cancel()
	if q.plain {
		if k.cfg.Plain(c) {
			o.answer = Answered
		}
	} else {
		o.answer = k.prove(c, l.file.ring.Find(q.key))
	}
	// Counted from the end: a daemon may stamp a query when it gets to it.
	l.asked = time.Now()
	if o.answer == Silent {
		l.unanswered++
	} else {
		l.unanswered = 0
	}
	k.cfg.Log.Debug("daemon asked", "plain", q.plain, "key", hexID(q.key), "answer", o.answer.String())
	return o
}

// prove mints one cookie for a session nobody else has and sends it.
func (k *Keyring) prove(ctx context.Context, key *cookie.Key) Answer {
	sealed, session, err := mint(k.cfg, key)
	if err != nil {
		k.fail(err)
		return Silent
	}
	return k.cfg.Prove(ctx, sealed, session)
}

func mint(cfg Config, key *cookie.Key) ([]byte, *cookie.Session, error) {
	if key == nil {
		return nil, nil, errors.New("mint a cookie for a proof: no such key")
	}
	alg := cfg.Format.AEADs()[0]
	n := alg.KeyLen()
	random := make([]byte, 2*n+cfg.Format.NonceLen(key))
	if _, err := io.ReadFull(cfg.Rand, random); err != nil {
		return nil, nil, fmt.Errorf("mint a cookie for a proof: %w", err)
	}
	session := &cookie.Session{AEAD: alg, C2S: random[:n], S2C: random[n : 2*n]}
	sealed, err := cfg.Format.Seal(nil, key, random[2*n:], session)
	if err != nil {
		return nil, nil, fmt.Errorf("mint a cookie for a proof: %w", err)
	}
	return sealed, session, nil
}
