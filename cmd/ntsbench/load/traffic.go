package load

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"
)

// LostAfter is when a request without a reply is lost, unless a load says it. It is long because a server, or the
// whole machine, may stand still for some seconds, and answer then.
const LostAfter = 5 * time.Second

// The rates of an open loop, per second.
const (
	minRate = 1.0
	maxRate = 1e7
)

// traffic is what all loads over UDP have in common.
type traffic struct {
	addr      netip.AddrPort
	sockets   int
	window    int           // requests in flight on a socket, at most
	rate      float64       // requests per second on all sockets; 0: closed loop
	span      time.Duration // 0: until the context ends
	lostAfter time.Duration // 0: LostAfter
}

func (t traffic) valid() error {
	switch {
	case !t.addr.IsValid():
		return errors.New("no address to send to: give an IP address and a port")
	case t.sockets < 1:
		return fmt.Errorf("%d sockets: use at least 1", t.sockets)
	case t.window < 1 || t.window > maxWindow:
		return fmt.Errorf("window of %d requests: use 1 to %d", t.window, maxWindow)
	case t.rate != 0 && !(t.rate >= minRate && t.rate <= maxRate):
		return fmt.Errorf("rate of %g per second: use %g to %g, or 0 for a closed loop", t.rate, minRate, maxRate)
	}
	return nil
}

// lanes opens the sockets, the n-th with the n-th dialect. idle is told whenever one of them ends.
func (t traffic) lanes(speak func(n int) dialect) (lanes []*lane, idle <-chan struct{}, err error) {
	told := make(chan struct{}, 1)
	for n := range t.sockets {
		s, err := dial(t.addr)
		if err != nil {
			closeAll(lanes)
			return nil, nil, err
		}
		lanes = append(lanes, newLane(s, speak(n), t.window, t.rate > 0, told))
	}
	return lanes, told, nil
}

func closeAll(lanes []*lane) {
	for _, l := range lanes {
		l.socket.conn.Close()
	}
}

// run keeps the lanes busy for t.span or until ctx ends, waits for the replies that are still due, closes the
// sockets and returns the sum.
func (t traffic) run(ctx context.Context, lanes []*lane, idle <-chan struct{}) (Result, error) {
	var readers, pacer sync.WaitGroup
	defer closeAll(lanes) // where no pulse can be had
	ctx, end := context.WithCancel(ctx)
	defer end()
	start := time.Now()
	stop := func() {}
	if t.rate > 0 {
		interval := max(1, time.Duration(float64(time.Second)/t.rate))
		p, err := newPulse(interval)
		if err != nil {
			return Result{}, err
		}
		pacer.Go(func() { t.pace(p, lanes, start, interval); end() })
		stop = func() { p.file.Close(); pacer.Wait() }
	} else if t.span > 0 {
		defer time.AfterFunc(t.span, end).Stop()
	}
	for _, l := range lanes {
		readers.Go(func() { l.receive() })
		l.pump()
	}
	t.supervise(ctx, lanes, idle, stop)
	closeAll(lanes)
	readers.Wait() // what comes late or twice may come still

	var sum Result
	for _, l := range lanes {
		l.result.Took = max(0, l.ended.Sub(start))
		sum.Merge(&l.result)
	}
	return sum, nil
}

// pace makes requests due, one after the other on each lane in turn, until t.span is over or the pulse is closed.
func (t traffic) pace(p *pulse, lanes []*lane, start time.Time, interval time.Duration) {
	for n := 1; ; {
		fired, err := p.wait()
		if err != nil {
			return
		}
		for range fired {
			after := time.Duration(n) * interval
			if t.span > 0 && after > t.span {
				return
			}
			lanes[n%len(lanes)].offer(start.Add(after))
			n++
		}
	}
}

// supervise gives up lost requests, and when ctx ends waits until every lane is idle. What was due by then is
// still sent, but not longer than a reply is waited for. stop ends the pacer.
func (t traffic) supervise(ctx context.Context, lanes []*lane, idle <-chan struct{}, stop func()) {
	lostAfter := t.lostAfter
	if lostAfter == 0 {
		lostAfter = LostAfter
	}
	sweep := time.NewTicker(max(lostAfter/16, time.Millisecond))
	defer sweep.Stop()
	done := ctx.Done()
	var over time.Time
	for over.IsZero() || !allIdle(lanes) {
		select {
		case <-done:
		case <-idle:
			continue
		case now := <-sweep.C:
			for _, l := range lanes {
				if l.catchUp() {
					l.expire(now.Add(-lostAfter), now)
				}
				if !over.IsZero() && now.Sub(over) > lostAfter {
					l.drop()
				}
				l.pump()
			}
			continue
		}
		over, done = time.Now(), nil
		stop()
		for _, l := range lanes {
			l.finish()
		}
	}
}

func allIdle(lanes []*lane) bool {
	for _, l := range lanes {
		if !l.idles() {
			return false
		}
	}
	return true
}
