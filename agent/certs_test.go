package agent

import (
	"context"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"ntsagent/acme/challenge"
)

func TestIdleConnectionsKeepNobodyFromTheChallenges(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	serve := func() (stop func() error) {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		srv := challenge.NewHTTPServer(http.NotFoundHandler(), hclog.NewNullLogger())
		srv.ReadHeaderTimeout, srv.ReadTimeout = time.Hour, time.Hour // nobody's place becomes free by itself
		go func() { ended <- serveHTTP(ctx, srv, ln, new(sync.WaitGroup)) }()
		return func() error { cancel(); return <-ended }
	}
	ask := func() {
		t.Helper()
		client := http.Client{Timeout: patience}
		resp, err := client.Get("http://" + ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusNotFound {
			t.Errorf("status %d", resp.StatusCode)
		}
	}
	stop := serve()
	for range 2 * maxHTTPConns {
		c, err := net.Dial("tcp4", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	ask()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	// The socket outlives who served it.
	stop = serve()
	ask()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}
