package floor

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"testing"
)

// tlsFloor runs one until the test ends.
func tlsFloor(t *testing.T, answer []byte) (addr string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- TLS(ctx, ln, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, answer)
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if c, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("it still listens after its end: %v, %v", c, err)
		}
	})
	return ln.Addr().String()
}

// sessions notes that a ticket was given.
type sessions struct {
	tls.ClientSessionCache
	tickets int
}

func (s *sessions) Get(string) (*tls.ClientSessionState, bool) { return nil, false }
func (s *sessions) Put(string, *tls.ClientSessionState)        { s.tickets++ }

func TestTheFloorSaysItsAnswerInOneRecordAndCloses(t *testing.T) {
	answer := Answer(854)
	addr := tlsFloor(t, answer)
	for range 3 {
		cache := new(sessions)
		c, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"ntske/1"}, ClientSessionCache: cache})
		if err != nil {
			t.Fatal(err)
		}
		if s := c.ConnectionState(); s.Version != tls.VersionTLS13 || s.NegotiatedProtocol != "ntske/1" {
			t.Errorf("%s, %q", tls.VersionName(s.Version), s.NegotiatedProtocol)
		}
		got := make([]byte, 2000)
		n, err := c.Read(got) // never more than one record
		if err != nil || !bytes.Equal(got[:n], answer) {
			t.Errorf("read %d octets, %v", n, err)
		}
		if n, err := c.Read(got); n != 0 || err != io.EOF {
			t.Errorf("read %d more octets, %v", n, err)
		}
		if cache.tickets != 0 {
			t.Errorf("it gave %d session tickets", cache.tickets)
		}
		c.Close()
	}
}

func TestTheFloorKnowsNothingOlderThanTLS13(t *testing.T) {
	addr := tlsFloor(t, Answer(1))
	c, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12})
	if err == nil {
		c.Close()
		t.Error("TLS 1.2 was good enough")
	}
}

func TestAnAnswerIsAlwaysTheSame(t *testing.T) {
	if a := Answer(300); len(a) != 300 || !bytes.Equal(a, Answer(300)) || bytes.Equal(a[:100], a[100:200]) {
		t.Errorf("%d octets: %x", len(a), a)
	}
}
