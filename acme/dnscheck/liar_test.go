package dnscheck

import (
	"net/netip"
	"strings"
	"testing"
)

// TestOneLyingResolverDoesNotWithdrawAName has two real servers that both speak for the pool, each at the same names, and
// resolvers that lead to the one or the other.
func TestOneLyingResolverDoesNotWithdrawAName(t *testing.T) {
	t.Parallel()
	const member = "alice A " + here4 + "\n"
	right, wrong := startKnot(t, ""), startKnot(t, "")
	right.await(t)
	wrong.await(t)
	at := func(k *knot) *recursor {
		return startRecursor(t, func(string) netip.AddrPort { return k.Resolvers[0] })
	}
	honest, behind, liar := at(right), at(right), at(wrong)
	behind.hold("alice.pool.example. 60 A " + here4)
	for _, c := range []struct {
		name          string
		right, wrong  string
		others        []string // that the liar tells of name servers
		first, second *recursor
		finding       Finding
		text          string
	}{
		{"the liar does not have it", member, "", nil, liar, honest, Unknown, "knows of other name servers"},
		{"the liar has it elsewhere", member, "alice A " + there4, nil, liar, honest, Unknown, "knows of other name servers"},
		{"the liar leads to servers of other names", member, "", []string{"pool.example. 60 NS ns.evil.test.", "ns.evil.test. 60 A " + wrong.Resolvers[0].Addr().String()},
			liar, honest, Unknown, "knows of other name servers"},
		{"the liar comes second", member, "", nil, honest, liar, OK, "has no A where others have A " + here4},
		{"it is gone, and the liar still has it", "", member, nil, honest, liar, Unknown, "knows of other name servers"},
		{"it is gone, and a resolver still holds it", "", "", nil, honest, behind, Gone, "ns1.example, ns2.example"},
		{"it is gone, and the first resolver still holds it", "", "", nil, behind, honest, Gone, "ns1.example, ns2.example"},
		{"it is gone, and both say so", "", "", nil, honest, liar, Gone, "ns1.example, ns2.example"},
	} {
		for k, zone := range map[*knot]string{right: c.right, wrong: c.wrong} {
			k.zone(t, zone)
			k.reload()
			k.await(t)
		}
		liar.hold(c.others...)
		o := Config{Port: knotPort, Resolvers: []netip.AddrPort{c.first.addr, c.second.addr}}.Look(t.Context(), testName(t))
		v := Judge(o, Want{Public: addrs(here4)})
		if v.Finding != c.finding || !strings.Contains(v.Text, c.text) {
			t.Errorf("%s: %+v, want %s %q; seen %+v", c.name, v, c.finding, c.text, o)
		}
	}
}
