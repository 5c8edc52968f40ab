package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"ntsagent/ntske"
	"ntsagent/ntske/cookie"
	"ntsagent/ntske/packet"
)

// zone answers DNS queries from a list of records; a type in broken fails.
type zone struct {
	records  []string
	broken   uint16
	truncate bool // over UDP, so that the answer has to be fetched over TCP
}

func (z zone) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg).SetReply(q)
	m.Rcode = dns.RcodeNameError
	if q.Question[0].Name == "www.Pool.example." && q.Question[0].Qtype == dns.TypeA {
		for _, text := range []string{"b.example. CNAME c.example.", "www.pool.example. CNAME b.example.", "evil.example. A 192.0.2.66", "C.example. A 192.0.2.9"} {
			rr, err := dns.NewRR(text)
			if err != nil {
				panic(err)
			}
			m.Answer = append(m.Answer, rr)
		}
		m.Rcode = dns.RcodeSuccess
	}
	for _, text := range z.records {
		rr, err := dns.NewRR(text)
		if err != nil {
			panic(err)
		}
		if strings.EqualFold(rr.Header().Name, q.Question[0].Name) {
			m.Rcode = dns.RcodeSuccess
			if rr.Header().Rrtype == q.Question[0].Qtype {
				m.Answer = append(m.Answer, rr)
			}
		}
	}
	if q.Question[0].Qtype == z.broken {
		m.Rcode, m.Answer = dns.RcodeServerFailure, nil
	}
	if _, tcp := w.RemoteAddr().(*net.TCPAddr); z.truncate && !tcp {
		m.Truncated, m.Answer = true, nil
	}
	w.WriteMsg(m)
}

// serve runs the zone and returns its ip:port.
func (z zone) serve(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	pc, err := net.ListenPacket("udp", ln.Addr().String())
	for range 50 { // until the port is free for both
		if err == nil {
			break
		}
		ln.Close()
		if ln, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		pc, err = net.ListenPacket("udp", ln.Addr().String())
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*dns.Server{{PacketConn: pc, Handler: z}, {Listener: ln, Handler: z}} {
		ready, done := make(chan struct{}), make(chan error, 1)
		s.NotifyStartedFunc = func() { close(ready) }
		go func() { done <- s.ActivateAndServe() }()
		<-ready
		t.Cleanup(func() { s.Shutdown(); <-done })
	}
	return ln.Addr().String()
}

func TestResolve(t *testing.T) {
	full := zone{records: []string{
		"alice.pool.example. A 192.0.2.7", "alice.pool.example. A 192.0.2.7", "alice.pool.example. AAAA 2001:db8::7",
		"v4.pool.example. A 192.0.2.8", "v6.pool.example. AAAA 2001:db8::8", "none.pool.example. TXT x"}}.serve(t)
	long := zone{truncate: true, records: []string{"alice.pool.example. A 192.0.2.7"}}.serve(t)
	half := zone{records: []string{"alice.pool.example. A 192.0.2.7"}, broken: dns.TypeAAAA}.serve(t)
	tests := []struct {
		name     string
		resolver string
		host     string
		want     []string
		fault    Fault // 0: no error
	}{
		{"both families, each address once, IPv4 first", full, "alice.pool.example", []string{"192.0.2.7", "2001:db8::7"}, 0},
		{"a trailing dot", full, "alice.pool.example.", []string{"192.0.2.7", "2001:db8::7"}, 0},
		{"IPv4 only is no error", full, "v4.pool.example", []string{"192.0.2.8"}, 0},
		{"IPv6 only is no error", full, "v6.pool.example", []string{"2001:db8::8"}, 0},
		{"an alias of an alias, and an address not asked for", full, "www.Pool.example", []string{"192.0.2.9"}, 0},
		{"an answer too long for UDP", long, "alice.pool.example", []string{"192.0.2.7"}, 0},
		{"a name without addresses", full, "none.pool.example", nil, Server},
		{"a name that does not exist", full, "nobody.pool.example", nil, Server},
		{"one family cannot be looked up", half, "alice.pool.example", []string{"192.0.2.7"}, Tool},
		{"a resolver that is not there", "127.0.0.1:1", "alice.pool.example", nil, Tool},
		{"a resolver that is no address", "dns.example:53", "alice.pool.example", nil, Tool},
		{"an IPv4 address", "127.0.0.1:1", "192.0.2.1", []string{"192.0.2.1"}, 0},
		{"an IPv6 address", "", "2001:db8::1", []string{"2001:db8::1"}, 0},
		{"a mapped address", "", "::ffff:192.0.2.1", []string{"192.0.2.1"}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Resolve(patient(t), tt.resolver, tt.host)
			var texts []string
			for _, a := range got {
				texts = append(texts, a.String())
			}
			if !slices.Equal(texts, tt.want) {
				t.Errorf("got %v, want %v (%v)", texts, tt.want, err)
			}
			if tt.fault == 0 && err != nil {
				t.Errorf("error %v", err)
			} else if tt.fault != 0 {
				blames(t, err, tt.fault, "resolve", "")
			}
		})
	}
}

// twoFamilies is a world on both loopback addresses with one port for the key
// exchange, as a name with two addresses has it.
func twoFamilies(t *testing.T, with6 bool) (w *world, port uint16) {
	t.Helper()
	w = newWorld(t, "127.0.0.1", nil)
	// The same key exchange at ::1, whose NTP server must have the same port too.
	for range 50 {
		if !with6 {
			if occupy(t, w.ke.Port()) {
				return w, w.ke.Port()
			}
			w = newWorld(t, "127.0.0.1", nil)
			continue
		}
		ln, err := net.Listen("tcp", fmt.Sprintf("[::1]:%d", w.ke.Port()))
		if err != nil {
			w = newWorld(t, "127.0.0.1", nil)
			continue
		}
		conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv6loopback, Port: int(w.ntp.addr.Port())})
		if err != nil {
			ln.Close()
			w = newWorld(t, "127.0.0.1", nil)
			continue
		}
		second := new(responder)
		second.ring.Store(w.ring)
		second.run(t, conn)
		server, err := ntske.New(ntske.Config{Format: cookie.Chrony{}, Ring: func(context.Context) *cookie.Ring { return w.ring }, NTPPort: w.ntp.addr.Port()})
		if err != nil {
			t.Fatal(err)
		}
		serveOn(t, ln, ntske.TLSConfig(func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &w.cert, nil }), server)
		return w, w.ke.Port()
	}
	t.Fatal("no port is free on both loopback addresses")
	return nil, 0
}

// occupy takes a port of TCP at ::1 and does not listen, so that nobody can connect there until the test ends.
func occupy(t *testing.T, port uint16) bool {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET6, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	return syscall.Bind(fd, &syscall.SockaddrInet6{Port: int(port), Addr: netip.IPv6Loopback().As16()}) == nil
}

func (w *world) check(t *testing.T, port uint16, change func(*CheckConfig)) Report {
	t.Helper()
	c := CheckConfig{Name: testName, Port: port, Roots: w.roots, Timeout: patience, queryTime: patience / 2,
		Resolver: zone{records: []string{testName + ". A 127.0.0.1", testName + ". AAAA ::1", "ntp.example. A 127.0.0.1", "six.example. AAAA ::1"}}.serve(t)}
	if change != nil {
		change(&c)
	}
	return Check(t.Context(), c)
}

func TestCheckGoesTheWholeWayOnBothFamilies(t *testing.T) {
	w, port := twoFamilies(t, true)
	r := w.check(t, port, nil)
	if !r.OK || r.Fault() != 0 || r.Problem != nil || len(r.Results) != 2 {
		t.Fatalf("got %+v", dump(r))
	}
	for i, family := range []string{"ipv4", "ipv6"} {
		a := r.Results[i]
		if a.Family != family || a.TLS.Version != "1.3" || a.TLS.Group != "X25519MLKEM768" || a.TLS.Issuer != "Test CA" || a.TLS.DaysLeft != 31 {
			t.Errorf("%s: TLS %+v", family, *a.TLS)
		}
		if k := a.KE; k.Cookies != 8 || k.CookieOctets != 100 || k.AEAD != 15 || k.NTPPort != w.ntp.addr.Port() || k.NTPHost != "" || k.TookMS <= 0 {
			t.Errorf("%s: KE %+v", family, *a.KE)
		}
		if n := a.NTP; n.Address.Addr() != a.Address || n.Replies != 2 || n.KECookies != 1 || n.Refreshed != 1 || n.Lost != 0 || n.ReferenceID != "198.51.100.4" {
			t.Errorf("%s: NTP %+v", family, *a.NTP)
		}
	}
}

func dump(r Report) string { b, _ := json.MarshalIndent(r, "", " "); return string(b) }

func TestCheckSaysWhichFamilyFails(t *testing.T) {
	w, port := twoFamilies(t, false)
	r := w.check(t, port, nil)
	if r.OK || r.Fault() != Server || len(r.Results) != 2 || r.Results[0].Problem != nil || r.Results[1].Problem == nil {
		t.Fatalf("got %s", dump(r))
	}
	if p := r.Results[1].Problem; p.Step != "connect" || p.Fault != Server || r.Results[1].Family != "ipv6" {
		t.Errorf("got %+v", p)
	}
	if r := w.check(t, port, func(c *CheckConfig) { c.Family = 4 }); !r.OK || len(r.Results) != 1 {
		t.Errorf("IPv4 alone: %s", dump(r))
	}
}

func TestCheckFindsWhatIsWrong(t *testing.T) {
	w, port := twoFamilies(t, false)
	soon := func(c *CheckConfig) { c.queryTime = 100 * time.Millisecond }
	silent := func(int32, []byte, func([]byte)) bool { return false }
	set := func(f func(*packet.Header)) func() { return func() { w.ntp.header.Store(&f) } }
	tests := []struct {
		name   string
		spoil  func()
		change func(*CheckConfig)
		step   string
		fault  Fault
		words  string
	}{
		{"another certificate authority", nil, func(c *CheckConfig) { c.Roots = x509.NewCertPool() }, "tls", Server, "certificate that verifies"},
		{"another name", nil, func(c *CheckConfig) { c.Name = "ntp.example" }, "tls", Server, "certificate that verifies"},
		{"no NTP answer", func() { w.ntp.hook(silent) }, soon, "ntp", Server, "no answer in time"},
		{"an unknown cookie key", func() { w.ntp.ring.Store(mustRing(t)) }, nil, "ntp", Server, "NTS NAK"},
		{"a clock that is not synchronised", set(func(h *packet.Header) { h.Leap = 3 }), nil, "ntp", Server, "synchronised clock yet (leap 3, stratum 2)"},
		{"stratum 16", set(func(h *packet.Header) { h.Stratum = 16 }), nil, "ntp", Server, "synchronised clock"},
		{"a server that has just started", set(func(h *packet.Header) { h.Leap, h.Stratum, h.RefID = 3, 0, [4]byte{} }), nil, "ntp", Server,
			"synchronised clock yet (leap 3, stratum 0)"},
		{"one that names its last source", set(func(h *packet.Header) { h.Leap, h.Stratum, h.RefID = 3, 0, [4]byte{192, 0, 2, 'A'} }), nil, "ntp", Server,
			"synchronised clock yet"},
		{"an authenticated kiss with leap 3", set(func(h *packet.Header) { h.Leap, h.Stratum, h.RefID = 3, 0, [4]byte{'D', 'E', 'N', 'Y'} }), nil, "ntp", Server,
			"kiss code DENY"},
		{"an authenticated kiss", set(func(h *packet.Header) { h.Stratum, h.RefID = 0, [4]byte{'R', 'A', 'T', 'E'} }), nil, "ntp", Server, "kiss code RATE"},
		{"a clock outside the certificate", set(func(h *packet.Header) {
			far := packet.FromTime(time.Now().AddDate(1, 0, 0))
			h.Receive, h.Transmit = far, far
		}), nil, "ntp", Server, "within the life of its own certificate"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w.ntp.ring.Store(w.ring)
			w.ntp.before.Store(nil)
			w.ntp.header.Store(nil)
			if tt.spoil != nil {
				tt.spoil()
			}
			r := w.check(t, port, func(c *CheckConfig) {
				c.Family = 4
				if tt.change != nil {
					tt.change(c)
				}
			})
			if r.OK || len(r.Results) != 1 || r.Results[0].Problem == nil {
				t.Fatalf("got %s", dump(r))
			}
			if p := r.Results[0].Problem; p.Step != tt.step || p.Fault != tt.fault || !strings.Contains(p.Text, tt.words) {
				t.Errorf("got %+v", p)
			}
		})
	}
}

func mustRing(t *testing.T) *cookie.Ring { return newWorld(t, "127.0.0.1", nil).ring }

func TestCheckWithoutAnAddress(t *testing.T) {
	w, port := twoFamilies(t, false)
	for name, tt := range map[string]struct {
		change func(*CheckConfig)
		fault  Fault
	}{
		"no such name":        {func(c *CheckConfig) { c.Name = "nobody.example" }, Server},
		"no such family":      {func(c *CheckConfig) { c.Name, c.Family = "ntp.example", 6 }, Server},
		"no resolver answers": {func(c *CheckConfig) { c.Resolver, c.Timeout = "127.0.0.1:1", 200*time.Millisecond }, Tool},
	} {
		r := w.check(t, port, tt.change)
		if r.OK || r.Problem == nil || r.Problem.Step != "resolve" || r.Problem.Fault != tt.fault || len(r.Results) != 0 {
			t.Errorf("%s: %s", name, dump(r))
		}
		if !strings.Contains(dump(r), `"results": []`) {
			t.Errorf("%s: results are not an empty list: %s", name, dump(r))
		}
	}
}

func TestCheckFollowsTheAnnouncedServer(t *testing.T) {
	w := newWorld(t, "127.0.0.1", func(c *ntske.Config) { c.NTPHost = "ntp.example" })
	r := w.check(t, w.ke.Port(), func(c *CheckConfig) { c.Family = 4 })
	if !r.OK || r.Results[0].KE.NTPHost != "ntp.example" || r.Results[0].NTP.Address != w.ntp.addr {
		t.Errorf("got %s", dump(r))
	}
	lost := newWorld(t, "127.0.0.1", func(c *ntske.Config) { c.NTPHost = "gone.example" })
	r = lost.check(t, lost.ke.Port(), func(c *CheckConfig) { c.Family = 4 })
	if p := r.Results[0].Problem; p == nil || p.Step != "resolve" || p.Fault != Server {
		t.Errorf("got %s", dump(r))
	}
}

func TestCheckOutlivesLostPackets(t *testing.T) {
	t.Parallel() // with those that take their time
	w, port := twoFamilies(t, false)
	w.ntp.hook(func(n int32, _ []byte, _ func([]byte)) bool { return n%2 == 0 }) // every other one is lost
	r := w.check(t, port, func(c *CheckConfig) { c.Family, c.queryTime = 4, 5*time.Second })
	if !r.OK {
		t.Fatalf("got %s", dump(r))
	}
	if n := r.Results[0].NTP; n.Replies != 2 || n.Lost != 2 || n.KECookies != 1 || n.Refreshed != 1 {
		t.Errorf("got %+v", n)
	}
}

func TestCheckAsksAsOftenAsIsWanted(t *testing.T) {
	w, port := twoFamilies(t, false)
	r := w.check(t, port, func(c *CheckConfig) { c.Family, c.Count = 4, 20 })
	if n := r.Results[0].NTP; !r.OK || n.Replies != 20 || n.KECookies != 1 || n.Refreshed != 19 {
		t.Errorf("got %s", dump(r))
	}
}

func TestReportKeysAreStable(t *testing.T) {
	r := Report{Addresses: []netip.Addr{}, Problem: new(Problem), Results: []AddressReport{{TLS: new(TLSReport), KE: new(KEReport), NTP: new(NTPReport), Problem: new(Problem)}}}
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var tree map[string]any
	if err := json.Unmarshal(b, &tree); err != nil {
		t.Fatal(err)
	}
	got := keysOf("", tree)
	slices.Sort(got)
	want := []string{
		".addresses", ".name", ".ok", ".port", ".problem", ".problem.fault", ".problem.step", ".problem.text", ".results",
		".results.address", ".results.family", ".results.ntp", ".results.ntp.address", ".results.ntp.delay_ms", ".results.ntp.leap",
		".results.ntp.lost", ".results.ntp.offset_ms", ".results.ntp.refid", ".results.ntp.replies", ".results.ntp.stratum",
		".results.ntp.with_key_exchange_cookie", ".results.ntp.with_refreshed_cookie", ".results.ntske", ".results.ntske.aead",
		".results.ntske.aead_name", ".results.ntske.cookie_octets", ".results.ntske.cookies", ".results.ntske.ntp_host",
		".results.ntske.ntp_port", ".results.ntske.took_ms", ".results.problem", ".results.problem.fault", ".results.problem.step",
		".results.problem.text", ".results.tls", ".results.tls.days_left", ".results.tls.group", ".results.tls.issuer",
		".results.tls.name", ".results.tls.not_after", ".results.tls.version",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func keysOf(path string, v any) (keys []string) {
	switch v := v.(type) {
	case map[string]any:
		for k, child := range v {
			keys = append(append(keys, path+"."+k), keysOf(path+"."+k, child)...)
		}
	case []any:
		for _, child := range v {
			keys = append(keys, keysOf(path, child)...)
		}
	}
	return keys
}

func TestReferenceID(t *testing.T) {
	for want, in := range map[string]struct {
		stratum uint8
		id      [4]byte
	}{
		"GPS": {1, [4]byte{'G', 'P', 'S', 0}}, "RATE": {0, [4]byte{'R', 'A', 'T', 'E'}}, "..": {1, [4]byte{27, ' '}}, "": {1, [4]byte{}},
		"192.0.2.1": {2, [4]byte{192, 0, 2, 1}},
	} {
		if got := referenceID(in.stratum, in.id); got != want {
			t.Errorf("%v: got %q, want %q", in, got, want)
		}
	}
}
