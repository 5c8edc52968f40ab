package front

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"ntsagent/hostcheck"
)

// acmeTLS is the ALPN of a CA that comes for a proof (RFC 8737 section 6.2).
const acmeTLS = "acme-tls/1"

// Met is what a stranger meets at the HTTPS port by one IP family.
type Met struct {
	Name    hostcheck.Name
	Proof   []byte // the certificate that the agent shows to acme-tls/1, DER
	Listens bool   // somebody does
	Over6   bool   // by IPv6

	Shown Handshake
	Root  Answer   // / by http, whoever has that port
	Roots []Answer // / by https, with the ALPN of a browser and with none
}

// Handshake is what came of one with ALPN acme-tls/1.
type Handshake struct {
	Err      error             // there was none
	Protocol string            // that was agreed on
	Leaf     *x509.Certificate // that was shown; nil with Err
}

// AskTLS looks at the HTTPS port as Ask does at the HTTP port, while the agent shows proof, DER, to who asks for name by
// acme-tls/1.
func (p Prober) AskTLS(ctx context.Context, name hostcheck.Name, proof []byte) []Met {
	var all []Met
	host := name.String()
	for _, is6 := range []bool{false, true} {
		at, ok := p.listening(ctx, is6, p.HTTPS)
		if !ok {
			continue
		}
		all = append(all, Met{
			Name: name, Proof: proof, Listens: true, Over6: is6, Shown: p.shown(ctx, at, host),
			Root:  p.ask(ctx, at, "http", host, "/"),
			Roots: []Answer{p.ask(ctx, at, "https", host, "/", http11), p.ask(ctx, at, "https", host, "/")},
		})
	}
	if all == nil {
		all = []Met{{Name: name, Proof: proof}}
	}
	return all
}

// shown makes the handshake of a CA.
func (p Prober) shown(ctx context.Context, at netip.Addr, host string) Handshake {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	c, err := dial(ctx, netip.AddrPortFrom(at, p.HTTPS))
	if err != nil {
		return Handshake{Err: err}
	}
	defer c.Close()
	t, err := shake(ctx, c, host, []string{acmeTLS})
	if err != nil {
		return Handshake{Err: err}
	}
	state := t.ConnectionState()
	return Handshake{Protocol: state.NegotiatedProtocol, Leaf: state.PeerCertificates[0]}
}

// FaultsTLS is Faults for what was met at the HTTPS port.
func (j Judge) FaultsTLS(met []Met) []Fault {
	var views []view
	for _, m := range met {
		views = append(views, view{m.Over6, j.faultsTLS(m)})
	}
	return together(views)
}

func (j Judge) faultsTLS(m Met) []Fault {
	name := m.Name.String()
	if !m.Listens {
		return []Fault{{What: "nobody listens on port 443 of this host", Fix: "start the router that acme.tls_alpn01.mode counts on, or set mode: listen", Fatal: true}}
	}
	var all []Fault
	if what := j.untold(m); what != "" {
		all = append(all, j.route(name, Fault{What: what, Fatal: true,
			Fix: fmt.Sprintf("have TLS for %s passed on to %s as it came, not ended, and without the PROXY protocol", name, j.TLS)}))
	}
	if what := j.shows(name, 80, m.Root); what != "" {
		all = append(all, mute(name, m.Root, Fault{What: what, Fix: noApplication}))
	}
	for _, a := range m.Roots {
		if what := j.shows(name, 443, a); what != "" {
			return append(all, j.route(name, Fault{What: what, Fix: noApplication}))
		}
	}
	return all
}

// untold says why the CA would not be shown the proof, or "".
func (j Judge) untold(m Met) string {
	const who = "who has port 443 "
	var noTLS tls.RecordHeaderError
	var network net.Error
	h := m.Shown
	switch {
	case h.Err == nil && h.Protocol == acmeTLS && bytes.Equal(h.Leaf.Raw, m.Proof):
		return ""
	case h.Err == nil && h.Protocol == acmeTLS:
		return "another ACME client answers acme-tls/1 for " + m.Name.String() + " on port 443"
	case h.Err == nil:
		return who + "ends TLS for " + m.Name.String() + " itself, with a certificate" + of(h.Leaf)
	case errors.As(h.Err, &noTLS):
		return who + "speaks no TLS"
	case strings.HasSuffix(h.Err.Error(), "tls: no application protocol"):
		return who + "ends TLS for " + m.Name.String() + " itself, and knows no acme-tls/1"
	case strings.HasPrefix(h.Err.Error(), "remote error: tls: "): // the words are of crypto/tls
		return fmt.Sprintf("%sends TLS for %s itself, and refuses acme-tls/1: %s", who, m.Name, strings.TrimPrefix(h.Err.Error(), "remote error: tls: "))
	case errors.As(h.Err, &network) && network.Timeout():
		return who + "does not answer acme-tls/1 for " + m.Name.String()
	}
	return fmt.Sprintf("%scloses the connection of who comes with acme-tls/1 for %s: it does not find the agent at %s, or sends it something before TLS", who, m.Name, j.TLS)
}

// of names whom a certificate is for, where that is a host.
func of(leaf *x509.Certificate) string {
	if len(leaf.DNSNames) > 0 {
		if name, err := hostcheck.ParseName(leaf.DNSNames[0]); err == nil {
			return " for " + name.String()
		}
	}
	return " of its own"
}
