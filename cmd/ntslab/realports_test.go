package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"ntsagent/agent/daemon/daemontest"
	"ntsagent/agent/status"
)

// The two ends of the cable of the next test.
var (
	memberAt   = []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("2001:db8::1/64")}
	strangerAt = []netip.Prefix{netip.MustParsePrefix("192.0.2.2/24"), netip.MustParsePrefix("2001:db8::2/64")}
)

// The whole agent, as a process, on ports 80 and 443 as a CA insists on them, in a network of the test's own: it proves
// its name by either challenge, holds the port of that challenge alone, and has nothing for strangers, who come from a
// second network.
func TestOnItsRealPortsTheAgentAnswersTheCAAlone(t *testing.T) {
	t.Parallel()
	if !daemontest.Isolated(t, nil) {
		return
	}
	here, there := daemontest.Here(t), daemontest.NewNetwork(t)
	daemontest.Connect(t, here, there, memberAt, strangerAt)
	for _, row := range []struct {
		challenge, service string
		port, other        uint16
	}{
		{"http-01", status.ServiceHTTP01, 80, 443},
		{"tls-alpn-01", status.ServiceTLSALPN01, 443, 80},
	} {
		m := startRealMember(t, row.challenge, nil)
		doc := m.certified(t)
		if at := listening(doc, row.service); len(at) != 2 || portIn(at) != row.port {
			t.Errorf("%s: it listens at %q", row.challenge, at)
		}
		for _, at := range memberAt {
			there.Do(func() {
				nobody(t, netip.AddrPortFrom(at.Addr(), row.other))
				if row.challenge == "http-01" {
					strangeHosts(t, netip.AddrPortFrom(at.Addr(), row.port))
				} else {
					strangeSNI(t, netip.AddrPortFrom(at.Addr(), row.port))
				}
			})
		}
		for _, at := range []string{loopback4, loopback6} {
			nobody(t, netip.AddrPortFrom(netip.MustParseAddr(at), row.other))
		}
		if t.Failed() {
			t.Logf("%s: the agent told:\n%s", row.challenge, &m.told)
		}
		m.stop(t)
	}
}

// realMember is an agent and its CA.
type realMember struct {
	*process
	challenge string
	socket    string
	teller    *narrator
}

// startRealMember has both challenges on their real ports, unless edit changes the configuration.
func startRealMember(t *testing.T, challenge string, edit *strings.Replacer) *realMember {
	t.Helper()
	dir, err := os.MkdirTemp("", "real-") // short: a socket lives in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	names, err := startNames(t.Context(), memberName)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(names.stop)
	ca, err := openAuthority(t.Context(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ca.stop)
	log, err := os.Create(filepath.Join(dir, "pebble.log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	m := &realMember{challenge: challenge, socket: filepath.Join(dir, "control.sock"), teller: &narrator{story: newStory(io.Discard), log: log}}
	if _, err := ca.serve(names.addr, 80, 443, m.teller); err != nil {
		t.Fatal(err)
	}
	everywhere := func(port uint16) []string {
		return []string{fmt.Sprintf("[::]:%d", port), fmt.Sprintf("0.0.0.0:%d", port)}
	}
	c := agentConfig{
		name: memberName, directory: ca.directory, acmeCA: filepath.Join(dir, "acme-ca.pem"), challenges: []string{challenge},
		ke: everywhere(4460), http01: everywhere(80), tlsALPN01: everywhere(443),
		daemon:   gatewaySection(on4(123), everywhere(4123)),
		resolver: names.addr, stateDir: filepath.Join(dir, "state"), socket: m.socket,
	}
	conf, lines := filepath.Join(dir, "ntsagent.yaml"), c.text()
	if edit != nil {
		lines = edit.Replace(lines)
	}
	for path, text := range map[string][]byte{c.acmeCA: ca.tlsRoot, conf: []byte(lines)} {
		if err := writeFile(path, text); err != nil {
			t.Fatal(err)
		}
	}
	m.process = startProgram(t, syscall.SIGKILL, "ntsagent", "run", "--config", conf)
	t.Cleanup(func() {
		_ = m.cmd.Process.Kill() // it has ended if all went well
		<-m.done
	})
	return m
}

// certified waits for a certificate, which the CA must have been convinced of by the one challenge.
func (m *realMember) certified(t *testing.T) (doc status.Document) {
	t.Helper()
	doc = m.wait(t, "a certificate", func(c status.Certificate) bool { return c.Valid(time.Now()) })
	if by := m.teller.answered.Load(); by != m.challenge {
		t.Errorf("the CA was convinced by %v, not %s", by, m.challenge)
	}
	return doc
}

// wait waits for a state of the one certificate.
func (m *realMember) wait(t *testing.T, what string, good func(status.Certificate) bool) (doc status.Document) {
	t.Helper()
	err := eventually(t.Context(), 90*time.Second, func(ctx context.Context) (err error) {
		select {
		case <-m.done:
			return inVain{errors.New("the agent has ended")}
		default:
		}
		if doc, err = status.NewClient(m.socket).Status(ctx); err == nil && (len(doc.Certificates) != 1 || !good(doc.Certificates[0])) {
			err = fmt.Errorf("not yet: %s", strings.Join(doc.Reasons, "; "))
		}
		return err
	})
	if err != nil {
		t.Fatalf("%s: %s: %v; the agent told:\n%s", m.challenge, what, err, &m.told)
	}
	return doc
}

// stop ends the agent as systemd does, so that its ports are free.
func (m *realMember) stop(t *testing.T) {
	t.Helper()
	if err := m.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-m.done:
	case <-time.After(60 * time.Second):
		t.Fatalf("the agent did not end:\n%s", &m.told)
	}
}

func nobody(t *testing.T, at netip.AddrPort) {
	if c, err := net.DialTimeout("tcp", at.String(), 10*time.Second); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%s: %v, want the connection refused", at, err)
		if err == nil {
			c.Close()
		}
	}
}

// strangeHosts asks port 80 for what no CA asks for.
func strangeHosts(t *testing.T, at netip.AddrPort) {
	const path = "/.well-known/acme-challenge/evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA"
	for request, want := range map[string]string{
		"GET / HTTP/1.1\r\nHost: " + memberName + "\r\n\r\n":                    "404",
		"GET " + path + " HTTP/1.1\r\nHost: " + memberName + ":80\r\n\r\n":      "404",
		"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n":                          "421",
		"GET " + path + " HTTP/1.1\r\nHost: evil.example\r\n\r\n":               "421",
		"GET " + path + " HTTP/1.1\r\nHost: " + memberName + ".evil\r\n\r\n":    "421",
		"GET " + path + " HTTP/1.1\r\nHost: " + memberName + ":8080\r\n\r\n":    "421",
		"GET / HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n":                             "421",
		"GET / HTTP/1.0\r\n\r\n":                                                "400",
		"GET http://" + memberName + "/ HTTP/1.1\r\nHost: evil.example\r\n\r\n": "400",
	} {
		var answer []byte
		var err error
		for try := 0; try < patience && len(answer) == 0; try++ {
			answer, err = oneRequest(at, request)
		}
		head, body, whole := strings.Cut(string(answer), "\r\n\r\n")
		if err != nil || !whole || body != "" || !strings.HasPrefix(head, "HTTP/1.1 "+want) && !strings.HasPrefix(head, "HTTP/1.0 "+want) ||
			strings.Contains(strings.ToLower(head), "set-cookie:") || strings.Contains(strings.ToLower(head), "location:") {
			t.Errorf("%s: %q is answered %q (%v), want an empty %s", at, request, answer, err, want)
		}
	}
}

// patience is how often is asked who hangs up without a word: the agent does on those who take 5 s, as a machine may that stands still.
const patience = 3

// oneRequest sends one on a connection of its own, until it hangs up.
func oneRequest(at netip.AddrPort, request string) (answer []byte, err error) {
	c, err := net.DialTimeout("tcp", at.String(), 30*time.Second)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return nil, err
	}
	_, err = io.WriteString(c, request)
	answer, readErr := io.ReadAll(c)
	return answer, errors.Join(err, readErr)
}

// strangeSNI asks port 443 for what no CA asks for, or when it does not.
func strangeSNI(t *testing.T, at netip.AddrPort) {
	for _, row := range []struct {
		name      string
		protocols []string
	}{
		{"evil.example", []string{"acme-tls/1"}},
		{memberName + ".evil", []string{"acme-tls/1"}},
		{"", []string{"acme-tls/1"}},
		{memberName, []string{"acme-tls/1"}}, // nothing is pending any more
		{memberName, []string{"h2", "http/1.1"}},
		{memberName, []string{"ntske/1"}},
		{memberName, nil},
		{"evil.example", nil},
	} {
		config := &tls.Config{ServerName: row.name, NextProtos: row.protocols, InsecureSkipVerify: true}
		var err error
		alert := false
		for try := 0; try < patience && !alert; try++ {
			var c *tls.Conn
			if c, err = tls.DialWithDialer(&net.Dialer{Timeout: 30 * time.Second}, "tcp", at.String(), config); err == nil {
				c.Close()
				break
			}
			alert = strings.Contains(err.Error(), "remote error: tls: ")
		}
		if !alert {
			t.Errorf("%s: SNI %q with ALPN %q: %v, want an alert and no certificate", at, row.name, row.protocols, err)
		}
	}
}
