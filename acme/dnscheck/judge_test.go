package dnscheck

import (
	"net/netip"
	"strings"
	"testing"

	"ntsagent/hostcheck"
)

func addrs(list ...string) (a []netip.Addr) {
	for _, s := range list {
		a = append(a, netip.MustParseAddr(s))
	}
	return a
}

func found(list ...string) Answer { return Answer{Result: Found, Addrs: addrs(list...)} }

var (
	none     = Answer{Result: NoData}
	nx       = Answer{Result: NoName}
	servfail = Answer{Why: "says SERVFAIL"}
	silent   = Answer{Why: "does not answer"}
)

func resolver(n string, a, aaaa Answer) Source {
	return Source{Server: "192.0.2." + n, A: a, AAAA: aaaa}
}
func authority(n string, a, aaaa Answer) Source {
	return Source{Server: "ns" + n + ".example", Authoritative: true, A: a, AAAA: aaaa}
}

// dissenter is a resolver that knows of other authoritative servers.
func dissenter(n string, a, aaaa Answer) Source {
	s := resolver(n, a, aaaa)
	s.Dissents = true
	return s
}

func testName(t testing.TB) hostcheck.Name {
	t.Helper()
	n, err := hostcheck.ParseName("alice.pool.example")
	if err != nil {
		t.Fatal(err)
	}
	return n
}

const (
	here4, here6   = "198.51.100.7", "2001:db8::7"
	there4, there6 = "203.0.113.9", "2001:db8::9"
)

func TestJudge(t *testing.T) {
	listed := Want{Public: addrs(here4, here6), Host: addrs("127.0.0.1", "10.0.0.5")}
	auto := func(host ...string) Want { return Want{Host: addrs(append(host, "127.0.0.1", "::1", "fe80::1")...)} }
	at := func(a, aaaa Answer) []Source { return []Source{resolver("1", a, aaaa), authority("1", a, aaaa)} }
	for _, c := range []struct {
		name    string
		sources []Source
		want    Want
		finding Finding
		servers int
		text    string
	}{
		{"both families lead here", at(found(here4), found(here6)), listed, OK, 0, ""},
		{"only IPv4 leads here and there is no AAAA", at(found(here4), none), listed, OK, 0, "there is no AAAA record, and " + here6 + " is in public_addresses"},
		{"only IPv6", at(none, found(here6)), listed, OK, 0, "there is no A record, and " + here4 + " is in public_addresses"},
		{"the AAAA leads elsewhere though the A is right", at(found(here4), found(there6)), listed, Mismatch, 0, "AAAA " + there6 + " is not in public_addresses"},
		{"the A leads elsewhere", at(found(there4), none), listed, Mismatch, 0, "A " + there4},
		{"one of two addresses is ours", at(found(here4, there4), none), listed, OK, 0, there4 + " is not in public_addresses"},
		{"an address written as IPv4 in IPv6", at(found("::ffff:"+here4), found(here6)), listed, OK, 0, ""},

		{"auto: on an interface", at(found(here4), none), auto(here4), OK, 0, ""},
		{"auto: this host is public and the name leads elsewhere", at(found(there4), none), auto(here4), Mismatch, 0, "A " + there4 + " is not an address of this host"},
		{"auto: behind NAT nobody can tell", at(found(there4), none), auto("10.0.0.5"), OK, 0, "may lead here all the same"},
		{"auto: behind the NAT of a carrier", at(found(there4), none), auto("100.64.3.4"), OK, 0, "may lead here"},
		{"auto: a public address beside a private one, as with floating addresses", at(found(there4), none), auto(here4, "10.0.0.5"), OK, 0, "may lead here"},
		{"auto: IPv4 behind NAT does not excuse a wrong AAAA", at(found(there4), found(there6)), auto("10.0.0.5", here6), Mismatch, 0, "AAAA " + there6},
		{"auto: no IPv6 here, but an AAAA", at(found(here4), found(there6)), auto(here4), OK, 0, "AAAA " + there6},
		{"auto: unique local IPv6 may be translated", at(none, found(there6)), auto("fd00::7"), OK, 0, "may lead here"},
		{"auto: an IPv6 address that the DNS does not have", at(found(here4), none), auto(here4, here6), OK, 0, "there is no AAAA record, and " + here6 + " is an address of this host"},
		{"auto: an IPv6 address that strangers cannot reach is none to publish", at(found(here4), none), auto(here4, "fd00::7"), OK, 0, ""},
		{"auto: the interfaces cannot be read", at(found(there4), none), Want{}, OK, 0, "may lead here"},

		{"gone from a resolver and an authority", at(nx, nx), listed, Gone, 2, "ns1.example"},
		{"gone: NODATA of both families", at(none, none), listed, Gone, 2, ""},
		{"gone: NXDOMAIN of one family, NODATA of the other", at(nx, none), listed, Gone, 2, ""},
		{"gone from two resolvers, authorities out of reach", []Source{resolver("1", nx, nx), resolver("2", nx, nx), authority("1", silent, silent)}, listed, Gone, 2, ""},
		{"gone from one resolver only", []Source{resolver("1", nx, nx), resolver("2", silent, silent)}, listed, Gone, 1, ""},
		{"one server at two addresses is one", []Source{authority("1", nx, nx), authority("1", nx, nx)}, listed, Gone, 1, ""},
		{"gone from the authorities while a resolver still has it", []Source{resolver("1", found(here4), none), authority("1", nx, nx), authority("2", nx, nx)}, listed, Gone, 2, ""},
		{"gone from resolvers while an authority has it", []Source{resolver("1", nx, nx), resolver("2", nx, nx), authority("1", found(here4), none)}, listed, OK, 0, "192.0.2.2 has no A where others have A " + here4},
		{"gone from one authority while another has it", []Source{authority("1", nx, nx), authority("2", found(here4), none)}, listed, OK, 0, "ns1.example has no A where others have A " + here4},
		{"gone from one resolver while another has it", []Source{resolver("1", nx, nx), resolver("2", found(here4), none)}, listed, OK, 0, "192.0.2.1 has no A where"},

		{"gone from authorities that a resolver with the address does not know", []Source{resolver("1", nx, nx), dissenter("2", found(here4), none), authority("1", nx, nx)}, listed, Unknown, 0,
			"192.0.2.2 finds alice.pool.example in its place, and knows of other name servers than those that were asked: the DNS has no address"},
		{"elsewhere by authorities that a resolver with the address does not know", []Source{resolver("1", found(there4), none), dissenter("2", found(here4), none), authority("1", found(there4), none)}, listed, Unknown, 0,
			"192.0.2.2 finds alice.pool.example in its place"},
		{"elsewhere by authorities that a resolver does not know, which has it elsewhere, too", []Source{dissenter("2", found(there4), none), authority("1", nx, nx)}, listed, Gone, 1, ""},
		{"in order by authorities that a resolver does not know", []Source{dissenter("2", found(there4), none), authority("1", found(here4), found(here6))}, listed, OK, 0, "192.0.2.2 has A " + there4},

		{"a resolver that is behind", []Source{resolver("1", found(there4), none), authority("1", found(here4), found(here6))}, listed, OK, 0,
			"192.0.2.1 has A " + there4 + " where others have A " + here4 + "; 192.0.2.1 has no AAAA where others have AAAA " + here6},
		{"two addresses, told in another order", []Source{resolver("1", found(here4, there4), found(here6)), authority("1", found(there4, here4), found(here6))},
			Want{Public: addrs(here4, there4, here6)}, OK, 0, ""},
		{"SERVFAIL is no removal", at(servfail, servfail), listed, Unknown, 0, "says SERVFAIL"},
		{"silence is no removal", at(silent, silent), listed, Unknown, 0, "does not answer"},
		{"half an absence is none", at(nx, servfail), listed, Unknown, 0, "SERVFAIL"},
		{"an address in one family is enough", at(found(here4), servfail), listed, OK, 0, "nobody tells whether there is an AAAA record: 192.0.2.1 says SERVFAIL"},
		{"nobody to ask", nil, listed, Unknown, 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := Judge(Observation{Name: testName(t), Sources: c.sources}, c.want)
			if v.Finding != c.finding || v.Sources != c.servers || !strings.Contains(v.Text, c.text) || c.finding == OK && c.text == "" && v.Text != "" {
				t.Errorf("got %+v, want %s %d %q", v, c.finding, c.servers, c.text)
			}
			if v.Finding != OK && (v.Text == "" || v.Hint == "" || strings.ContainsAny(v.Text+v.Hint, "\n")) {
				t.Errorf("words missing in %+v", v)
			}
		})
	}
}

func TestJudgeHoldsCAAAgainstUs(t *testing.T) {
	o := Observation{Name: testName(t), Sources: []Source{authority("1", found(here4), none)}}
	o.CAA = CAASet{Failed: "ns1.example says SERVFAIL"}
	if v := Judge(o, ours); v.Finding != Unknown || !strings.Contains(v.Text, "SERVFAIL") {
		t.Errorf("CAA not to be had: %+v", v)
	}
	o.CAA = CAASet{Owner: "pool.example", Records: []CAA{issue(";")}}
	v := Judge(o, ours)
	publish := `alice.pool.example. CAA 0 issue "ca.example; validationmethods=http-01,tls-alpn-01; accounturi=` + ourAccount + `"`
	if v.Finding != Denied || !strings.Contains(v.Text, `the CAA record of pool.example, 0 issue ";"`) || !strings.Contains(v.Hint, publish) {
		t.Errorf("got %+v", v)
	}
	o.CAA.Records = append(o.CAA.Records, issue("ca.example"))
	if v := Judge(o, ours); v.Finding != OK {
		t.Errorf("our CA may issue, and yet %+v", v)
	}
}
