package agent

import (
	"context"
	"crypto/x509"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ntsagent/agent/daemon/daemontest"
	"ntsagent/agent/daemon/ntpsectest"
	"ntsagent/agent/status"
	"ntsagent/ntske/client"
	debian "ntsagent/packaging/parts"
	"ntsagent/packaging/parts/partstest"
)

const redirectRules = "../packaging/examples/nftables-ntpsec.nft"

// The hosts of the next test, in a network each.
var (
	serverAt = []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("2001:db8::1/64")}
	clientAt = []netip.Prefix{netip.MustParsePrefix("192.0.2.2/24"), netip.MustParsePrefix("2001:db8::2/64")}
)

// ntpd holds TCP port 4460 and clients come there; the rules lead them to the
// agent. The example is the very file that is shipped.
func TestTheRedirectLeadsClientsOfNTPsecToTheAgent(t *testing.T) {
	t.Parallel()
	here, there := daemontest.NewNetwork(t), daemontest.NewNetwork(t)
	daemontest.Connect(t, here, there, serverAt, clientAt)
	nft := netfilter{t, here, partstest.NFTables(t, debian.Debian12)}
	const foreign = `table inet firewall {
	chain input {
		type filter hook input priority filter; policy accept;
		tcp dport 4462 drop
	}
}
table ip nat {
	chain prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		tcp dport 8080 redirect to :80
	}
}
`
	others := filepath.Join(t.TempDir(), "others.nft")
	if err := os.WriteFile(others, []byte(foreign), 0o600); err != nil {
		t.Fatal(err)
	}
	nft.run("-f", others)
	before := nft.run("list", "ruleset")

	s := ntpsectest.Start(t, ntpsectest.Options{Network: here, ExtraConf: []string{"restrict 192.0.2.2", "restrict 2001:db8::2", "restrict 127.0.0.1", "restrict ::1"}})
	ours := credential(t, "root")
	m := beside(t, s, ours, `certificate: {source: files, cert: CERT, key: KEY}
ke: {listen: ["[::]:4461", "0.0.0.0:4461"]}
daemon: {kind: ntpsec, ntpsec: {keys_file: `+s.KeysFile+`}}
`)
	m.startIn(s, ours)
	m.wait("the agent serves both families", func(d status.Document) bool {
		open := 0
		for _, l := range d.Listeners {
			if l.Open {
				open++
			}
		}
		return provenAndOpen(m)(d) && open == 2
	})

	// meets has a client do all that it does: it comes to port 4460 and must meet
	// whose certificate is good for name, then ask at port 123.
	meets := func(sentence, name string, roots *x509.CertPool, from *daemontest.Network, at ...netip.Addr) {
		t.Helper()
		for _, addr := range at {
			from.Do(func() {
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				var r client.Result
				err := patiently(func() (err error) {
					r, err = client.KeyExchange(ctx, client.Config{Addr: netip.AddrPortFrom(addr, 4460), Name: name, Roots: roots})
					return err
				})
				if err != nil {
					t.Errorf("%s: key exchange at %v: %v", sentence, addr, err)
					return
				}
				if r.Port != 123 || r.Server != "" || len(r.Cookies) != 8 {
					t.Errorf("%s: %d cookies for %q port %d", sentence, len(r.Cookies), r.Server, r.Port)
				}
				for _, c := range r.Cookies[:2] {
					if _, err := client.Query(ctx, netip.AddrPortFrom(addr, r.Port), r.Keys, c, 0); err != nil {
						t.Errorf("%s: query at %v: %v", sentence, addr, err)
					}
				}
			})
		}
	}
	outside := []netip.Addr{serverAt[0].Addr(), serverAt[1].Addr()}
	loopback := netip.MustParseAddr("127.0.0.1")
	meets("without the rules it is ntpd's", ntpsectest.Name, s.Roots, there, outside...)
	for _, sentence := range []string{"with the rules it is the agent's", "with the rules loaded again"} {
		nft.run("-f", redirectRules)
		meets(sentence, memberName, m.ca.roots, there, outside...)
		meets(sentence, memberName, m.ca.roots, here, loopback)
	}
	// What is for others and only comes by here stays as it is: nobody answers.
	const beyond = "198.51.100.1"
	daemontest.Route(t, there, netip.MustParsePrefix(beyond+"/32"), serverAt[0].Addr())
	there.Do(func() {
		if nc, err := net.DialTimeout("tcp4", beyond+":4460", 500*time.Millisecond); err == nil {
			t.Errorf("who asks for %s is answered by %s", beyond, nc.RemoteAddr())
			nc.Close()
		}
	})
	rest := strings.Replace(nft.run("list", "ruleset"), nft.run("list", "table", "inet", "ntsagent"), "", 1)
	if rest != before {
		t.Errorf("the other rules were\n%s\nand are\n%s", before, rest)
	}
	nft.run(undo(t)...)
	if after := nft.run("list", "ruleset"); after != before {
		t.Errorf("after the undo the rules are\n%s", after)
	}
	meets("without the rules again", ntpsectest.Name, s.Roots, there, outside...)
}

// undo is what the example says to do.
func undo(t *testing.T) []string {
	t.Helper()
	b, err := os.ReadFile(redirectRules)
	if err != nil {
		t.Fatal(err)
	}
	_, line, _ := strings.Cut(string(b), "# Undo:")
	line, _, _ = strings.Cut(line, "\n")
	words := strings.Fields(line)
	if len(words) < 2 || words[0] != "nft" {
		t.Fatalf("the example's undo is %q", line)
	}
	return words[1:]
}

// netfilter runs nft in a network.
type netfilter struct {
	t    *testing.T
	in   *daemontest.Network
	root debian.Root
}

func (n netfilter) run(args ...string) (said string) {
	n.t.Helper()
	var out []byte
	var err error
	cmd := n.root.Command(n.t.Context(), "nft", args...)
	n.in.Do(func() { out, err = cmd.CombinedOutput() })
	if err != nil {
		n.t.Fatalf("nft %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}
