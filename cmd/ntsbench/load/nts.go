package load

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"ntsagent/ntske/aead"
	"ntsagent/ntske/client"
	"ntsagent/ntske/packet"
)

var (
	errCookies    = errors.New("reply has not as many cookies as were asked for")
	errCookieSize = errors.New("reply has a cookie of another length than the one that was spent")
	errStale      = errors.New("reply has a cookie twice, or the one that was spent")
)

// NTSConfig says how to load a server with NTS-protected queries.
type NTSConfig struct {
	NTP          netip.AddrPort // asked whatever the key exchange announces
	KE           KETarget
	AEAD         aead.ID       // 0: AES-SIV-CMAC-256
	UnknownKey   bool          // ask with cookies under a key the server does not have
	Sockets      int           // each with keys of its own
	Window       int           // requests in flight on each socket, at most
	Placeholders int           // cookie placeholders in each request, 0 to 7
	Rate         float64       // requests per second on all sockets together; 0: closed loop
	For          time.Duration // how long requests are sent; 0: until the context ends
	LostAfter    time.Duration // a request without a reply has failed after; 0: the package's LostAfter
	Begin        func()        // called when keys are exchanged, before the first query; may be nil
}

// NTS exchanges keys for every socket and then sends NTS-protected queries (RFC 8915 §5.7) for c.For, or
// until ctx ends. Every reply is verified: authenticator, unique identifier, origin timestamp, mode, leap
// indicator, stratum, length, and fresh cookies, of which there must be one for the cookie that was spent and
// one for each placeholder. No cookie is used twice; those that got lost are made up for by another key
// exchange beside the queries. Loops and latency are as of Plain.
//
// With c.UnknownKey every reply must be an NTS NAK that answers its request, and nothing more. Such a load
// has no offsets and delays.
//
// An error says that the load could not begin. What goes wrong later, key exchanges included, has failed in
// Result.
func NTS(ctx context.Context, c NTSConfig) (Result, error) {
	t := traffic{addr: c.NTP, sockets: c.Sockets, window: c.Window, rate: c.Rate, span: c.For, lostAfter: c.LostAfter}
	if err := t.valid(); err != nil {
		return Result{}, err
	}
	if c.Placeholders < 0 || c.Placeholders > 7 {
		return Result{}, fmt.Errorf("%d cookie placeholders: use 0 to 7", c.Placeholders)
	}
	if c.AEAD == 0 {
		c.AEAD = aead.SIVCMAC256
	}
	if c.AEAD.NonceLen() == 0 {
		return Result{}, fmt.Errorf("%v is not known", c.AEAD)
	}
	mint := &mint{from: c.KE, alg: c.AEAD, orders: make(chan int, t.sockets)}
	speakers := make([]*nts, t.sockets)
	wanted := t.window // cookies
	if c.UnknownKey {
		wanted = 1
	}
	for n := range speakers {
		speakers[n] = newNTS(t.window, c.Placeholders, func() { mint.orders <- n })
		for len(speakers[n].purse) < wanted {
			if err := mint.fill(ctx, speakers[n]); err != nil {
				return Result{}, fmt.Errorf("exchange keys before the load: %w", err)
			}
		}
	}
	lanes, idle, err := t.lanes(func(n int) dialect {
		if c.UnknownKey {
			return newStranger(speakers[n])
		}
		return speakers[n]
	})
	if err != nil {
		return Result{}, err
	}
	if c.Begin != nil {
		c.Begin()
	}
	working, stop := context.WithCancel(ctx)
	var worker sync.WaitGroup
	worker.Go(func() { mint.work(working, speakers, lanes) })
	sum, err := t.run(ctx, lanes, idle)
	stop()
	worker.Wait()
	sum.Merge(&mint.result)
	return sum, err
}

// mint gets cookies from the key-exchange server.
type mint struct {
	from   KETarget
	alg    aead.ID
	orders chan int // sockets that are out of cookies; each has at most one order out
	result Result
}

// retryAfter keeps a key-exchange server that is away or refuses from being flooded.
const retryAfter = 100 * time.Millisecond

// work serves orders until ctx ends.
func (m *mint) work(ctx context.Context, speakers []*nts, lanes []*lane) {
	for {
		select {
		case <-ctx.Done():
			return
		case n := <-m.orders:
			for m.fill(ctx, speakers[n]) != nil {
				select {
				case <-ctx.Done():
					return
				case <-time.After(retryAfter):
				}
			}
			lanes[n].pump()
		}
	}
}

// fill does one key exchange for d.
func (m *mint) fill(ctx context.Context, d *nts) error {
	limited, cancel := context.WithTimeout(ctx, m.from.timeout())
	defer cancel()
	res, err := m.from.exchange(limited, m.alg)
	var a *association
	if err == nil {
		a, err = newAssociation(res.Keys)
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err() // the load is over
	case err != nil:
		m.result.Fail(err)
		return err
	}
	m.result.Exchanges++
	d.put(a, res.Cookies)
	return nil
}

// association is the two keys of a key exchange, ready for use.
type association struct {
	seal     packet.Seal
	open     packet.Open
	nonceLen int
}

func newAssociation(k client.Keys) (*association, error) {
	c2s, err := aead.New(k.AEAD, k.C2S)
	if err != nil {
		return nil, err
	}
	s2c, err := aead.New(k.AEAD, k.S2C)
	if err != nil {
		return nil, err
	}
	return &association{seal: c2s.Seal, open: s2c.Open, nonceLen: k.AEAD.NonceLen()}, nil
}

// coin is a cookie and the association it belongs to.
type coin struct {
	of     *association
	cookie []byte
}

// nts is the dialect of RFC 8915. The token is the start of the unique identifier.
type nts struct {
	placeholders int
	queries      []query // by slot

	mu      sync.Mutex
	purse   []coin // unspent, oldest first
	room    int    // most coins kept; more than that are not needed
	order   func() // asks for more
	ordered bool
}

// query is what a reply is compared with.
type query struct {
	coin     coin
	uid      [32]byte
	transmit packet.Timestamp
}

func newNTS(window, placeholders int, order func()) *nts {
	return &nts{placeholders: placeholders, queries: make([]query, window), room: 2*window + cookiesWanted, order: order}
}

// put adds the cookies of a key exchange.
func (d *nts) put(a *association, cookies [][]byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ordered = false
	d.save(a, cookies)
}

// save adds cookies as far as there is room; d.mu is held.
func (d *nts) save(a *association, cookies [][]byte) {
	for _, c := range cookies {
		if len(d.purse) < d.room {
			d.purse = append(d.purse, coin{a, c})
		}
	}
}

// reserve spends the oldest cookie on request i. If there is none, some got lost: more are ordered.
func (d *nts) reserve(i int) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.purse) > 0 {
		d.queries[i].coin = d.purse[0]
		d.purse = d.purse[1:]
		return true
	}
	if !d.ordered {
		d.ordered = true
		d.order()
	}
	return false
}

func (d *nts) ask(dst []byte, i int, token uint64) []byte {
	q := &d.queries[i]
	binary.BigEndian.PutUint64(q.uid[:], token)
	fill(q.uid[8:])
	var nonce [16]byte // of which some algorithms take fewer
	fill(nonce[:])
	q.transmit = packet.Timestamp(rand.Uint64())
	header := packet.Header{Version: 4, Mode: packet.ModeClient, Transmit: q.transmit}
	return packet.AppendNTSRequest(dst, header, q.uid[:], q.coin.cookie, d.placeholders, nonce[:q.coin.of.nonceLen], q.coin.of.seal)
}

// fill fills b, of whole 8 octets, from the runtime's ChaCha8, which the system seeds.
func fill(b []byte) {
	for ; len(b) >= 8; b = b[8:] {
		binary.NativeEndian.PutUint64(b, rand.Uint64())
	}
}

func (d *nts) token(reply []byte) (uint64, bool) {
	for f, err := range packet.Fields(reply) {
		if err != nil {
			return 0, false
		}
		if f.Type == packet.UniqueIdentifier && len(f.Body) >= 8 {
			return binary.BigEndian.Uint64(f.Body), true
		}
	}
	return 0, false
}

func (d *nts) judge(i int, asked, reply []byte) (t2, t3 packet.Timestamp, err error) {
	q := &d.queries[i]
	if len(reply) > len(asked) {
		return 0, 0, errLonger
	}
	h, cookies, err := packet.ParseNTSResponse(reply, q.uid[:], q.coin.of.open)
	if err != nil {
		return 0, 0, err
	}
	if h.Origin != q.transmit {
		return 0, 0, errOrigin
	}
	if err := tellsTime(h); err != nil {
		return 0, 0, err
	}
	if err := q.fresh(cookies, 1+d.placeholders); err != nil {
		return 0, 0, err
	}
	d.mu.Lock()
	d.save(q.coin.of, cookies)
	d.mu.Unlock()
	return h.Receive, h.Transmit, nil
}

// fresh says why cookies are not the want fresh ones that the spent one is exchanged for.
func (q *query) fresh(cookies [][]byte, want int) error {
	if len(cookies) != want {
		return fmt.Errorf("%w: %d, not %d", errCookies, len(cookies), want)
	}
	for i, c := range cookies {
		if len(c) != len(q.coin.cookie) {
			return fmt.Errorf("%w: %d octets, not %d", errCookieSize, len(c), len(q.coin.cookie))
		}
		if string(c) == string(q.coin.cookie) {
			return errStale
		}
		for _, earlier := range cookies[:i] {
			if string(c) == string(earlier) {
				return errStale
			}
		}
	}
	return nil
}
