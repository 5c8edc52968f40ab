package dnscheck

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
)

// recursor is the least that a resolver must do: it asks who is responsible, follows aliases, and holds what it is told to.
type recursor struct {
	addr  netip.AddrPort
	route func(name string) netip.AddrPort

	mu   sync.Mutex
	held map[string]string // by name and type
}

func startRecursor(t *testing.T, route func(name string) netip.AddrPort) *recursor {
	t.Helper()
	r := &recursor{route: route, held: make(map[string]string)}
	f := startFaulty(t, func(q *dns.Msg, send func([]byte)) { send(pack(r.resolve(t, q))) }, nil)
	r.addr = f.Resolvers[0]
	return r
}

func (r *recursor) hold(records ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.held)
	for _, text := range records {
		rr := record(text)
		r.held[rr.Header().Name+dns.TypeToString[rr.Header().Rrtype]] = text
	}
}

func (r *recursor) resolve(t *testing.T, q *dns.Msg) *dns.Msg {
	r.mu.Lock()
	defer r.mu.Unlock()
	m, name, kind := resolve(q), q.Question[0].Name, q.Question[0].Qtype
	if text := r.held[name+dns.TypeToString[kind]]; text != "" {
		m.Answer = append(m.Answer, record(text))
		return m
	}
	for range 2 * maxCNAMEs {
		got, err := patient.exchange(t.Context(), r.route(name), new(dns.Msg).SetQuestion(name, kind))
		if err != nil {
			m.Rcode = dns.RcodeServerFailure
			return m
		}
		m.Answer, m.Ns, m.Rcode = append(m.Answer, got.Answer...), got.Ns, got.Rcode
		last := m.Answer
		if len(got.Answer) == 0 || last[len(last)-1].Header().Rrtype != dns.TypeCNAME {
			return m
		}
		name = last[len(last)-1].(*dns.CNAME).Target
	}
	m.Rcode = dns.RcodeServerFailure
	return m
}

// TestAnAliasIntoAnotherZone has the pool at one real server and what a member's name is an alias of at another one. The pool's
// server answers for both, and must not be believed about the other zone.
func TestAnAliasIntoAnotherZone(t *testing.T) {
	t.Parallel()
	want := ours
	want.Public = addrs(here4, here6)
	farAt := loopback()
	far := newKnot(t, farAt, "far.test")
	serial := 0
	set := func(records string) {
		serial++
		far.write(t, "far.test.zone", fmt.Sprintf("$TTL 60\n@ SOA ns1 hostmaster %d 600 600 600 60\n@ NS ns1\n@ NS ns2\nns1 A %s\nns2 A %s\n%s\n",
			serial, farAt, farAt.Next(), records))
	}
	set("")
	far.start(t)
	far.awaitZone(t, "far.test.", serial) // a signal to a server that has not come to itself is its end
	pool := startKnot(t, "alice CNAME Alice.far.test.\n")
	pool.await(t)
	r := startRecursor(t, func(name string) netip.AddrPort {
		if dns.IsSubDomain("far.test.", name) {
			return far.Resolvers[0]
		}
		return pool.Resolvers[0]
	})
	ask := Config{Port: knotPort, Resolvers: []netip.AddrPort{r.addr}}
	both := "alice A " + here4 + "\nalice AAAA " + here6
	for _, step := range []struct {
		name, records string
		held          []string // by the resolver, from another time
		finding       Finding
		text          string
	}{
		{"the other zone has it", both, nil, OK, ""},
		{"by a second alias", "alice CNAME b\nb A " + here4 + "\nb AAAA " + here6, nil, OK, ""},
		{"the other zone leads elsewhere", "alice A " + there4, nil, Mismatch, there4},
		{"gone from the other zone", "", nil, Gone, "ns1.example, ns2.example"},
		{"gone from the other zone, and a resolver still has it", "", []string{"alice.pool.example. 60 A " + here4}, Gone, "ns1.example, ns2.example"},
		{"there again, and a resolver does not know", both, []string{"alice.pool.example. 60 A " + there4}, OK, "where others have A " + here4},
		{"CAA records of the other zone count", both + "\nalice CAA 0 issue \"other.example\"", nil, Denied, "lets another CA issue"},
		{"and back, in a circle", "alice CNAME alice.pool.example.", nil, Unknown, "CNAMEs without end"},
		{"nobody knows the servers of the other zone, and the resolver answers", both, []string{"far.test. 60 NS nowhere.far.test."}, OK, ""},
	} {
		set(step.records)
		far.reload()
		far.awaitZone(t, "far.test.", serial)
		r.hold(step.held...)
		o := ask.Look(t.Context(), testName(t))
		if v := Judge(o, want); v.Finding != step.finding || !strings.Contains(v.Text, step.text) || step.finding == OK && step.text == "" && v.Text != "" {
			t.Errorf("%s: %+v, want %s %q; seen %+v", step.name, v, step.finding, step.text, o)
		}
		if n := len(slices.DeleteFunc(o.Sources, func(s Source) bool { return !s.Authoritative })); n != 2 {
			t.Errorf("%s: %d authoritative servers answered, want 2", step.name, n)
		}
	}
}
