package tcp

import (
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// from is a connection from that address, of which nothing else is asked.
func from(addr string) *conn {
	return &conn{Conn: caller{net.TCPAddrFromAddrPort(netip.MustParseAddrPort(addr))}}
}

type caller struct{ *net.TCPAddr }

func (c caller) RemoteAddr() net.Addr             { return c.TCPAddr }
func (caller) LocalAddr() net.Addr                { return nil }
func (caller) Read([]byte) (int, error)           { return 0, io.EOF }
func (caller) Write(b []byte) (int, error)        { return len(b), nil }
func (caller) Close() error                       { return nil }
func (caller) SetDeadline(time.Time) error        { return nil }
func (caller) SetReadDeadline(t time.Time) error  { return nil }
func (caller) SetWriteDeadline(t time.Time) error { return nil }

func TestWhoLosesItsPlace(t *testing.T) {
	for name, tt := range map[string]struct {
		open   []string // in this order
		served []int    // of these, in this order
		gone   []int    // closed by themselves
		want   []int    // whom newcomers from elsewhere put out, one after the other
	}{
		"the oldest, when all have one place":                {open: []string{"192.0.2.1:1", "198.51.100.1:1", "203.0.113.1:1"}, want: []int{0, 1, 2}},
		"the oldest of the prefix that holds most":           {open: []string{"192.0.2.1:1", "198.51.100.1:1", "198.51.100.9:1", "198.51.100.200:1"}, want: []int{1, 2, 0}},
		"the prefix with the oldest, when two hold as many":  {open: []string{"192.0.2.1:1", "198.51.100.1:1", "198.51.100.2:1", "192.0.2.2:1"}, want: []int{0, 1}},
		"the served first, the longest served of them first": {open: []string{"192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1"}, served: []int{2, 1}, want: []int{2, 1, 0}},
		"nobody twice, and nobody who has left":              {open: []string{"192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1", "198.51.100.1:1"}, served: []int{1}, gone: []int{0, 1}, want: []int{2, 3}},
		"of IPv6 a /56 is one":                               {open: []string{"[2001:db8:0:1::1]:1", "[2001:db8:1::1]:1", "[2001:db8:0:ff::2]:1"}, want: []int{0, 1}},
		"an IPv4 address in IPv6 form is one of IPv4":        {open: []string{"203.0.113.1:1", "[::ffff:192.0.2.1]:1", "192.0.2.2:1"}, want: []int{1}},
	} {
		t.Run(name, func(t *testing.T) {
			tab := NewTable[*conn](len(tt.open))
			conns := make([]*conn, len(tt.open))
			for i, addr := range tt.open {
				conns[i] = from(addr)
				if e := tab.Add(conns[i]); e != nil {
					t.Fatalf("connection %d put somebody out with room left", i)
				}
			}
			for _, i := range tt.served {
				tab.Finished(conns[i])
			}
			for _, i := range tt.gone {
				tab.Remove(conns[i])
				tab.Add(from(fmt.Sprintf("10.0.%d.1:1", i))) // a newcomer in its place
			}
			for n, want := range tt.want {
				if e, i := tab.Add(from(fmt.Sprintf("10.1.%d.1:1", n))), want; e != conns[i] {
					t.Fatalf("newcomer %d did not put out connection %d from %s", n, i, tt.open[i])
				}
				tab.Finished(conns[want]) // it has its place no longer
				tab.Remove(conns[want])
			}
			if n := tab.len(); n != len(tt.open) {
				t.Errorf("%d connections, want %d", n, len(tt.open))
			}
		})
	}
}

// The table against a list that is searched from end to end.
func FuzzTable(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 0x40, 0x80, 0, 1, 2, 3, 4, 5})
	f.Fuzz(func(t *testing.T, steps []byte) {
		const limit = 6
		type entry struct {
			c      *conn
			prefix netip.Prefix
		}
		var list, served []entry
		tab := NewTable[*conn](limit)
		for _, step := range steps {
			all := append(slices.Clone(served), list...)
			n := int(step & 0x3f)
			switch {
			case step < 0x40 || len(all) == 0: // somebody comes
				e := entry{c: from(fmt.Sprintf("10.0.%d.1:1", n%4))}
				e.prefix = prefixOf(e.c.RemoteAddr())
				var want *conn
				if len(all) == limit {
					if len(served) > 0 {
						want, served = served[0].c, served[1:]
					} else {
						held := map[netip.Prefix]int{}
						for _, o := range list {
							held[o.prefix]++
						}
						most := slices.Max(slices.Collect(maps.Values(held)))
						i := slices.IndexFunc(list, func(o entry) bool { return held[o.prefix] == most })
						want = list[i].c
						list = slices.Delete(list, i, i+1)
					}
				}
				if got := tab.Add(e.c); got != want {
					t.Fatal("another one was put out")
				}
				list = append(list, e)
			case step < 0x80: // somebody is served
				e := all[n%len(all)]
				tab.Finished(e.c)
				same := func(o entry) bool { return o.c == e.c }
				list, served = slices.DeleteFunc(list, same), append(slices.DeleteFunc(served, same), e)
			default: // somebody leaves
				e := all[n%len(all)]
				tab.Remove(e.c)
				same := func(o entry) bool { return o.c == e.c }
				list, served = slices.DeleteFunc(list, same), slices.DeleteFunc(served, same)
			}
			if tab.len() != len(list)+len(served) || len(tab.order) != len(tab.shares) {
				t.Fatalf("%d connections, want %d; %d shares, %d in order", tab.len(), len(list)+len(served), len(tab.shares), len(tab.order))
			}
		}
	})
}
