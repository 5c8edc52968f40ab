// Package hostcheck decides whether a request or a TLS handshake is meant for one of this server's own names.
//
// A pool gives its members host names below the pool's own domain, so whatever a member's machine answers under such a
// name is, to a browser, part of the pool's site. A request for any other name, or of any other form, must therefore
// find nothing: no page, no redirect, no cookie, not even an echo of what it asked for. This package says yes to
// exactly the configured names and no to all else. It does no I/O, reads no clock and holds no state that changes.
package hostcheck

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Name is a server's own host name in canonical form: lower-case ASCII labels of letters, digits and hyphens
// (internationalised labels as A-labels), no trailing dot, no port, never an IP address. Names are comparable; the zero
// Name is no name and equals no request.
type Name struct{ s string }

// Limits of RFC 1035 §2.3.4 in octets; 253 is what 255 octets on the wire leave for the text form.
const (
	maxName  = 253
	maxLabel = 63
)

// ParseName reads a host name as a person or a file gives it: upper case is folded and one trailing dot is dropped.
// It refuses anything outside ASCII (whoever takes U-labels from people converts them first), IP addresses, underscores,
// wildcards, ports, empty labels, labels over 63 and names over 253 octets (RFC 1123 §2.1, RFC 1035 §2.3.4).
func ParseName(s string) (Name, error) {
	text, ok := fold(s)
	if !ok {
		return Name{}, fmt.Errorf("host name %s: only letters, digits, hyphens and dots are allowed", quote(s))
	}
	if err := checkLabels(text); err != nil {
		return Name{}, fmt.Errorf("host name %s: %w", quote(s), err)
	}
	return Name{text}, nil
}

// String gives the canonical text, "" for the zero Name.
func (n Name) String() string { return n.s }

// IsZero says whether n is no name at all.
func (n Name) IsZero() bool { return n.s == "" }

// Set is an immutable set of own names with the ports a Host header may mention. The zero Set accepts nothing.
type Set struct {
	names []Name
	known map[string]Name     // by canonical text
	ports map[string]struct{} // decimal text without leading zeros, so that no number needs parsing
}

// NewSet makes a Set of names, in the order given, without the zero Name and without repetitions. A Host header may
// name port 80, the only port an ACME server asks for HTTP-01 (RFC 8555 §8.3), and the ports given here.
func NewSet(names []Name, ports ...uint16) Set {
	s := Set{known: make(map[string]Name, len(names)), ports: map[string]struct{}{"80": {}}}
	for _, n := range names {
		if n.IsZero() || s.Contains(n) {
			continue
		}
		s.names = append(s.names, n)
		s.known[n.s] = n
	}
	for _, p := range ports {
		if p != 0 {
			s.ports[strconv.Itoa(int(p))] = struct{}{}
		}
	}
	return s
}

// Names gives the names in the order they were given to NewSet.
func (s Set) Names() []Name { return slices.Clone(s.names) }

// Contains says whether n is one of the names.
func (s Set) Contains(n Name) bool {
	_, ok := s.known[n.s]
	return ok
}

// Check tells for which of the own names a request as net/http hands it to a handler is meant. A status of 0 lets it
// pass; with any other the caller answers that status, with an empty body, and closes. It must run before any routing.
//
//   - 400 Bad Request: the form is wrong. That is any request-target but the origin-form (RFC 9112 §3.2.1; net/http
//     replaces Host by what an absolute-form names, so the Host sent is lost), CONNECT, OPTIONS *, an HTTP/2 preface,
//     an empty Host, and a Host that is written neither as name[:digits] with a name of letters, digits, hyphens and
//     dots nor as an IP literal in brackets: `h:`, `h:abc`, `h%2e`, `a_b`.
//   - 421 Misdirected Request (RFC 9110 §15.5.20): the form is right and it is not for us. That is any other name, any
//     IP address, and a port that is not listed.
//
// HTTP/1.0 passes when it has a right Host. One trailing dot and letter case make no difference to a name.
func (s Set) Check(r *http.Request) (Name, int) {
	if r.ProtoMajor != 1 || r.Method == http.MethodConnect || !strings.HasPrefix(r.RequestURI, "/") {
		return Name{}, http.StatusBadRequest
	}
	host, port, hasPort := strings.Cut(r.Host, ":")
	if strings.HasPrefix(r.Host, "[") {
		return Name{}, checkIPLiteral(r.Host)
	}
	text, ok := fold(host)
	if !ok || hasPort && !isDigits(port) {
		return Name{}, http.StatusBadRequest
	}
	name, ours := s.known[text]
	if _, listed := s.ports[port]; !ours || hasPort && !listed {
		return Name{}, http.StatusMisdirectedRequest
	}
	return name, 0
}

// MatchSNI tells which own name a server_name of TLS (RFC 6066 §3) means. The empty string, which stands for a
// ClientHello without that extension, never matches here: the caller decides what no SNI means. Nor does an IP address.
func (s Set) MatchSNI(sni string) (Name, bool) {
	text, ok := fold(sni)
	if !ok {
		return Name{}, false
	}
	name, ours := s.known[text]
	return name, ours
}

// fold brings a name to canonical letters: ASCII lower case, without one trailing dot. It refuses the empty string and
// every byte outside [A-Za-z0-9.-]; no other byte may ever reach a comparison, because other case foldings (U+212A
// KELVIN SIGN is a small k to Unicode) would make unlike names equal.
func fold(s string) (string, bool) {
	s = strings.TrimSuffix(s, ".")
	if s == "" {
		return "", false
	}
	upper := false
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '.', c == '-':
		case 'A' <= c && c <= 'Z':
			upper = true
		default:
			return "", false
		}
	}
	if upper {
		s = strings.ToLower(s)
	}
	return s, true
}

// checkLabels holds folded text to the rules of host names.
func checkLabels(text string) error {
	if len(text) > maxName {
		return fmt.Errorf("longer than %d octets", maxName)
	}
	labels := strings.Split(text, ".")
	for _, label := range labels {
		switch {
		case label == "":
			return errors.New("has an empty label")
		case len(label) > maxLabel:
			return fmt.Errorf("has a label longer than %d octets", maxLabel)
		case label[0] == '-' || label[len(label)-1] == '-':
			return errors.New("has a label that begins or ends with a hyphen")
		}
	}
	if isNumber(labels[len(labels)-1]) {
		return errors.New("is an IP address or ends in a number; a host name is needed")
	}
	return nil
}

// isNumber says whether a last label would make an address parser read the whole as an IPv4 address: all digits, or
// hexadecimal as in 0x7f000001. No top-level domain is a number (RFC 3696 §2).
func isNumber(label string) bool {
	if digits, hex := strings.CutPrefix(label, "0x"); hex {
		return strings.Trim(digits, "0123456789abcdef") == ""
	}
	return isDigits(label)
}

// isDigits says whether s is one or more ASCII digits.
func isDigits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// checkIPLiteral gives the status for a Host that opens a bracket: never 0. A well-formed IP literal with or without
// port (RFC 3986 §3.2.2, with the zone of RFC 6874) asks for somebody else; anything else has no form.
func checkIPLiteral(host string) int {
	addr, rest, closed := strings.Cut(host[1:], "]")
	port, hasPort := strings.CutPrefix(rest, ":")
	if !closed || rest != "" && (!hasPort || !isDigits(port)) {
		return http.StatusBadRequest
	}
	if ip, err := netip.ParseAddr(strings.Replace(addr, "%25", "%", 1)); err != nil || !ip.Is6() {
		return http.StatusBadRequest
	}
	return http.StatusMisdirectedRequest
}

// quote makes text from outside fit for one line of an error message.
func quote(s string) string {
	if len(s) > maxName+1 {
		return strconv.QuoteToASCII(s[:64]) + "..."
	}
	return strconv.QuoteToASCII(s)
}
