// Package floor is what no server can do less than: the same TLS handshake and
// the same octets with nothing around them. A server's CPU time divided by its
// floor's, measured in turn, says what the server itself costs.
package floor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
)

// Answer is what a TLS floor sends: as many octets as asked for, always the same.
func Answer(octets int) []byte {
	b := make([]byte, octets)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

// TLS accepts connections from ln until ctx is done and then closes it. Each
// gets a TLS 1.3 handshake with cert and no session ticket, the answer in one
// write, and a close_notify. There is nothing else: no deadline, no limit, no
// log, so it is for a loopback.
func TLS(ctx context.Context, ln net.Listener, cert tls.Certificate, answer []byte) error {
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	conf := &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, NextProtos: []string{"ntske/1"},
		SessionTicketsDisabled: true,
	}
	for {
		nc, err := ln.Accept()
		if ctx.Err() != nil && errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		go func() {
			c := tls.Server(nc, conf)
			c.Write(answer) // handshakes first; a peer that is gone ends it
			c.Close()
		}()
	}
}
