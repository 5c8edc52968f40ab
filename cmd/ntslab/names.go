package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log"
	"net"
	"time"

	"github.com/letsencrypt/challtestsrv"
)

// nameServer answers for the lab's one name; every other name has no address.
type nameServer struct {
	addr string // ip:port, UDP and TCP
	srv  *challtestsrv.ChallSrv
}

// startNames serves name → 127.0.0.1 and ::1. challtestsrv takes no open
// sockets, so a port is picked for it and what answers there must know a
// secret; if something else was faster, another port is tried.
func startNames(ctx context.Context, name string) (*nameServer, error) {
	var last error
	for range 5 {
		port, err := freePort(ctx)
		if err != nil {
			return nil, err
		}
		n := &nameServer{addr: on4(port)}
		n.srv, err = challtestsrv.New(challtestsrv.Config{DNSAddrs: []string{n.addr}, Log: log.New(io.Discard, "", 0)})
		if err != nil {
			return nil, fmt.Errorf("start the name server: %w", err)
		}
		n.srv.SetDefaultDNSIPv4("")
		n.srv.SetDefaultDNSIPv6("")
		n.srv.AddDNSARecord(name, []string{loopback4})
		n.srv.AddDNSAAAARecord(name, []string{loopback6})
		n.srv.Run()
		if last = n.prove(ctx); last == nil {
			return n, nil
		}
		n.stop()
		if ctx.Err() != nil {
			break
		}
	}
	return nil, fmt.Errorf("start the name server: %w", last)
}

// prove asks over UDP and TCP for a text only this server holds.
func (n *nameServer) prove(ctx context.Context) error {
	const host = "which-lab.invalid."
	secret := rand.Text()
	n.srv.AddDNSTXTRecord(host, secret)
	defer n.srv.DeleteDNSTXTRecord(host)
	for _, network := range []string{"udp", "tcp"} {
		r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, n.addr)
		}}
		if err := eventually(ctx, 5*time.Second, func(ctx context.Context) error {
			texts, err := r.LookupTXT(ctx, host)
			if err == nil && (len(texts) != 1 || texts[0] != secret) {
				err = fmt.Errorf("another server answers at %s/%s", n.addr, network)
			}
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

func (n *nameServer) stop() { n.srv.Shutdown() }

// inVain is the error after which trying again cannot help.
type inVain struct{ error }

// oneTry is how long a try may hang, of those that eventually makes: longer than
// a busy machine stands still.
const oneTry = 15 * time.Second

// eventually calls try until it succeeds or is in vain, at most for the given
// time, and returns its last error.
func eventually(ctx context.Context, most time.Duration, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	var last error
	for {
		one, cancelOne := context.WithTimeout(ctx, oneTry)
		err := try(one)
		cancelOne()
		if err == nil {
			return nil
		}
		if _, vain := err.(inVain); vain {
			return err
		}
		if last == nil || ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return last
		case <-time.After(50 * time.Millisecond):
		}
	}
}
