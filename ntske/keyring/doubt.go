package keyring

import (
	"bytes"
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"ntsagent/ntske/cookie"
)

// doubts are what somebody has seen of the daemon and Run has yet to look into.
type doubts struct {
	wake chan struct{} // there is something; capacity 1

	mu     sync.Mutex
	count  uint64             // how often all that was proven came into doubt
	look   bool               // the daemon's key file may have changed
	asking context.CancelFunc // ends the query under way; nil = none yet

	published chan struct{} // closed when there is a Ring again; nil = nobody waits
}

// Look says that the daemon's process or key file may have changed: started, it
// is another process than before; down, there is none. It may be called at any
// time, from the one who watches both, and does not wait for Run.
//
// A file that is not ours (Config.Held) is handed over again. What the daemon
// may have lost is not minted under any more: all when it has started, until it
// was asked, which happens at once; and what it would not find in the file when
// it is down, until the file is ours again.
func (k *Keyring) Look(started, down bool) {
	doubt := started || down && !k.wouldOpen(k.ring.Load())
	d := &k.doubts
	d.mu.Lock()
	defer d.mu.Unlock()
	d.look = true
	if doubt {
		d.count++
		k.ring.Store(nil)
		if d.asking != nil {
			d.asking() // a daemon that is gone took the answer with it
		}
	}
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// wouldOpen tells whether a daemon that starts now could open what ring mints. A
// file that we may not read is taken for ours: the proof has the last word.
func (k *Keyring) wouldOpen(ring *cookie.Ring) bool {
	if k.cfg.Held == nil || ring == nil {
		return true
	}
	b, err := k.cfg.Held()
	if err != nil {
		return !errors.Is(err, os.ErrNotExist)
	}
	held, err := k.cfg.Format.ParseKeys(b)
	if err != nil {
		return false
	}
	key := held.Find(ring.Current().ID())
	return key != nil && sameKey(key, ring.Current())
}

// publish puts ring in service, unless what Run knows has come into doubt.
func (k *Keyring) publish(ring *cookie.Ring) {
	d := &k.doubts
	d.mu.Lock()
	defer d.mu.Unlock()
	if k.lead.doubts != d.count {
		return
	}
	k.ring.Store(ring)
	if ring != nil && d.published != nil {
		close(d.published)
		d.published = nil
	}
}

// orPublished returns the Ring in service or, if there is none, what is closed
// when there is one.
func (k *Keyring) orPublished() (*cookie.Ring, <-chan struct{}) {
	d := &k.doubts
	d.mu.Lock()
	defer d.mu.Unlock()
	if ring := k.ring.Load(); ring != nil {
		return ring, nil
	}
	if d.published == nil {
		d.published = make(chan struct{})
	}
	return nil, d.published
}

// heed takes up what somebody has seen, and tells whether that makes what is
// under way moot. In doubt the daemon is asked at once, for it knows of no query
// before, and what was proven waits for it as after a start of our own.
func (k *Keyring) heed() bool {
	l, d := &k.lead, &k.doubts
	d.mu.Lock()
	doubt := l.doubts != d.count
	l.doubts = d.count
	look := d.look
	d.look = false
	d.mu.Unlock()
	lost := look && k.findLost()
	if doubt {
		l.asked, l.unanswered = time.Time{}, 0
		l.resume = l.file.mintingKey() != nil
	}
	if doubt || lost {
		l.failures, l.tryAt = 0, time.Time{}
	}
	return doubt || lost
}

// findLost tells whether the daemon's key file turns out to be another one than
// was handed over. New keys are handed over anyway.
func (k *Keyring) findLost() bool {
	l := &k.lead
	if l.lost || l.file.pending() || k.held() {
		return false
	}
	l.lost, l.wary = true, true
	k.cfg.Log.Warn("the daemon's key file is not as it was handed over, doing that again")
	return true
}

// asking returns the context of one query, which the next doubt ends.
func (k *Keyring) asking(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	d := &k.doubts
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asking = cancel
	if k.lead.doubts != d.count {
		cancel()
	}
	return ctx, cancel
}

// held tells whether the daemon's key file is as we hand it over; see wouldOpen.
func (k *Keyring) held() bool {
	if k.cfg.Held == nil {
		return true
	}
	b, err := k.cfg.Held()
	if err != nil {
		return !errors.Is(err, os.ErrNotExist)
	}
	return bytes.Equal(b, k.cfg.Format.AppendKeys(nil, k.lead.file.ring))
}
