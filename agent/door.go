package agent

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
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
// to 2^19 s), so what cannot be served must not listen. A given socket, which
// cannot be closed, hangs up instead.
type door struct {
	purpose string
	asked   []netip.AddrPort
	book    *book
	ready   func(now time.Time) (bool, string) // why not, for the operator
	// patience is how long an open door stays so while ready says no, and how long
	// a closed one is no matter for a warning: at a start it opens in a moment.
	patience time.Duration
	// serve returns when it no longer accepts; what it accepted may go on.
	serve func(ctx context.Context, ln net.Listener) error
	kick  chan struct{} // look again now; capacity 1
	log   hclog.Logger
	shut  atomic.Pointer[string] // why it is closed; nil while open

	// Of run alone: what was warned of, and when it began.
	warned   string
	warnedAt map[netip.AddrPort]string
	began    time.Time

	// shutAt says why an address stays closed while others are open; "" = it does not. nil = none does.
	shutAt func(netip.AddrPort) string
	partly atomic.Pointer[map[netip.AddrPort]string] // those that do
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
	var shift *shift      // who serves now; nil while the door is closed
	var missing time.Time // since when ready says no; zero: it says yes
	defer func() { shift.end() }()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	d.began = time.Now()
	for {
		now := time.Now()
		ok, why := d.ready(now)
		use, whyNot := d.using(now)
		if ok && len(use) == 0 && whyNot != "" {
			ok, why = false, whyNot
		}
		switch {
		case ok:
			missing = time.Time{}
		case missing.IsZero():
			missing = now
		}
		var again <-chan time.Time
		switch {
		case ok && shift == nil:
			shift = d.open(ctx, use)
		case ok && !slices.Equal(shift.use, use):
			if _, err := d.book.openSome(ctx, d.purpose, d.asked, use); err != nil { // those that are open stay so
				d.log.Debug("not listening at all addresses", "for", d.purpose, "reason", err)
				break
			}
			shift.end()
			shift = d.open(ctx, use)
		case !ok && shift != nil && now.Sub(missing) < d.patience:
			again = time.After(d.patience - now.Sub(missing))
		case !ok:
			d.shutDown(shift, why, now.Sub(missing) >= d.patience)
			shift = nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-again:
		case err := <-shift.broke():
			// Sockets nobody accepts from would hold clients until they give up.
			d.shutDown(shift, err.Error(), true)
			shift = nil
			select { // what broke at once may break at once again
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
		case <-d.kick:
		case <-tick.C:
		}
	}
}

// shutDown closes the sockets at once.
func (d *door) shutDown(s *shift, why string, lasting bool) {
	d.book.close(d.purpose)
	s.end()
	d.closed(why, lasting)
}

// A shift is the time between two openings. Its connections go on after it:
// they end by their deadlines, and nobody has to wait for a silent one.
type shift struct {
	cancel context.CancelFunc
	wait   sync.WaitGroup
	broken chan error // why a socket is no longer served
	use    []netip.AddrPort
}

func (s *shift) end() {
	if s != nil {
		s.cancel()
		s.wait.Wait()
	}
}

func (s *shift) broke() <-chan error {
	if s == nil {
		return nil
	}
	return s.broken
}

// open starts to serve, or returns nil when an address cannot be had.
func (d *door) open(ctx context.Context, use []netip.AddrPort) *shift {
	before := d.book.addresses(d.purpose)
	listeners, err := d.book.openSome(ctx, d.purpose, d.asked, use)
	if err != nil {
		d.closed(err.Error(), true)
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	s := &shift{cancel: cancel, broken: make(chan error, len(listeners)), use: use}
	for _, ln := range listeners {
		s.wait.Go(func() {
			if err := d.serve(ctx, ln); err != nil && ctx.Err() == nil {
				s.broken <- fmt.Errorf("serve %s: %w", ln.Addr(), err)
			}
		})
		log := d.log.Info
		if slices.Contains(before, ln.Addr().String()) { // a reload kept it, and it has been said
			log = d.log.Debug
		}
		log("listening", "for", d.purpose, "address", ln.Addr().String())
	}
	d.shut.Store(nil)
	d.warned = ""
	return s
}

// using lists the addresses to open, and says why not all.
func (d *door) using(now time.Time) (use []netip.AddrPort, why string) {
	if d.shutAt == nil {
		return d.asked, ""
	}
	shut := map[netip.AddrPort]string{}
	for _, addr := range d.asked {
		if not := d.shutAt(addr); not != "" {
			shut[addr], why = not, not
			continue
		}
		use = append(use, addr)
	}
	old := d.partly.Swap(&shut)
	lasting := now.Sub(d.began) >= d.patience
	for addr, not := range shut {
		switch {
		case lasting && d.warnedAt[addr] != not:
			d.log.Warn("not listening", "for", d.purpose, "address", addr.String(), "reason", not)
		case !lasting && (old == nil || (*old)[addr] != not):
			d.log.Info("not listening yet", "for", d.purpose, "address", addr.String(), "reason", not)
		}
	}
	if lasting {
		d.warnedAt = shut
	}
	return use, why
}

// closed notes why nothing listens and says it once per reason, as a warning once
// it lasts.
func (d *door) closed(why string, lasting bool) {
	old := d.shut.Swap(&why)
	switch {
	case lasting && d.warned != why:
		d.warned = why
		d.log.Warn("not listening", "for", d.purpose, "reason", why)
	case !lasting && (old == nil || *old != why):
		d.log.Info("not listening yet", "for", d.purpose, "reason", why)
	}
}

// reason is why the door is closed, or "".
func (d *door) reason() string {
	if why := d.shut.Load(); why != nil {
		return *why
	}
	return ""
}

// reasonAt is why that address is closed while others need not be, or "".
func (d *door) reasonAt(addr netip.AddrPort) string {
	if partly := d.partly.Load(); partly != nil {
		return (*partly)[addr]
	}
	return ""
}
