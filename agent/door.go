package agent

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
)

// lookEvery is how long a door may stay in a state that no longer fits. A
// certificate that expires kicks nobody, so the clock has to be looked at.
const lookEvery = time.Second

// A door is the sockets of one purpose and who serves them. It is open exactly
// while ready says so: a client that is refused at once asks again within
// seconds, one whose handshake fails may stay away for days (chronyd waits up
// to 2^19 s), so what cannot be served must not listen.
type door struct {
	purpose string
	asked   []netip.AddrPort
	book    *book
	ready   func(now time.Time) (bool, string) // why not, for the operator
	serve   func(ctx context.Context, ln net.Listener) error
	kick    chan struct{} // look again now; capacity 1
	log     hclog.Logger
	shut    atomic.Pointer[string] // why it is closed; nil while open
}

func (d *door) knock() {
	select {
	case d.kick <- struct{}{}:
	default:
	}
}

// run opens and closes the door until ctx is done. It leaves the sockets open
// then: whoever ends the process or reloads it decides what becomes of them.
func (d *door) run(ctx context.Context) error {
	var shift *shift // who serves now; nil while the door is closed
	defer func() { shift.end() }()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		ok, why := d.ready(time.Now())
		switch {
		case ok && shift == nil:
			shift = d.open(ctx)
		case !ok:
			d.book.close(d.purpose)
			shift.end()
			shift = nil
			d.closed(why)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-d.kick:
		case <-tick.C:
		}
	}
}

// A shift is the time between two openings: its connections end with it.
type shift struct {
	cancel context.CancelFunc
	wait   sync.WaitGroup
}

func (s *shift) end() {
	if s != nil {
		s.cancel()
		s.wait.Wait()
	}
}

// open starts to serve, or returns nil when an address cannot be had.
func (d *door) open(ctx context.Context) *shift {
	listeners, err := d.book.open(ctx, d.purpose, d.asked)
	if err != nil {
		d.closed(err.Error())
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	s := &shift{cancel: cancel}
	for _, ln := range listeners {
		s.wait.Go(func() { d.serveOne(ctx, ln) })
		d.log.Info("listening", "for", d.purpose, "address", ln.Addr().String())
	}
	d.shut.Store(nil)
	return s
}

func (d *door) serveOne(ctx context.Context, ln net.Listener) {
	if err := d.serve(ctx, ln); err != nil && ctx.Err() == nil {
		// The socket was closed under us on purpose, or it broke: the next
		// look decides, this line says what happened.
		d.log.Debug("listener ended", "for", d.purpose, "address", ln.Addr().String(), "error", err)
	}
}

// closed notes why nothing listens and says it once per reason.
func (d *door) closed(why string) {
	if old := d.shut.Swap(&why); old == nil || *old != why {
		d.log.Warn("not listening", "for", d.purpose, "reason", why)
	}
}

// reason is why the door is closed, or "".
func (d *door) reason() string {
	if why := d.shut.Load(); why != nil {
		return *why
	}
	return ""
}
