package load

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestAReplyThatWaitsForItsReaderIsNotLost(t *testing.T) {
	t.Parallel()
	all := traffic{addr: respond(t, func(b []byte) [][]byte { return [][]byte{b} }), sockets: 1, window: 1, lostAfter: time.Nanosecond}
	lanes, idle, err := all.lanes(func(int) dialect { return newEcho(48, 48) })
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(lanes)
	l := lanes[0] // nobody reads it, as when the whole generator stands still
	l.pump()
	if err := l.socket.raw.Read(func(fd uintptr) bool {
		_, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return err == nil
	}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	l.finish() // or it would ask again
	all.supervise(ctx, lanes, idle, func() {})
	if l.result.Done != 1 || l.result.Failed != 0 {
		t.Errorf("%d done, %d failed (%v), want one done", l.result.Done, l.result.Failed, l.result.FirstErr)
	}
}

// The race detector says whether one of the copies was counted while the sum was made.
func TestALoadIsSummedUpWhenNobodyReadsAnyMore(t *testing.T) {
	t.Parallel()
	addr := respond(t, func(b []byte) [][]byte { return slices.Repeat([][]byte{b}, 50) }) // of which a socket has room for twice as many
	r, err := Echo(t.Context(), PlainConfig{NTP: addr, Sockets: 4, Window: 1, For: 20 * time.Millisecond, LostAfter: patience})
	if err != nil || r.Done == 0 || r.Failed == 0 || r.Lost > 0 {
		t.Errorf("%d done, %d failed, %d lost, %v; want some done and the copies failed", r.Done, r.Failed, r.Lost, err)
	}
}

func TestARequestIsNotLostBeforeItIsAway(t *testing.T) {
	l := newLane(nil, newEcho(48, 48), 1, false, nil)
	now := time.Now()
	l.free, l.slots[0] = nil, slot{live: true, holds: 2, sent: now.Add(-time.Hour)}
	l.expire(now, now)
	if l.result.Lost != 0 {
		t.Error("it is lost although its sender has stood still since it was stamped")
	}
	l.slots[0].away = now
	l.expire(now, now)
	if l.result.Lost != 1 || !errors.Is(l.result.FirstErr, errSilent) {
		t.Errorf("%d lost (%v) when it is away for long enough, want one", l.result.Lost, l.result.FirstErr)
	}
}
