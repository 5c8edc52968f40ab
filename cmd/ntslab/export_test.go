package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"ntsagent/agent/daemon/daemontest"
	"ntsagent/agent/daemon/ntpsectest"
	"ntsagent/agent/feed"
	"ntsagent/ntske/aead"
	"ntsagent/packaging/parts"
)

// The whole way of a certificate to a daemon that exchanges keys itself: the agent
// obtains it from a real authority, exports it, and ntpd serves it after a SIGHUP;
// then its successor.
func TestNtpdServesWhatTheAgentObtainsAndRenews(t *testing.T) {
	t.Parallel()
	if !daemontest.Isolated(t, nil) { // ntpd insists on its ports
		return
	}
	s := ntpsectest.Start(t, ntpsectest.Options{Release: parts.Debian13, Network: daemontest.Here(t), ExtraConf: []string{"restrict 127.0.0.1"}})
	lab := startLab(t, "http-01", "--daemon", "gateway")
	agent, err := strconv.Atoi(lab.env["AGENT_PID"])
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(agent, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	wantGone(t, []string{lab.env["AGENT_PID"]})
	pid, err := os.ReadFile(s.PIDFile)
	if err != nil {
		t.Fatal(err)
	}
	own := startProgram(t, syscall.SIGKILL, "ntsagent", "run", "--config", certificateMode(t, lab, s))
	t.Cleanup(func() {
		_ = own.cmd.Process.Signal(syscall.SIGTERM) // if it is gone, how it ended tells
		<-own.done
		if t.Failed() {
			t.Logf("the agent:\n%s\nntpd:\n%s", &own.told, s.Log())
		}
	})
	first := servedByAuthority(t, lab, "")
	if _, err := lab.agent(t.Context(), "cert", "renew", "--force", "--socket", lab.env["SOCKET"]); err != nil {
		t.Fatal(err)
	}
	second := servedByAuthority(t, lab, first)
	t.Logf("ntpd served %s, and then %s", first, second)
	if now, err := os.ReadFile(s.PIDFile); err != nil || string(now) != string(pid) {
		t.Errorf("ntpd was restarted: it was %s and is %s, %v", pid, now, err)
	}
}

// certificateMode is the lab's configuration for an agent of its own state that
// leaves the key exchange to ntpd.
func certificateMode(t *testing.T, lab *runningLab, s *ntpsectest.Server) (path string) {
	t.Helper()
	b, err := os.ReadFile(lab.env["CONFIG"])
	if err != nil {
		t.Fatal(err)
	}
	before, _, hasKE := strings.Cut(string(b), "ke:\n")
	if !hasKE {
		t.Fatalf("no key exchange in the lab's configuration:\n%s", b)
	}
	text := before + fmt.Sprintf(`certificate: {export: [{name: %s, cert: %s/%s, key: %s/%s, then: sighup, pid_file: %s}]}
daemon: {kind: ntpsec, mode: certificate, address: %q}
observe: {socket: %q, self_check: 1s}
state_dir: %q
`, lab.env["NAME"], s.Dir, daemontest.CertFile, s.Dir, daemontest.KeyFile, s.PIDFile, ntpsectest.Addr, lab.env["SOCKET"], filepath.Join(lab.dir, "another"))
	path = filepath.Join(lab.dir, "certificate.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// servedByAuthority waits until ntpd is seen to serve a certificate with another
// serial, asks ntpd as a client that trusts the authority alone, and returns it.
func servedByAuthority(t *testing.T, lab *runningLab, other string) (serial string) {
	t.Helper()
	await(t, 90*time.Second, "ntpd to serve a certificate of the authority", func(ctx context.Context) error {
		doc, err := lab.status(ctx)
		if err != nil {
			return err
		}
		if len(doc.Exports) != 1 || doc.Exports[0].Serial == "" || doc.Exports[0].Serial == other || doc.Exports[0].Served.IsZero() || doc.Exports[0].Why() != "" {
			return fmt.Errorf("exports %+v, state %s %q", doc.Exports, doc.State, doc.Reasons)
		}
		served, err := feed.Served(ctx, ntpsectest.KE, lab.env["NAME"])
		if err != nil {
			return err
		}
		if serial = served.SerialNumber.Text(16); serial != doc.Exports[0].Serial {
			return fmt.Errorf("it serves %s and should %s", serial, doc.Exports[0].Serial)
		}
		return nil
	})
	pem, err := os.ReadFile(lab.env["CA"])
	roots := x509.NewCertPool()
	if err != nil || !roots.AppendCertsFromPEM(pem) {
		t.Fatalf("the authority's root: %v", err)
	}
	session, cookies, err := daemontest.Exchange(ntpsectest.KE, lab.env["NAME"], roots, aead.SIVCMAC256)
	if err != nil || len(cookies) != 8 {
		t.Fatalf("a client of the authority gets %d cookies, %v", len(cookies), err)
	}
	for _, cookie := range cookies { // a busy ntpd may be late for one
		if _, err = daemontest.Query(ntpsectest.Addr, session, cookie, 0); err == nil {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return serial
}
