package ntske

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"ntsagent/ntske/client"
	"ntsagent/ntske/cookie"
)

// The tests called TestMatrix are RFC 8915 as it binds a key-exchange server and
// our own client, one row after the other, over real TLS and with requests
// written octet by octet. labTime is more than any of it takes on any machine.
const labTime = time.Minute

// patient is a context that ends so late that nothing is held up by it.
func patient(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), labTime)
	t.Cleanup(cancel)
	return ctx
}

// TestMatrixOfTheConnection has the rows of what is around the messages (§3 and §4).
func TestMatrixOfTheConnection(t *testing.T) {
	l := newLab(t, labTime, nil)

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
	t.Run("K02 our own client verifies the certificate before it sends a record", func(t *testing.T) {
		var foreign x509.UnknownAuthorityError
		var name x509.HostnameError
		var invalid x509.CertificateInvalidError
		hour := time.Now().Add(time.Hour)
		for _, tt := range []struct {
			what  string
			ask   string
			end   time.Time
			roots *x509.CertPool // nil: the right ones
			why   any            // of the refusal; nil: there is none
		}{
			{"a good one", testName, hour, nil, nil},
			{"for another name", "mallory.example", hour, nil, &name},
			{"by nobody we trust", testName, hour, x509.NewCertPool(), &foreign},
			{"that has ended", testName, time.Now().Add(-time.Minute), nil, &invalid},
		} {
			addr, roots, heard := l.listen(t, tt.end)
			if tt.roots != nil {
				roots = tt.roots
			}
			_, err := client.KeyExchange(patient(t), client.Config{Addr: addr, Name: tt.ask, Roots: roots})
			if tt.why != nil && !errors.As(err, tt.why) {
				t.Errorf("certificate %s: %v, want a %T", tt.what, err, tt.why)
			}
			if b := <-heard; (len(b) == 0) != (tt.why != nil) {
				t.Errorf("certificate %s: the server was sent % x", tt.what, b)
			}
		}
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
	// Where the server listens is for agent/config to say.
	t.Run("K04 our own client asks at port 4460 if no other is given", func(t *testing.T) {
		none, cancel := context.WithCancel(t.Context())
		cancel()
		for given, want := range map[uint16]uint16{0: 4460, 14460: 14460} {
			if r := client.Check(none, client.CheckConfig{Name: "127.0.0.1", Port: given}); r.Port != want {
				t.Errorf("port %d given: asked at %d, want %d", given, r.Port, want)
			}
		}
	})
	t.Run("K05 one request gets one response and a close_notify", func(t *testing.T) {
		s := l.open(t)
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
	// The waits of §4.2 are for a client that tries again. Ours is a probe.
	t.Run("K29 our own client tries a key exchange once", func(t *testing.T) {
		for what, answer := range map[string][]byte{"nothing": nil, "Error 1": error1, "Error 2": error2, "text": []byte("HTTP/1.1 503\r\n\r\n")} {
			addr, roots, heard := l.listen(t, time.Now().Add(time.Hour), answer...)
			_, err := client.KeyExchange(patient(t), client.Config{Addr: addr, Name: testName, Roots: roots})
			if err == nil {
				t.Errorf("%s was taken for an answer", what)
			}
			r := client.Check(t.Context(), client.CheckConfig{Name: "127.0.0.1", Port: addr.Port(), Roots: roots, Timeout: labTime})
			if r.OK || len(r.Results) != 1 || r.Results[0].Problem.Step != "ntske" {
				t.Errorf("%s: the check reports %+v", what, r)
			}
			c, err := net.Dial("tcp", addr.String()) // the last to be heard, and saying nothing
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
			n := 0
			for len(<-heard) > 0 {
				n++
			}
			if n != 2 {
				t.Errorf("%s was answered, and the client came %d times, want once from each call", what, n)
			}
		}
	})
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
	l := newLab(t, labTime, nil)
	s, err := New(Config{Format: cookie.Chrony{}, Ring: func(context.Context) *cookie.Ring { return l.ring }, Observe: func(_ context.Context, o Outcome) { outcome = o }})
	if err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	near.SetDeadline(time.Now().Add(labTime))
	done := make(chan struct{})
	go func() {
		defer close(done)
		cert := l.identity(time.Now().Add(time.Hour))
		c := tls.Server(far, TLSConfig(func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert, nil }))
		if err := c.Handshake(); err != nil {
			t.Error(err)
			return
		}
		s.ServeConn(patient(t), c)
		c.CloseWrite() // as a listener does
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
	t.Run("the answer is whole when it returns", func(t *testing.T) {
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
	l := newLab(t, labTime, nil)
	cert := l.identity(time.Now().Add(time.Hour))
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
