package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"ntsagent/agent/config"
	"ntsagent/agent/daemon/ntpsectest"
	"ntsagent/agent/status"
	"ntsagent/ntske/client"
	debian "ntsagent/packaging/parts"
)

// servedByNtpd is an ntpd that exchanges keys itself, and an agent beside it, as
// that user, who renews its certificate.
type servedByNtpd struct {
	*member
	*ntpsectest.Server
	export config.Export
}

func startServed(t *testing.T, release debian.Release, as string) *servedByNtpd {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root: ntpd, the helper and the agent are of several users")
	}
	s := ntpsectest.Start(t, ntpsectest.Options{Release: release, User: chronysUser, ExtraConf: []string{"restrict 127.0.0.1"}})
	cert, key := filepath.Join(s.Dir, "cert.pem"), filepath.Join(s.Dir, "key.pem")
	line := fmt.Sprintf("{name: %s, cert: %s, key: %s, owner: root, group: nogroup, mode: 0640, then: sighup, pid_file: %s}", memberName, cert, key, s.PIDFile)
	export, err := config.ParseExport(line)
	if err != nil {
		t.Fatal(err)
	}
	user := credential(t, as)
	m := beside(t, s, user, "certificate: {source: files, cert: CERT, key: KEY, export: ["+line+"]}\ndaemon: {kind: ntpsec, mode: certificate}\n")
	m.startIn(s, user)
	return &servedByNtpd{m, s, export}
}

// renew puts a new certificate where the agent takes it from, and returns its serial.
func (m *servedByNtpd) renew() string {
	m.member.t.Helper()
	cert, key, serial := m.ca.issue(time.Hour)
	for path, b := range map[string][]byte{m.cert: cert, m.key: key} { // in place: who it belongs to stays so
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
		if err == nil {
			_, err = f.Write(b)
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			m.member.t.Fatal(err)
		}
	}
	return serial
}

// client does all that a client does, and returns the serial of the certificate.
func (m *servedByNtpd) client() (serial string, err error) {
	m.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		var r client.Result
		if r, err = client.KeyExchange(ctx, client.Config{Addr: ntpsectest.KE, Name: memberName, Roots: m.ca.roots}); err != nil {
			return
		}
		serial = r.TLS.PeerCertificates[0].SerialNumber.Text(16)
		_, err = client.Query(ctx, netip.AddrPortFrom(ntpsectest.KE.Addr(), r.Port), r.Keys, r.Cookies[0], 0)
	})
	return serial, err
}

// serves waits until the status says that ntpd serves that certificate, and asks.
func (m *servedByNtpd) serves(sentence, serial string) status.Document {
	m.member.t.Helper()
	begin := time.Now()
	d := m.wait(sentence, func(d status.Document) bool {
		return len(d.Exports) == 1 && d.Exports[0].Serial == serial && d.Exports[0].Why() == "" && d.Exports[0].Served.After(begin)
	})
	var got string
	if err := patiently(func() (err error) { got, err = m.client(); return err }); err != nil || got != serial {
		m.member.t.Errorf("%s: a client meets the certificate %s, %v; want %s", sentence, got, err, serial)
	}
	return d
}

func (m *servedByNtpd) pid() string {
	m.member.t.Helper()
	b, err := os.ReadFile(m.PIDFile)
	if err != nil {
		m.member.t.Fatal(err)
	}
	return string(b)
}

// serial is that of the certificate the agent was started with.
func (m *servedByNtpd) serial() string { return fmt.Sprintf("%x", m.ca.last) }

func TestNtpdServesTheCertificateThatTheAgentRenews(t *testing.T) {
	t.Parallel()
	for _, release := range []debian.Release{debian.Debian12, debian.Debian13} {
		t.Run("NTPsec "+release.NTPsec, func(t *testing.T) {
			t.Parallel()
			m := startServed(t, release, "root")
			pid := m.pid()
			d := m.serves("the first certificate is served", m.serial())
			if d.State == status.Unhealthy || d.Keys.Mode != status.ModeCertificate || d.Daemon.Seen.IsZero() || m.ke(d).IsValid() || len(d.Listeners) > 0 {
				t.Errorf("status %+v", d)
			}
			if text := status.Text(d); !strings.Contains(text, "Key exchange  ntpsec serves it with our certificate, seen ") || !strings.Contains(text, "Cookie keys   the daemon's own") {
				t.Errorf("status:\n%s", text)
			}
			theirs := credential(t, chronysUser)
			for _, path := range []string{m.export.Cert, m.export.Key} {
				checkOwner(t, path, 0o640, 0, theirs.Gid)
			}
			if err := m.rotate(); !errors.Is(err, status.ErrPointless) {
				t.Errorf("keys rotate: %v", err)
			}
			m.while(func() {
				for range 2 {
					m.serves("the renewed certificate is served", m.renew())
				}
			}, func() error {
				begun := time.Now()
				_, err := m.client()
				if time.Since(begun) > 2*time.Second {
					return nil // ntpd has 3 s for a client, which is not what this is about
				}
				return err
			})
			if m.pid() != pid {
				t.Error("ntpd was restarted")
			}
		})
	}
}

// What others do to the files of ntpd is undone, even what makes ntpd unable to
// serve anybody.
func TestWhatNtpdServesIsMended(t *testing.T) {
	t.Parallel()
	m := startServed(t, debian.Debian12, "root")
	pid := m.pid()
	m.serves("the certificate is served", m.serial())
	serial := m.serial()
	foreign, _, _ := m.ca.issue(time.Hour)
	m.write(m.export.Cert, foreign) // whose key is not there
	m.Signal(syscall.SIGHUP)
	m.serves("a certificate without its key is replaced", serial)
	if err := os.Remove(m.export.Key); err != nil {
		t.Fatal(err)
	}
	m.wait("the key is there again", func(status.Document) bool { _, err := os.Lstat(m.export.Key); return err == nil })
	m.serves("a key that was lost is there again", serial)
	if m.pid() != pid {
		t.Error("ntpd was restarted")
	}
	if err := m.reload(); err != nil {
		t.Error(err)
	}
	m.serves("it is served after a reload", serial)
	conf, err := os.ReadFile(m.conf)
	if err != nil {
		t.Fatal(err)
	}
	m.write(m.conf, []byte(strings.Replace(string(conf), "mode: certificate}", "mode: auto}\nke: {listen: [\"127.0.0.1:4461\"]}", 1)))
	if err := m.reload(); err == nil || !strings.Contains(err.Error(), "daemon.mode: has changed, which takes a restart") {
		t.Errorf("another mode: %v", err)
	}
	m.write(m.conf, conf)
	m.Stop()
	d := m.wait("it is told that ntpd is gone", func(d status.Document) bool { return d.State == status.Unhealthy })
	if why := strings.Join(d.Reasons, " "); !strings.Contains(why, "ntpd exchanges no keys at 127.0.0.1:4460") || !strings.Contains(why, "fix: ") {
		t.Errorf("reasons %q", d.Reasons)
	}
	m.Restart()
	m.serves("ntpd is back", serial)
}

// As it is installed: the agent may not write where ntpd reads, and leaves the
// pair for a helper that is root.
func TestAnAgentWithoutRightsLeavesTheCertificateForTheHelper(t *testing.T) {
	t.Parallel()
	m := startServed(t, debian.Debian13, agentsUser)
	d := m.wait("another certificate is told of", func(d status.Document) bool {
		return d.State == status.Unhealthy && strings.Contains(d.Exports[0].Problem, "another certificate")
	})
	if !strings.Contains(d.Exports[0].Problem, "`ntsagent feed certificate`") || d.Exports[0].Failed != "" {
		t.Errorf("export %+v", d.Exports[0])
	}
	ours := credential(t, agentsUser)
	left := filepath.Join(m.state, "export", memberName+".pem")
	checkOwner(t, filepath.Dir(left), os.ModeDir|0o700, ours.Uid, ours.Gid)
	checkOwner(t, left, 0o600, ours.Uid, ours.Gid)
	help := func() {
		t.Helper()
		if out, err := asUser(t, credential(t, "root"), "certificate", left, m.export.String()).CombinedOutput(); err != nil {
			t.Fatalf("the helper: %v: %s", err, out)
		}
	}
	help()
	m.serves("the certificate is served", m.serial())
	before, err := os.ReadFile(left)
	if err != nil {
		t.Fatal(err)
	}
	serial := m.renew()
	m.wait("the new one is left", func(status.Document) bool {
		b, err := os.ReadFile(left)
		return err == nil && string(b) != string(before)
	})
	help()
	m.serves("the new certificate is served", serial)
	stale := filepath.Join(filepath.Dir(left), "bob.example.pem")
	m.write(stale, nil)
	conf, err := os.ReadFile(m.conf)
	if err != nil {
		t.Fatal(err)
	}
	m.write(m.conf, []byte(strings.Replace(string(conf), "self_check: 1s", "self_check: 2s", 1)))
	if err := m.reload(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(stale); err == nil {
		t.Error("what was left for a name that is exported no longer is still there")
	}
	m.serves("the certificate is served after a reload", serial)
}
