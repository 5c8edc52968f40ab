package daemon

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"ntsagent/agent/daemon/chronytest"
	"ntsagent/packaging/parts"
	"ntsagent/packaging/parts/partstest"
)

// accessOf reads directives as chrony.conf would have them.
func accessOf(lines ...string) Access {
	var a Access
	for _, line := range lines {
		if d, ok := parseDirective(line); ok {
			a.add(d)
		}
	}
	return a
}

func TestWhoIsServedByAnAccessList(t *testing.T) {
	for _, c := range []struct {
		sentence string
		lines    string // joined by ;
		served   string
		denied   string
	}{
		{"nothing is said", "", "", "127.0.0.1 ::1 192.0.2.1"},
		{"everybody", "allow", "192.0.2.1 2001:db8::1 ::ffff:192.0.2.1", ""},
		{"a network", "allow 192.0.2.0/24", "192.0.2.1 192.0.2.255 ::ffff:192.0.2.1", "192.0.3.1 ::1"},
		{"an address", "allow 192.0.2.1", "192.0.2.1", "192.0.2.0 192.0.2.2"},
		{"part of an address", "allow 192.0.2; allow 10", "192.0.2.77 10.255.0.1", "192.0.3.1 11.0.0.1"},
		{"part of an address with bits", "allow 10.1/12", "10.15.0.1", "10.16.0.1"},
		{"a narrower rule counts wherever it stands", "deny 192.0.2.0/24; allow", "192.0.3.1", "192.0.2.1"},
		{"of equal rules the last counts", "allow 192.0.2.0/24; deny 192.0.2.0/24", "", "192.0.2.1"},
		{"all voids what is narrower", "deny 192.0.2.0/24; allow all", "192.0.2.1", ""},
		{"but not what comes later", "allow all; deny 192.0.2.0/24", "192.0.3.1", "192.0.2.1"},
		{"all of a network", "deny 10.1.1.1; deny 11.1.1.1; allow all 10.0.0.0/8", "10.1.1.1 10.2.2.2", "11.1.1.1"},
		{"rules between two levels of chronyd's tree lie side by side", "deny 10.0.0.0/10; allow 10.0.0.0/9", "10.0.0.1 10.64.0.1", "10.128.0.1"},
		{"IPv6 alone", "allow ::/0", "2001:db8::1", "192.0.2.1"},
	} {
		a := accessOf(strings.Split(c.lines, ";")...)
		if a.Unclear != "" {
			t.Errorf("%s: unclear: %s", c.sentence, a.Unclear)
		}
		for list, want := range map[string]bool{c.served: true, c.denied: false} {
			for _, addr := range strings.Fields(list) {
				if got := a.Allows(netip.MustParseAddr(addr)); got != want {
					t.Errorf("%s: %s is served: %v", c.sentence, addr, got)
				}
			}
		}
	}
}

func TestWhatCannotBeJudgedIsNamed(t *testing.T) {
	for _, line := range []string{"allow ntp.example", "deny 192.0.2.0/33", "allow 1.2.3.4.5", "allow ::1%lo", "allow 10.0.0.0/", "allow 1 2", "allow all 1 2", "allow 10/-1", "allow 256"} {
		if a := accessOf("allow 192.0.2.0/24", line); a.Unclear != line {
			t.Errorf("%q: unclear %q", line, a.Unclear)
		}
	}
}

// The real chronyd is asked about the same lists and addresses.
func TestWhoIsServedIsAsChronydSays(t *testing.T) {
	for _, release := range []parts.Release{parts.Debian12, parts.Debian13} {
		t.Run(release.Chrony, func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(4, uint64(len(release.Chrony)))) // the same each time
			lists := [][]string{
				{"allow 192.0.2", "deny 192.0.2.128/25"}, {"allow 10", "deny 10.1/13", "allow all 10.0.0.0/9"},
				{"deny 10.0.0.0/10", "allow 10.0.0.0/9"}, {"allow all 0/0", "deny all 2001:db8::/32"}, {"allow", "deny all"},
			}
			for range 8 {
				lists = append(lists, randomList(random))
			}
			s := chronytest.Start(t, chronytest.Options{Release: release, NoAllow: true})
			root := partstest.Chrony(t, release)
			for _, lines := range lists {
				s.Reconfigure(chronytest.Options{NoAllow: true, ExtraConf: lines})
				conf, err := ReadChrony(s.Conf)
				if err != nil || conf.Access.Unclear != "" {
					t.Fatalf("%q: %v, unclear %q", lines, err, conf.Access.Unclear)
				}
				var ask []string
				for range 60 {
					ask = append(ask, "accheck "+randomAddr(random).String())
				}
				cmd := root.Command(t.Context(), "chronyc", "-h", s.Socket, "-m")
				cmd.Args = append(cmd.Args, ask...)
				out, _ := cmd.Output() // what it says is judged
				said := strings.FieldsFunc(string(out), func(r rune) bool { return r == '\n' })
				said = slices.DeleteFunc(said, func(line string) bool { return !strings.Contains(line, "Access ") })
				if len(said) != len(ask) {
					t.Fatalf("%q: chronyc said\n%s", lines, out)
				}
				for i, line := range said {
					addr := netip.MustParseAddr(strings.Fields(ask[i])[1])
					if want := strings.Contains(line, "Access allowed"); conf.Access.Allows(addr) != want {
						t.Errorf("%q: %s: chronyd says %s", lines, addr, line)
					}
				}
			}
		})
	}
}

// randomList has rules that overlap: addresses differ in few bits.
func randomList(r *rand.Rand) (lines []string) {
	for range 2 + r.IntN(10) {
		addr := randomAddr(r)
		line := []string{"allow", "deny"}[r.IntN(2)]
		if r.IntN(4) == 0 {
			line += " all"
		}
		if r.IntN(8) > 0 {
			line += fmt.Sprintf(" %s/%d", addr, r.IntN(addr.BitLen()+1))
		}
		lines = append(lines, line)
	}
	return lines
}

func randomAddr(r *rand.Rand) netip.Addr {
	var b [16]byte
	for i := range b {
		if r.IntN(3) == 0 {
			b[i] = byte(1) << r.IntN(8)
		}
	}
	if r.IntN(2) == 0 {
		return netip.AddrFrom4([4]byte(b[:4]))
	}
	b[0] = 0x20 // no address in the form of IPv4
	return netip.AddrFrom16(b)
}

func TestChronydRefusesWhatIsUnclearButNames(t *testing.T) {
	root := partstest.Chrony(t, parts.Debian13)
	for line, good := range map[string]bool{"allow 1 2": false, "allow 10/-1": false, "allow 10.1/13": true, "allow ALL": false, "allow 0/0": true} {
		conf := filepath.Join(t.TempDir(), "chrony.conf")
		if err := os.WriteFile(conf, []byte(line+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := root.Command(t.Context(), "chronyd", "-p", "-f", conf).CombinedOutput()
		_, failed := err.(*exec.ExitError)
		if a := accessOf(line); failed == good || (a.Unclear == "") != good {
			t.Errorf("%q: %v, unclear %q\n%s", line, err, a.Unclear, out)
		}
	}
}

func FuzzAccess(f *testing.F) {
	for _, seed := range []string{"allow", "deny all 10.0.0.0/8\nallow 192.0.2", "allow ::1/128\ndeny 1.2.3.4/0", "allow name"} {
		f.Add(seed, []byte{192, 0, 2, 1})
	}
	f.Fuzz(func(t *testing.T, text string, octets []byte) {
		a := accessOf(strings.Split(text, "\n")...)
		again := accessOf(a.Directives()...)
		if again.Unclear != "" || !reflect.DeepEqual(a.rules, again.rules) {
			t.Fatalf("%q becomes %q, %s", text, a.Directives(), again.Unclear)
		}
		if addr, ok := netip.AddrFromSlice(octets); ok && a.Allows(addr) != again.Allows(addr) {
			t.Errorf("%q: %s", text, addr)
		}
	})
}
