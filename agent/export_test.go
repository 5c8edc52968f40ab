package agent

import (
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"ntsagent/agent/daemon/chronytest"
	"ntsagent/agent/daemon/daemontest"
	"ntsagent/agent/daemon/ntpsectest"
	"ntsagent/agent/status"
	debian "ntsagent/packaging/parts"
)

// beside makes a member that runs as a process of its own, as that user, in the
// network of an ntpd. more are further lines of its configuration.
func beside(t *testing.T, s *ntpsectest.Server, as *syscall.Credential, more string) *member {
	t.Helper()
	dir, err := os.MkdirTemp("", "beside") // the names of sockets are limited to 107 octets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	m := &member{
		t: t, ca: newAuthority(t), dir: dir, state: filepath.Join(dir, "state"),
		cert: filepath.Join(dir, "fullchain.pem"), key: filepath.Join(dir, "privkey.pem"),
		conf: filepath.Join(dir, "ntsagent.yaml"), socket: filepath.Join(dir, "control.sock"), ended: make(chan error, 1),
	}
	cert, key, _ := m.ca.issue(time.Hour)
	m.write(m.key, key)
	m.write(m.cert, cert)
	m.write(m.conf, fmt.Appendf(nil, "names: [%s]\nobserve: {socket: %s, self_check: 1s}\nstate_dir: %s\n%s",
		memberName, m.socket, m.state, unhurried(strings.NewReplacer("CERT", m.cert, "KEY", m.key, "STATE", m.state).Replace(more))))
	if err := os.Mkdir(m.state, 0o711); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{m.dir, m.state, m.conf, m.cert, m.key} {
		if err := os.Chown(path, int(as.Uid), int(as.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(m.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return m
}

// startIn starts the agent in the network of s.
func (m *member) startIn(s *ntpsectest.Server, as *syscall.Credential) {
	m.t.Helper()
	cmd := asUser(m.t, as, "agent", m.conf)
	var err error
	s.Do(func() { err = cmd.Start() })
	if err != nil {
		m.t.Fatal(err)
	}
	loose, err := daemontest.Leash(cmd.Process.Pid)
	if err != nil {
		m.t.Error(err)
		loose = func() {}
	}
	m.t.Cleanup(func() {
		loose()
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	})
}

// As it is installed: ntpd, the helper and the agent are three processes, and the
// agent may not read what ntpd writes.
func TestARotationOfNTPsecReachesAnAgentOfAnotherUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root: ntpd, the helper and the agent are of several users")
	}
	theirs, ours := credential(t, chronysUser), credential(t, agentsUser)
	for _, release := range []debian.Release{debian.Debian12, debian.Debian13} {
		t.Run("NTPsec "+release.NTPsec, func(t *testing.T) {
			t.Parallel()
			s := ntpsectest.Start(t, ntpsectest.Options{
				Release: release, User: chronysUser, ExtraConf: []string{"restrict 127.0.0.1"},
				KeyFile: fmt.Appendf(nil, "T: 1700000000\nL: 32\nI: 17\nK: %s\n", strings.Repeat("5c", 32)),
			})
			m := beside(t, s, ours, `certificate: {source: files, cert: CERT, key: KEY}
ke: {listen: ["127.0.0.1:4461"]}
daemon: {kind: ntpsec, ntpsec: {keys_file: STATE/ntpsec/nts-keys}}
`)
			// Whoever packages us makes this folder.
			folder := filepath.Join(m.state, "ntpsec")
			if err := os.Mkdir(folder, 0o750); err != nil {
				t.Fatal(err)
			}
			if err := os.Chown(folder, int(theirs.Uid), int(ours.Gid)); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(folder, 0o750|os.ModeSetgid); err != nil {
				t.Fatal(err)
			}
			m.startIn(s, ours)
			m.wait("the copy is missed", func(d status.Document) bool {
				return strings.Contains(d.Keys.Why, "`ntsagent feed ntpsec`") && !m.ke(d).IsValid()
			})
			copied := filepath.Join(folder, "nts-keys")
			export := func() {
				t.Helper()
				if out, err := asUser(t, theirs, "export", s.KeysFile, copied).CombinedOutput(); err != nil {
					t.Fatalf("feed ntpsec: %v: %s", err, out)
				}
				checkOwner(t, copied, 0o640, theirs.Uid, ours.Gid)
			}
			export()
			before := m.wait("the keys are proven", provenAndOpen(m))
			serves := func() {
				t.Helper()
				var err error
				s.Do(func() { _, _, err = m.exchange(m.ke(before)) })
				if err != nil {
					t.Error(err)
				}
			}
			serves()
			s.Rotate()
			export()
			after := m.wait("the new key is followed", func(d status.Document) bool {
				return provenAndOpen(m)(d) && d.Keys.Current.ID != before.Keys.Current.ID && len(d.Keys.Held) == 2
			})
			serves()
			// A damaged original changes nothing, and one that is lost is told of.
			whole, err := s.ReadKeys()
			if err != nil {
				t.Fatal(err)
			}
			s.WriteKeys(whole[:len(whole)-9])
			if out, err := asUser(t, theirs, "export", s.KeysFile, copied).CombinedOutput(); err == nil {
				t.Errorf("half a file is exported: %s", out)
			}
			serves()
			s.Remove()
			if out, err := asUser(t, theirs, "export", s.KeysFile, copied).CombinedOutput(); err == nil || !strings.Contains(string(out), "no key file") {
				t.Errorf("a lost file: %v, %s", err, out)
			}
			m.wait("the copy is missed, and what is proven serves", func(d status.Document) bool {
				return provenAndOpen(m)(d) && d.Keys.Current == after.Keys.Current && strings.Contains(d.Keys.Why, "waiting for a whole key file")
			})
			serves()
		})
	}
}

// Beside any daemon a certificate can be copied for another program.
func TestACopyOfTheCertificateFollowsIt(t *testing.T) {
	t.Parallel()
	m := newMember(t, time.Hour, chronytest.Options{})
	folder := filepath.Join(m.dir, "elsewhere")
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	cert, key := filepath.Join(folder, "cert.pem"), filepath.Join(folder, "key.pem")
	m.configure(fmt.Sprintf("names: [%s]\ncertificate: {source: files, cert: %s, key: %s, export: [{name: %s, cert: %s, key: %s}]}\n",
		memberName, m.cert, m.key, memberName, cert, key))
	// As a kill between the two leaves them: the next key beside a certificate, and
	// that one's successor under another name.
	killedCert, _, _ := m.ca.issue(time.Hour)
	_, killedKey, _ := m.ca.issue(time.Hour)
	for path, b := range map[string][]byte{cert: killedCert, key: killedKey, filepath.Join(folder, ".ntsagent-tmp-KILLED"): killedCert} {
		m.write(path, b)
	}
	m.start()
	copied := func(sentence string) {
		t.Helper()
		want, err := os.ReadFile(m.cert)
		if err != nil {
			t.Fatal(err)
		}
		d := m.wait(sentence, func(d status.Document) bool {
			got, err := os.ReadFile(cert)
			return err == nil && string(got) == string(want) && provenAndOpen(m)(d) && len(d.Exports) == 1 && d.Exports[0].Failed == ""
		})
		if _, err := tls.LoadX509KeyPair(cert, key); err != nil {
			t.Errorf("%s: %v", sentence, err)
		}
		if info, err := os.Stat(key); err != nil || info.Mode() != 0o640 {
			t.Errorf("%s: the key has mode %v, %v", sentence, info.Mode(), err)
		}
		if e := d.Exports[0]; !e.Served.IsZero() || e.Hurts {
			t.Errorf("%s: %+v", sentence, e)
		}
	}
	copied("the first certificate is copied")
	if entries, err := os.ReadDir(folder); err != nil || len(entries) != 3 { // the lock is the third
		t.Errorf("in the folder are %v, %v", entries, err)
	}
	newCert, newKey, _ := m.ca.issue(time.Hour)
	m.write(m.key, newKey)
	m.write(m.cert, newCert)
	copied("its successor is")
	if err := os.Remove(cert); err != nil {
		t.Fatal(err)
	}
	copied("a copy that was lost is there again")
	if err := os.Chmod(folder, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	d := m.wait("the folder is told of", func(d status.Document) bool { return d.Exports[0].Failed != "" })
	if d.State != status.Degraded || !strings.Contains(d.Exports[0].Failed, "others may write to") {
		t.Errorf("%s, %+v", d.State, d.Exports)
	}
	if err := os.Chmod(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	copied("it is copied when the folder is as it must be")
}
