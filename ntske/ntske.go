// Package ntske serves the NTS Key Establishment protocol (RFC 8915 §4): over
// TLS a client says which protocols and AEAD algorithms it speaks and gets, in
// one answer, what to use and a set of cookies that the local NTP daemon opens.
//
// A connection is one straight line: request, negotiation, keys from the TLS
// exporter, the ring of cookie keys as it is now, cookies, one write, one
// Outcome; close_notify is the listener's. Nothing is remembered. What the
// server needs from others, a ring and a counter, comes as funcs in Config.
package ntske

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/hashicorp/go-hclog"

	"ntsagent/hostcheck"
	"ntsagent/ntske/aead"
	"ntsagent/ntske/cookie"
	"ntsagent/ntske/record"
)

// Protocol is the ALPN protocol name of NTS-KE (RFC 8915 §7.2).
const Protocol = "ntske/1"

const (
	maxCookies = 8 // what clients keep; RFC 8915 §4.1.6
	// defaultTimeout bounds a connection whose caller set no deadline.
	defaultTimeout = 3 * time.Second
	// writeBudget is kept free at the end of the deadline, so that a peer that
	// never finished its request can still be told (RFC 8915 §4.1.3).
	writeBudget = 200 * time.Millisecond
)

// Config is what a Server is made of.
type Config struct {
	// Ring returns the cookie keys to mint with. nil says that none is known to
	// work; the client is then told to come back (Error 2). It may wait for them
	// a little, well within the deadline of the context.
	Ring   func(context.Context) *cookie.Ring
	Format cookie.Format // how the daemon writes cookies
	// Opens lists the AEAD algorithms that the daemon has shown to open cookies
	// of; it is asked at each exchange. nil = all that Format lists.
	Opens func() []aead.ID
	// Cookies per answer, 1 to 8; 0 means 8.
	Cookies int
	// NTPHost and NTPPort are announced where the NTP server is not at the same
	// address or not on port 123; "" and 0 announce nothing.
	NTPHost string
	NTPPort uint16
	// Observe is called once per connection, from many goroutines, with the
	// context ServeConn was given; may be nil.
	Observe func(context.Context, Outcome)
	Log     hclog.Logger // may be nil
}

// Server answers key-exchange requests. It is safe for concurrent use.
type Server struct {
	ring    func(context.Context) *cookie.Ring
	format  cookie.Format
	opens   func() []aead.ID
	offer   offer // but for what the daemon opens
	cookies int
	observe func(context.Context, Outcome)
	log     hclog.Logger
}

// New checks c and returns a Server.
func New(c Config) (*Server, error) {
	if c.Ring == nil {
		return nil, errors.New("key-exchange server needs a source of cookie keys")
	}
	if c.Format == nil {
		return nil, errors.New("key-exchange server needs the format of the daemon's cookies")
	}
	if c.Opens == nil {
		c.Opens = c.Format.AEADs
	}
	if c.Cookies == 0 {
		c.Cookies = maxCookies
	}
	if c.Cookies < 1 || c.Cookies > maxCookies {
		return nil, fmt.Errorf("key-exchange server: %d cookies per answer; use 1 to %d", c.Cookies, maxCookies)
	}
	host, err := announced(c.NTPHost)
	if err != nil {
		return nil, fmt.Errorf("key-exchange server: NTP server to announce: %w", err)
	}
	s := &Server{
		ring: c.Ring, format: c.Format, opens: c.Opens, cookies: c.Cookies, observe: c.Observe, log: c.Log,
		offer: offer{host: host, port: c.NTPPort},
	}
	if s.observe == nil {
		s.observe = func(context.Context, Outcome) {}
	}
	if s.log == nil {
		s.log = hclog.NewNullLogger()
	}
	return s, nil
}

// TLSConfig returns the TLS settings of a key-exchange listener (RFC 8915
// §3): TLS 1.3 and ALPN ntske/1 only, no session tickets, since every
// exchange needs keys of its own, and an answer that never is cut into several
// TLS records, since some clients read only one.
func TLSConfig(get func(*tls.ClientHelloInfo) (*tls.Certificate, error)) *tls.Config {
	return &tls.Config{
		MinVersion:                  tls.VersionTLS13,
		NextProtos:                  []string{Protocol},
		GetCertificate:              get,
		SessionTicketsDisabled:      true,
		DynamicRecordSizingDisabled: true,
	}
}

// ServeConn reads one request from c, whose handshake is done, and answers it.
// ctx carries the absolute deadline of the connection; ServeConn returns before
// it. The caller says close_notify and closes c.
func (s *Server) ServeConn(ctx context.Context, c *tls.Conn) {
	outcome, err := s.exchange(ctx, c)
	s.observe(ctx, outcome)
	if err != nil && s.log.IsDebug() {
		s.log.Debug("key exchange ended", "outcome", outcome.String(), "peer", c.RemoteAddr().String(), "reason", err)
	}
}

// exchange is the straight line. The error says more than the Outcome and is
// for the debug log alone.
func (s *Server) exchange(ctx context.Context, c *tls.Conn) (Outcome, error) {
	state := c.ConnectionState()
	if state.NegotiatedProtocol != Protocol {
		return NoALPN, errors.New("no application protocol was negotiated")
	}
	if err := c.SetReadDeadline(readDeadline(ctx, time.Now())); err != nil {
		return PeerGone, err
	}
	in := &counter{r: c}
	req, err := record.ReadRequest(in)
	if err != nil {
		outcome, err := s.refuse(c, err)
		if outcome == BadRequest && in.n == 0 {
			outcome = PeerGone // not a single octet came: nobody asked
		}
		return outcome, err
	}
	have := s.offer
	have.opens = s.opens()
	resp, outcome := negotiate(req, have, local(c), state.ServerName)
	if outcome == Served {
		box := new(box)
		if err := s.mint(ctx, &state, &resp, box); err != nil {
			return s.refuse(c, err)
		}
		return s.send(c, resp.AppendTo(box.reply[:0]), outcome)
	}
	return s.send(c, resp.AppendTo(nil), outcome)
}

// counter counts the octets of a request.
type counter struct {
	r io.Reader
	n int
}

func (c *counter) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += n
	return n, err
}

// box is all the memory an answer is built in.
type box struct {
	nonces  [maxCookies * 16]byte
	cookies [maxCookies * 256]byte
	reply   [maxCookies*(256+4) + 512]byte
}

var errNoKeys = errors.New("no cookie keys that the daemon is known to hold")

// mint derives the session keys from the TLS connection and seals them into
// fresh cookies, which it adds to resp. The keys are gone when it returns.
func (s *Server) mint(ctx context.Context, state *tls.ConnectionState, resp *record.Response, b *box) error {
	ring := s.ring(ctx)
	if ring == nil {
		return errNoKeys
	}
	session, err := exportKeys(state, resp.AEADs[0])
	if err != nil {
		return err
	}
	defer clear(session.C2S)
	defer clear(session.S2C)
	key := ring.Current()
	n := s.format.NonceLen(key)
	nonces := b.nonces[:s.cookies*n]
	rand.Read(nonces) // never fails
	room := b.cookies[:0]
	for i := range s.cookies {
		start := len(room)
		if room, err = s.format.Seal(room, key, nonces[i*n:(i+1)*n], &session); err != nil {
			return fmt.Errorf("seal cookie: %w", err)
		}
		resp.Cookies = append(resp.Cookies, room[start:len(room):len(room)])
	}
	return nil
}

// exportKeys derives the two keys of an NTPv4 association from a TLS connection
// (RFC 8915 §5.1).
func exportKeys(state *tls.ConnectionState, alg aead.ID) (cookie.Session, error) {
	const label = "EXPORTER-network-time-security"
	n := alg.KeyLen()
	if n == 0 {
		return cookie.Session{}, fmt.Errorf("export keys: AEAD algorithm %d is not known", alg)
	}
	context := binary.BigEndian.AppendUint16([]byte{0, 0}, uint16(alg)) // protocol 0 is NTPv4
	c2s, err := state.ExportKeyingMaterial(label, append(context, 0), n)
	if err != nil {
		return cookie.Session{}, fmt.Errorf("export C2S key: %w", err)
	}
	s2c, err := state.ExportKeyingMaterial(label, append(context, 1), n)
	if err != nil {
		return cookie.Session{}, fmt.Errorf("export S2C key: %w", err)
	}
	return cookie.Session{AEAD: alg, C2S: c2s, S2C: s2c}, nil
}

// send writes a whole answer as one TLS record.
func (s *Server) send(c *tls.Conn, reply []byte, outcome Outcome) (Outcome, error) {
	if _, err := c.Write(reply); err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return Timeout, fmt.Errorf("write answer: %w", err)
		}
		return PeerGone, fmt.Errorf("write answer: %w", err)
	}
	return outcome, nil
}

// refuse answers a request that cannot be served with the Error record that
// err deserves (RFC 8915 §4.1.3).
func (s *Server) refuse(c *tls.Conn, err error) (Outcome, error) {
	outcome, code := verdict(err)
	if sent, werr := s.send(c, record.AppendError(nil, code), outcome); werr != nil && outcome != Timeout {
		return sent, errors.Join(err, werr)
	}
	return outcome, err
}

// readDeadline leaves the write budget, or half of what little time there is.
func readDeadline(ctx context.Context, now time.Time) time.Time {
	end, ok := ctx.Deadline()
	if !ok {
		end = now.Add(defaultTimeout)
	}
	left := end.Sub(now)
	return end.Add(-min(writeBudget, left/2))
}

// local returns the address the client reached us at.
func local(c net.Conn) netip.Addr {
	if a, ok := c.LocalAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}

// announced brings an NTP host to the form a Server record has (RFC 8915
// §4.1.7): an address without zone or a host name of A-labels; "" is none.
func announced(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return a.String(), nil
	}
	name, err := hostcheck.ParseName(s)
	return name.String(), err
}
