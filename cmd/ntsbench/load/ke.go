// Package load is the verifying load generator: it asks NTS-KE and NTP servers
// as fast as they answer, or at a rate, and takes no answer it has not checked
// whole. What it cannot verify is a failure with its reason, never a number.
//
// Point it only at servers of your own.
package load

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"ntsagent/ntske/aead"
	"ntsagent/ntske/client"
)

// SessionTimeout is how long one session may take before it has failed, unless its target says it.
const SessionTimeout = 5 * time.Second

// cookiesWanted is how many cookies a key exchange brings (RFC 8915 §4.1.6).
const cookiesWanted = 8

// protocol is the one of NTS-KE (RFC 8915 §4).
const protocol = "ntske/1"

// KETarget is a key-exchange server and what is expected of it.
type KETarget struct {
	Addr   netip.AddrPort
	Name   string         // its certificate must be for
	Roots  *x509.CertPool // who may have signed that; nil: the system's
	Groups []tls.CurveID  // key exchange groups offered; nil: those crypto/tls prefers

	Timeout time.Duration // of one session; 0: SessionTimeout
}

func (t KETarget) timeout() time.Duration { return cmp.Or(t.Timeout, SessionTimeout) }

// KE runs whole NTS-KE sessions for d, each of the clients one after another.
// Every session verifies the certificate, the answer as a strict client does,
// AES-SIV-CMAC-256, eight cookies of one length and the close_notify at the end.
func KE(ctx context.Context, t KETarget, clients int, d time.Duration) Result {
	return loop(ctx, clients, d, t.timeout(), t.session)
}

// session is one verified NTS-KE session.
func (t KETarget) session(ctx context.Context) error {
	res, err := client.KeyExchange(ctx, client.Config{Addr: t.Addr, Name: t.Name, Roots: t.Roots, Groups: t.Groups, Close: true})
	if err != nil {
		return err
	}
	return verify(res, aead.SIVCMAC256)
}

// exchange does one key exchange that offers alg alone, and verifies it.
func (t KETarget) exchange(ctx context.Context, alg aead.ID) (client.Result, error) {
	res, err := client.KeyExchange(ctx, client.Config{
		Addr: t.Addr, Name: t.Name, Roots: t.Roots, Groups: t.Groups, AEADs: []aead.ID{alg},
	})
	if err != nil {
		return res, err
	}
	return res, verify(res, alg)
}

// verify asks more than RFC 8915 does: what every session of a load is alike in.
func verify(res client.Result, alg aead.ID) error {
	if res.Keys.AEAD != alg {
		return fmt.Errorf("the server chose %v, want %v", res.Keys.AEAD, alg)
	}
	if len(res.Cookies) != cookiesWanted {
		return fmt.Errorf("the server gave %d cookies, want %d", len(res.Cookies), cookiesWanted)
	}
	for i, c := range res.Cookies {
		if len(c) != len(res.Cookies[0]) {
			return fmt.Errorf("the server gave cookies of %d and of %d octets", len(res.Cookies[0]), len(c))
		}
		if slices.ContainsFunc(res.Cookies[:i], func(o []byte) bool { return bytes.Equal(o, c) }) {
			return errors.New("the server gave one cookie twice")
		}
	}
	return nil
}

// TLSFloor runs TLS sessions for d as KE does, against a server that sends
// answer right after the handshake, asked nothing, and says close_notify.
func TLSFloor(ctx context.Context, t KETarget, answer []byte, clients int, d time.Duration) Result {
	return loop(ctx, clients, d, t.timeout(), func(ctx context.Context) error { return t.floor(ctx, answer) })
}

// floor is one verified session of a TLS floor.
func (t KETarget) floor(ctx context.Context, answer []byte) error {
	c, err := t.handshake(ctx)
	if err != nil {
		return err
	}
	defer c.NetConn().Close()
	end, _ := ctx.Deadline()
	c.SetDeadline(end)
	got := make([]byte, len(answer)+1)
	n, err := io.ReadFull(c, got)
	switch {
	case n > len(answer):
		return fmt.Errorf("the floor sent more than its answer of %d octets", len(answer))
	case !errors.Is(err, io.ErrUnexpectedEOF) && err != io.EOF:
		return fmt.Errorf("read the floor's answer: %w", err)
	case c.NetConn().(*tailed).ended:
		return errors.New("the floor did not say close_notify")
	case string(got[:n]) != string(answer):
		return fmt.Errorf("the floor sent %d octets that are not its answer of %d", n, len(answer))
	}
	c.Close() // the floor may be gone: its part is done
	return nil
}

// handshake connects and completes a verified TLS 1.3 handshake.
func (t KETarget) handshake(ctx context.Context) (*tls.Conn, error) {
	nc, err := new(net.Dialer).DialContext(ctx, "tcp", t.Addr.String())
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	c := tls.Client(&tailed{Conn: nc}, t.tlsConfig())
	if err := c.HandshakeContext(ctx); err != nil {
		nc.Close()
		return nil, fmt.Errorf("TLS handshake: %w", err)
	}
	if got := c.ConnectionState().NegotiatedProtocol; got != protocol {
		nc.Close()
		return nil, fmt.Errorf("TLS handshake: application protocol %q, want %q", got, protocol)
	}
	return c, nil
}

func (t KETarget) tlsConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{protocol},
		RootCAs: t.Roots, ServerName: t.Name, CurvePreferences: t.Groups,
	}
}

// tailed knows whether TCP ended: crypto/tls reports that as the same io.EOF as
// a close_notify. Package client has one for itself; its KeyExchange cannot be
// used with the floor, which is sent no request.
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

// loop lets each of the clients do session after session until d is over. What
// has begun by then is finished, so that a server's CPU time belongs to what is
// counted. A session that ctx cuts off counts as nothing. After one that failed
// its client pauses, so that a server that is away is not hammered.
func loop(ctx context.Context, clients int, d, timeout time.Duration, session func(context.Context) error) Result {
	begin := time.Now()
	results := make([]Result, clients)
	var going sync.WaitGroup
	for i := range results {
		going.Go(func() { results[i] = oneAfterAnother(ctx, begin, d, timeout, session) })
	}
	going.Wait()
	var all Result
	for i := range results {
		all.Merge(&results[i])
	}
	return all
}

func oneAfterAnother(ctx context.Context, begin time.Time, d, timeout time.Duration, session func(context.Context) error) Result {
	var r Result
	for now := begin; now.Sub(begin) < d; {
		limited, cancel := context.WithTimeout(ctx, timeout)
		err := session(limited)
		cancel()
		if ctx.Err() != nil {
			break
		}
		end := time.Now()
		r.Took = end.Sub(begin)
		if err == nil {
			r.Done++
			r.Latency.Add(end.Sub(now))
			now = end
			continue
		}
		r.Fail(err)
		if end.Add(retryAfter).Sub(begin) >= d {
			break
		}
		select {
		case <-ctx.Done():
			return r
		case <-time.After(retryAfter):
		}
		now = time.Now()
	}
	return r
}
