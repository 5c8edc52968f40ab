package ntske

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"ntsagent/ntske/aead"
	"ntsagent/ntske/client"
	"ntsagent/ntske/cookie"
	"ntsagent/ntske/record"
)

// TestMatrix is RFC 8915 as it binds a key-exchange server, one row after the
// other, over real TLS and with requests written octet by octet.
func TestMatrix(t *testing.T) {
	const timeout = 10 * time.Second
	l := newLab(t, timeout, nil)

	t.Run("K01 below TLS 1.3 nothing is negotiated", func(t *testing.T) {
		_, err := l.connect(func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 })
		if err == nil || !strings.Contains(err.Error(), "protocol version") {
			t.Errorf("TLS 1.2: %v, want the alert protocol_version", err)
		}
		s := l.open(t)
		if v := s.ConnectionState().Version; v != tls.VersionTLS13 {
			t.Errorf("negotiated %s", tls.VersionName(v))
		}
		s.Close()
		l.outcome(t, PeerGone)
	})
	t.Run("K02 the certificate is verified by its DNS-ID", func(t *testing.T) {
		if _, err := l.connect(func(c *tls.Config) { c.ServerName = "mallory.example" }); err == nil {
			t.Error("the certificate is good for another name")
		}
		s := l.open(t)
		if err := s.ConnectionState().PeerCertificates[0].VerifyHostname(testName); err != nil {
			t.Error(err)
		}
		s.Close()
		l.outcome(t, PeerGone)
	})
	t.Run("K03 the application protocol ntske/1 is required", func(t *testing.T) {
		s := l.open(t)
		if p := s.ConnectionState().NegotiatedProtocol; p != "\x6e\x74\x73\x6b\x65\x2f\x31" {
			t.Errorf("negotiated %q", p)
		}
		s.Close()
		l.outcome(t, PeerGone)
		for name, offer := range map[string][]string{"h2 only": {"h2"}, "no ALPN at all": nil} {
			_, err := l.connect(func(c *tls.Config) { c.NextProtos = offer })
			if err == nil || !strings.Contains(err.Error(), "no application protocol") {
				t.Errorf("%s: %v, want the alert no_application_protocol", name, err)
			}
		}
	})
	t.Run("K04 the port is 4460", func(t *testing.T) {
		if DefaultPort != 4460 {
			t.Errorf("default port %d", DefaultPort)
		}
	})
	t.Run("K05 one request gets one response and a close_notify", func(t *testing.T) {
		// This client would take a session ticket.
		s, err := l.connect(func(c *tls.Config) { c.ClientSessionCache = tls.NewLRUClientSessionCache(1) })
		if err != nil {
			t.Fatal(err)
		}
		s.Write(plain)
		s.Write(plain) // a second request is not heard
		reply := s.rest(t)
		if n := len(bodies(fields(t, reply), 1)); n != 1 {
			t.Errorf("%d responses", n)
		}
		l.outcome(t, Served)
		// After the server's flight of the handshake the wire carries two
		// records: the response whole (with content type and tag 17 octets more)
		// and an alert of 2 octets. No session ticket, no second response.
		if got, want := recordLengths(t, s.wire.read.Bytes()), []int{len(reply) + 17, 2 + 17}; !slices.Equal(got, want) {
			t.Errorf("TLS records of %v octets after the handshake, want %v", got, want)
		}
	})
	t.Run("K06 the response ends with End of Message", func(t *testing.T) {
		all := l.serves(t, plain)
		if last := all[len(all)-1]; last.kind != 0 || len(bodies(all, 0)) != 1 {
			t.Errorf("records %v", kinds(all))
		}
	})
	t.Run("K07 requests of 1024 octets and up to 4096 are accepted", func(t *testing.T) {
		for _, n := range []int{1024, 4096} {
			l.serves(t, padTo(n))
		}
		l.serves(t, join(nextNTPv4, aead15, bytes.Repeat(rec(77), (1024-len(plain))/4), end)) // as many records as 1024 octets hold
		l.refuses(t, padTo(4097), error1, BadRequest)
	})
	t.Run("K08 an unknown record that is not critical is ignored", func(t *testing.T) {
		for _, kind := range []uint16{8, 99, 1023, 0x4000, 0x7fff} {
			l.serves(t, join(rec(kind, 1, 2, 3), plain))
		}
		l.serves(t, join(nextNTPv4, rec(99, make([]byte, 1000)...), aead15, rec(99), end))
	})
	t.Run("K09 an unknown critical record gets Error 0", func(t *testing.T) {
		for _, kind := range []uint16{11, 99, 0x4000, 0x7fff} {
			l.refuses(t, join(rec(critical|kind), plain), error0, UnrecognizedCritical)
			l.refuses(t, join(nextNTPv4, aead15, rec(critical|kind, 1), end), error0, UnrecognizedCritical)
		}
	})
	t.Run("K10 End of Message comes once, last, empty and critical", func(t *testing.T) {
		open := join(nextNTPv4, aead15)
		for name, tail := range map[string][]byte{
			"not critical": rec(0), "with a body": rec(critical, 0), "twice": join(end, end), "not last": join(end, rec(99)),
			"one octet after": join(end, []byte{0}), "two octets after": join(end, []byte{0, 0}), "three octets after": join(end, []byte{0, 0, 0}),
		} {
			t.Run(name, func(t *testing.T) { l.refuses(t, join(open, tail), error1, BadRequest) })
		}
		all := l.serves(t, plain)
		if last := all[len(all)-1]; !last.critical || len(last.body) != 0 {
			t.Errorf("ours: %+v", last)
		}
	})
	t.Run("K11 exactly one Next Protocol record, critical, both ways", func(t *testing.T) {
		l.refuses(t, join(aead15, end), error1, BadRequest)
		l.refuses(t, end, error1, BadRequest)
		l.refuses(t, join(nextNTPv4, nextNTPv4, aead15, end), error1, BadRequest)
		l.refuses(t, join(rec(1, 0, 0), aead15, end), error1, BadRequest)
		all := l.serves(t, plain)
		if all[0].kind != 1 || !all[0].critical || len(bodies(all, 1)) != 1 {
			t.Errorf("ours: %v", kinds(all))
		}
		l.serves(t, join(aead15, nextNTPv4, end)) // the order of records is free
	})
	t.Run("K12 the protocols answered are a subset, which may be empty", func(t *testing.T) {
		l.refuses(t, join(rec(critical|1), aead15, end), error1, BadRequest)
		none := []byte{0x80, 1, 0, 0, 0x80, 0, 0, 0}
		l.refuses(t, join(rec(critical|1, 0x80, 1), aead15, end), none, NoCommonProtocol)
		l.refuses(t, join(rec(critical|1, 0x80, 1), end), none, NoCommonProtocol)
		all := l.serves(t, join(rec(critical|1, 0x80, 1, 0, 0), aead15, end))
		if !bytes.Equal(all[0].body, []byte{0, 0}) {
			t.Errorf("answered protocols % x, want NTPv4 alone", all[0].body)
		}
	})
	t.Run("K13 an Error record is two octets and critical", func(t *testing.T) {
		all := fields(t, l.ask(t, end))
		if e := all[0]; len(all) != 2 || e.kind != 2 || !e.critical || len(e.body) != 2 {
			t.Errorf("got %+v", all)
		}
		l.outcome(t, BadRequest)
	})
	t.Run("K14 Error, Warning and Cookie records in a request get Error 1", func(t *testing.T) {
		for _, r := range [][]byte{rec(critical|2, 0, 0), rec(2, 0, 1), rec(critical|3, 0, 0), rec(3, 0, 0), rec(5, make([]byte, 100)...), rec(critical|5, 1)} {
			l.refuses(t, join(nextNTPv4, aead15, r, end), error1, BadRequest)
			l.refuses(t, join(r, plain), error1, BadRequest)
		}
	})
	t.Run("K15 an incomplete or malformed request gets Error 1", func(t *testing.T) {
		for name, request := range map[string][]byte{
			"protocols of 1 octet":            join(rec(critical|1, 0), aead15, end),
			"protocols of 3 octets":           join(rec(critical|1, 0, 0, 0), aead15, end),
			"algorithms of 1 octet":           join(nextNTPv4, rec(4, 15), end),
			"algorithms of 3 octets":          join(nextNTPv4, rec(4, 0, 15, 0), end),
			"a port of 1 octet":               join(nextNTPv4, aead15, rec(7, 1), end),
			"a port of 3 octets":              join(nextNTPv4, aead15, rec(7, 1, 2, 3), end),
			"an empty port":                   join(nextNTPv4, aead15, rec(7), end),
			"a body said to be 65535 octets":  {0x80, 1, 0xff, 0xff, 0, 0},
			"a GCM-SIV record with a body":    join(nextNTPv4, aead15, rec(1024, 0), end),
			"more records than can mean well": join(bytes.Repeat(rec(77), 1000), plain),
			"5000 octets of zeros":            make([]byte, 5000),
			"plain HTTP":                      []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		} {
			t.Run(name, func(t *testing.T) { l.refuses(t, request, error1, BadRequest) })
		}
		for _, n := range []int{1, 3, 4, 5, len(plain) - 4, len(plain) - 1} {
			s := l.open(t)
			s.Write(plain[:n])
			s.CloseWrite() // half-closed: nothing more will come
			if got := s.rest(t); !bytes.Equal(got, error1) {
				t.Errorf("%d of %d octets, then close_notify: got % x", n, len(plain), got)
			}
			l.outcome(t, BadRequest)
		}
	})
	t.Run("K15 a request that is late gets Error 1 before the deadline", func(t *testing.T) {
		const short = 600 * time.Millisecond
		l := newLab(t, short, nil)
		for _, n := range []int{0, 1, len(plain) - 1} {
			begin := time.Now()
			s := l.open(t)
			s.Write(plain[:n])
			if got := s.rest(t); !bytes.Equal(got, error1) {
				t.Errorf("%d octets, then silence: got % x", n, got)
			}
			if took := time.Since(begin); took < short/3 || took > short+short/2 {
				t.Errorf("%d octets, then silence: answered after %v of %v", n, took, short)
			}
			l.outcome(t, Timeout)
		}
	})
	t.Run("K16 an internal failure gets Error 2", func(t *testing.T) {
		without := newLab(t, timeout, func(c *Config) { c.Ring = func() *cookie.Ring { return nil } })
		without.refuses(t, plain, error2, NoKeys)
		unusable := newLab(t, timeout, func(c *Config) {
			key, err := cookie.NewKey(1, aead.SIVCMAC512, make([]byte, 64))
			if err != nil {
				t.Fatal(err)
			}
			ring, err := cookie.NewRing([]*cookie.Key{key}, 0)
			if err != nil {
				t.Fatal(err)
			}
			c.Ring = func() *cookie.Ring { return ring }
		})
		unusable.refuses(t, plain, error2, InternalError)
	})
	t.Run("K17 no answer holds a Warning", func(t *testing.T) {
		for outcome, request := range map[Outcome][]byte{
			Served: plain, BadRequest: end, UnrecognizedCritical: join(rec(critical|99), end),
			NoCommonProtocol: join(rec(critical|1, 0x80, 1), end), NoCommonAEAD: join(nextNTPv4, rec(4, 0, 1), end),
		} {
			if all := fields(t, l.ask(t, request)); len(bodies(all, 3)) != 0 {
				t.Errorf("%v: records %v", outcome, kinds(all))
			}
			l.outcome(t, outcome)
		}
	})
	t.Run("K18 exactly one AEAD record, critical or not", func(t *testing.T) {
		l.refuses(t, join(nextNTPv4, end), error1, BadRequest)
		l.refuses(t, join(nextNTPv4, aead15, aead15, end), error1, BadRequest)
		l.refuses(t, join(nextNTPv4, rec(4), end), error1, BadRequest)
		l.serves(t, join(nextNTPv4, rec(critical|4, 0, 15), end))
	})
	t.Run("K19 no common algorithm gets an empty AEAD record and no cookie", func(t *testing.T) {
		none := []byte{0x80, 1, 0, 2, 0, 0, 0x80, 4, 0, 0, 0x80, 0, 0, 0}
		l.refuses(t, join(nextNTPv4, rec(4, 0, 17), end), none, NoCommonAEAD)
		l.refuses(t, join(nextNTPv4, rec(4, bytes.Repeat([]byte{0, 99}, 1000)...), end), none, NoCommonAEAD)
		all := l.serves(t, plain)
		if b := bodies(all, 4); len(b) != 1 || !bytes.Equal(b[0], []byte{0, 15}) {
			t.Errorf("answered algorithms % x", b)
		}
	})
	t.Run("K20 algorithm 15 is taken whenever it is offered", func(t *testing.T) {
		for _, offer := range [][]byte{{0, 30, 0, 15}, {0, 17, 0, 15}, {0, 15, 0, 30}, {0xff, 0xff, 0, 1, 0, 30, 0, 16, 0, 15}} {
			for _, compliant := range [][]byte{nil, rec(1024)} {
				all := l.serves(t, join(nextNTPv4, rec(4, offer...), compliant, end))
				if b := bodies(all, 4); len(b) != 1 || !bytes.Equal(b[0], []byte{0, 15}) {
					t.Errorf("offer % x: answered % x", offer, b)
				}
				if len(bodies(all, 1024)) != 0 {
					t.Errorf("offer % x: record 1024 without algorithm 30", offer)
				}
			}
		}
	})
	t.Run("K21 the client's order of preference is honoured", func(t *testing.T) {
		for _, tt := range []struct {
			offer, opens []aead.ID
			compliant    bool
			want         aead.ID
		}{
			{[]aead.ID{17, 15}, []aead.ID{15, 17}, false, 17},
			{[]aead.ID{15, 17}, []aead.ID{17, 15}, false, 15},
			{[]aead.ID{30, 15}, []aead.ID{15, 30}, true, 30},
			{[]aead.ID{30, 15}, []aead.ID{15, 30}, false, 15}, // nobody knows which keys this client derives for 30
			{[]aead.ID{30}, []aead.ID{15, 30}, false, 0},
			{[]aead.ID{16}, []aead.ID{15}, true, 0},
		} {
			req := record.Request{Protocols: []record.Protocol{record.NTPv4}, AEADs: tt.offer, Compliant128GCM: tt.compliant}
			resp, outcome := negotiate(req, offer{opens: tt.opens}, netip.Addr{})
			if tt.want == 0 {
				if outcome != NoCommonAEAD || len(resp.AEADs) != 0 {
					t.Errorf("%+v: %v %v", tt, resp, outcome)
				}
				continue
			}
			if outcome != Served || !slices.Equal(resp.AEADs, []aead.ID{tt.want}) || resp.Compliant128GCM != (tt.want == 30) {
				t.Errorf("%+v: %v %v", tt, resp, outcome)
			}
		}
	})
	t.Run("K22 eight cookies, not critical, that open to the session's keys", func(t *testing.T) {
		s := l.open(t)
		s.Write(plain)
		all := fields(t, s.rest(t))
		l.outcome(t, Served)
		c2s, s2c := exported(t, s.Conn, 15, 32)
		seen := map[string]bool{}
		for _, f := range all {
			if f.kind != 5 {
				continue
			}
			session, err := cookie.Chrony{}.Open(nil, l.ring, f.body)
			if err != nil || f.critical || len(f.body) != 100 || !bytes.Equal(session.C2S, c2s) || !bytes.Equal(session.S2C, s2c) {
				t.Errorf("cookie of %d octets, critical %v, error %v, keys right %v", len(f.body), f.critical, err, bytes.Equal(session.C2S, c2s))
			}
			seen[string(f.body)] = true
		}
		if len(seen) != 8 {
			t.Errorf("%d different cookies", len(seen))
		}
		for n := 1; n <= 8; n++ {
			few := newLab(t, timeout, func(c *Config) { c.Cookies = n })
			if got := len(bodies(few.serves(t, plain), 5)); got != n {
				t.Errorf("%d cookies, %d configured", got, n)
			}
		}
	})
	t.Run("K23 one Server and one Port record at most, in ASCII", func(t *testing.T) {
		host := rec(6, []byte("ntp.example")...)
		port := rec(7, 0, 123)
		l.refuses(t, join(nextNTPv4, aead15, host, host, end), error1, BadRequest)
		l.refuses(t, join(nextNTPv4, aead15, port, port, end), error1, BadRequest)
		for _, bad := range []string{"", "m\xc3\xbcnchen.example", "a b", "a\x00b", "a\nb", strings.Repeat("a", 256)} {
			l.refuses(t, join(nextNTPv4, aead15, rec(6, []byte(bad)...), end), error1, BadRequest)
		}
		for _, bad := range []string{"münchen.example", "a b", "fe80::1%eth0", strings.Repeat("a", 254), "a_b"} {
			if _, err := New(Config{Ring: func() *cookie.Ring { return nil }, NTPHost: bad}); err == nil {
				t.Errorf("we would announce %q", bad)
			}
		}
		for _, good := range []string{"", "ntp.example", "ntp.example.", "xn--mnchen-3ya.example", "192.0.2.1", "2001:db8::1"} {
			if _, err := New(Config{Ring: func() *cookie.Ring { return nil }, NTPHost: good}); err != nil {
				t.Errorf("we would not announce %q: %v", good, err)
			}
		}
	})
	t.Run("K24 a wish for the very server we serve is echoed, another ignored", func(t *testing.T) {
		for _, tt := range []struct {
			wish []byte
			want string
		}{
			{rec(6, []byte("127.0.0.1")...), "127.0.0.1"},
			{join(rec(6, []byte("127.0.0.1")...), rec(7, 0, 123)), "127.0.0.1"},
			{join(rec(6, []byte("127.0.0.1")...), rec(7, 0, 124)), ""},
			{rec(6, []byte("127.0.0.2")...), ""},
			{rec(6, []byte("::1")...), ""},
			{rec(6, []byte("other.example")...), ""},
			{rec(7, 0, 99), ""},
		} {
			all := l.serves(t, join(nextNTPv4, aead15, tt.wish, end))
			if got := string(bytes.Join(bodies(all, 6), []byte("|"))); got != tt.want || len(bodies(all, 7)) != 0 {
				t.Errorf("wish % x: Server %q, want %q, Port % x", tt.wish, got, tt.want, bodies(all, 7))
			}
		}
		elsewhere := newLab(t, timeout, func(c *Config) { c.NTPHost = "ntp.example" })
		all := elsewhere.serves(t, join(nextNTPv4, aead15, rec(6, []byte("127.0.0.1")...), end))
		if got := bodies(all, 6); len(got) != 1 || string(got[0]) != "ntp.example" {
			t.Errorf("Server %q, though we serve at ntp.example only", got)
		}
	})
	t.Run("K25 no Server or Port record unless they are configured", func(t *testing.T) {
		if got, want := kinds(l.serves(t, plain)), []uint16{1, 4, 5, 5, 5, 5, 5, 5, 5, 5, 0}; !slices.Equal(got, want) {
			t.Errorf("records %v, want %v", got, want)
		}
		long := strings.Repeat("a", 63) + "." + strings.Repeat("b", 63) + "." + strings.Repeat("c", 63) + "." + strings.Repeat("d", 61)
		both := newLab(t, timeout, func(c *Config) { c.NTPHost, c.NTPPort = long, 11123 })
		s := both.open(t)
		s.Write(plain)
		reply := s.rest(t)
		all := fields(t, reply)
		if got, want := kinds(all), []uint16{1, 4, 7, 6, 5, 5, 5, 5, 5, 5, 5, 5, 0}; !slices.Equal(got, want) {
			t.Errorf("records %v, want %v", got, want)
		}
		if !bytes.Equal(bodies(all, 7)[0], []byte{11123 >> 8, 11123 & 0xff}) || string(bodies(all, 6)[0]) != long {
			t.Errorf("Port % x, Server %q", bodies(all, 7), bodies(all, 6))
		}
		// The longest reply of all is one TLS record still, and within what NTPsec reads.
		if got := recordLengths(t, s.wire.read.Bytes()); len(got) != 2 || got[0] != len(reply)+17 || len(reply) > 2048 {
			t.Errorf("reply of %d octets in TLS records of %v", len(reply), got)
		}
	})
	t.Run("K26 keys come from the exporter with its label and a context that starts with the protocol", func(t *testing.T) {
		l.keysDiffer(t, "EXPORTER-network-time-securitx", []byte{0, 0, 0, 15, 0})
		l.keysDiffer(t, "EXPORTER-network-time-security", []byte{0, 1, 0, 15, 0})
	})
	t.Run("K27 the context is protocol, algorithm and direction, the length that of the algorithm's key", func(t *testing.T) {
		for _, alg := range []aead.ID{15, 16, 17, 30} {
			s := l.open(t)
			state := s.ConnectionState()
			got, err := exportKeys(&state, alg)
			if err != nil {
				t.Fatal(err)
			}
			c2s, s2c := exported(t, s.Conn, alg, alg.KeyLen())
			if !bytes.Equal(got.C2S, c2s) || !bytes.Equal(got.S2C, s2c) || bytes.Equal(c2s, s2c) || got.AEAD != alg {
				t.Errorf("%v: wrong keys", alg)
			}
			s.Close()
			l.outcome(t, PeerGone)
		}
		l.keysDiffer(t, "EXPORTER-network-time-security", []byte{0, 0, 0, 30, 0})
		l.keysDiffer(t, "EXPORTER-network-time-security", []byte{0, 0, 0, 15, 1})
	})
	t.Run("K28 the context is never extended", func(t *testing.T) {
		l.keysDiffer(t, "EXPORTER-network-time-security", []byte{0, 0, 0, 15, 0, 0})
		l.keysDiffer(t, "EXPORTER-network-time-security", []byte{0, 0, 0, 15})
	})
	t.Run("K29 our own client backs off by 10 s · 1.5^(n-1) to 5 days", func(t *testing.T) {
		for n, want := range map[int]time.Duration{0: 10 * time.Second, 1: 10 * time.Second, 2: 15 * time.Second, 3: 22500 * time.Millisecond, 28: 432000 * time.Second, 10000: 432000 * time.Second} {
			if got := client.Backoff(n); got != want {
				t.Errorf("retry %d after %v, want %v", n, got, want)
			}
		}
	})
}

// padTo is a good request of exactly n octets.
func padTo(n int) []byte {
	return join(nextNTPv4, aead15, rec(99, make([]byte, n-len(plain)-4)...), end)
}

// keysDiffer requires that the C2S key in a cookie is not the one that this
// label and context give.
func (l *lab) keysDiffer(t *testing.T, label string, context []byte) {
	t.Helper()
	s := l.open(t)
	s.Write(plain)
	all := fields(t, s.rest(t))
	l.outcome(t, Served)
	session, err := cookie.Chrony{}.Open(nil, l.ring, bodies(all, 5)[0])
	if err != nil {
		t.Fatal(err)
	}
	state := s.ConnectionState()
	other, err := state.ExportKeyingMaterial(label, context, 32)
	if err != nil || bytes.Equal(other, session.C2S) {
		t.Errorf("label %q, context % x: same key, or %v", label, context, err)
	}
}

// recordLengths returns the body lengths of the TLS records that came after the
// server's flight, which ends with its Finished: five records (ServerHello,
// ChangeCipherSpec and, encrypted, EncryptedExtensions, Certificate,
// CertificateVerify, Finished, each in a record of its own).
func recordLengths(t *testing.T, wire []byte) (n []int) {
	t.Helper()
	const flight = 6
	for len(wire) >= 5 {
		length := int(wire[3])<<8 | int(wire[4])
		if len(wire) < 5+length {
			break
		}
		n = append(n, length)
		wire = wire[5+length:]
	}
	if len(wire) != 0 || len(n) < flight {
		t.Fatalf("%d octets left after TLS records of %v", len(wire), n)
	}
	return n[flight:]
}

// alone serves one connection with nothing around ServeConn, and leaves it open
// until the client has read to the end.
func alone(t *testing.T, protocols []string, request []byte) (answer []byte, outcome Outcome) {
	t.Helper()
	l := newLab(t, time.Second, nil)
	s, err := New(Config{Ring: func() *cookie.Ring { return l.ring }, Observe: func(_ context.Context, o Outcome) { outcome = o }})
	if err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	near.SetDeadline(time.Now().Add(10 * time.Second))
	done := make(chan struct{})
	go func() {
		defer close(done)
		cert := l.identity()
		c := tls.Server(far, TLSConfig(func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert, nil }))
		if err := c.Handshake(); err != nil {
			t.Error(err)
			return
		}
		s.ServeConn(t.Context(), c)
	}()
	c := tls.Client(near, &tls.Config{InsecureSkipVerify: true, NextProtos: protocols})
	if _, err := c.Write(request); err != nil {
		t.Fatal(err)
	}
	answer, err = io.ReadAll(c)
	if err != nil {
		t.Errorf("no close_notify: %v", err)
	}
	<-done
	return answer, outcome
}

func TestServeConnNeedsNoListenerOfOurs(t *testing.T) {
	t.Run("it says close_notify itself", func(t *testing.T) {
		answer, outcome := alone(t, []string{Protocol}, plain)
		if outcome != Served || len(bodies(fields(t, answer), 5)) != 8 {
			t.Errorf("outcome %q, % x", outcome, answer)
		}
	})
	t.Run("a connection without protocol is closed unserved", func(t *testing.T) {
		answer, outcome := alone(t, nil, nil)
		if outcome != NoALPN || len(answer) != 0 {
			t.Errorf("outcome %q, % x", outcome, answer)
		}
	})
}

// By default crypto/tls cuts what is written first into records of a segment.
func TestWhatIsWrittenAtOnceIsOneTLSRecord(t *testing.T) {
	l := newLab(t, time.Second, nil)
	cert := l.identity()
	near, far := net.Pipe()
	defer near.Close()
	go func() {
		defer far.Close()
		tls.Server(far, TLSConfig(func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert, nil })).Write(make([]byte, 4000))
	}()
	wire := &recorder{Conn: near}
	io.Copy(io.Discard, tls.Client(wire, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{Protocol}}))
	if got := recordLengths(t, wire.read.Bytes()); !slices.Equal(got, []int{4017}) {
		t.Errorf("TLS records of %v octets", got)
	}
}
