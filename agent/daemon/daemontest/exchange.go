package daemontest

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ntsagent/ntske/aead"
	"ntsagent/ntske/client"
	"ntsagent/ntske/cookie"
	"ntsagent/ntske/record"
)

// patience is how long a daemon that should answer may take: this machine may be
// busy, and a process stand still for seconds.
const patience = 30 * time.Second

// Exchange does one NTS-KE session (RFC 8915 §4) with the daemon's own server
// and offers it one algorithm only. It returns the session and its cookies. A session
// that is broken off is begun anew: daemons give a client that stands still 2 s or 3.
func Exchange(addr netip.AddrPort, name string, roots *x509.CertPool, alg aead.ID) (s cookie.Session, cookies [][]byte, err error) {
	for range 5 {
		if s, cookies, err = exchange(addr, name, roots, alg); !isBrokenOff(err) {
			break
		}
	}
	return s, cookies, err
}

func isBrokenOff(err error) bool {
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, unix.ECONNRESET, unix.EPIPE, os.ErrDeadlineExceeded, context.DeadlineExceeded} {
		if errors.Is(err, end) {
			return true
		}
	}
	return false
}

func exchange(addr netip.AddrPort, name string, roots *x509.CertPool, alg aead.ID) (cookie.Session, [][]byte, error) {
	s := cookie.Session{AEAD: alg}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	nc, err := new(net.Dialer).DialContext(ctx, "tcp", addr.String())
	if err != nil {
		return s, nil, err
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(patience))
	c := tls.Client(nc, &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"ntske/1"}, RootCAs: roots, ServerName: name})
	if err := c.HandshakeContext(ctx); err != nil {
		return s, nil, err
	}
	req := record.Request{Protocols: []record.Protocol{record.NTPv4}, AEADs: []aead.ID{alg}, Compliant128GCM: alg == aead.GCMSIV128}
	if _, err := c.Write(req.AppendTo(nil)); err != nil {
		return s, nil, err
	}
	resp, err := record.ReadResponse(c)
	if err != nil {
		return s, nil, err
	}
	if len(resp.AEADs) != 1 || resp.AEADs[0] != alg {
		return s, nil, fmt.Errorf("the daemon does not agree to %v, but to %v", alg, resp.AEADs)
	}
	if resp.Compliant128GCM != req.Compliant128GCM {
		return s, nil, fmt.Errorf("record 1024 is %v in the request and %v in the answer", req.Compliant128GCM, resp.Compliant128GCM)
	}
	state := c.ConnectionState()
	for direction, key := range []*[]byte{&s.C2S, &s.S2C} {
		label := append(binary.BigEndian.AppendUint16([]byte{0, 0}, uint16(alg)), byte(direction))
		if *key, err = state.ExportKeyingMaterial("EXPORTER-network-time-security", label, alg.KeyLen()); err != nil {
			return s, nil, err
		}
	}
	return s, resp.Cookies, nil
}

// Mint makes a session and a cookie for it under the key.
func Mint(t testing.TB, format cookie.Format, key *cookie.Key, alg aead.ID) (cookie.Session, []byte) {
	t.Helper()
	n := alg.KeyLen()
	random := make([]byte, 2*n+format.NonceLen(key))
	rand.Read(random) // never fails
	s := cookie.Session{AEAD: alg, C2S: random[:n], S2C: random[n : 2*n]}
	sealed, err := format.Seal(nil, key, random[2*n:], &s)
	if err != nil {
		t.Fatal(err)
	}
	return s, sealed
}

// Query sends an NTS query with a cookie and placeholders for as many more, and
// does so again while no answer comes to a daemon that should give one.
func Query(addr netip.AddrPort, s cookie.Session, sealed []byte, placeholders int) (reply client.Reply, err error) {
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for end := time.Now().Add(patience); ; <-again.C {
		reply, err = QueryOnce(addr, s, sealed, placeholders)
		if !errors.Is(err, client.ErrSilent) || time.Now().After(end) {
			return reply, err
		}
	}
}

// QueryOnce is Query for a daemon that is to stay silent, and is given a second.
func QueryOnce(addr netip.AddrPort, s cookie.Session, sealed []byte, placeholders int) (client.Reply, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return client.Query(ctx, addr, client.Keys{AEAD: s.AEAD, C2S: s.C2S, S2C: s.S2C}, sealed, placeholders)
}
