package dnscheck

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"ntsagent/hostcheck"
	"ntsagent/packaging/parts"
	"ntsagent/packaging/parts/partstest"
)

// knot is a real authoritative server at two addresses, for the top of a tree and the pool's zone in it. It has a copy of
// somebody else's zone, too, that is out of date.
type knot struct {
	Config
	dir    string
	serial int
	reload func()
}

// A port below those that the kernel gives to others; the addresses are drawn from the 16 million of the loopback.
const knotPort = 15353

func startKnot(t *testing.T, pool string) *knot {
	t.Helper()
	at := loopback()
	k := newKnot(t, at, "example", "pool.example", "far.test")
	k.write(t, "far.test.zone", "$TTL 60\n@ SOA ns1 hostmaster 1 600 600 600 60\n@ NS ns1\nalice A "+there4+"\n")
	k.write(t, "example.zone", fmt.Sprintf(`$TTL 60
@ SOA ns1 hostmaster 1 600 600 600 60
@ NS ns1
@ NS ns2
ns1 A %s
ns2 A %s
pool NS ns1
pool NS ns2
`, at, at.Next()))
	k.zone(t, pool)
	k.start(t)
	k.awaitZone(t, "example.", 1) // it reads one zone after the other
	k.awaitZone(t, "far.test.", 1)
	return k
}

// drawn has each server of a test at other addresses than all before it; other processes have drawn others.
var drawn atomic.Uint32

func init() { drawn.Store(rand.Uint32N(1 << 24)) }

// loopback is the first of two addresses that nobody else will have drawn.
func loopback() netip.Addr {
	n := drawn.Add(1)
	return netip.AddrFrom4([4]byte{127, byte(1 + n>>8%250), byte(n), 1})
}

// newKnot is a server to be started when its zones are written.
func newKnot(t *testing.T, at netip.Addr, zones ...string) *knot {
	t.Helper()
	k := &knot{dir: t.TempDir(), Config: Config{Port: knotPort,
		Resolvers: []netip.AddrPort{netip.AddrPortFrom(at, knotPort), netip.AddrPortFrom(at.Next(), knotPort)}}}
	k.write(t, "knot.conf", fmt.Sprintf(`server:
    rundir: "%[1]s"
    listen: [ %[2]s@%[4]d, %[3]s@%[4]d ]
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
database:
    storage: "%[1]s"
template:
  - id: default
    storage: "%[1]s"
    file: "%%s.zone"
    journal-content: none
zone:
  - domain: %[5]s
`, k.dir, at, at.Next(), knotPort, strings.Join(zones, "\n  - domain: ")))
	return k
}

func (k *knot) start(t *testing.T) {
	t.Helper()
	root := partstest.Knot(t, parts.Debian12)
	log, err := os.Create(filepath.Join(k.dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := root.Command(t.Context(), "knotd", "-c", filepath.Join(k.dir, "knot.conf"))
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		log.Close()
		if b, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("knotd says\n%s", b)
		}
	})
	k.reload = func() {
		if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
}

func (k *knot) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(k.dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// zone writes the pool's zone with these records.
func (k *knot) zone(t *testing.T, records string) {
	t.Helper()
	k.serial++
	k.write(t, "pool.example.zone", fmt.Sprintf("$TTL 60\n@ SOA ns1.example. hostmaster %d 600 600 600 60\n@ NS ns1.example.\n@ NS ns2.example.\n%s", k.serial, records))
}

// await returns when both addresses serve the zone as it was written last.
func (k *knot) await(t *testing.T) {
	t.Helper()
	k.awaitZone(t, "pool.example.", k.serial)
}

func (k *knot) awaitZone(t *testing.T, zone string, serial int) {
	t.Helper()
	end := time.NewTimer(time.Minute)
	defer end.Stop()
	for _, server := range k.Resolvers {
		for {
			m, err := patient.exchange(t.Context(), server, new(dns.Msg).SetQuestion(zone, dns.TypeSOA))
			if err == nil && len(m.Answer) == 1 && m.Answer[0].(*dns.SOA).Serial == uint32(serial) {
				break
			}
			select {
			case <-end.C:
				t.Fatalf("%s does not serve serial %d: %v %v", server, serial, m, err)
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
}

// TestANameAtARealServer walks a member's name through its life: published, moved, forbidden by CAA, removed, back.
func TestANameAtARealServer(t *testing.T) {
	t.Parallel()
	want := ours
	want.Public = addrs(here4, here6)
	apex := "@ CAA 0 issue \";\"\n"
	member := "alice A " + here4 + "\nalice AAAA " + here6 + "\nalice CAA 0 issue \"ca.example; validationmethods=http-01; accounturi=" + ourAccount + "\"\n"
	k := startKnot(t, apex+member)

	k.await(t)
	o := k.Look(t.Context(), testName(t))
	if v := Judge(o, want); v.Finding != OK || v.Text != "" {
		t.Errorf("got %+v", v)
	}
	if len(o.Sources) != 4 {
		t.Errorf("%d sources, want two resolvers and two name servers: %+v", len(o.Sources), o.Sources)
	}
	for n, s := range o.Sources {
		if s.Authoritative != (n > 1) || !slices.Equal(s.A.Addrs, addrs(here4)) || !slices.Equal(s.AAAA.Addrs, addrs(here6)) {
			t.Errorf("source %d: %+v", n, s)
		}
	}
	if o.CAA.Owner != "alice.pool.example" || len(o.CAA.Records) != 1 {
		t.Errorf("CAA = %+v, want alice's own", o.CAA)
	}

	for _, step := range []struct {
		name, records string
		finding       Finding
		text          string
	}{
		{"the AAAA is left at an old address", "alice A " + here4 + "\nalice AAAA " + there6, Mismatch, there6},
		{"only the pool's own CAA is left", apex + "alice A " + here4, Denied, `the CAA record of pool.example, 0 issue ";", lets no CA issue`},
		{"another account is named", "alice A " + here4 + "\nalice CAA 0 issue \"ca.example; accounturi=" + otherAccount + "\"", Denied, "another account"},
		{"a critical record of a kind to come", "alice A " + here4 + "\nalice CAA 128 tbs \"x\"", Denied, "critical"},
		{"an alias, whose target's CAA counts (RFC 8659 section 3)", apex + "alice CNAME host\nhost A " + here4 + "\nhost CAA 0 issue \"other.example\"", Denied, "lets another CA issue"},
		{"an alias to the right address", "alice CNAME b\nb CNAME host\nhost A " + here4, OK, ""},
		{"an alias to nothing", "alice CNAME host", Gone, ""},
		{"aliases in a circle", "alice CNAME bob\nbob CNAME alice", Unknown, "CNAMEs without end"},
		{"both address records are removed, another stays", apex + "alice TXT \"bye\"", Gone, "ns1.example, ns2.example"},
		{"the name is there again", apex + member, OK, ""},
		{"the name is removed", apex, Gone, "ns1.example, ns2.example"},
		{"too many addresses to be meant", manyAddresses(100), Unknown, "too many records"},
		{"more than fits into UDP", manyAddresses(50) + "alice AAAA " + here6 + "\n", OK, "AAAA 2001:db8:1::"},
	} {
		k.zone(t, step.records+"\n")
		k.reload()
		k.await(t)
		o := k.Look(t.Context(), testName(t))
		if v := Judge(o, want); v.Finding != step.finding || !strings.Contains(v.Text, step.text) {
			t.Errorf("%s: %+v, want %s %q; seen %+v", step.name, v, step.finding, step.text, o)
		}
	}

	never, err := hostcheck.ParseName("alice.never.example")
	if err != nil {
		t.Fatal(err)
	}
	if v := Judge(k.Look(t.Context(), never), want); v.Finding != Gone || v.Sources != 4 {
		t.Errorf("a zone that was never there: %+v, want it missed by the four servers of the parent", v)
	}
}

// manyAddresses are records of alice, with others that make the answer long.
func manyAddresses(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "alice AAAA 2001:db8:1::%x\n", i)
	}
	return b.String()
}
