package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/wfe"

	"ntsagent/acme/pebble"
)

// authority is the certificate authority: pebble, in this process. It is opened
// in two steps because each side has to know the other's ports: open listens, so
// that the agent can be told the directory; serve starts answering once the
// agent's challenge ports are known. A client that comes between waits in the
// listener's queue.
type authority struct {
	listener  net.Listener
	server    *http.Server
	directory string // URL
	tlsRoot   []byte // PEM: verifies the directory itself
}

func openAuthority(ctx context.Context, now time.Time) (*authority, error) {
	certPEM, keyPEM, err := newCert("ntslab ACME directory", now)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("use the ACME directory's certificate: %w", err)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp4", loopback4+":0")
	if err != nil {
		return nil, fmt.Errorf("listen for ACME: %w", err)
	}
	return &authority{
		listener:  l,
		directory: "https://" + l.Addr().String() + wfe.DirectoryPath,
		tlsRoot:   certPEM,
		server: &http.Server{
			TLSConfig:         &tls.Config{Certificates: []tls.Certificate{pair}},
			ReadHeaderTimeout: 10 * time.Second,
			ErrorLog:          log.New(io.Discard, "", 0),
		},
	}, nil
}

// serve validates challenges at the given ports of the addresses dns answers
// and returns the root its certificates chain to, as PEM.
func (a *authority) serve(dns string, httpPort, tlsPort uint16, n *narrator) ([]byte, error) {
	// A real authority validates at once; pebble sleeps up to 5 s unless told.
	if err := os.Setenv("PEBBLE_VA_NOSLEEP", "1"); err != nil {
		return nil, err
	}
	const day = 24 * 60 * 60
	profiles := map[string]ca.Profile{
		"classic":   {Description: "as Let's Encrypt's: 90 days", ValidityPeriod: 90 * day},
		"tlsserver": {Description: "as Let's Encrypt's: 45 days", ValidityPeriod: 45 * day},
	}
	store := db.NewMemoryStore()
	n.store = store
	logger := log.New(n, "", 0)
	issuer := ca.New(logger, store, "", "ecdsa", 0, 1, profiles)
	validator := pebble.Validator(logger, int(httpPort), int(tlsPort), dns, store)
	front := wfe.New(logger, store, validator, issuer, []string{"ntslab.invalid"}, true, false, 1, 1)
	a.server.Handler = pebble.Handler(front.Handler(), store)
	go func() {
		if err := a.server.ServeTLS(a.listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
			logger.Printf("serve ACME: %v", err)
		}
	}()
	return issuer.GetRootCert(0).PEM(), nil
}

func (a *authority) stop() {
	a.server.Close()
	a.listener.Close()
}
