package tcp

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/go-hclog"
)

// Flaws of crypto/tls and of servers on it, each shown to have no hold here.

// Several KeyUpdates in one record made Go's connections wait for themselves.
func TestCVE_2026_32283_KeyUpdatesInOneRecord(t *testing.T) {
	ended := make(chan error, 1)
	r := start(t, Config{Services: map[string]Service{"read": serviceFunc(func(_ context.Context, c *tls.Conn) {
		_, err := io.Copy(io.Discard, c)
		ended <- err
	})}})
	s := newSender(t, r, "read")
	if err := s.send(22, bytes.Repeat([]byte{24, 0, 0, 1, 1}, 40)...); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil || strings.Contains(err.Error(), "timeout") {
		t.Errorf("the service saw %v, want the end of a connection that broke the rules", err)
	}
	eventually(t, "connection gone", func() bool { return r.open() == 0 })
}

// helloFor returns the octets of a ClientHello that offers protocol.
func helloFor(t *testing.T, protocol string) []byte {
	t.Helper()
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	go tls.Client(near, &tls.Config{ServerName: testName, NextProtos: []string{protocol}, CurvePreferences: []tls.CurveID{tls.X25519}}).Handshake()
	b := make([]byte, 4096)
	n, err := far.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return b[:n]
}

// A handshake message in the record of another that changes the keys was read
// as if it had come under the new ones.
func TestCVE_2025_61730_AMessageBehindTheClientHelloInItsRecord(t *testing.T) {
	for _, tt := range []struct {
		name   string
		behind []byte
	}{
		{"a Finished", append([]byte{20, 0, 0, 32}, make([]byte, 32)...)},
		{"the head of a message", []byte{20, 0, 0}},
		{"a KeyUpdate", []byte{24, 0, 0, 1, 0}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := start(t, Config{Services: map[string]Service{"one": answer("")}})
			record := slices.Concat(helloFor(t, "one"), tt.behind)
			binary.BigEndian.PutUint16(record[3:5], uint16(len(record)-5))
			c := r.dial()
			if _, err := c.Write(record); err != nil {
				t.Fatal(err)
			}
			hungUp(t, c)
			eventually(t, "event", func() bool { return r.events.has(Event{Kind: HandshakeFailed, Class: Refused}) })
			if r.events.has(Event{Kind: Dispatched, Protocol: "one"}) {
				t.Error("a service was reached")
			}
		})
	}
}

// lockedBuffer is a log that many write and one reads.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// An error of crypto/tls carried the ALPN that the peer had sent, as it was.
func TestCVE_2025_58189_NoOctetOfAPeerIsInTheLog(t *testing.T) {
	const forged = "\n{\"@level\":\"error\",\"forged\":1}\x1b[31m"
	for _, format := range []struct {
		name string
		json bool
	}{{"JSON", true}, {"text", false}} {
		t.Run(format.name, func(t *testing.T) {
			var log lockedBuffer
			r := start(t, Config{Services: map[string]Service{"one": answer("")},
				Log: hclog.New(&hclog.LoggerOptions{Output: &log, Level: hclog.Trace, JSONFormat: format.json})})
			for _, conf := range []*tls.Config{
				{NextProtos: []string{forged}},
				{NextProtos: []string{"one"}, ServerName: "forged" + strings.Repeat("a", 60) + "\x1b[31m"},
			} {
				conf.InsecureSkipVerify = true
				if err := tls.Client(r.dial(), conf).Handshake(); err == nil && conf.ServerName == "" {
					t.Error("a foreign ALPN was taken")
				}
			}
			for _, octets := range []string{"GET /" + forged + " HTTP/1.1\r\n\r\n", forged} {
				c := r.dial()
				if _, err := io.WriteString(c, octets); err != nil {
					t.Fatal(err)
				}
				hungUp(t, c)
			}
			eventually(t, "three refusals logged", func() bool { return strings.Count(log.String(), "handshake failed") >= 3 })
			for line := range strings.Lines(log.String()) {
				if strings.Contains(line, "forged") || strings.Contains(line, "\x1b") {
					t.Errorf("log line %q", line)
				}
				if format.json && !json.Valid([]byte(line)) {
					t.Errorf("log line is no JSON: %q", line)
				}
			}
		})
	}
}
