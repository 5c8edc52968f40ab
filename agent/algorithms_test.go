package agent

import (
	"bytes"
	"context"
	"crypto/rand"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"ntsagent/ntske/aead"
	"ntsagent/ntske/cookie"
	"ntsagent/ntske/keyring"
)

// trials runs algorithms beside a daemon that answers as it is told.
type trials struct {
	*algorithms
	mu      sync.Mutex
	answers map[aead.ID]keyring.Answer
	asked   []time.Time
}

func newTrials(t *testing.T, format cookie.Format, await func(context.Context) *cookie.Ring) *trials {
	d := &trials{answers: map[aead.ID]keyring.Answer{}}
	d.algorithms = &algorithms{
		format: format, await: await, every: time.Minute, spacing: time.Second, rand: rand.Reader, log: hclog.NewNullLogger(),
		shown: new(atomic.Pointer[[]aead.ID]),
		prove: func(_ context.Context, c []byte, s *cookie.Session) keyring.Answer {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.asked = append(d.asked, time.Now())
			got, err := format.Open(nil, await(t.Context()), c)
			if err != nil || got.AEAD != s.AEAD || !bytes.Equal(got.C2S, s.C2S) || !bytes.Equal(got.S2C, s.S2C) {
				t.Errorf("the cookie of a trial does not carry its session: %v", err)
			}
			return d.answers[s.AEAD]
		},
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- d.run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return d
}

func (d *trials) now(answer keyring.Answer, algs ...aead.ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, alg := range algs {
		d.answers[alg] = answer
	}
}

func ringOf(t *testing.T, alg aead.ID) *cookie.Ring {
	t.Helper()
	key, err := cookie.NewKey(7, alg, make([]byte, alg.KeyLen()))
	if err != nil {
		t.Fatal(err)
	}
	ring, err := cookie.NewRing([]*cookie.Key{key}, 0)
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

func TestAnAlgorithmIsOfferedFromItsFirstAnswerToItsSecondRefusalInARow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ring := ringOf(t, aead.SIVCMAC256)
		d := newTrials(t, cookie.NTPsec{}, func(context.Context) *cookie.Ring { return ring })
		const silent, answered, refused = keyring.Silent, keyring.Answered, keyring.Refused
		for _, step := range []struct {
			sentence       string
			sixteen, seven keyring.Answer
			want           []aead.ID
		}{
			{"neither is answered", silent, silent, []aead.ID{15}},
			{"one is answered", silent, answered, []aead.ID{15, 17}},
			{"both are answered", answered, answered, []aead.ID{15, 16, 17}},
			{"silence is no refusal", silent, silent, []aead.ID{15, 16, 17}},
			{"one refusal may be about the key", refused, answered, []aead.ID{15, 16, 17}},
			{"an answer in between counts", answered, refused, []aead.ID{15, 16, 17}},
			{"refused once more", refused, refused, []aead.ID{15, 16}},
			{"and the other one", refused, refused, []aead.ID{15}},
			{"they come back", answered, answered, []aead.ID{15, 16, 17}},
		} {
			d.now(step.sixteen, 16)
			d.now(step.seven, 17)
			time.Sleep(time.Minute + 2*time.Second) // one trial of both
			synctest.Wait()
			if got := d.opens(); !slices.Equal(got, step.want) {
				t.Errorf("%s: %v, want %v", step.sentence, got, step.want)
			}
		}
		for i, at := range d.asked[1:] {
			if gap := at.Sub(d.asked[i]); gap < time.Second {
				t.Errorf("query %d came %v after the one before", i+1, gap)
			}
		}
	})
}

func TestNoAlgorithmIsTriedBeforeKeysAreProven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ring, proven := ringOf(t, aead.SIVCMAC512), make(chan struct{})
		d := newTrials(t, cookie.NTPDRS{}, func(ctx context.Context) *cookie.Ring {
			select {
			case <-proven:
				return ring
			case <-ctx.Done():
				return nil
			}
		})
		d.now(keyring.Answered, 17)
		time.Sleep(time.Hour)
		if got := d.opens(); !slices.Equal(got, []aead.ID{15}) || len(d.asked) != 0 {
			t.Errorf("before: %v, asked %d times", got, len(d.asked))
		}
		close(proven)
		synctest.Wait()
		if got := d.opens(); !slices.Equal(got, []aead.ID{15, 17}) {
			t.Errorf("after: %v", got)
		}
	})
}

func TestTheOperatorMayOfferLessThanTheDaemonOpens(t *testing.T) {
	for _, c := range []struct {
		asked       []uint16
		opens, want []aead.ID
	}{
		{nil, []aead.ID{15, 17}, []aead.ID{15, 17}},
		{[]uint16{15}, []aead.ID{15, 16, 17}, []aead.ID{15}},
		{[]uint16{17, 15}, []aead.ID{15, 16, 17}, []aead.ID{15, 17}},
		{[]uint16{17, 15}, []aead.ID{15}, []aead.ID{15}},
	} {
		if got := offered(c.asked, slices.Clone(c.opens)); !slices.Equal(got, c.want) {
			t.Errorf("asked for %v of %v: %v, want %v", c.asked, c.opens, got, c.want)
		}
	}
}
