package keyring

import (
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"ntsagent/ntske/cookie"
)

// service is the Ring in service and what somebody has seen of the daemon that
// Run has yet to look into. It is all that others than Run touch.
type service struct {
	ring atomic.Pointer[cookie.Ring]
	wake chan struct{} // somebody has seen something; capacity 1

	mu     sync.Mutex
	doubts uint64             // how often all that was proven came into doubt
	looked bool               // the daemon's key file may have changed
	asking context.CancelFunc // ends the query under way; nil = none yet

	published chan struct{} // closed when there is a Ring again; nil = nobody waits

	heeded uint64 // doubts taken up; Run's alone
}

// Current returns the Ring to mint with, or nil: mint nothing. It never blocks.
func (s *service) Current() *cookie.Ring { return s.ring.Load() }

// Await is Current, but while there is no Ring it waits for one until ctx is done.
func (s *service) Await(ctx context.Context) *cookie.Ring {
	for {
		ring, published := s.orPublished()
		if ring != nil {
			return ring
		}
		select {
		case <-published:
		case <-ctx.Done():
			return s.Current()
		}
	}
}

// orPublished returns the Ring in service or, if there is none, what is closed
// when there is one.
func (s *service) orPublished() (*cookie.Ring, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ring := s.ring.Load(); ring != nil {
		return ring, nil
	}
	if s.published == nil {
		s.published = make(chan struct{})
	}
	return nil, s.published
}

// publish puts ring in service, unless what Run knows has come into doubt.
func (s *service) publish(ring *cookie.Ring) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.heeded != s.doubts {
		return
	}
	s.ring.Store(ring)
	if ring != nil && s.published != nil {
		close(s.published)
		s.published = nil
	}
}

// stir says that somebody has seen something; in doubt nothing is minted until
// the daemon was asked.
func (s *service) stir(doubt bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.looked = true
	if doubt {
		s.doubts++
		s.ring.Store(nil)
		if s.asking != nil {
			s.asking() // a daemon that is gone took the answer with it
		}
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// take takes up what somebody has seen since the last time.
func (s *service) take() (doubt, looked bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	doubt, looked = s.heeded != s.doubts, s.looked
	s.heeded, s.looked = s.doubts, false
	return doubt, looked
}

// query returns the context of one query, which the next doubt ends.
func (s *service) query(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asking = cancel
	if s.heeded != s.doubts {
		cancel()
	}
	return ctx, cancel
}

// pause waits that long, or until heed finds something in what was seen; false =
// ctx is done.
func (s *service) pause(ctx context.Context, d time.Duration, heed func() bool) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-s.wake:
			if heed() {
				return true
			}
		case <-timer.C:
			return true
		}
	}
}

// wouldOpen tells whether a daemon that starts now, with the key file that read
// reads, could open what ring mints. A file that we may not read is taken for
// whole: the proof has the last word.
func wouldOpen(read func() ([]byte, error), format cookie.Format, ring *cookie.Ring) bool {
	if read == nil || ring == nil {
		return true
	}
	b, err := read()
	if err != nil {
		return cannotTell(err)
	}
	held, err := format.ParseKeys(b)
	if err != nil {
		return false
	}
	return holds(held, ring.Current())
}

// cannotTell says whether reading the daemon's key file failed for our lack of
// rights. Whatever else is in its place, such as a folder, the daemon cannot read
// either.
func cannotTell(err error) bool { return errors.Is(err, os.ErrPermission) }

// holds tells whether ring holds the very key.
func holds(ring *cookie.Ring, key *cookie.Key) bool {
	held := ring.Find(key.ID())
	return held != nil && sameKey(held, key)
}

func sameKey(a, b *cookie.Key) bool { return a.ID() == b.ID() && a.Fingerprint() == b.Fingerprint() }

// orSilent puts something that does nothing in the place of what was not given.
func orSilent(log *hclog.Logger, changed *func(), help *func() Help) {
	if *log == nil {
		*log = hclog.NewNullLogger()
	}
	if *changed == nil {
		*changed = func() {}
	}
	if *help == nil {
		*help = func() Help { return Help{} }
	}
}
