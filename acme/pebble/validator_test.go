package pebble

import (
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/acme"
	"github.com/letsencrypt/pebble/v2/core"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/miekg/dns"
)

func TestANameIsFoundThoughTheMachineStoodStill(t *testing.T) {
	const still = 2500 * time.Millisecond // longer than pebble waits by itself
	t.Setenv("PEBBLE_VA_NOSLEEP", "1")
	asked := make(chan struct{}, 3) // it looks from three places
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked <- struct{}{}
		w.WriteHeader(http.StatusNotFound) // and is not convinced
	}))
	defer web.Close()
	at, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	names := &dns.Server{PacketConn: at, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		if q.Question[0].Qtype == dns.TypeAAAA {
			<-time.After(still)
		} else {
			m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.IPv4(127, 0, 0, 1)}}
		}
		_ = w.WriteMsg(m) // to who asked three times
	})}
	go names.ActivateAndServe()
	defer names.Shutdown()

	v := Validator(log.New(io.Discard, "", 0), web.Listener.Addr().(*net.TCPAddr).Port, 1, at.LocalAddr().String(), db.NewMemoryStore())
	authz := &core.Authorization{Order: &core.Order{}}
	challenge := &core.Challenge{Challenge: acme.Challenge{Type: acme.ChallengeHTTP01, Token: "x"}, Authz: authz}
	authz.Challenges = []*core.Challenge{challenge}
	v.ValidateChallenge(acme.Identifier{Type: acme.IdentifierDNS, Value: "alice.example"}, challenge, &core.Account{}, "", false)
	select {
	case <-asked:
	case <-time.After(time.Minute):
		challenge.RLock()
		defer challenge.RUnlock()
		t.Errorf("nobody asked for the proof: %v", challenge.Error)
	}
}
