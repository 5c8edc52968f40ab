package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"ntsagent/hostcheck"
)

// http01 checks who has port 80 and what he needs.
func (v validator) http01(a *ACME) {
	h := &a.HTTP01
	wanted := slices.Contains(a.Challenges, ChallengeHTTP01)
	known := v.oneOf("acme.http01.mode", h.Mode, HTTP01Listen, HTTP01Proxy, HTTP01Webroot)
	switch {
	case !known || !v.d.trusts("acme.http01.mode"):
		return
	case h.Mode == HTTP01Webroot && wanted:
		v.folder("acme.http01.webroot", h.Webroot)
	case h.Webroot != "":
		v.fail("acme.http01.webroot", "nothing is written there with mode: "+h.Mode, "set mode: webroot or remove the key")
	}
	if wanted && len(h.Listen) == 0 && h.Mode != HTTP01Webroot {
		v.fail("acme.http01.listen", "the list is empty", "http-01 needs an address, or remove it from acme.challenges")
	}
	if h.Mode == HTTP01Proxy {
		v.loopback("acme.http01.listen", h.Listen, "web server", "127.0.0.1:8402")
	}
	for i, port := range h.HostPorts {
		if port == 0 {
			v.fail(fmt.Sprintf("acme.http01.host_ports[%d]", i), "0 is not a port", "")
		}
	}
	v.redirect(h, wanted)
}

// tlsALPN01 checks who has port 443.
func (v validator) tlsALPN01(a *ACME) {
	t := &a.TLSALPN01
	if !v.oneOf("acme.tls_alpn01.mode", t.Mode, TLSALPN01Listen, TLSALPN01Proxy) || !v.d.trusts("acme.tls_alpn01.mode") {
		return
	}
	if slices.Contains(a.Challenges, ChallengeTLSALPN01) && len(t.Listen) == 0 {
		v.fail("acme.tls_alpn01.listen", "the list is empty", "tls-alpn-01 needs an address, or remove it from acme.challenges")
	}
	if t.Mode == TLSALPN01Proxy {
		v.loopback("acme.tls_alpn01.listen", t.Listen, "router", "127.0.0.1:8403")
	}
}

// loopback refuses an address that others come to without whoever is to stand before it.
func (v validator) loopback(key string, listen []netip.AddrPort, who, example string) {
	for i, at := range listen {
		if at.Addr().Unmap().IsLoopback() {
			continue
		}
		if _, given := v.d.lines[key]; given {
			key = fmt.Sprintf("%s[%d]", key, i)
		}
		v.fail(key, fmt.Sprintf("%s is open to others, and with mode: proxy a %s comes in between", at, who),
			fmt.Sprintf("write where that %s finds the agent, such as listen: [%q]", who, example))
		return
	}
}

// redirect checks where browsers are led, which nobody but us may choose.
func (v validator) redirect(h *HTTP01, wanted bool) {
	r := h.Redirect
	if len(r.Hosts) == 0 && r.To == "" {
		return
	}
	switch {
	case h.Mode == HTTP01Webroot:
		v.fail("acme.http01.redirect", "the agent answers nobody with mode: webroot", "have the web server redirect, and remove the key")
		return
	case !wanted:
		v.fail("acme.http01.redirect", "port 80 is not served without http-01 in acme.challenges", "add it there or remove the key")
		return
	case len(r.Hosts) == 0:
		v.fail("acme.http01.redirect.hosts", "the list is empty", "name the hosts whose visitors are led to redirect.to")
	}
	u, err := url.Parse(r.To)
	foreign := func(c rune) bool { return c <= ' ' || c > '~' || strings.ContainsRune(`"<>\`, c) }
	switch {
	case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.User != nil || strings.ContainsFunc(r.To, foreign):
		v.fail("acme.http01.redirect.to", fmt.Sprintf("%q is not a URL to lead browsers to", printable(r.To)), "write https://, a host and a path, in ASCII")
		return
	}
	if to, err := hostcheck.ParseName(u.Hostname()); err == nil && u.Scheme == "http" && slices.Contains(r.Hosts, to) {
		v.fail("acme.http01.redirect.to", "leads back to one of redirect.hosts, for ever", "name another host, or https")
	}
}
