package dnscheck

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Judge says what o comes to for somebody who wants w.
//
// Authoritative servers have the word wherever they answer: a resolver may still hold, or not yet have, what changed.
// A name is there as long as one of them has an address for it, as a secondary server may lag. Only where the resolvers do not
// agree on who is authoritative nobody knows who lies, and what is found against the name is not certain.
func Judge(o Observation, w Want) Verdict {
	v := judge(o, o.witnesses(), w)
	if v.Finding != Gone && v.Finding != Mismatch {
		return v
	}
	for _, s := range o.Sources {
		if s.Dissents && !slices.Contains([]Finding{Gone, Mismatch}, judge(o, []Source{s}, w).Finding) {
			return Verdict{Finding: Unknown, Text: s.Server + " finds " + o.Name.String() + " in its place, and knows of other name servers than those that were asked: " + v.Text,
				Hint: "one of the resolvers of this host is misled or misleads: look at what each says, and remove that one"}
		}
	}
	return v
}

// judge is Judge by the word of these.
func judge(o Observation, witnesses []Source, w Want) Verdict {
	if len(witnesses) == 0 {
		return Verdict{Finding: Unknown, Text: "the DNS gives no answer for " + o.Name.String() + o.failures(),
			Hint: "look at the DNS of the name and at the resolvers of this host; nothing is to be done if it passes"}
	}
	v4, v6 := union(witnesses, func(s Source) Answer { return s.A }), union(witnesses, func(s Source) Answer { return s.AAAA })
	if len(v4)+len(v6) == 0 {
		servers := o.missing()
		return Verdict{Finding: Gone, Sources: len(servers),
			Text: fmt.Sprintf("the DNS has no address for %s any more: %s", o.Name, strings.Join(servers, ", ")),
			Hint: "if the name was not taken out on purpose, ask whoever runs the zone to publish its A and AAAA records again; orders resume by themselves"}
	}
	var notes []string
	for _, family := range [][]netip.Addr{v4, v6} {
		wrong, note := judgeAddresses(family, w)
		if wrong != "" {
			return Verdict{Finding: Mismatch, Text: o.Name.String() + " leads elsewhere: " + wrong,
				Hint: "have the DNS records mended; or, if the address leads here by way of another machine, list it in public_addresses"}
		}
		if note != "" {
			notes = append(notes, note)
		}
	}
	if o.CAA.Failed != "" {
		return Verdict{Finding: Unknown, Text: "the CAA records of " + o.Name.String() + " cannot be looked up: " + o.CAA.Failed,
			Hint: "a CA does not issue without them: look at the DNS of the name and of its parents"}
	}
	if why := judgeCAA(o.CAA, w); why != "" {
		hint := "have whoever runs the zone publish a CAA record of " + o.Name.String() + " that lets this CA issue"
		if len(w.Identities) > 0 {
			hint = "have whoever runs the zone publish: " + Record(o.Name.String(), w.Identities[0], w.Account, w.Methods)
		}
		return Verdict{Finding: Denied, Text: why, Hint: hint}
	}
	notes = append(notes, o.lacks(v4, v6, w)...)
	return Verdict{Finding: OK, Text: strings.Join(append(notes, o.disagreement(v4, v6)...), "; ")}
}

// witnesses are the sources to go by: those that answered, authoritative ones if there are any.
func (o Observation) witnesses() []Source {
	var authoritative, resolvers []Source
	for _, s := range o.Sources {
		switch {
		case !s.present() && !s.absent():
		case s.Authoritative:
			authoritative = append(authoritative, s)
		default:
			resolvers = append(resolvers, s)
		}
	}
	if len(authoritative) > 0 {
		return authoritative
	}
	return resolvers
}

// contradicts tells whether s, a resolver, sees addresses that no authoritative server that answered does.
func (o Observation) contradicts(s Source) bool {
	witnesses := o.witnesses()
	if len(witnesses) == 0 || !witnesses[0].Authoritative {
		return false
	}
	both := func(s Source) Answer { return Answer{Addrs: slices.Concat(s.A.Addrs, s.AAAA.Addrs)} }
	seen := union(witnesses, both)
	return slices.ContainsFunc(union([]Source{s}, both), func(a netip.Addr) bool { return !slices.Contains(seen, a) })
}

func (s Source) present() bool { return s.A.Result == Found || s.AAAA.Result == Found }
func (s Source) absent() bool  { return s.A.absent() && s.AAAA.absent() }

// missing lists the servers that miss the name in both families, each once, whatever the number of its addresses.
func (o Observation) missing() []string {
	var servers []string
	for _, s := range o.Sources {
		if s.absent() && !slices.Contains(servers, s.Server) {
			servers = append(servers, s.Server)
		}
	}
	return servers
}

func (o Observation) failures() string {
	var words []string
	for _, s := range o.Sources {
		for _, a := range []Answer{s.A, s.AAAA} {
			if text := s.Server + " " + a.Why; a.Result == Failed && a.Why != "" && !slices.Contains(words, text) && len(words) < 4 {
				words = append(words, text)
			}
		}
	}
	if len(words) == 0 {
		return ""
	}
	return ": " + strings.Join(words, ", ")
}

func union(sources []Source, of func(Source) Answer) (addrs []netip.Addr) {
	for _, s := range sources {
		for _, a := range of(s).Addrs {
			if a = a.Unmap(); !slices.Contains(addrs, a) {
				addrs = append(addrs, a)
			}
		}
	}
	return addrs
}

// judgeAddresses says what is wrong with the addresses of one family: wrong is certain, note is worth a look.
//
// Without a list from the operator a wrong alarm costs the certificate, and a missed one nothing, as the CA connects to the
// address itself. So an address that is not on an interface is wrong only when this host has public addresses of the family
// and no private one behind which a NAT, a load balancer or a floating address may stand.
func judgeAddresses(addrs []netip.Addr, w Want) (wrong, note string) {
	if len(addrs) == 0 {
		return "", ""
	}
	ours, list := w.Host, "an address of this host"
	if len(w.Public) > 0 {
		ours, list = w.Public, "in public_addresses"
	}
	var others []netip.Addr
	for _, a := range addrs {
		if !slices.Contains(ours, a) {
			others = append(others, a)
		}
	}
	switch {
	case len(others) == 0:
		return "", ""
	case len(others) < len(addrs):
		return "", text(others) + " is not " + list
	case len(w.Public) > 0 || telling(addrs, w.Host):
		return text(others) + " is not " + list, ""
	}
	return "", text(others) + " is not " + list + ", and may lead here all the same"
}

// telling says whether the host's addresses tell that it does not have addrs, which are of one family.
func telling(addrs, host []netip.Addr) bool {
	public, private := false, false
	for _, a := range host {
		switch {
		case a.Is4() != addrs[0].Is4():
		case a.IsPrivate(), sharedSpace.Contains(a):
			private = true
		default:
			public = public || isPublic(a)
		}
	}
	return public && !private
}

// isPublic says whether strangers may be able to reach a.
func isPublic(a netip.Addr) bool {
	return a.IsGlobalUnicast() && !a.IsPrivate() && !sharedSpace.Contains(a)
}

// sharedSpace is what carriers put behind their NAT (RFC 6598).
var sharedSpace = netip.MustParsePrefix("100.64.0.0/10")

func text(addrs []netip.Addr) string {
	words := make([]string, 0, 4)
	for _, a := range addrs[:min(len(addrs), 4)] {
		kind := "A "
		if a.Is6() {
			kind = "AAAA "
		}
		words = append(words, kind+a.String())
	}
	return strings.Join(words, ", ")
}
