package ntpsectest

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"ntsagent/agent/daemon/daemontest"
	"ntsagent/packaging/parts"
)

// What feed.Certificate relies on: ntpd loads key and certificate when it is told
// and the certificate's times, in seconds, are others.
func TestNtpdWantsTheKeyBeforeTheCertificate(t *testing.T) {
	t.Parallel()
	for _, release := range []parts.Release{parts.Debian12, parts.Debian13} {
		t.Run("NTPsec "+release.NTPsec, func(t *testing.T) {
			t.Parallel()
			s := Start(t, Options{Release: release})
			first, second, third := s.Roots, newPair(t), newPair(t)
			s.serves("at the start", first)
			s.take(second, daemontest.KeyFile)
			s.serves("with another key beside the same certificate", first)
			s.take(second, daemontest.CertFile)
			s.serves("with the certificate of that key", second.roots)
			s.take(third, daemontest.CertFile)
			s.serves("with another certificate beside the same key", nil)
			s.take(third, daemontest.KeyFile)
			s.serves("with the right key, too late", nil)
			s.take(third, daemontest.CertFile)
			s.serves("with the certificate written once more", third.roots)

			// Between key and certificate it must not start.
			s.take(second, daemontest.KeyFile)
			s.Stop()
			s.Do(func() {
				if err := s.run(); err == nil {
					t.Error("it starts with another's key")
				}
			})
			s.take(second, daemontest.CertFile)
			s.Restart()
			s.serves("after a start with both", second.roots)
		})
	}
}

// newPaired is a key and its certificate.
type newPaired struct {
	dir   string
	roots *x509.CertPool
}

func newPair(t *testing.T) newPaired {
	dir := t.TempDir()
	return newPaired{dir, daemontest.WriteCertificate(t, dir, Name)}
}

// take replaces one file, in another second than that before, and tells ntpd if
// it runs. When it returns ntpd has acted on that.
func (s *Server) take(p newPaired, file string) {
	s.t.Helper()
	before, err := os.Stat(filepath.Join(s.Dir, file))
	if err != nil {
		s.t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(p.dir, file))
	if err != nil {
		s.t.Fatal(err)
	}
	path := filepath.Join(s.Dir, file)
	until(s.t, "the next second", func() bool {
		if err := os.WriteFile(path+".new", b, 0o644); err != nil {
			s.t.Fatal(err)
		}
		now, err := os.Stat(path + ".new")
		return err == nil && now.ModTime().Unix() != before.ModTime().Unix()
	})
	if err := os.Rename(path+".new", path); err != nil {
		s.t.Fatal(err)
	}
	if !s.Running() {
		return
	}
	for range 2 { // when it has seen the second one it is done with the first
		saw := strings.Count(s.Log(), "Saw SIGHUP")
		s.Signal(syscall.SIGHUP)
		until(s.t, "it sees the signal", func() bool { return strings.Count(s.Log(), "Saw SIGHUP") > saw })
	}
}

// serves asks for a certificate of those roots; nil: no handshake must succeed.
func (s *Server) serves(sentence string, roots *x509.CertPool) {
	s.t.Helper()
	all := roots
	if roots == nil {
		all = s.Roots
	}
	s.Do(func() {
		_, cookies, err := daemontest.Exchange(KE, Name, all, 15)
		switch {
		case roots == nil && (err == nil || !strings.Contains(err.Error(), "protocol version not supported")):
			s.t.Errorf("%s: it should serve nobody, %v", sentence, err)
		case roots != nil && (err != nil || len(cookies) != 8):
			s.t.Errorf("%s: %d cookies, %v", sentence, len(cookies), err)
		}
	})
}

func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for !ok() {
		select {
		case <-again.C:
		case <-deadline:
			t.Fatalf("waited in vain until %s", what)
		}
	}
}
