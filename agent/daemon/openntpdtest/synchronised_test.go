package openntpdtest

import (
	"testing"
	"time"

	"ntsagent/ntske/client"
)

func TestOpenNTPDSaysThatItIsSynchronised(t *testing.T) {
	s := StartSynchronised(t)
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	deadline := time.After(time.Minute)
	for {
		var r client.Reply
		var err error
		s.Do(func() { r, err = client.Plain(t.Context(), Addr) })
		if h := r.Header; err == nil && h.Leap == 0 && h.Stratum == 9 {
			if r.Offset.Abs() > time.Second+r.Delay { // half of which may be an error, where somebody stood still
				t.Errorf("its time is off by %v, with a delay of %v", r.Offset, r.Delay)
			}
			return
		}
		select {
		case <-again.C:
		case <-deadline:
			t.Fatalf("it is not: %+v, %v\n%s", r.Header, err, s.Log())
		}
	}
}
