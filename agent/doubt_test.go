package agent

import (
	"context"
	"crypto/rand"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"ntsagent/ntske/cookie"
	"ntsagent/ntske/keyring"
)

// doubtful is an agent of keys alone, beside a daemon that opens everything and
// answers after that time.
func doubtful(t *testing.T, answersAfter time.Duration) (*agent, *keyring.Keyring) {
	t.Helper()
	ring, err := keyring.New(keyring.Config{
		Load: func() ([]byte, error) { return nil, os.ErrNotExist }, Save: func([]byte) error { return nil },
		HandOver: func(context.Context, []byte) error { return nil },
		Prove: func(ctx context.Context, _ []byte, _ *cookie.Session) keyring.Answer {
			select {
			case <-time.After(answersAfter):
				return keyring.Answered
			case <-ctx.Done():
				return keyring.Silent
			}
		},
		Plain: func(context.Context) bool { return true }, Rand: rand.Reader, RotateEvery: 24 * time.Hour, CheckEvery: time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	a := new(agent)
	a.parts.Store(&parts{keys: &keys{ring: ring}})
	return a, ring
}

// proven runs the keyring until the test ends, and returns when it is proven.
func proven(t *testing.T, ring *keyring.Keyring) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- ring.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	if ring.Await(t.Context()) == nil {
		t.Fatal("the keys are not proven")
	}
}

func TestAClientWaitsForKeysNoLongerThanItCan(t *testing.T) {
	t.Parallel()
	const never = time.Duration(-1)
	for _, c := range []struct {
		name            string
		doubt           bool          // chronyd starts as the client comes
		answersAfter    time.Duration // never: no keys are proven at all
		left            time.Duration // until the client's deadline; 0 = it has none
		wait            time.Duration // at most the half of what is left, and 1 s
		served, expired bool
	}{
		{name: "with keys it does not wait", answersAfter: 300 * time.Millisecond, left: 3 * time.Second, served: true},
		{name: "with keys it does not even look at the clock", answersAfter: 300 * time.Millisecond, left: 3 * time.Second, expired: true, served: true},
		{name: "in doubt it waits for the answer", doubt: true, answersAfter: 300 * time.Millisecond, left: 3 * time.Second, wait: 300 * time.Millisecond, served: true},
		{name: "in doubt without a deadline it waits for the answer", doubt: true, answersAfter: 900 * time.Millisecond, wait: 900 * time.Millisecond, served: true},
		{name: "in doubt half of the time left is for the answer to the client", doubt: true, answersAfter: 300 * time.Millisecond, left: 400 * time.Millisecond, wait: 200 * time.Millisecond},
		{name: "in doubt it waits 1 s at most", doubt: true, answersAfter: 1100 * time.Millisecond, left: 3 * time.Second, wait: time.Second},
		{name: "without keys it waits half of the time left", answersAfter: never, left: time.Second, wait: 500 * time.Millisecond},
		{name: "without keys it waits 1 s at most", answersAfter: never, left: 10 * time.Second, wait: time.Second},
		{name: "without keys and a deadline it waits 1 s", answersAfter: never, wait: time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				a, ring := doubtful(t, c.answersAfter)
				if c.answersAfter != never {
					proven(t, ring)
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if c.left > 0 {
					ctx, cancel = context.WithTimeout(ctx, c.left)
					defer cancel()
				}
				if c.expired {
					cancel()
				}
				if c.doubt {
					ring.Look(true, false)
				}
				start := time.Now()
				got := a.cookieKeys(ctx)
				if took := time.Since(start); took != c.wait {
					t.Errorf("it waited %v, want %v", took, c.wait)
				}
				if (got != nil) != c.served || got != ring.Current() {
					t.Errorf("it has keys: %t, want %t; the same that are in service: %t", got != nil, c.served, got == ring.Current())
				}
			})
		})
	}
}
