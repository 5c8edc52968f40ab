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
	times   []time.Time
}

func newTrials(t *testing.T, format cookie.Format, await func(context.Context) *cookie.Ring) *trials {
	d := &trials{answers: map[aead.ID]keyring.Answer{}}
	asked := new(lastAsked)
	d.algorithms = &algorithms{
		format: format, candidates: format.AEADs(), await: await, every: time.Minute, spacing: time.Second, asked: asked,
		rand: rand.Reader, log: hclog.NewNullLogger(), shown: new(atomic.Pointer[shown]), wake: make(chan struct{}, 1),
		current: func() *cookie.Ring {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			return await(ctx)
		},
		prove: asked.noted(func(_ context.Context, c []byte, s *cookie.Session) keyring.Answer {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.times = append(d.times, time.Now())
			got, err := format.Open(nil, await(t.Context()), c)
			if err != nil || got.AEAD != s.AEAD || !bytes.Equal(got.C2S, s.C2S) || !bytes.Equal(got.S2C, s.S2C) {
				t.Errorf("the cookie of a trial does not carry its session: %v", err)
			}
			return d.answers[s.AEAD]
		}),
	}
	if format == (cookie.Chrony{}) {
		d.candidates = cookie.Chrony{}.Carries()
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

// count is how many queries there were.
func (d *trials) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.times)
}

func ringOf(t *testing.T, alg aead.ID) *cookie.Ring { return ringWith(t, alg, 7) }

// ringWith is a ring of one key of that number.
func ringWith(t *testing.T, alg aead.ID, id uint32) *cookie.Ring {
	t.Helper()
	key, err := cookie.NewKey(id, alg, make([]byte, alg.KeyLen()))
	if err != nil {
		t.Fatal(err)
	}
	ring, err := cookie.NewRing([]*cookie.Key{key}, 0)
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

const silent, answered, refused = keyring.Silent, keyring.Answered, keyring.Refused

func TestAnAlgorithmIsOfferedFromItsFirstAnswerToItsSecondRefusalInARow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ring := ringOf(t, aead.SIVCMAC256)
		d := newTrials(t, cookie.NTPsec{}, func(context.Context) *cookie.Ring { return ring })
		for _, step := range []struct {
			sentence                string
			fifteen, sixteen, seven keyring.Answer
			want                    []aead.ID
		}{
			{"none is answered", silent, silent, silent, []aead.ID{15}},
			{"one is answered", silent, silent, answered, []aead.ID{15, 17}},
			{"both are answered", silent, answered, answered, []aead.ID{15, 16, 17}},
			{"silence is no refusal where all is silent", silent, silent, silent, []aead.ID{15, 16, 17}},
			{"an answer in between counts", answered, answered, answered, []aead.ID{15, 16, 17}},
			{"one of them is refused", answered, answered, refused, []aead.ID{15, 16}},
			{"and the other one", answered, refused, refused, []aead.ID{15}},
			{"they come back", answered, answered, answered, []aead.ID{15, 16, 17}},
			{"silence is a refusal beside an answer", answered, silent, answered, []aead.ID{15, 17}},
			{"all come back", answered, answered, answered, []aead.ID{15, 16, 17}},
		} {
			d.now(step.fifteen, 15)
			d.now(step.sixteen, 16)
			d.now(step.seven, 17)
			time.Sleep(time.Minute + 10*time.Second) // a trial of both, and some more of what is in doubt
			synctest.Wait()
			if got := d.opens(); !slices.Equal(got, step.want) {
				t.Errorf("%s: %v, want %v", step.sentence, got, step.want)
			}
		}
		for i, at := range d.times[1:] {
			if gap := at.Sub(d.times[i]); gap < time.Second {
				t.Errorf("query %d came %v after the one before", i+1, gap)
			}
		}
	})
}

func TestOneRefusalMayBeAboutTheKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ring := ringOf(t, aead.GCMSIV128)
		d := newTrials(t, cookie.Chrony{}, func(context.Context) *cookie.Ring { return ring })
		d.now(answered, 15, 30)
		time.Sleep(2 * time.Second)
		d.now(refused, 30)
		for d.count() < 2 { // the trial after a minute
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
		}
		if got := d.opens(); !slices.Equal(got, []aead.ID{15, 30}) {
			t.Errorf("after one refusal: %v", got)
		}
		time.Sleep(1100 * time.Millisecond)
		synctest.Wait()
		if got := d.opens(); !slices.Equal(got, []aead.ID{15}) {
			t.Errorf("a second after another one: %v", got)
		}
	})
}

// What was proven for one key and one daemon is not offered for another.
func TestAnotherKeyOrAnotherDaemonIsTriedAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ring atomic.Pointer[cookie.Ring]
		ring.Store(ringWith(t, aead.SIVCMAC256, 7))
		d := newTrials(t, cookie.Chrony{}, func(context.Context) *cookie.Ring { return ring.Load() })
		want := func(sentence string, want ...aead.ID) {
			t.Helper()
			synctest.Wait()
			if got := d.opens(); !slices.Equal(got, want) {
				t.Errorf("%s: %v, want %v", sentence, got, want)
			}
		}
		d.now(answered, 15, 30)
		want("at once", 15, 30)
		for id := uint32(8); id < 12; id++ {
			time.Sleep(10 * time.Second)
			ring.Store(ringWith(t, aead.GCMSIV128, id))
			want("another key", 15)
			d.look()
			want("tried at once", 15, 30)
		}
		d.now(silent, 30) // an older program, which drops what it does not know
		time.Sleep(10 * time.Second)
		d.forget()
		want("the daemon has started", 15)
		time.Sleep(time.Hour)
		want("after an hour", 15)
		d.now(answered, 30)
		time.Sleep(61 * time.Second)
		want("the newer program is back", 15, 30)
	})
}

// An answer of the daemon that was, which comes late, says nothing of the one that is.
func TestAnAnswerFromBeforeARestartCountsForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ring := ringOf(t, aead.SIVCMAC256)
		d := newTrials(t, cookie.Chrony{}, func(context.Context) *cookie.Ring { return ring })
		s := d.known(nameOf(ring.Current()))
		d.forget()
		if d.offer(s, 30, &trial{}, true); !slices.Equal(d.opens(), []aead.ID{15}) {
			t.Errorf("%v", d.opens())
		}
	})
}

func TestNoAlgorithmIsTriedBeforeKeysAreProven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ring, proven := ringOf(t, aead.SIVCMAC512), make(chan struct{})
		d := newTrials(t, cookie.NTPDRS{}, func(ctx context.Context) *cookie.Ring {
			select {
			case <-proven:
			case <-ctx.Done():
				select {
				case <-proven:
				default:
					return nil
				}
			}
			return ring
		})
		d.now(keyring.Answered, 17)
		time.Sleep(time.Hour)
		if got := d.opens(); !slices.Equal(got, []aead.ID{15}) || d.count() != 0 {
			t.Errorf("before: %v, asked %d times", got, d.count())
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
