package agent

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"ntsagent/acme/dnscheck"
	"ntsagent/acme/store"
	"ntsagent/agent/config"
	"ntsagent/hostcheck"
)

// resolver answers alike for all names.
func resolver(t *testing.T, answer map[uint16]string) netip.AddrPort {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		m.RecursionAvailable = true
		if text := answer[q.Question[0].Qtype]; text != "" {
			rr, err := dns.NewRR(q.Question[0].Name + " 60 " + text)
			if err != nil {
				t.Error(err)
			}
			m.Answer = append(m.Answer, rr)
		}
		w.WriteMsg(m)
	})}
	done := make(chan error)
	go func() { done <- server.ActivateAndServe() }()
	t.Cleanup(func() { pc.Close(); <-done })
	return pc.LocalAddr().(*net.UDPAddr).AddrPort()
}

func TestLookAtDNSHoldsTheAnswerAgainstTheConfiguration(t *testing.T) {
	t.Parallel()
	at := resolver(t, map[uint16]string{dns.TypeA: "A 198.51.100.7", dns.TypeCAA: `CAA 0 issue "ca.example; accounturi=https://ca.example/acct/7"`})
	name, err := hostcheck.ParseName("alice.example")
	if err != nil {
		t.Fatal(err)
	}
	cfg := &config.Config{StateDir: t.TempDir(), ACME: config.ACME{Directory: "https://ca.example/dir", Challenges: []string{config.ChallengeHTTP01},
		Resolvers: []netip.AddrPort{at}}}
	look := lookAtDNS(cfg, cfg.ACME.Directory)

	cfg.PublicAddresses = []netip.Addr{netip.MustParseAddr("203.0.113.9")}
	if v := look(t.Context(), name); v.Finding != dnscheck.Mismatch || !strings.Contains(v.Text, "A 198.51.100.7 is not in public_addresses") {
		t.Errorf("an address that is not ours: %+v", v)
	}
	cfg.PublicAddresses = []netip.Addr{netip.MustParseAddr("198.51.100.7")}
	if v := look(t.Context(), name); v.Finding != dnscheck.OK {
		t.Errorf("before there is an account: %+v", v)
	}

	s, err := store.Open(acmeDir(cfg))
	if err != nil {
		t.Fatal(err)
	}
	key, err := store.NewKey(store.P256)
	if err != nil {
		t.Fatal(err)
	}
	account := store.Account{URI: "https://ca.example/acct/8", Directory: cfg.ACME.Directory, Key: key, CAAIdentities: []string{"ca.example"}}
	if err := s.SaveAccount(account); err != nil {
		t.Fatal(err)
	}
	publish := `alice.example. CAA 0 issue "ca.example; validationmethods=http-01; accounturi=https://ca.example/acct/8"`
	if v := look(t.Context(), name); v.Finding != dnscheck.Denied || !strings.Contains(v.Hint, publish) {
		t.Errorf("another account is named: %+v", v)
	}
	account.URI = "https://ca.example/acct/7"
	if err := s.SaveAccount(account); err != nil {
		t.Fatal(err)
	}
	if v := look(t.Context(), name); v.Finding != dnscheck.OK {
		t.Errorf("our account is named: %+v", v)
	}
}
