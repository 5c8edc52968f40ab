package gateway

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"ntsagent/ntske/packet"
)

// MirrorConfig says which daemon to follow.
type MirrorConfig struct {
	Daemon   netip.AddrPort // where it answers plain NTP, on loopback
	Interval time.Duration  // between polls; 0: 1 s
	Log      hclog.Logger   // nil: none
}

// Mirror polls the NTP daemon and keeps what its last answer said as a State.
type Mirror struct {
	conf  MirrorConfig
	clock func() Instant
	state atomic.Pointer[State]
	fault atomic.Pointer[string] // why the last poll brought nothing; nil: it did
}

const (
	firstPolls = 4 // come four times as fast, so that the slope is soon known
	maxTries   = 3 // exchanges of one poll, unless one takes less than longDelay
	rateFactor = 4 // intervals to wait after the kiss code RATE
	// maxBlur is by how much daemons blur their timestamps beyond the precision they tell: OpenNTPD adds two
	// times that were cut to microseconds in a float64, which holds half a microsecond, and tells 2 ns.
	maxBlur = 3 * time.Microsecond
	// longDelay is what no daemon takes on an idle machine. It would hide a change of half as much.
	longDelay = 250 * time.Microsecond
)

// question is what a daemon is asked. Its transmit timestamp tells nothing of our clock and nobody can guess it. The
// reference identifier marks it for other gateways, which leave it unanswered. Servers read nothing of a request but
// its version, mode, poll and transmit timestamp. An extension field would be too much for OpenNTPD, which takes no other
// length than 48 and 68 octets.
func question(transmit packet.Timestamp) packet.Header {
	return packet.Header{Version: 4, Mode: packet.ModeClient, RefID: mark, Transmit: transmit}
}

// mark is a kiss code (RFC 5905 §7.4) that no client has: those it stands for are kept by servers.
var mark = [4]byte([]byte("NTSG"))

// marked reports whether a request comes from a gateway.
func marked(h *packet.Header) bool { return h.Stratum == 0 && h.RefID == mark }

// Why a poll brought nothing.
var (
	errNoAnswer = errors.New("no answer in time: if it runs, look whether it limits the rate of loopback, or is a gateway itself")
	errKiss     = errors.New("answer is a kiss of death")
	errRate     = errors.New("answer is the kiss code RATE: exempt loopback from the daemon's rate limit")
	errStep     = errors.New("clock was stepped during the poll")
	errNonsense = errors.New("answer makes no sense")
)

// NewMirror makes a Mirror that knows nothing before it is Run.
func NewMirror(c MirrorConfig) *Mirror {
	if c.Interval == 0 {
		c.Interval = time.Second
	}
	if c.Log == nil {
		c.Log = hclog.NewNullLogger()
	}
	return &Mirror{conf: c, clock: systemClock()}
}

// State returns what is known of the daemon, nil before its first answer. It does not block.
func (m *Mirror) State() *State { return m.state.Load() }

// Condition returns what the gateway can do with the daemon's time now.
func (m *Mirror) Condition() Condition { return m.State().Condition(m.clock()) }

// Run polls until ctx is done and then returns nil. An error says that there is no socket to poll with.
func (m *Mirror) Run(ctx context.Context) error {
	c, err := new(net.Dialer).DialContext(ctx, "udp", m.conf.Daemon.String())
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("open a socket to the NTP daemon at %v: %w", m.conf.Daemon, err)
	}
	conn := c.(*net.UDPConn)
	defer conn.Close()
	if err := stampArrivals(conn); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	m.poll(ctx, conn)
	return nil
}

// poll asks again and again. Only changes are logged.
func (m *Mirror) poll(ctx context.Context, conn *net.UDPConn) {
	var t track
	var last error
	known := Stale
	wait := time.NewTimer(0)
	defer wait.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-wait.C:
		}
		next, err := m.ask(conn, t)
		if ctx.Err() != nil {
			return
		}
		t = next
		if err != nil && (last == nil || err.Error() != last.Error()) {
			m.conf.Log.Warn("NTP daemon gives no time to mirror", "daemon", m.conf.Daemon, "reason", err)
		}
		last = err
		m.fault.Store(inWords(err))
		if c := m.Condition(); c != known {
			m.conf.Log.Info("mirrored time", "daemon", m.conf.Daemon, "condition", c.String())
			known = c
		}
		switch {
		case errors.Is(err, errRate):
			wait.Reset(rateFactor * m.conf.Interval)
		case n < firstPolls:
			wait.Reset(m.conf.Interval / 4)
		default:
			wait.Reset(m.conf.Interval)
		}
	}
}

// ask polls once and publishes what came. The track returned is the one to go on with.
func (m *Mirror) ask(conn *net.UDPConn, t track) (track, error) {
	e, err := m.best(conn)
	if err != nil {
		if errors.Is(err, errStep) {
			return track{}, err
		}
		return t, err
	}
	if s := m.state.Load(); s != nil && stepped(s.at, e.at) {
		t = track{}
	}
	t = t.add(e.sample())
	m.state.Store(newState(e.header, e.at, t, m.conf.Interval))
	return t, nil
}

// best is the exchange with the least delay of a few, if the first tells little: on a busy machine the next one finds
// everybody awake.
func (m *Mirror) best(conn *net.UDPConn) (exchange, error) {
	best, err := m.exchange(conn)
	for tries := 1; err == nil && tries < maxTries && best.t4-best.t1 > int64(longDelay); tries++ {
		e, err := m.exchange(conn)
		switch {
		case errors.Is(err, errStep):
			return e, err
		case err != nil:
			return best, nil
		case stepped(best.at, e.at) || e.t4-e.t1 < best.t4-best.t1:
			best = e
		}
	}
	return best, err
}

// exchange is a poll that was answered.
type exchange struct {
	header packet.Header
	t1, t4 int64   // on the clock of the system, ns
	at     Instant // t4
}

// exchange sends one request and waits for its answer. What is not one is passed over.
func (m *Mirror) exchange(conn *net.UDPConn) (exchange, error) {
	var origin [8]byte
	rand.Read(origin[:]) // never fails
	h := question(packet.Timestamp(binary.BigEndian.Uint64(origin[:])))
	out := h.AppendTo(nil)
	if err := conn.SetReadDeadline(time.Now().Add(m.conf.Interval)); err != nil {
		return exchange{}, err
	}
	begin := steady(m.clock)
	t1 := m.clock().Wall
	if _, err := conn.Write(out); err != nil {
		return exchange{}, fmt.Errorf("%w: %w", errNoAnswer, err)
	}
	var in, control [512]byte
	for {
		n, size, _, _, err := conn.ReadMsgUDPAddrPort(in[:], control[:])
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return exchange{}, errNoAnswer
		case err != nil:
			return exchange{}, fmt.Errorf("%w: %w", errNoAnswer, err)
		}
		at := steady(m.clock)
		got, err := packet.ParseHeader(in[:n])
		if err != nil || got.Mode != packet.ModeServer || got.Origin != h.Transmit {
			continue
		}
		return answered(got, begin, t1, at, control[:size])
	}
}

// answered makes the exchange from an answer, the clock before it was asked for and after it was read, t1 and the
// control messages the answer came with.
func answered(h packet.Header, begin Instant, t1 int64, at Instant, control []byte) (exchange, error) {
	if stepped(begin, at) {
		return exchange{}, errStep
	}
	// On a busy machine an answer is read long after it came, when θ is no longer what it tells.
	if t4 := arrivalStamp(control); t4 != 0 {
		at = Instant{Wall: t4, Mono: at.Mono - max(0, at.Wall-t4)}
	}
	return exchange{h, t1, at.Wall, at}, judge(&h)
}

// judge says why an answer is none. A daemon that says it is not synchronised has answered.
func judge(h *packet.Header) error {
	switch {
	case kissed(h, "RATE"):
		return errRate
	case kissed(h, "DENY") || kissed(h, "RSTR"):
		return errKiss
	case h.Version < 3 || h.Receive == 0 || h.Transmit == 0 || h.Transmit.Sub(h.Receive) < 0 || h.Transmit.Sub(h.Receive) > time.Second:
		return errNonsense
	}
	return nil
}

// kissed reports whether h is the kiss of death with a code.
func kissed(h *packet.Header, code string) bool { return h.Stratum == 0 && string(h.RefID[:]) == code }

// sample returns the bounds on the offset.
func (e *exchange) sample() sample {
	near := time.Unix(0, e.t4)
	t2, t3 := e.header.Receive.Time(near).UnixNano(), e.header.Transmit.Time(near).UnixNano()
	slack := maxBlur
	if p := e.header.Precision; p < 0 && p > -30 {
		slack += min(time.Second>>-p, 10*time.Millisecond)
	}
	// And θ may have changed since the daemon read its clock.
	slack += time.Duration(slopeLimit * float64(e.t4-e.t1))
	return makeSample(e.at.Mono, e.t1, t2, t3, e.t4, slack)
}
