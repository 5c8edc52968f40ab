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
	deadline := time.After(40 * time.Second)
	for {
		var r client.Reply
		var err error
		s.Do(func() { r, err = client.Plain(t.Context(), Addr) })
		if h := r.Header; err == nil && h.Leap == 0 && h.Stratum == 9 {
			if r.Offset.Abs() > time.Second {
				t.Errorf("its time is off by %v", r.Offset)
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
