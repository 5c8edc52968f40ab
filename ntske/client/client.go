// Package client is the other end of the wire: it exchanges keys with an
// NTS-KE server, sends NTS-protected and plain NTP queries and verifies every
// answer. Check walks the whole way as a stranger would.
//
// It trusts nothing it has not verified and tells two kinds of failure apart:
// the server did not do what it should, or this tool could not try (see Error).
//
//	res, err := client.KeyExchange(ctx, client.Config{Addr: addr, Name: name})
//	reply, err := client.Query(ctx, ntp, res.Keys, res.Cookies[0], 0)
package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"time"

	"ntsagent/ntske/aead"
	"ntsagent/ntske/record"
)

// defaultTimeout bounds what is called with a context that has no deadline.
const defaultTimeout = 5 * time.Second

// Keys are the two keys of an NTS association. Printing them prints no key.
type Keys struct {
	AEAD     aead.ID
	C2S, S2C []byte // client to server and back, AEAD.KeyLen octets each
}

// String names the algorithm only.
func (k Keys) String() string { return "keys for " + k.AEAD.String() }

// Format prints String for every verb.
func (k Keys) Format(f fmt.State, _ rune) { io.WriteString(f, k.String()) }

// MarshalText is String, for encoders that would write the fields.
func (k Keys) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// Config says with whom to exchange keys.
type Config struct {
	Addr  netip.AddrPort // where the key-exchange server is
	Name  string         // host name, or IP address, its certificate must be for
	Roots *x509.CertPool // who may have signed it; nil: the system's

	AEADs  []aead.ID     // offered, best first; nil: AES-SIV-CMAC-256, which every server knows (RFC 8915 §4.1.5)
	Groups []tls.CurveID // key exchange groups offered; nil: those crypto/tls prefers
	// Close makes the exchange end as RFC 8915 §4 asks: we say close_notify and
	// wait for the server's, any other end is a failure.
	Close bool
}

// Result is a finished key exchange.
type Result struct {
	Keys    Keys
	Cookies [][]byte
	Server  string // NTP server as announced: host name or address; "": at the same address
	Port    uint16 // UDP port of the NTP server; 123 if none was announced
	TLS     tls.ConnectionState
	Took    time.Duration // from connecting to the whole answer
}

// KeyExchange does one NTS-KE session (RFC 8915 §4) over TLS 1.3 and verifies
// the certificate before it sends a record. It tries once: when to try again is
// the caller's to decide (RFC 8915 §4.2). Errors are of type *Error; where the
// server answered with an Error record they wrap a *record.Error. After a
// failure that came later than the handshake Result.TLS is set.
func KeyExchange(ctx context.Context, c Config) (Result, error) {
	ctx, cancel := withDefault(ctx)
	defer cancel()
	begin := time.Now()
	nc, err := new(net.Dialer).DialContext(ctx, "tcp", c.Addr.String())
	if err != nil {
		return Result{}, netError("connect", "accept a TCP connection", err)
	}
	defer nc.Close()

	raw := &tailed{Conn: nc}
	tc := tls.Client(raw, &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"ntske/1"},
		RootCAs:    c.Roots,
		ServerName: c.Name, // crypto/tls sends no SNI for an address

		CurvePreferences: c.Groups,
	})
	if err := tc.HandshakeContext(ctx); err != nil {
		return Result{}, tlsError(err)
	}
	res := Result{TLS: tc.ConnectionState()}
	if res.TLS.NegotiatedProtocol != "ntske/1" {
		return res, did("tls", "negotiate the application protocol ntske/1", nil)
	}
	offer := c.AEADs
	if offer == nil {
		offer = []aead.ID{aead.SIVCMAC256}
	}
	resp, err := request(ctx, tc, offer)
	if err != nil {
		return res, err
	}
	if c.Close {
		if err := closeBoth(ctx, tc, raw); err != nil {
			return res, err
		}
	}
	res.Took = time.Since(begin)
	res.Cookies, res.Server, res.Port = resp.Cookies, resp.Server, resp.Port
	if res.Port == 0 {
		res.Port = record.NTPPort
	}
	if res.Keys, err = exportKeys(&res.TLS, resp.AEADs[0], exporterID(resp)); err != nil {
		return res, couldNot("ntske", "derive keys", err)
	}
	return res, nil
}

// request sends the one request and reads the one answer. With AES-128-GCM-SIV
// goes record 1024: we derive its keys as RFC 8915 says.
func request(ctx context.Context, c *tls.Conn, offer []aead.ID) (record.Response, error) {
	if end, ok := ctx.Deadline(); ok {
		c.SetDeadline(end)
	}
	defer context.AfterFunc(ctx, func() { c.NetConn().Close() })()

	req := record.Request{
		Protocols: []record.Protocol{record.NTPv4}, AEADs: offer, Compliant128GCM: slices.Contains(offer, aead.GCMSIV128),
	}
	if _, err := c.Write(req.AppendTo(nil)); err != nil {
		return record.Response{}, netError("ntske", "take the request", err)
	}
	resp, err := record.ReadResponse(c)
	var told *record.Error
	var network net.Error
	switch {
	case errors.As(err, &told):
		return record.Response{}, did("ntske", "serve the request", err)
	case errors.As(err, &network) || ctx.Err() != nil:
		return record.Response{}, netError("ntske", "answer the request", errors.Join(err, ctx.Err()))
	case err != nil:
		return record.Response{}, did("ntske", "answer as RFC 8915 asks", err)
	case !slices.Contains(resp.Protocols, record.NTPv4):
		return record.Response{}, did("ntske", "agree to NTPv4", nil)
	case len(resp.AEADs) == 0:
		return record.Response{}, did("ntske", fmt.Sprintf("agree to any AEAD algorithm of %v", offer), nil)
	case !slices.Contains(offer, resp.AEADs[0]):
		return record.Response{}, did("ntske", fmt.Sprintf("choose an AEAD algorithm that was offered, but %v", resp.AEADs[0]), nil)
	}
	return resp, nil
}

// closeBoth says close_notify and waits for the server's. Ours goes first: it
// acknowledges the answer, for which a server with Nagle's algorithm on holds
// back its own. The deadline is set already.
func closeBoth(ctx context.Context, c *tls.Conn, nc *tailed) error {
	defer context.AfterFunc(ctx, func() { nc.Close() })()
	const not = "say close_notify after its answer"
	c.CloseWrite() // the server may be gone: its part is done
	n, err := c.Read(make([]byte, 1))
	var network net.Error
	switch {
	case n > 0:
		return did("ntske", "end after End of Message", nil)
	case errors.As(err, &network) || ctx.Err() != nil:
		return netError("ntske", not, errors.Join(err, ctx.Err()))
	case err != io.EOF || nc.ended:
		return did("ntske", not, err)
	}
	return nil
}

// tailed knows whether TCP ended: crypto/tls reports that as the same io.EOF as
// a close_notify.
type tailed struct {
	net.Conn
	ended bool // for the goroutine that reads
}

// Read notes the end.
func (c *tailed) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.ended = c.ended || err == io.EOF
	return n, err
}

// exporterID is the algorithm that goes into the exporter's context: the one
// chosen, but for a server that chose AES-128-GCM-SIV and did not repeat record
// 1024. That is chronyd 4.4 to 4.6, which has the number 15 there.
func exporterID(resp record.Response) aead.ID {
	if resp.AEADs[0] == aead.GCMSIV128 && !resp.Compliant128GCM {
		return aead.SIVCMAC256
	}
	return resp.AEADs[0]
}

// exportKeys derives the keys of the association (RFC 8915 §5.1) for alg, with
// the number of named in the context.
func exportKeys(state *tls.ConnectionState, alg, named aead.ID) (Keys, error) {
	if alg.KeyLen() == 0 {
		return Keys{}, fmt.Errorf("%v is not known", alg)
	}
	context := binary.BigEndian.AppendUint16([]byte{0, 0}, uint16(named))
	export := func(direction byte) ([]byte, error) {
		return state.ExportKeyingMaterial("EXPORTER-network-time-security", append(context, direction), alg.KeyLen())
	}
	c2s, err := export(0)
	if err != nil {
		return Keys{}, err
	}
	s2c, err := export(1)
	if err != nil {
		return Keys{}, err
	}
	return Keys{AEAD: alg, C2S: c2s, S2C: s2c}, nil
}

// withDefault bounds a context that is not.
func withDefault(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, defaultTimeout)
}
