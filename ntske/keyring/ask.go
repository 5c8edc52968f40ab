package keyring

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/hashicorp/go-hclog"

	"ntsagent/ntske/cookie"
)

// asker sends queries to the daemon, never faster than the spacing allows.
type asker struct {
	prove   func(ctx context.Context, cookie []byte, s *cookie.Session) Answer
	plain   func(ctx context.Context) bool
	format  cookie.Format
	rand    io.Reader
	spacing time.Duration
	log     hclog.Logger

	asked      time.Time // the last query to the daemon
	unanswered int       // queries in a row
}

// untilNext is the time until the next query may be sent.
func (a *asker) untilNext() time.Duration {
	if a.asked.IsZero() {
		return 0
	}
	return time.Until(a.asked.Add(gap(a.spacing, a.unanswered)))
}

// forget says that the daemon has started: it knows of no query before.
func (a *asker) forget() { a.asked, a.unanswered = time.Time{}, 0 }

// query asks q; ring holds the key it is about. With an error, which is ours,
// nothing was sent.
func (a *asker) query(ctx context.Context, q question, ring *cookie.Ring) (o observation, err error) {
	o = observation{at: time.Now(), plain: q.plain, key: q.key}
	if q.plain {
		if a.plain(ctx) {
			o.answer = Answered
		}
	} else {
		var sealed []byte
		var session *cookie.Session
		if sealed, session, err = a.mint(ring.Find(q.key)); err == nil {
			o.answer = a.prove(ctx, sealed, session)
		}
	}
	// Counted from the end: a daemon may stamp a query when it gets to it.
	a.asked = time.Now()
	if o.answer == Silent {
		a.unanswered++
	} else {
		a.unanswered = 0
	}
	a.log.Debug("daemon asked", "plain", q.plain, "key", hexID(q.key), "answer", o.answer.String())
	return o, err
}

// mint makes one cookie for a session nobody else has.
func (a *asker) mint(key *cookie.Key) ([]byte, *cookie.Session, error) {
	if key == nil {
		return nil, nil, errors.New("mint a cookie for a proof: no such key")
	}
	alg := a.format.AEADs()[0]
	n := alg.KeyLen()
	random := make([]byte, 2*n+a.format.NonceLen(key))
	if _, err := io.ReadFull(a.rand, random); err != nil {
		return nil, nil, fmt.Errorf("mint a cookie for a proof: %w", err)
	}
	session := &cookie.Session{AEAD: alg, C2S: random[:n], S2C: random[n : 2*n]}
	sealed, err := a.format.Seal(nil, key, random[2*n:], session)
	if err != nil {
		return nil, nil, fmt.Errorf("mint a cookie for a proof: %w", err)
	}
	return sealed, session, nil
}

// ask queries the daemon about the keys until judge has decided, never faster
// than the spacing allows. It begins anew when the daemon does. It returns
// undecided when ctx ends first, or when the daemon's key file turns out lost,
// for that cannot wait.
func (k *Keyring) ask(ctx context.Context, need ...uint32) verdict {
	var round []observation
	lost, doubts := k.lead.lost, k.heeded
	for {
		v, q := judge(round, need)
		if v != undecided || !k.pace(ctx) {
			return v
		}
		var o observation
		if lost == k.lead.lost && doubts == k.heeded {
			o = k.query(ctx, q)
			k.heed()
		}
		switch {
		case ctx.Err() != nil || lost != k.lead.lost:
			return undecided // what was interrupted says nothing
		case doubts != k.heeded:
			round, doubts = nil, k.heeded
			continue
		}
		round = append(round, o)
		if o.answer == Silent && !k.lead.wary && !k.lead.lost || o.answer == Answered && o.key == k.lead.file.minting {
			k.resume()
		}
	}
}

func (k *Keyring) query(ctx context.Context, q question) observation {
	ctx, cancel := k.service.query(ctx)
	defer cancel()
	o, err := k.asker.query(ctx, q, k.lead.file.ring)
	if err != nil {
		k.fail(err)
	}
	return o
}

// resume publishes what was proven before a restart, ours or the daemon's, as
// soon as the daemon opens it again or stays silent: silence is not refusal, and
// nothing has changed. Where we are wary of silence the verdict is waited for, and
// while the key file is lost silence counts for nothing.
func (k *Keyring) resume() {
	if k.lead.resume {
		k.lead.resume = false
		k.publish(k.lead.file.published())
		k.note()
	}
}

// pace waits until the next query may be sent, or until there is something to
// heed; false = ctx is done.
func (k *Keyring) pace(ctx context.Context) bool {
	if d := k.asker.untilNext(); d > 0 {
		return k.pause(ctx, d)
	}
	return ctx.Err() == nil
}

// pause waits that long, or until there is something to heed; false = ctx is done.
func (k *Keyring) pause(ctx context.Context, d time.Duration) bool {
	return k.service.pause(ctx, d, k.heed)
}
