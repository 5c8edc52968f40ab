// Package gateway speaks NTS over UDP (RFC 8915 §5) in front of an NTP daemon that has none.
//
// A Mirror polls the daemon on loopback about once a second; a Gateway answers clients from what the Mirror
// last published, with timestamps of the clock of the system, which the daemon disciplines, corrected to
// the time the daemon serves. It never invents time: what is not known well enough is not served, or the daemon
// is asked for it (see Mode). What the daemon changes at once, such as a new adjustment, RelayMode sees with the next
// request and a Mirror at its next poll: until then, a second as a rule, the bound told as root dispersion does not
// hold. From then on it does, however much of the change the delay of the poll hides; only while all polls
// take longer than half of MaxUncertainty, up to eight of them may pass. Gateways do not answer gateways.
// Interleaved mode is not supported; datagrams of modes other than 3 are dropped.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"ntsagent/ntske/cookie"
)

// Config says whom to answer, and from what.
type Config struct {
	Ring   func() *cookie.Ring // the cookie keys; nil while there are none. Called for every batch: it must not block
	Mirror *Mirror             // of the daemon; it runs apart
	Plain  bool                // answer plain NTP too
	Limit  Limit               // per network
	Mode   Mode                // how the daemon's time is known
}

// Gateway answers NTP requests.
type Gateway struct {
	conf    Config
	limit   *limiter  // of all sockets
	tallies [16]tally // sockets share one from the 17th on; cores seldom wait for each other
}

// tally counts outcomes.
type tally struct {
	n [outcomes]atomic.Uint64
	_ [64]byte
}

// New makes a Gateway.
func New(c Config) (*Gateway, error) {
	if c.Ring == nil || c.Mirror == nil {
		return nil, errors.New("gateway: cookie keys and the mirror of a daemon are needed")
	}
	return &Gateway{conf: c, limit: newLimiter(c.Limit)}, nil
}

// Counts returns how many datagrams met which outcome so far.
func (g *Gateway) Counts() map[Outcome]uint64 {
	m := make(map[Outcome]uint64)
	for i := range g.tallies {
		for o := range g.tallies[i].n {
			if n := g.tallies[i].n[o].Load(); n > 0 {
				m[Outcome(o)] += n
			}
		}
	}
	return m
}

// Serve answers what arrives at conns, one goroutine each, until ctx is done, and then returns nil. The
// sockets stay open, past their deadline. An error says that one of them cannot be read; then all stop.
func (g *Gateway) Serve(ctx context.Context, conns ...*net.UDPConn) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var workers []*worker
	defer func() {
		for _, w := range workers {
			w.relay.close()
		}
	}()
	for i, conn := range conns {
		w, err := g.newWorker(conn, &g.tallies[i%len(g.tallies)])
		if err != nil {
			return fmt.Errorf("serve NTP on %v: %w", conn.LocalAddr(), err)
		}
		workers = append(workers, w)
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		for i, conn := range conns {
			workers[i].stop.Store(true)
			conn.SetReadDeadline(time.Unix(1, 0))
		}
	})
	errs := make([]error, len(workers))
	var wg sync.WaitGroup
	for i, w := range workers {
		wg.Go(func() {
			defer cancel()
			if err := w.run(); err != nil && ctx.Err() == nil {
				errs[i] = fmt.Errorf("read NTP on %v: %w", conns[i].LocalAddr(), err)
			}
		})
	}
	wg.Wait()
	if !stop() {
		<-stopped // do not let the deadline hit whoever uses the sockets next
	}
	return errors.Join(errs...)
}
