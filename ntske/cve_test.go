package ntske

import (
	"crypto/tls"
	"testing"
)

// Go resumed sessions under settings that had changed since. A client that
// wants to resume is given no ticket, and a whole handshake each time.
func TestCVE_2025_68121_NothingIsResumed(t *testing.T) {
	l := newLab(t, labTime, nil)
	cache := &countingCache{ClientSessionCache: tls.NewLRUClientSessionCache(4)}
	for range 3 {
		s, err := l.connect(func(c *tls.Config) { c.ClientSessionCache = cache })
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write(plain); err != nil {
			t.Fatal(err)
		}
		if answer := s.rest(t); len(answer) == 0 {
			t.Error("no answer")
		}
		if s.ConnectionState().DidResume {
			t.Error("a session was resumed")
		}
	}
	if cache.put > 0 {
		t.Errorf("%d tickets were given out", cache.put)
	}
}

type countingCache struct {
	tls.ClientSessionCache
	put int
}

func (c *countingCache) Put(key string, s *tls.ClientSessionState) {
	if s != nil {
		c.put++
	}
	c.ClientSessionCache.Put(key, s)
}
