package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"ntsagent/acme/front/fronttest"
	"ntsagent/agent/daemon/daemontest"
	"ntsagent/agent/status"
)

// The whole way of an operator whose web server or router has ports 80 and 443 and is set up wrongly: the status tells
// what is wrong before the CA is asked, and what it says mends it, letter for letter.
func TestWhatTheStatusSaysMendsWhoStandsBeforeTheAgent(t *testing.T) {
	t.Parallel()
	if !daemontest.Isolated(t, nil) {
		return
	}
	cert, key := fronttest.Certificate(t)
	shop := func(listen string) string {
		return fmt.Sprintf("server { listen %s ssl; ssl_certificate %s; ssl_certificate_key %s; server_name shop.example; return 200 'the shop'; }", listen, cert, key)
	}
	byProxy := strings.NewReplacer(`http01: {listen: ["[::]:80","0.0.0.0:80"]`, `http01: {mode: proxy, listen: ["127.0.0.1:8402"]`,
		`tls_alpn01: {listen: ["[::]:443","0.0.0.0:443"]`, `tls_alpn01: {mode: proxy, listen: ["127.0.0.1:8403"]`)
	for _, row := range []struct {
		challenge string
		wrong     func() (stop func())
		says      string
		mend      func(nginx, haproxy string)
	}{
		{"tls-alpn-01", func() func() { return fronttest.Nginx(t, shop("443")+shop("[::]:443")) },
			"tls-alpn-01 not tried: who has port 443 ends TLS for " + memberName + " itself, and knows no acme-tls/1",
			func(nginx, _ string) { fronttest.NginxRouter(t, nginx, shop("127.0.0.1:8443")) }},
		{"http-01", func() func() {
			return fronttest.HAProxy(t, "frontend http\n bind :80,:::80 v6only\n http-request set-header Host agent.internal\n default_backend agent\nbackend agent\n server agent 127.0.0.1:8402\n")
		}, "http-01 not tried: the web server on port 80 does not pass the Host",
			func(_, haproxy string) { fronttest.HAProxy(t, haproxy) }},
	} {
		stop := row.wrong()
		m := startRealMember(t, row.challenge, byProxy)
		c := m.wait(t, "the fault is told", func(c status.Certificate) bool { return c.LastHint != "" }).Certificates[0]
		if !strings.Contains(c.LastError, row.says) {
			t.Errorf("%s: the status says %q", row.challenge, c.LastError)
		}
		if by := m.teller.answered.Load(); by != nil {
			t.Errorf("%s: the CA was asked", row.challenge)
		}
		stop()
		_, snippets, _ := strings.Cut(c.LastHint, "; nginx: ")
		nginx, haproxy, _ := strings.Cut(snippets, "; haproxy, a line at each |: ")
		row.mend(nginx, strings.ReplaceAll(haproxy, " | ", "\n")+"\n")
		if out, err := exec.CommandContext(t.Context(), filepath.Join(binaries, "ntsagent"), "cert", "renew", "--socket", m.socket).CombinedOutput(); err != nil {
			t.Errorf("%s: ntsagent cert renew: %v: %s\n%s", row.challenge, err, out, &m.told)
		}
		m.certified(t)
		m.stop(t)
	}
}
