package tcp

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

func TestKeyUpdatesDoNotOutliveTheDeadline(t *testing.T) {
	const timeout = 5 * time.Second // in which a machine that stands still for some of them does all that is to be seen
	type end struct {
		octets int64
		err    error
		late   bool // the deadline had passed
	}
	for name, tt := range map[string]struct {
		write func(s *sender) error
		good  func(e end) bool
	}{
		"with an octet of data after each": {
			func(s *sender) error { <-time.After(timeout / 200); return errors.Join(s.update(), s.send(23, 'x')) },
			func(e end) bool {
				return endedByDeadline(e.err, e.late) && e.octets > 10
			},
		},
		"CVE-2026-56862 and nothing else": { // crypto/tls has enough of them before the deadline
			(*sender).update,
			func(e end) bool { return e.err != nil && e.octets == 0 },
		},
		"and nothing else, slowly": {
			func(s *sender) error { <-time.After(timeout / 8); return s.update() },
			func(e end) bool { return endedByDeadline(e.err, e.late) && e.octets == 0 },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ended := make(chan end, 1)
			r := start(t, Config{Timeout: timeout, Services: map[string]Service{"read": serviceFunc(func(ctx context.Context, c *tls.Conn) {
				n, err := io.Copy(io.Discard, c)
				ended <- end{n, err, passed(ctx)}
			})}})
			s := newSender(t, r, "read")
			ms := eventually(t, "the end", func() bool { return tt.write(s) != nil })
			if e := <-ended; !tt.good(e) || ms > 3*int(timeout/time.Millisecond) {
				t.Errorf("the service saw %d octets and %v after %d ms of %v", e.octets, e.err, ms, timeout)
			}
		})
	}
}

func passed(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ok && !time.Now().Before(deadline)
}

// endedByDeadline knows both faces of the deadline. When it strikes while
// crypto/tls answers a KeyUpdate, the read keys are left as they were, and what
// fails is the next record's MAC. Before the deadline that is no excuse.
func endedByDeadline(err error, late bool) bool {
	return errors.Is(err, os.ErrDeadlineExceeded) || late && err != nil && strings.Contains(err.Error(), "bad record MAC")
}

// sender writes TLS 1.3 records that crypto/tls cannot be asked for, in place
// of a client whose handshake is done (RFC 8446 §5.2 and §7).
type sender struct {
	t      *testing.T
	nc     net.Conn
	secret []byte // client_application_traffic_secret_N
	aead   cipher.AEAD
	iv     []byte
	number uint64
}

// newSender does the handshake and takes over.
func newSender(t *testing.T, r *running, protocol string) *sender {
	t.Helper()
	var log bytes.Buffer
	nc := r.dial()
	c := tls.Client(nc, &tls.Config{RootCAs: r.roots, ServerName: testName, NextProtos: []string{protocol}, KeyLogWriter: &log})
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	if id := c.ConnectionState().CipherSuite; id != tls.TLS_AES_128_GCM_SHA256 {
		t.Fatalf("this sender does not know %s", tls.CipherSuiteName(id))
	}
	s := &sender{t: t, nc: nc}
	for line := range strings.Lines(log.String()) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "CLIENT_TRAFFIC_SECRET_0" {
			secret, err := hex.DecodeString(f[2])
			if err != nil {
				t.Fatal(err)
			}
			s.use(secret)
		}
	}
	return s
}

// use derives keys of a traffic secret.
func (s *sender) use(secret []byte) {
	block, err := aes.NewCipher(s.expand(secret, "key", 16))
	if err != nil {
		s.t.Fatal(err)
	}
	if s.aead, err = cipher.NewGCM(block); err != nil {
		s.t.Fatal(err)
	}
	s.secret, s.iv, s.number = secret, s.expand(secret, "iv", 12), 0
}

// expand is HKDF-Expand-Label without a context (RFC 8446 §7.1).
func (s *sender) expand(secret []byte, label string, n int) []byte {
	label = "tls13 " + label
	key, err := hkdf.Expand(sha256.New, secret, "\x00"+string(rune(n))+string(rune(len(label)))+label+"\x00", n)
	if err != nil {
		s.t.Fatal(err)
	}
	return key
}

// send writes one record of a content type.
func (s *sender) send(kind byte, content ...byte) error {
	header := []byte{23, 3, 3, 0, byte(len(content) + 1 + s.aead.Overhead())}
	nonce := bytes.Clone(s.iv)
	binary.BigEndian.PutUint64(nonce[4:], binary.BigEndian.Uint64(nonce[4:])^s.number)
	s.number++
	_, err := s.nc.Write(s.aead.Seal(header, nonce, append(content, kind), header))
	return err
}

// update asks for new keys of the other side and changes its own (RFC 8446 §4.6.3).
func (s *sender) update() error {
	if err := s.send(22, 24, 0, 0, 1, 1); err != nil {
		return err
	}
	s.use(s.expand(s.secret, "traffic upd", 32))
	return nil
}

func TestAPeerThatSendsWithoutEndIsCutOff(t *testing.T) {
	ended := make(chan error, 1)
	r := start(t, Config{Services: map[string]Service{"read": serviceFunc(func(_ context.Context, c *tls.Conn) {
		_, err := io.Copy(io.Discard, c)
		ended <- err
	})}})
	s := newSender(t, r, "read")
	sent := 0
	for errors.Join(s.update(), s.send(23, 'x')) == nil {
		sent++
	}
	if err := <-ended; !errors.Is(err, errTooMuch) {
		t.Errorf("the service saw %v after %d rounds, want %v", err, sent, errTooMuch)
	}
}
