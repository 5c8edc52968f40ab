package daemon

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Access is whom a chronyd serves, as its allow and deny directives say. The zero
// value serves nobody, as chronyd does without any.
type Access struct {
	rules []accessRule
	// Unclear is the first directive that cannot be judged here, such as one with a
	// host name; "" = there is none.
	Unclear string
}

// accessRule is an allow or a deny of one family.
type accessRule struct {
	allow  bool
	all    bool // what was said before of parts of it is void
	prefix netip.Prefix
}

// depth is where chronyd keeps the rule. Its tree has a level for each four bits, and
// a rule between two levels becomes several on the lower one, where they take the
// place of what is there, whichever is narrower.
func (r accessRule) depth() int { return (r.prefix.Bits() + 3) / 4 }

// Allows tells whether addr is served: by the deepest rule that holds it, of
// several by the last.
func (a Access) Allows(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	allowed, depth := false, -1
	for _, r := range a.rules {
		if r.prefix.Contains(addr) && (r.all || r.depth() >= depth) {
			allowed, depth = r.allow, r.depth()
		}
	}
	return allowed
}

// Add takes in an allow or a deny with its arguments, by lower-case name.
func (a *Access) Add(name string, args ...string) { a.add(directive{name: name, args: args}) }

// add takes in a directive `allow [all] [ADDRESS[/BITS]]`, or deny.
func (a *Access) add(d directive) {
	rules, ok := accessRules(d)
	if !ok && a.Unclear == "" {
		a.Unclear = d.String()
	}
	a.rules = append(a.rules, rules...)
}

func accessRules(d directive) (rules []accessRule, ok bool) {
	r := accessRule{allow: d.name == "allow"}
	args := d.args
	if len(args) > 0 && args[0] == "all" {
		r.all, args = true, args[1:]
	}
	switch len(args) {
	case 0:
		for _, every := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
			r.prefix = netip.PrefixFrom(every, 0)
			rules = append(rules, r)
		}
		return rules, true
	case 1:
		r.prefix, ok = accessPrefix(args[0])
		if !ok {
			return nil, false
		}
		return []accessRule{r}, true
	}
	return nil, false
}

// accessPrefix reads ADDRESS[/BITS]. As for chronyd the start of an IPv4 address,
// such as 192.0.2, is that network.
func accessPrefix(s string) (netip.Prefix, bool) {
	net, after, slash := strings.Cut(s, "/")
	bits := -1
	if slash {
		n, err := strconv.ParseUint(after, 10, 8)
		if err != nil {
			return netip.Prefix{}, false
		}
		bits = int(n)
	}
	addr, err := netip.ParseAddr(net)
	if err != nil {
		var parts int
		if addr, parts = partialIPv4(net); parts == 0 {
			return netip.Prefix{}, false
		}
		if !slash {
			bits = 8 * parts
		}
	} else if !slash {
		bits = addr.BitLen()
	}
	if addr.Zone() != "" || addr.Is4In6() || bits > addr.BitLen() {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(addr, bits).Masked(), true
}

// partialIPv4 reads one to three numbers of an IPv4 address; parts is 0 for what
// is none.
func partialIPv4(s string) (addr netip.Addr, parts int) {
	var octets [4]byte
	numbers := strings.Split(s, ".")
	if len(numbers) > 3 {
		return addr, 0
	}
	for i, text := range numbers {
		n, err := strconv.ParseUint(text, 10, 8)
		if err != nil {
			return addr, 0
		}
		octets[i] = byte(n)
	}
	return netip.AddrFrom4(octets), len(numbers)
}

// Directives are lines that say the same.
func (a Access) Directives() []string {
	var lines []string
	for _, r := range a.rules {
		words := []string{"deny"}
		if r.allow {
			words[0] = "allow"
		}
		if r.all {
			words = append(words, "all")
		}
		lines = append(lines, strings.Join(append(words, r.prefix.String()), " "))
	}
	return slices.Clip(lines)
}
