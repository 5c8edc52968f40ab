// Package front asks whoever has ports 80 and 443 of this host, where the agent has not, what a stranger would be
// answered: the CA, which must find a proof by the right Host and by no other, or by ALPN acme-tls/1, and a browser that
// was led to a pool member's name, which must find no application there.
//
// A Prober looks and a Judge decides; the second does no I/O.
package front

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"ntsagent/hostcheck"
)

// Stranger is a Host that no server of this machine is called by (RFC 6761 section 6.4).
const Stranger = "stranger.ntsagent.invalid"

const (
	wellKnown  = "/.well-known/acme-challenge/"
	askTimeout = 5 * time.Second // for one question
	maxBody    = 4 << 10         // of an answer is looked at
	maxHops    = 5               // of a redirect to the same host; CAs follow ten

	// openTimeout is for one address of this host, which answers at once unless packets are dropped or the machine stands still:
	// a second of that is not nobody.
	openTimeout = 4 * time.Second

	http11 = "http/1.1" // the ALPN of a browser, of those that are spoken here
)

// Prober knows where to ask.
type Prober struct {
	Addrs       []netip.Addr     // of this host; the first of each IP family that anybody listens at is asked
	Own         []netip.AddrPort // where the agent itself listens, which tells nothing of who stands before it
	HTTP, HTTPS uint16           // 80 and 443
}

// Answer is what came of one question.
type Answer struct {
	Err      error  // nobody listens, or the connection closed without an answer
	Status   int    // 0 with Err
	Location string // of a redirect
	Server   string // who answers, in his own words; "" = he does not say
	Body     []byte // its beginning
	Cookies  bool
}

// Seen is what a stranger sees of name by one IP family.
type Seen struct {
	Name     hostcheck.Name
	Expected string // what stands at the probe's token
	Listens  bool   // somebody does, on the HTTP port
	Over6    bool   // by IPv6

	Right       Answer // the token by the right Host, redirects to the same host followed
	Wrong       Answer // the token by Stranger
	Root, Roots Answer // / by the right Host, on the HTTP and on the HTTPS port
}

// Ask looks at name, for which expected is shown at token, by each IP family that is served; one Seen without Listens says
// that none is. It takes two minutes at most, and asks this host alone.
func (p Prober) Ask(ctx context.Context, name hostcheck.Name, token, expected string) []Seen {
	var all []Seen
	host, path := name.String(), wellKnown+token
	for _, is6 := range []bool{false, true} {
		at, ok := p.listening(ctx, is6, p.HTTP)
		if !ok {
			continue
		}
		all = append(all, Seen{
			Name: name, Expected: expected, Listens: true, Over6: is6,
			Right: p.follow(ctx, at, host, path), Wrong: p.ask(ctx, at, "http", Stranger, path),
			Root: p.ask(ctx, at, "http", host, "/"), Roots: p.ask(ctx, at, "https", host, "/", http11),
		})
	}
	if all == nil {
		all = []Seen{{Name: name, Expected: expected}}
	}
	return all
}

// listening is the first address of a family where the port is open. A server need not listen on loopback.
func (p Prober) listening(ctx context.Context, is6 bool, port uint16) (netip.Addr, bool) {
	for _, a := range p.Addrs {
		at := netip.AddrPortFrom(a, port)
		if a.Unmap().Is6() != is6 || p.own(at) {
			continue
		}
		dial, cancel := context.WithTimeout(ctx, openTimeout)
		c, err := new(net.Dialer).DialContext(dial, "tcp", at.String())
		cancel()
		if err == nil {
			c.Close()
			return a, true
		}
	}
	return netip.Addr{}, false
}

// own tells whether the agent itself is at an address: where it has a port at all of a family, nobody else has it at one of them.
func (p Prober) own(at netip.AddrPort) bool {
	return slices.ContainsFunc(p.Own, func(o netip.AddrPort) bool {
		return o == at || o.Port() == at.Port() && o.Addr().IsUnspecified() && o.Addr().Is4() == at.Addr().Unmap().Is4()
	})
}

// follow is ask, and goes where it is led as long as that is the same host: many servers lead all to https.
func (p Prober) follow(ctx context.Context, at netip.Addr, host, path string) Answer {
	a := p.ask(ctx, at, "http", host, path)
	for range maxHops {
		u, err := url.Parse(a.Location)
		if a.Location == "" || err != nil || u.Host != host || u.Scheme != "http" && u.Scheme != "https" {
			break
		}
		a = p.ask(ctx, at, u.Scheme, host, u.RequestURI(), http11)
	}
	return a
}

// ask sends one request on a connection of its own; by https with these protocols in ALPN.
func (p Prober) ask(ctx context.Context, at netip.Addr, scheme, host, path string, protocols ...string) (a Answer) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	port := p.HTTP
	if scheme == "https" {
		port = p.HTTPS
	}
	c, err := dial(ctx, netip.AddrPortFrom(at, port))
	if err != nil {
		return Answer{Err: err}
	}
	defer c.Close()
	if scheme == "https" {
		t, err := shake(ctx, c, host, protocols)
		if err != nil {
			return Answer{Err: err}
		}
		c = t
	}
	a = exchange(c, host, path)
	if u, err := url.Parse(a.Location); err == nil && a.Location != "" && u.Host == "" {
		a.Location = (&url.URL{Scheme: scheme, Host: host}).ResolveReference(u).String()
	}
	return a
}

// dial connects. Nothing on the connection takes longer than ctx, which has a deadline.
func dial(ctx context.Context, at netip.AddrPort) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", at.String())
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	_ = c.SetDeadline(deadline)                                           // a connection just made takes one
	context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) }) // or whoever has stopped us waits
	return c, nil
}

// shake makes TLS of c. What is asked is whether anything answers; whose certificate that is makes no difference here (nor
// to a CA).
func shake(ctx context.Context, c net.Conn, host string, protocols []string) (*tls.Conn, error) {
	t := tls.Client(c, &tls.Config{ServerName: host, InsecureSkipVerify: true, NextProtos: protocols})
	return t, t.HandshakeContext(ctx)
}

// exchange writes the request as it is meant: net/http would not send every Host and path unchanged.
func exchange(c io.ReadWriter, host, path string) Answer {
	if strings.ContainsFunc(path, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return Answer{Err: errors.New("led to a path that cannot be asked for")}
	}
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: ntsagent\r\nAccept: */*\r\nConnection: close\r\n\r\n", path, host); err != nil {
		return Answer{Err: err}
	}
	// A header without end is cut off here.
	resp, err := http.ReadResponse(bufio.NewReader(io.LimitReader(c, 64<<10)), nil)
	if err != nil {
		return Answer{Err: err}
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxBody)) // its beginning tells, whatever follows
	return Answer{Status: resp.StatusCode, Location: resp.Header.Get("Location"), Server: resp.Header.Get("Server"), Body: body, Cookies: len(resp.Header.Values("Set-Cookie")) > 0}
}
