package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"ntsagent/agent/config"
	"ntsagent/agent/daemon/chronytest"
	"ntsagent/agent/status"
)

func TestABadConfigurationIsRefusedAtReloadAndNothingChanges(t *testing.T) {
	t.Parallel()
	m := startMember(t, time.Hour, "")
	addr := m.ke(m.wait("it is healthy", func(d status.Document) bool { return d.State == status.Healthy }))
	m.write(m.conf, []byte("names: [alice.pool.test]\nke: {timout: 3s}\n"))
	err := m.reload()
	if !errors.Is(err, status.ErrInvalid) {
		t.Fatalf("reload of a bad file: %v, want it refused as invalid", err)
	}
	for _, part := range []string{m.conf + ":2", "ke.timout", "ke.timeout"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q: file, line, key and hint are promised", err, part)
		}
	}
	m.serves(addr, "", 8)
	d := m.wait("the status tells of it", func(d status.Document) bool { return strings.Contains(d.Agent.ReloadError, "ke.timout") })
	if d.State != status.Degraded {
		t.Errorf("state %s after a refused reload, want DEGRADED", d.State)
	}
	m.configure("")
	if err := m.reload(); err != nil {
		t.Fatal(err)
	}
	m.wait("a good file heals", func(d status.Document) bool { return d.State == status.Healthy && d.Agent.ReloadError == "" })
}

func TestAReloadKeepsTheSocketAndChangesWhatChanged(t *testing.T) {
	t.Parallel()
	m := startMember(t, time.Hour, "")
	before := m.wait("it is healthy", func(d status.Document) bool { return d.State == status.Healthy })
	addr := m.ke(before)
	m.serves(addr, "", 8)
	m.under(addr, func() {
		for cookies := 1; cookies <= 4; cookies++ {
			m.configure(fmt.Sprintf("ke: {listen: [\"127.0.0.1:0\"], cookies: %d}\n", cookies))
			if err := m.reload(); err != nil {
				t.Fatal(err)
			}
			m.serves(addr, "", cookies)
		}
	})
	after, err := m.status()
	if err != nil {
		t.Fatal(err)
	}
	if after.Keys.Current != before.Keys.Current {
		t.Errorf("keys changed from %v to %v with a reload that does not touch them", before.Keys.Current, after.Keys.Current)
	}
}

func TestClientsThatSayNothingHoldUpNoReload(t *testing.T) {
	t.Parallel()
	ke := func(cookies int) string {
		return fmt.Sprintf("ke: {listen: [\"127.0.0.1:0\"], timeout: 30s, cookies: %d}\n", cookies)
	}
	m := startMember(t, time.Hour, ke(8))
	addr := m.ke(m.wait("it is healthy", func(d status.Document) bool { return d.State == status.Healthy }))
	var silent []func(time.Duration) (time.Duration, bool)
	for range 3 {
		silent = append(silent, idle(t, addr))
	}
	m.under(addr, func() {
		for cookies := 1; cookies <= 3; cookies++ {
			silent = append(silent, idle(t, addr))
			m.configure(ke(cookies))
			if err := m.reload(); err != nil {
				t.Fatal(err)
			}
			m.serves(addr, "", cookies)
		}
	})
	for n, stayed := range silent {
		if took, gone := stayed(time.Millisecond); gone {
			t.Errorf("the %d. that says nothing was gone after %v, and may have been waited for", n+1, took)
		}
	}
}

func TestAReloadOntoAnAddressThatIsNotOursIsRefusedThoughTheDoorIsClosed(t *testing.T) {
	t.Parallel()
	m := newMember(t, 3*time.Second, chronytest.Options{})
	m.configure("")
	m.start()
	m.wait("the certificate has expired", m.hasExpired)
	m.configure("ke: {listen: [\"192.0.2.9:0\"]}\n")
	if err := m.reload(); err != nil {
		t.Fatalf("port 0 is only known when the door opens: %v", err)
	}
	m.configure("ke: {listen: [\"192.0.2.9:4460\"]}\n")
	if err := m.reload(); err == nil || !strings.Contains(err.Error(), "192.0.2.9:4460") {
		t.Fatalf("reload onto a foreign address: %v, want it refused by name", err)
	}
}

func TestANameThatComesOrGoesInterruptsNoOther(t *testing.T) {
	t.Parallel()
	m := startMember(t, time.Hour, "")
	addr := m.ke(m.wait("it is healthy", func(d status.Document) bool { return d.State == status.Healthy }))
	both := fmt.Sprintf("names: [bob.pool.test, %s]\ncertificate: {source: files, files: [{name: bob.pool.test, cert: /nowhere/bob, key: /nowhere/key}, {name: %s, cert: %s, key: %s}]}\n",
		memberName, memberName, m.cert, m.key)
	m.under(addr, func() {
		for _, names := range []string{both, "", both, ""} {
			m.configure(names)
			if err := m.reload(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestAReloadThatWantsATakenPortChangesNothing(t *testing.T) {
	t.Parallel()
	held, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	m := startMember(t, time.Hour, "")
	addr := m.ke(m.wait("it is healthy", func(d status.Document) bool { return d.State == status.Healthy }))
	m.configure(fmt.Sprintf("ke: {listen: [%q]}\n", held.Addr()))
	if err := m.reload(); err == nil || !strings.Contains(err.Error(), "ss -ltnp") {
		t.Fatalf("reload onto a taken port: %v, want it refused with the way to find who holds it", err)
	}
	m.serves(addr, "", 8)
}

func TestAReloadMovesTheKeyExchange(t *testing.T) {
	t.Parallel()
	m := startMember(t, time.Hour, "")
	old := m.ke(m.wait("it is healthy", func(d status.Document) bool { return d.State == status.Healthy }))
	m.configure("ke: {listen: [\"127.0.0.2:0\"]}\n")
	if err := m.reload(); err != nil {
		t.Fatal(err)
	}
	d := m.wait("it listens at the new address", func(d status.Document) bool { return m.ke(d).Addr() == netip.MustParseAddr("127.0.0.2") })
	m.serves(m.ke(d), "", 8)
	if _, _, err := m.exchange(old); err == nil {
		t.Error("the old address still serves")
	}
}

func TestAReloadOfWhatNeedsARestartSaysSo(t *testing.T) {
	t.Parallel()
	m := startMember(t, time.Hour, "")
	m.configure("log: {level: debug}\n")
	if err := m.reload(); err == nil || !strings.Contains(err.Error(), "log: has changed, which takes a restart") {
		t.Fatalf("got %v, want the key and that it takes a restart", err)
	}
}

func TestAnExpiredCertificateClosesTheKeyExchangeUntilANewOneComes(t *testing.T) {
	t.Parallel()
	m := startMember(t, time.Hour, at(fixedPort(t))) // which nobody takes while it is closed
	addr := m.ke(m.wait("it serves", func(d status.Document) bool { return m.ke(d).IsValid() }))
	taken := func(life time.Duration) (yes bool) {
		cert, key, serial := m.ca.issue(life)
		end := time.Now().Add(life)
		m.write(m.key, key)
		m.write(m.cert, cert)
		m.wait("a certificate that is about to expire is taken, or has expired", func(d status.Document) bool {
			yes = d.Certificates[0].Serial == serial
			return yes || time.Now().After(end)
		})
		return yes
	}
	for life := 3 * time.Second; !taken(life); life *= 2 { // where the machine was slower than its life
		if life > 20*time.Second {
			t.Fatalf("a certificate with %s left is not taken", life)
		}
	}
	d := m.wait("the expired certificate closes it, and that is why", func(d status.Document) bool {
		return !m.ke(d).IsValid() && len(d.Listeners) > 0 && strings.Contains(d.Listeners[0].Reason, "expired")
	})
	if _, err := net.Dial("tcp", addr.String()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("dial: %v, want the connection refused: a failed handshake would cost the client days", err)
	}
	if d.State != status.Unhealthy {
		t.Errorf("state %s, want UNHEALTHY", d.State)
	}
	cert, key, serial := m.ca.issue(time.Hour)
	m.write(m.key, key)
	m.write(m.cert, cert)
	d = m.wait("a new certificate opens it", func(d status.Document) bool { return m.ke(d).IsValid() })
	if m.ke(d) != addr {
		t.Errorf("it listens at %s now, was %s", m.ke(d), addr)
	}
	m.serves(addr, serial, 8)
}

func TestCertificatesByOtherHandsReachTheListener(t *testing.T) {
	t.Parallel()
	m := startMember(t, time.Hour, "")
	addr := m.ke(m.wait("it serves", func(d status.Document) bool { return m.ke(d).IsValid() }))
	shown := func(serial string) {
		t.Helper()
		m.wait("the listener shows certificate "+serial, func(status.Document) bool {
			got, _, err := m.exchange(addr)
			if err != nil {
				t.Fatalf("a handshake failed during the swap: %v", err)
			}
			return got == serial
		})
	}
	replace := func(path string, b []byte) {
		m.write(path+".new", b)
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}

	cert, key, serial := m.ca.issue(time.Hour)
	replace(m.key, key)
	replace(m.cert, cert)
	shown(serial) // renamed over

	cert, key, serial = m.ca.issue(time.Hour)
	m.write(m.cert, cert)
	m.write(m.key, key)
	shown(serial) // written in place

	// A pair that is half of one and half of another is never taken.
	_, key, _ = m.ca.issue(time.Hour)
	m.write(m.key, key)
	d := m.wait("the half-written pair is told", func(d status.Document) bool { return d.Certificates[0].LastError != "" })
	if d.Certificates[0].Serial != serial || d.State != status.Degraded {
		t.Errorf("serial %s, state %s; want the last good certificate %s and DEGRADED", d.Certificates[0].Serial, d.State, serial)
	}
	m.serves(addr, serial, 8)
	cert, key, serial = m.ca.issue(time.Hour)
	m.write(m.cert, cert)
	m.write(m.key, key)
	shown(serial)
	m.wait("the error is gone", func(d status.Document) bool { return d.Certificates[0].LastError == "" })
}

func TestCertificatesBehindLinksReachTheListener(t *testing.T) {
	t.Parallel()
	m := startMember(t, time.Hour, "")
	addr := m.ke(m.wait("it serves", func(d status.Document) bool { return m.ke(d).IsValid() }))
	// ..data as in a Kubernetes volume: the paths stay, the folder they lead through is swapped.
	volume := func(n int) string {
		cert, key, serial := m.ca.issue(time.Hour)
		dir := filepath.Join(m.dir, fmt.Sprintf("gen%d", n))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		m.write(filepath.Join(dir, "cert"), cert)
		m.write(filepath.Join(dir, "key"), key)
		return serial
	}
	link := func(target, path string) {
		if err := os.Symlink(target, path+".new"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 3 {
		serial := volume(n)
		link(fmt.Sprintf("gen%d", n), filepath.Join(m.dir, "..data"))
		if n == 0 { // as certbot: the files themselves become links
			link("..data/key", m.key)
			link("..data/cert", m.cert)
		}
		m.wait("the swapped folder is served", func(status.Document) bool {
			got, _, err := m.exchange(addr)
			return err == nil && got == serial
		})
	}
}

func TestADaemonThatGoesAwayChangesNothingAndOneThatRefusesEndsMinting(t *testing.T) {
	t.Parallel()
	m := startMember(t, time.Hour, "")
	addr := m.ke(m.wait("it is healthy", func(d status.Document) bool { return d.State == status.Healthy }))
	m.chronyd.Stop()
	m.wait("the daemon is missed", func(d status.Document) bool { return d.Keys.State == status.KeysUnseen })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, "tcp", addr.String())
	if err != nil {
		t.Fatalf("the key exchange went with the daemon: %v", err)
	}
	c.Close()
	if err := os.Remove(m.chronyd.KeysFile); err != nil {
		t.Fatal(err)
	}
	m.chronyd.Restart() // without its key file chronyd makes random keys and refuses our cookies
	m.wait("the keys are handed over again and proven", func(d status.Document) bool { return d.Keys.State == status.KeysProven && m.ke(d).IsValid() })
	m.serves(addr, "", 8)
}

func TestASecondAgentOnOneStateDirectoryIsRefused(t *testing.T) {
	t.Parallel()
	m := startMember(t, time.Hour, "")
	err := Run(t.Context(), Options{ConfigPath: m.conf, Log: hclog.NewNullLogger(), Version: "test"})
	if !errors.Is(err, ErrBusy) {
		t.Fatalf("got %v, want %v", err, ErrBusy)
	}
	if _, err := m.status(); err != nil {
		t.Fatalf("the first agent suffered: %v", err)
	}
}

func TestAMissingConfigurationIsOneClearLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none.yaml")
	err := Run(t.Context(), Options{ConfigPath: path, Log: hclog.NewNullLogger()})
	var invalid *config.Error
	if !errors.As(err, &invalid) || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), path) {
		t.Fatalf("got %v, want one line that names %s", err, path)
	}
}
