package live

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"ntsagent/hostcheck"
)

// selfHandshakeTimeout bounds a handshake that crosses no network.
const selfHandshakeTimeout = 10 * time.Second

// selfHandshake lets cert serve one handshake as NTS-KE clients do it (TLS 1.3, ALPN ntske/1, SNI; RFC 8915 §3) over a
// pipe within this process. It proves what parsing cannot: that the key really signs for the certificate. Trust is not
// judged.
func selfHandshake(name hostcheck.Name, cert *tls.Certificate, now time.Time) error {
	const alpn = "ntske/1"
	clock := func() time.Time { return now }
	server := &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{alpn}, SessionTicketsDisabled: true,
		Certificates: []tls.Certificate{*cert}, Time: clock,
	}
	client := &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{alpn}, ServerName: name.String(), Time: clock,
		InsecureSkipVerify: true, // of trust and dates; the signature is checked all the same
	}
	ctx, cancel := context.WithTimeout(context.Background(), selfHandshakeTimeout)
	defer cancel()
	near, far := net.Pipe()
	defer near.Close()
	served := make(chan error, 1)
	go func() {
		defer far.Close()
		served <- tls.Server(far, server).HandshakeContext(ctx)
	}()
	err := tls.Client(near, client).HandshakeContext(ctx)
	near.Close() // unblocks the server side whatever happened, so that its goroutine has ended when we return
	if serverErr := <-served; err == nil {
		err = serverErr
	} else if serverErr != nil {
		err = fmt.Errorf("%w (the server side says: %v)", err, serverErr)
	}
	return err
}
