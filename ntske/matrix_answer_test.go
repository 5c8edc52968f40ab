package ntske

import (
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"ntsagent/ntske/aead"
	"ntsagent/ntske/cookie"
	"ntsagent/ntske/record"
)

// TestMatrixOfTheAnswer has the rows of what is negotiated (§4.1.5 to §4.1.8).
func TestMatrixOfTheAnswer(t *testing.T) {
	l := newLab(t, labTime, nil)

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
			resp, outcome := negotiate(req, offer{opens: tt.opens}, netip.Addr{}, "")
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
			few := newLab(t, labTime, func(c *Config) { c.Cookies = n })
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
		for _, bad := range []string{"münchen.example", "a b", "fe80::1%eth0", strings.Repeat("a", 254), "a_b", "a..b", "-a.example", strings.Repeat("a", 64) + ".example", "*.example", "192.0.2.256", "ntp.example:123"} {
			if _, err := New(Config{Format: cookie.Chrony{}, Ring: func(context.Context) *cookie.Ring { return nil }, NTPHost: bad}); err == nil {
				t.Errorf("we would announce %q", bad)
			}
		}
		for _, good := range []string{"", "ntp.example", "ntp.example.", "xn--mnchen-3ya.example", "192.0.2.1", "2001:db8::1"} {
			if _, err := New(Config{Format: cookie.Chrony{}, Ring: func(context.Context) *cookie.Ring { return nil }, NTPHost: good}); err != nil {
				t.Errorf("we would not announce %q: %v", good, err)
			}
		}
	})
	t.Run("K24 a wish for the very server we serve is echoed, another ignored", func(t *testing.T) {
		six := newLabAt(t, "::1", labTime, nil)
		elsewhere := newLab(t, labTime, func(c *Config) { c.NTPHost = "NTP.Example." })
		shifted := newLab(t, labTime, func(c *Config) { c.NTPPort = 11123 })
		for _, tt := range []struct {
			l    *lab
			host string
			port []byte
			want string
		}{
			{l, "127.0.0.1", nil, "127.0.0.1"},
			{l, "127.0.0.1", rec(7, 0, 123), "127.0.0.1"},
			{l, "127.0.0.1", rec(7, 0, 124), ""},
			{l, "127.0.0.2", nil, ""},
			{l, "::1", nil, ""},
			{l, "", rec(7, 0, 99), ""},
			{six, "::1", nil, "::1"},
			{six, "0:0:0:0:0:0:0:1", rec(7, 0, 123), "0:0:0:0:0:0:0:1"},
			{six, "::1%lo", nil, ""},
			{six, "::2", nil, ""},
			{six, "127.0.0.1", nil, ""},
			{l, testName, nil, testName}, // the name of this TLS connection
			{l, testName, rec(7, 0, 123), testName},
			{l, testName, rec(7, 0, 124), ""},
			{l, "ALICE.pool.Example.", nil, "ALICE.pool.Example."},
			{six, testName, nil, testName},
			{l, "other.example", nil, ""},
			{l, "pool.example", nil, ""},
			{l, "alice.pool.example..", nil, ""},
			{l, "alice.pool.example:123", nil, ""},
			{shifted, testName, rec(7, 11123>>8, 11123&0xff), testName},
			{shifted, testName, rec(7, 0, 123), ""},
			{elsewhere, "ntp.example", nil, "ntp.example"}, // where we serve; asked for or not
			{elsewhere, "nTp.example.", nil, "ntp.example"},
			{elsewhere, testName, nil, "ntp.example"},
			{elsewhere, "127.0.0.1", nil, "ntp.example"},
		} {
			wish := tt.port
			if tt.host != "" {
				wish = join(rec(6, []byte(tt.host)...), tt.port)
			}
			all := tt.l.serves(t, join(nextNTPv4, aead15, wish, end))
			if got := string(bytes.Join(bodies(all, 6), []byte("|"))); got != tt.want || (len(bodies(all, 7)) == 0) != (tt.l != shifted) {
				t.Errorf("wish % x: Server %q, want %q, Port % x", wish, got, tt.want, bodies(all, 7))
			}
		}
		// Who names nobody in TLS asks by a name that may be anybody's.
		for _, wish := range []string{testName, "a_b"} {
			s, err := l.connect(func(c *tls.Config) { c.ServerName, c.InsecureSkipVerify = "", true })
			if err != nil {
				t.Fatal(err)
			}
			s.Write(join(nextNTPv4, aead15, rec(6, []byte(wish)...), end))
			if got := bodies(fields(t, s.rest(t)), 6); len(got) != 0 {
				t.Errorf("without SNI: wish for %s, Server %q", wish, got)
			}
			l.outcome(t, Served)
		}
		// What the system says of an IPv4 client at [::], and of a link.
		for want, addr := range map[string]*net.TCPAddr{"192.0.2.1": {IP: net.ParseIP("::ffff:192.0.2.1")}, "fe80::1": {IP: net.ParseIP("fe80::1"), Zone: "eth0"}} {
			if got := local(reached{addr: addr}); got.String() != want {
				t.Errorf("reached at %v: %v, want %s", addr, got, want)
			}
		}
	})
	t.Run("K25 no Server or Port record unless they are configured", func(t *testing.T) {
		if got, want := kinds(l.serves(t, plain)), []uint16{1, 4, 5, 5, 5, 5, 5, 5, 5, 5, 0}; !slices.Equal(got, want) {
			t.Errorf("records %v, want %v", got, want)
		}
		long := strings.Repeat("a", 63) + "." + strings.Repeat("b", 63) + "." + strings.Repeat("c", 63) + "." + strings.Repeat("d", 61)
		both := newLab(t, labTime, func(c *Config) { c.NTPHost, c.NTPPort = long, 11123 })
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
}

// reached is a connection to an address.
type reached struct {
	net.Conn
	addr net.Addr
}

func (r reached) LocalAddr() net.Addr { return r.addr }

// TestMatrixOfTheKeys has the rows of the exporter (§4.3 and §5.1).
func TestMatrixOfTheKeys(t *testing.T) {
	l := newLab(t, labTime, nil)

	t.Run("K26 keys come from the exporter with its label and a context that starts with the protocol", func(t *testing.T) {
		l.keysAre(t, "EXPORTER-network-time-security", []byte{0, 0, 0, 15}, true)
		l.keysAre(t, "EXPORTER-network-time-securitx", []byte{0, 0, 0, 15}, false)
		l.keysAre(t, "EXPORTER-network-time-security", []byte{0, 1, 0, 15}, false)
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
		l.keysAre(t, "EXPORTER-network-time-security", []byte{0, 0, 0, 30}, false)
	})
	t.Run("K28 the context is never extended", func(t *testing.T) {
		l.keysAre(t, "EXPORTER-network-time-security", []byte{0, 0, 0, 15}, true)
		l.keysAre(t, "EXPORTER-network-time-security", []byte{0, 0, 0, 15}, false, 0)
		l.keysAre(t, "EXPORTER-network-time-security", []byte{0, 0, 0, 15}, false, 0, 0)
		l.keysAre(t, "EXPORTER-network-time-security", []byte{0, 0, 15}, false)
	})
}

// keysAre tells whether C2S and S2C in every cookie shall be what the TLS client
// exports with this label and the context start, direction (0 and 1), more.
func (l *lab) keysAre(t *testing.T, label string, start []byte, want bool, more ...byte) {
	t.Helper()
	s := l.open(t)
	s.Write(plain)
	all := fields(t, s.rest(t))
	l.outcome(t, Served)
	state := s.ConnectionState()
	for _, b := range bodies(all, 5) {
		session, err := cookie.Chrony{}.Open(nil, l.ring, b)
		if err != nil {
			t.Fatal(err)
		}
		for direction, got := range [][]byte{session.C2S, session.S2C} {
			context := join(start, []byte{byte(direction)}, more)
			key, err := state.ExportKeyingMaterial(label, context, 32)
			if err != nil || bytes.Equal(key, got) != want {
				t.Errorf("label %q, context % x: the key in the cookie is that one: %v, want %v (%v)", label, context, !want, want, err)
			}
		}
	}
}
