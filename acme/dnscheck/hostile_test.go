package dnscheck

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// faulty answers as no real server does. Each func gets the query and writes what it pleases.
type faulty struct {
	Config
	asked atomic.Int32
}

func startFaulty(t *testing.T, udp func(q *dns.Msg, send func([]byte)), tcp func(q *dns.Msg, c net.Conn)) *faulty {
	t.Helper()
	ln, pc := listenBoth(t)
	addr := ln.Addr().(*net.TCPAddr).AddrPort()
	f := &faulty{Config: Config{Resolvers: []netip.AddrPort{addr}, Port: addr.Port()}}
	var serving sync.WaitGroup
	t.Cleanup(func() { ln.Close(); pc.Close(); serving.Wait() })
	serving.Go(func() {
		b := make([]byte, 4096)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			f.asked.Add(1)
			q := new(dns.Msg)
			if q.Unpack(b[:n]) == nil && udp != nil {
				udp(q, func(wire []byte) { pc.WriteTo(wire, from) })
			}
		}
	})
	serving.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			f.asked.Add(1)
			serving.Go(func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(time.Minute))
				var length [2]byte
				if _, err := io.ReadFull(c, length[:]); err != nil {
					return
				}
				b := make([]byte, binary.BigEndian.Uint16(length[:]))
				q := new(dns.Msg)
				if _, err := io.ReadFull(c, b); err == nil && q.Unpack(b) == nil && tcp != nil {
					tcp(q, c)
				}
			})
		}
	})
	return f
}

// listenBoth listens at a port that is free for TCP and for UDP: the kernel chooses it for one of them, and others have ports of
// the other.
func listenBoth(t *testing.T) (net.Listener, net.PacketConn) {
	t.Helper()
	for {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		pc, err := net.ListenPacket("udp", ln.Addr().String())
		if err == nil {
			return ln, pc
		}
		ln.Close()
		if !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatal(err)
		}
	}
}

// resolve starts the answer of a resolver to q.
func resolve(q *dns.Msg) *dns.Msg {
	m := new(dns.Msg).SetReply(q)
	m.RecursionAvailable = true
	return m
}

func pack(m *dns.Msg) []byte {
	m.Compress = true
	b, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return b
}

// frame is b as it goes over TCP.
func frame(b []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)
}

func record(text string) dns.RR {
	rr, err := dns.NewRR(text)
	if err != nil {
		panic(err)
	}
	return rr
}

// address answers q for an A record, and says there is nothing else.
func address(q *dns.Msg) *dns.Msg {
	m := resolve(q)
	if q.Question[0].Qtype == dns.TypeA {
		m.Answer = append(m.Answer, record(q.Question[0].Name+" 60 A "+here4))
	}
	return m
}

func TestHostileAnswersAreBoundedAndNoRemoval(t *testing.T) {
	changed := func(change func(m *dns.Msg)) func(*dns.Msg, func([]byte)) {
		return func(q *dns.Msg, send func([]byte)) {
			m := resolve(q)
			change(m)
			send(pack(m))
		}
	}
	truncated := changed(func(m *dns.Msg) { m.Truncated = true })
	for _, c := range []struct {
		name    string
		udp     func(*dns.Msg, func([]byte))
		tcp     func(*dns.Msg, net.Conn)
		finding Finding
		text    string
		within  int32 // questions
	}{
		{"SERVFAIL", changed(func(m *dns.Msg) { m.Rcode = dns.RcodeServerFailure }), nil, Unknown, "says SERVFAIL", 10},
		{"REFUSED", changed(func(m *dns.Msg) { m.Rcode = dns.RcodeRefused }), nil, Unknown, "says REFUSED", 10},
		{"REFUSED without the question", changed(func(m *dns.Msg) { m.Rcode, m.Question = dns.RcodeRefused, nil }), nil, Unknown, "says REFUSED", 10},
		{"silence", func(*dns.Msg, func([]byte)) {}, nil, Unknown, "", 8},
		{"an answer with another number", changed(func(m *dns.Msg) { m.Id++ }), nil, Unknown, "", 8},
		{"an answer to another question", changed(func(m *dns.Msg) { m.Question[0].Name = "bob.pool.example." }), nil, Unknown, "", 8},
		{"a question instead of an answer", changed(func(m *dns.Msg) { m.Response = false }), nil, Unknown, "", 8},
		{"NXDOMAIN from one who is not responsible", changed(func(m *dns.Msg) { m.Rcode, m.RecursionAvailable = dns.RcodeNameError, false }), nil, Unknown, "not responsible", 10},
		{"a referral to itself without end", changed(func(m *dns.Msg) {
			m.RecursionAvailable = false
			m.Ns = []dns.RR{record("pool.example. 60 NS ns.pool.example.")}
			m.Extra = []dns.RR{record("ns.pool.example. 60 A 127.0.0.1")}
		}), nil, Unknown, "not responsible", 10},
		{"an alias of itself", changed(func(m *dns.Msg) {
			m.Answer = []dns.RR{record(m.Question[0].Name + " 60 CNAME " + m.Question[0].Name)}
		}), nil, Unknown, "CNAMEs without end", 40},
		{"ever another alias", changed(func(m *dns.Msg) {
			m.Answer = []dns.RR{record(m.Question[0].Name + " 60 CNAME x" + m.Question[0].Name)}
		}), nil, Unknown, "CNAMEs without end", 100},
		{"name servers without end", changed(func(m *dns.Msg) {
			for n := range 40 {
				m.Answer = append(m.Answer, record(m.Question[0].Name+" 60 NS ns"+strings.Repeat("x", n)+".example."))
			}
		}), nil, Gone, "", 60},
		{"truncated, and nobody listens to TCP", truncated, nil, Unknown, "hangs up", 8},
		{"truncated by TCP as well", truncated, func(q *dns.Msg, c net.Conn) {
			m := resolve(q)
			m.Truncated = true
			c.Write(frame(pack(m)))
		}, Unknown, "answers another question", 8},
		{"64 KiB of nonsense by TCP", truncated, func(q *dns.Msg, c net.Conn) { c.Write(frame(make([]byte, 65535))) }, Unknown, "", 8},
		{"64 KiB of records by TCP", truncated, func(q *dns.Msg, c net.Conn) {
			m := resolve(q)
			for n := 0; n < 4000; n++ {
				m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: q.Question[0].Qtype, Class: dns.ClassINET}, A: net.IPv4(192, 0, byte(n>>8), byte(n))})
			}
			c.Write(frame(pack(m)))
		}, Unknown, "", 60},
		{"half an answer by TCP and silence", truncated, func(q *dns.Msg, c net.Conn) {
			c.Write(frame(pack(resolve(q)))[:9])
			io.Copy(io.Discard, c)
		}, Unknown, "does not answer", 8},
		{"another number by TCP", truncated, func(q *dns.Msg, c net.Conn) {
			m := address(q)
			m.Id++
			c.Write(frame(pack(m)))
		}, Unknown, "answers another question", 8},

		{"truncated, whole by TCP", truncated, func(q *dns.Msg, c net.Conn) { c.Write(frame(pack(address(q)))) }, OK, "", 100},
		{"forged packets before the answer", func(q *dns.Msg, send func([]byte)) {
			m := resolve(q)
			m.Id, m.Rcode = m.Id+1, dns.RcodeNameError
			send(pack(m))
			send([]byte{1, 2, 3})
			send(pack(address(q)))
		}, nil, OK, "", 100},
		{"a server that does not know EDNS", func(q *dns.Msg, send func([]byte)) {
			m := address(q)
			if q.IsEdns0() != nil {
				m = resolve(q)
				m.Rcode, m.Question = dns.RcodeFormatError, nil
			}
			send(pack(m))
		}, nil, OK, "", 100},
		{"an address for another name beside ours", func(q *dns.Msg, send func([]byte)) {
			m := address(q)
			m.Answer = append([]dns.RR{record("bob.pool.example. 60 A " + there4)}, m.Answer...)
			send(pack(m))
		}, nil, OK, "", 100},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := startFaulty(t, c.udp, c.tcp)
			if c.finding == Unknown && (c.text == "" || c.text == "does not answer") { // nothing in time is just as good there
				f.patience = patience{udp: 300 * time.Millisecond, tcp: 500 * time.Millisecond}
			}
			o := f.Look(t.Context(), testName(t))
			v := Judge(o, Want{Public: addrs(here4)})
			if v.Finding != c.finding || !strings.Contains(v.Text, c.text) || len(v.Text) > 1000 {
				t.Errorf("got %+v from %+v, want %s %q", v, o, c.finding, c.text)
			}
			if n := f.asked.Load(); n > c.within {
				t.Errorf("asked %d times, want %d at most", n, c.within)
			}
		})
	}
}

// The loopback's network has a broadcast address as others have.
func TestNoPacketGoesToABroadcastAddress(t *testing.T) {
	t.Parallel()
	q := new(dns.Msg).SetQuestion("alice.pool.example.", dns.TypeA)
	m, err := exchangeUDP(t.Context(), netip.MustParseAddrPort("127.255.255.255:53"), q, patient.udp)
	if m != nil || !errors.Is(err, syscall.EACCES) {
		t.Errorf("%v, %v; want the kernel to refuse it", m, err)
	}
}

func TestNameServersAreAskedOnlyWhereOneMayBe(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]bool{
		"192.0.2.1": true, "10.0.0.1": true, "127.0.0.1": true, "2001:db8::1": true, "::1": true, "fd00::1": true,
		"0.0.0.0": false, "::": false, "224.0.0.1": false, "ff02::1": false, "255.255.255.255": false, "169.254.169.254": false, "fe80::1": false,
	} {
		f := startFaulty(t, func(q *dns.Msg, send func([]byte)) {
			m, a := resolve(q), netip.MustParseAddr(address)
			switch kind := q.Question[0].Qtype; {
			case kind == dns.TypeA && a.Is4(), kind == dns.TypeAAAA && a.Is6():
				m.Answer = append(m.Answer, record(q.Question[0].Name+" 60 "+dns.TypeToString[kind]+" "+address))
			}
			send(pack(m))
		}, nil)
		l := &look{port: 53, patience: patient, dead: make(map[netip.AddrPort]error)}
		found := l.nameServers(t.Context(), server{addr: f.Resolvers[0]}, "pool.example.", []string{"ns1.example."})
		if (len(found) > 0) != want {
			t.Errorf("%s: %+v, want it asked: %v", address, found, want)
		}
	}
}

func TestALookEndsWithItsContext(t *testing.T) {
	f := startFaulty(t, nil, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	v := Judge(f.Look(ctx, testName(t)), ours)
	if v.Finding != Unknown {
		t.Errorf("got %+v", v)
	}
}

func TestTheResolversAreThoseOfTheSystem(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"two, one of them IPv6":   {"search x\nnameserver 192.0.2.1\nnameserver 2001:db8::1\n", "192.0.2.1:53 [2001:db8::1]:53"},
		"none means this host":    {"options edns0\n", "127.0.0.1:53"},
		"nonsense is passed over": {"nameserver x\nnameserver 192.0.2.1\n", "192.0.2.1:53"},
	} {
		path := t.TempDir() + "/resolv.conf"
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range resolversOf(path) {
			got = append(got, r.String())
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s: %s, want %s", name, s, c.want)
		}
	}
	if got := resolversOf("/does/not/exist"); len(got) != 1 || got[0].String() != "127.0.0.1:53" {
		t.Errorf("without the file: %v", got)
	}
}
