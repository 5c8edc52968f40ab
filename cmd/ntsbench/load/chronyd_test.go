package load

import (
	"errors"
	"io"
	"slices"
	"syscall"
	"testing"
	"time"

	"ntsagent/agent/daemon/chronytest"
)

// span is how long a load of a test lasts.
const span = 300 * time.Millisecond

// patience is for what must come: on a busy machine any process stands still for seconds.
const patience = time.Minute

func chronydTarget(s *chronytest.Server) KETarget {
	return KETarget{Addr: s.KE(), Name: chronytest.Name, Roots: s.Roots, Timeout: patience}
}

func TestEveryQueryToChronydIsVerified(t *testing.T) {
	t.Parallel()
	chronyd := chronytest.Start(t, chronytest.Options{})
	for name, c := range map[string]NTSConfig{
		"closed loop":                        {Window: 4},
		"closed loop, seven placeholders":    {Window: 4, Placeholders: 7},
		"window wider than a key exchange":   {Window: 20},
		"open loop":                          {Window: 4, Rate: 500},
		"open loop, with three placeholders": {Window: 8, Placeholders: 3, Rate: 500},
	} {
		t.Run(name, func(t *testing.T) {
			c.NTP, c.KE, c.Sockets, c.For, c.LostAfter = chronyd.Addr, chronydTarget(chronyd), 2, span, patience
			var r Result
			eventually(t, func() (begun bool) { // chronyd ends a key exchange whose client stands still for 2 s
				var err error
				r, err = NTS(t.Context(), c)
				if err != nil && !cutOff(err) {
					t.Fatal(err)
				}
				return err == nil
			})
			wellDone(t, r, c.Rate)
			wantTimes(t, r)
			if want := 2 * ((c.Window + 7) / 8); r.Exchanges != want {
				t.Errorf("%d key exchanges, want %d", r.Exchanges, want)
			}
		})
	}
}

func TestEveryPlainQueryToChronydIsVerified(t *testing.T) {
	t.Parallel()
	chronyd := chronytest.Start(t, chronytest.Options{})
	for name, rate := range map[string]float64{"closed loop": 0, "open loop": 500} {
		t.Run(name, func(t *testing.T) {
			r, err := Plain(t.Context(), PlainConfig{NTP: chronyd.Addr, Sockets: 2, Window: 4, Rate: rate, For: span, LostAfter: patience})
			if err != nil {
				t.Fatal(err)
			}
			wellDone(t, r, rate)
			wantTimes(t, r)
		})
	}
}

// cutOff says whether the server has ended a connection.
func cutOff(err error) bool {
	return slices.ContainsFunc([]error{syscall.ECONNRESET, syscall.EPIPE, io.EOF, io.ErrUnexpectedEOF}, func(end error) bool { return errors.Is(err, end) })
}

// wellDone wants a load without a failure, and in an open loop exactly as many operations as were due.
func wellDone(t *testing.T, r Result, rate float64) {
	t.Helper()
	if r.Failed != 0 {
		t.Errorf("%d failed, the first: %v", r.Failed, r.FirstErr)
	}
	if r.Done == 0 || r.Latency.Len() != r.Done {
		t.Errorf("%d done, %d latencies", r.Done, r.Latency.Len())
	}
	if r.Latency.Quantile(0) <= 0 {
		t.Errorf("shortest latency %v", r.Latency.Quantile(0))
	}
	if want := int(rate * span.Seconds()); rate > 0 && r.Done != want {
		t.Errorf("%d done at a rate of %g per second in %v, want %d", r.Done, rate, span, want)
	}
}

// wantTimes wants offsets and delays as they are between two clocks that are one: however long a query or its answer
// is held up, its delay is no longer than its latency, and its offset no farther than half of its delay.
func wantTimes(t *testing.T, r Result) {
	t.Helper()
	if r.Offset.Len() != r.Done || r.Delay.Len() != r.Done {
		t.Fatalf("%d offsets and %d delays of %d queries", r.Offset.Len(), r.Delay.Len(), r.Done)
	}
	const noise = time.Millisecond           // of what chronyd calls its precision
	for _, q := range []float64{0.25, 0.5} { // a thread that stands still between two looks at the clock spoils few
		d, o := r.Delay.Quantile(q), r.Offset.Magnitudes()
		if d <= 0 || d > r.Latency.Quantile(q)+noise {
			t.Errorf("delay is %v, latency %v", d, r.Latency.Quantile(q))
		}
		if got := o.Quantile(q); got > d/2+noise {
			t.Errorf("offset of one clock from itself is %v, with a delay of %v", got, d)
		}
	}
}
