package dnscheck

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"ntsagent/hostcheck"
)

const (
	lookTimeout = 30 * time.Second
	maxQueries  = 100 // of one look, retries apart
	maxCNAMEs   = 8   // followed for one answer
	maxLevels   = 12  // labels that are climbed, for CAA and for the zone
	maxRecords  = 64  // in one answer

	maxResolvers   = 2
	maxNameServers = 3 // of a zone, each at one address per family
)

// Config says whom to ask.
type Config struct {
	Resolvers []netip.AddrPort // nil = those of /etc/resolv.conf, read anew for each look
	Port      uint16           // of authoritative servers; 0 = 53

	patience patience // zero = patient
}

// Look asks two resolvers and the authoritative servers of name's zone, all at the same time, for its addresses and its CAA
// records. It takes half a minute at most, and always returns: what failed is in the Observation.
func (c Config) Look(ctx context.Context, name hostcheck.Name) Observation {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	resolvers := c.Resolvers
	if resolvers == nil {
		resolvers = systemResolvers()
	}
	l := &look{port: c.Port, patience: c.patience, dead: make(map[netip.AddrPort]error), zones: make(map[string]func() []server)}
	if l.patience == (patience{}) {
		l.patience = patient
	}
	if l.port == 0 {
		l.port = 53
	}
	for _, r := range resolvers[:min(len(resolvers), maxResolvers)] {
		label := r.Addr().String()
		if r.Port() != 53 {
			label = r.String()
		}
		l.resolvers = append(l.resolvers, server{addr: r, label: label})
	}
	owner := dns.Fqdn(name.String())
	apex, authorities := l.authorities(ctx, owner)
	o := Observation{Name: name, Sources: make([]Source, len(l.resolvers)+len(authorities))}
	var asking sync.WaitGroup
	for n, s := range slices.Concat(l.resolvers, authorities) {
		asking.Go(func() { o.Sources[n] = l.source(ctx, s, owner) })
	}
	asking.Go(func() { o.CAA = l.caa(ctx, owner, apex, authorities) })
	asking.Wait()
	for n, r := range l.resolvers {
		o.Sources[n].Dissents = o.contradicts(o.Sources[n]) && !l.backs(ctx, r, authorities)
	}
	return o
}

// server is one that is asked.
type server struct {
	addr          netip.AddrPort
	label         string
	authoritative bool
	apex          string // of the zone it is authoritative for
	turn          int    // among the servers of its zone
}

const notResponsible = "is not responsible for the name"

// speaksFor says whether name may be asked of s.
func (s server) speaksFor(name string) bool {
	return !s.authoritative || dns.IsSubDomain(s.apex, name)
}

// look is one Look under way.
type look struct {
	port      uint16
	patience  patience
	resolvers []server

	mu      sync.Mutex
	queries int
	dead    map[netip.AddrPort]error   // those that kept silent: they are not waited for again
	zones   map[string]func() []server // of names that aliases lead to: who is authoritative
}

var errBudget = errors.New("would take too many questions")

// ask puts one question to one server. Any error and any answer that settles nothing come back as the reason.
func (l *look) ask(ctx context.Context, s server, name string, kind uint16) (*dns.Msg, string) {
	l.mu.Lock()
	err := l.dead[s.addr]
	if l.queries++; l.queries > maxQueries {
		err = errBudget
	}
	l.mu.Unlock()
	if err != nil {
		return nil, why(err)
	}
	q := new(dns.Msg).SetQuestion(name, kind)
	q.RecursionDesired = !s.authoritative
	q.SetEdns0(udpSize, false)
	m, err := l.patience.exchange(ctx, s.addr, q)
	if err == nil && (m.Rcode == dns.RcodeFormatError || m.Rcode == dns.RcodeNotImplemented) { // older than EDNS
		q.Extra = nil
		m, err = l.patience.exchange(ctx, s.addr, q)
	}
	if err != nil {
		l.mu.Lock()
		l.dead[s.addr] = err
		l.mu.Unlock()
		return nil, why(err)
	}
	if m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError {
		return nil, "says " + dns.RcodeToString[m.Rcode]
	}
	if !responsible(m, s) {
		return nil, notResponsible
	}
	return m, ""
}

// responsible tells an answer from a referral, and from the words of a server that knows nothing of the zone.
func responsible(m *dns.Msg, s server) bool {
	if m.Authoritative || s.authoritative {
		return m.Authoritative
	}
	negative := slices.ContainsFunc(m.Ns, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeSOA }) // RFC 2308 section 2
	return m.RecursionAvailable || len(m.Answer) > 0 || negative
}

// abroad asks the authoritative servers of the zone that an alias has led to. Each server of the zone it began in asks another
// of them first, so that one does not speak for all. There is none as s where nobody knows of any.
func (l *look) abroad(ctx context.Context, s server, name string, kind uint16) (server, *dns.Msg, string) {
	l.mu.Lock()
	servers, known := l.zones[dns.CanonicalName(name)]
	if !known {
		servers = sync.OnceValue(func() []server { _, found := l.authorities(ctx, name); return found })
		l.zones[dns.CanonicalName(name)] = servers
	}
	l.mu.Unlock()
	failed := notResponsible
	for n, all := 0, servers(); n < len(all); n++ {
		next := all[(s.turn+n)%len(all)]
		m, words := l.ask(ctx, next, name, kind)
		if words == "" {
			return next, m, ""
		}
		failed = "leads to " + clean(strings.TrimSuffix(name, ".")) + ", for which " + next.label + " " + words
	}
	return s, nil, failed
}

// records asks for the records of name, following CNAMEs, within one answer and by asking on. Where one leads out of the zone
// of an authoritative server, those of the other zone are asked.
func (l *look) records(ctx context.Context, s server, name string, kind uint16) ([]dns.RR, Result, string) {
	seen := []string{dns.CanonicalName(name)}
	for {
		var m *dns.Msg
		failed := notResponsible
		if s.speaksFor(name) {
			m, failed = l.ask(ctx, s, name, kind)
		}
		if failed == notResponsible && s.authoritative && len(seen) > 1 {
			s, m, failed = l.abroad(ctx, s, name, kind)
		}
		if failed != "" {
			return nil, Failed, failed
		}
		asked, left := len(seen), false
		for !left {
			rrs, alias := recordsIn(m, name, kind)
			if len(rrs) > maxRecords {
				return nil, Failed, "gives too many records"
			}
			if len(rrs) > 0 {
				return rrs, Found, ""
			}
			if alias == "" {
				break
			}
			name = alias
			if slices.Contains(seen, dns.CanonicalName(name)) || len(seen) > maxCNAMEs {
				return nil, Failed, "leads through CNAMEs without end"
			}
			seen, left = append(seen, dns.CanonicalName(name)), !s.speaksFor(name)
		}
		switch {
		case left: // what it says of another zone is hearsay
		case m.Rcode == dns.RcodeNameError: // of the last name of the chain (RFC 6604)
			return nil, NoName, ""
		case len(seen) == asked || concluded(m, name):
			return nil, NoData, ""
		}
	}
}

// recordsIn are the records of name in m, and where an alias of it leads.
func recordsIn(m *dns.Msg, name string, kind uint16) (rrs []dns.RR, alias string) {
	for _, rr := range m.Answer {
		if !strings.EqualFold(rr.Header().Name, name) || rr.Header().Class != dns.ClassINET {
			continue
		}
		if c, ok := rr.(*dns.CNAME); ok {
			alias = c.Target
		} else if rr.Header().Rrtype == kind {
			rrs = append(rrs, rr)
		}
	}
	return rrs, alias
}

// concluded tells whether m says itself that the end of a chain of CNAMEs has no such record.
func concluded(m *dns.Msg, name string) bool {
	return slices.ContainsFunc(m.Ns, func(rr dns.RR) bool {
		return rr.Header().Rrtype == dns.TypeSOA && dns.IsSubDomain(rr.Header().Name, name)
	})
}

func (l *look) source(ctx context.Context, s server, owner string) Source {
	return Source{Server: s.label, Authoritative: s.authoritative,
		A: l.addresses(ctx, s, owner, dns.TypeA), AAAA: l.addresses(ctx, s, owner, dns.TypeAAAA)}
}

func (l *look) addresses(ctx context.Context, s server, owner string, kind uint16) Answer {
	rrs, result, failed := l.records(ctx, s, owner, kind)
	a := Answer{Result: result, Why: failed}
	for _, rr := range rrs {
		var ip []byte
		switch rr := rr.(type) {
		case *dns.A:
			ip = rr.A.To4()
		case *dns.AAAA:
			ip = rr.AAAA.To16()
		}
		if addr, ok := netip.AddrFromSlice(ip); ok {
			a.Addrs = append(a.Addrs, addr.Unmap())
		}
	}
	if result == Found && len(a.Addrs) == 0 {
		return Answer{Why: "gives records without addresses"}
	}
	return a
}

// authorities finds the zone of owner by asking for name servers at each name upward, and the addresses of those. The resolvers
// have the last word about all of them: no referral is followed, and no address is taken that was not asked for.
func (l *look) authorities(ctx context.Context, owner string) (apex string, found []server) {
	for level, n := owner, 0; level != "." && n < maxLevels; level, n = parent(level), n+1 {
		for _, r := range l.resolvers {
			hosts, ok := l.hosts(ctx, r, level)
			if !ok {
				continue
			}
			if len(hosts) > 0 {
				return level, l.nameServers(ctx, r, level, hosts[:min(len(hosts), maxNameServers)])
			}
			break
		}
	}
	return "", nil
}

// hosts are the name servers of the zone at apex, as r knows them; none if it knows of no such zone.
func (l *look) hosts(ctx context.Context, r server, apex string) (hosts []string, ok bool) {
	m, failed := l.ask(ctx, r, apex, dns.TypeNS)
	if failed != "" {
		return nil, false
	}
	for _, rr := range m.Answer {
		if ns, ok := rr.(*dns.NS); ok && strings.EqualFold(rr.Header().Name, apex) {
			hosts = append(hosts, ns.Ns)
		}
	}
	slices.Sort(hosts)
	return hosts, true
}

// backs tells whether r knows of each of those that were asked as authoritative, and at the same address. They are what the first
// resolver that answered said they are, and it may lie.
func (l *look) backs(ctx context.Context, r server, authorities []server) bool {
	l.mu.Lock()
	zones := slices.Collect(maps.Values(l.zones))
	l.mu.Unlock()
	for _, others := range zones { // known by now
		authorities = append(slices.Clone(authorities), others()...)
	}
	known := make(map[string][]string) // name servers by zone
	for _, s := range authorities {
		hosts, asked := known[s.apex]
		if !asked {
			hosts, _ = l.hosts(ctx, r, s.apex)
			known[s.apex] = hosts
		}
		n := slices.IndexFunc(hosts, func(host string) bool { return strings.EqualFold(hostLabel(host), s.label) })
		kind := dns.TypeAAAA
		if s.addr.Addr().Is4() {
			kind = dns.TypeA
		}
		if n < 0 || !slices.Contains(l.addresses(ctx, r, hosts[n], kind).Addrs, s.addr.Addr()) {
			return false
		}
	}
	return true
}

// hostLabel is what a name server is called to people.
func hostLabel(host string) string { return clean(strings.TrimSuffix(host, ".")) }

// nameServers looks up where hosts, the name servers of the zone at apex, are. An address that several of them have counts once.
func (l *look) nameServers(ctx context.Context, r server, apex string, hosts []string) (found []server) {
	for _, host := range hosts {
		for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA} {
			for _, a := range l.addresses(ctx, r, host, kind).Addrs {
				addr := netip.AddrPortFrom(a, l.port)
				same := func(s server) bool { return s.addr == addr }
				if !askable(a) || slices.ContainsFunc(found, same) {
					continue
				}
				found = append(found, server{addr: addr, label: hostLabel(host), authoritative: true, apex: apex, turn: len(found)})
				break
			}
		}
	}
	return found
}

// askable tells whether a server may be at a. The strangers who have their zone's servers there choose whom we send packets to: never
// many hosts at once, for which see open, too, and nothing that only the link knows. Loopback and private addresses may be asked, as
// views of a zone for a house alone have them; it is one port, and what is there is not believed unless it is authoritative.
func askable(a netip.Addr) bool {
	return !a.IsUnspecified() && !a.IsMulticast() && !a.IsLinkLocalUnicast() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// caa climbs to the closest ancestor that has CAA records (RFC 8659 section 3).
func (l *look) caa(ctx context.Context, owner, apex string, authorities []server) CAASet {
	for level, n := owner, 0; level != "."; level, n = parent(level), n+1 {
		if n == maxLevels {
			return CAASet{Failed: errBudget.Error()}
		}
		asked := l.resolvers
		if apex != "" && dns.IsSubDomain(apex, level) {
			asked = slices.Concat(authorities, l.resolvers)
		}
		set, failed := CAASet{Owner: strings.TrimSuffix(level, ".")}, "there is nobody to ask"
		for _, s := range asked {
			rrs, result, words := l.records(ctx, s, level, dns.TypeCAA)
			if result == Failed {
				failed = s.label + " " + words
				continue
			}
			for _, rr := range rrs {
				if r, ok := rr.(*dns.CAA); ok {
					set.Records = append(set.Records, CAA{Flags: r.Flag, Tag: r.Tag, Value: r.Value})
				}
			}
			failed = ""
			break
		}
		if failed != "" {
			return CAASet{Failed: failed}
		}
		if len(set.Records) > 0 {
			return set
		}
	}
	return CAASet{}
}

// parent is the name without its first label.
func parent(name string) string {
	next, end := dns.NextLabel(name, 0)
	if end {
		return "."
	}
	return name[next:]
}
