package feed_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"ntsagent/agent/config"
	"ntsagent/agent/daemon/chronytest"
	"ntsagent/agent/daemon/daemontest"
	"ntsagent/agent/daemon/ntpdrstest"
	"ntsagent/agent/feed"
	"ntsagent/ntske/client"
	"ntsagent/packaging/parts"
)

// startReader is a daemon that reads its pair when it starts.
type startReader struct {
	dir, name string
	ke        netip.AddrPort
	restart   func()
	hangUp    func() // and waits for its end
	// answers says that it answers NTP, of one that starts with a key of another
	// certificate, too, and exchanges no keys then; nil of another.
	answers func() bool
}

// What certificate.export is told to do rests on this: a new pair, a SIGHUP even,
// is nothing to chronyd and ntp-daemon, which the signal ends; and a chronyd that
// starts between the two renames exchanges no keys until its next start.
func TestOnlyAStartMakesChronydAndNtpDaemonReadTheirPair(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(t *testing.T) startReader{
		"chronyd 4.3":   func(t *testing.T) startReader { return chronyReader(t, parts.Debian12) },
		"chronyd 4.6.1": func(t *testing.T) startReader { return chronyReader(t, parts.Debian13) },
		"ntp-daemon": func(t *testing.T) startReader {
			s := ntpdrstest.Start(t, ntpdrstest.Options{})
			return startReader{s.Dir, ntpdrstest.Name, s.KE, s.Restart, func() {
				s.Signal(syscall.SIGHUP)
				until(t, "its end", func() bool { _, err := feed.Served(t.Context(), s.KE, ntpdrstest.Name); return err != nil })
			}, nil}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t)
			serial := func() string {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				served, err := feed.Served(ctx, s.ke, s.name)
				if err != nil {
					return ""
				}
				return string(served.Raw)
			}
			serves := func() (now string) {
				t.Helper()
				until(t, "its key exchange", func() bool { now = serial(); return now != "" })
				return now
			}
			first := serves()
			second, third := t.TempDir(), t.TempDir()
			daemontest.WriteCertificate(t, second, s.name)
			daemontest.WriteCertificate(t, third, s.name)
			s.take(t, second, daemontest.KeyFile)
			s.take(t, second, daemontest.CertFile)
			if serves() != first {
				t.Error("it serves a new pair without a start")
			}
			s.hangUp()
			s.restart()
			if serves() == first {
				t.Error("after a start it serves the pair of before")
			}
			if s.answers == nil {
				return
			}
			s.take(t, third, daemontest.KeyFile)
			s.restart()
			until(t, "its answer by NTP", s.answers)
			if serial() != "" {
				t.Error("it serves a certificate without its key")
			}
			until(t, "its answer by NTP: it has not ended", s.answers)
			s.take(t, third, daemontest.CertFile)
			s.restart()
			serves()
		})
	}
}

func (s startReader) take(t *testing.T, from, file string) {
	t.Helper()
	put(t, filepath.Join(s.dir, file), content(t, filepath.Join(from, file)))
}

func chronyReader(t *testing.T, release parts.Release) startReader {
	s := chronytest.Start(t, chronytest.Options{Release: release})
	return startReader{s.Dir, chronytest.Name, s.KE(), s.StartAgain, func() {
		b, err := os.ReadFile(filepath.Join(s.Dir, "pid"))
		if err != nil {
			t.Fatal(err)
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil {
			t.Fatal(err)
		}
		must(t, syscall.Kill(pid, syscall.SIGHUP))
		until(t, "its end", func() bool { _, err := os.Lstat(filepath.Join(s.Dir, "pid")); return err != nil })
	}, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := client.Plain(ctx, s.Addr)
		return err == nil
	}}
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); <-time.After(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// Nobody waits for a restart until what is served is over.
func TestARestartIsSoonerWhereWhatIsServedEnds(t *testing.T) {
	t.Parallel()
	needRoot(t)
	s := chronytest.Start(t, chronytest.Options{})
	var served *x509.Certificate
	until(t, "its key exchange", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		var err error
		served, err = feed.Served(ctx, s.KE(), chronytest.Name)
		return err == nil
	})
	dir, record := t.TempDir(), feed.RestartRecord(filepath.Join(t.TempDir(), "state"))
	e, err := config.ParseExport(fmt.Sprintf("{name: %s, cert: %s/cert.pem, key: %s/key.pem, then: restart, command: [/bin/true]}", chronytest.Name, dir, dir))
	if err != nil {
		t.Fatal(err)
	}
	must(t, os.Mkdir(filepath.Dir(record), 0o755))
	put(t, record, fmt.Sprintf(`{"what":"/bin/true","leaf":"another","at":%q,"done":true}`, time.Now().Add(-time.Minute).Format(time.RFC3339)))
	o := feed.CertificateOptions{Export: e, Pair: newPair(t, chronytest.Name), KE: s.KE(), Record: record}
	waiting := (*feed.Waiting)(nil)
	until(t, "an hour before the end of what is served", func() bool { // a day, where chronyd does not answer at once
		err := feed.Certificate(t.Context(), o)
		return errors.As(err, &waiting) && waiting.Until.Equal(served.NotAfter.Add(-time.Hour))
	})
	s.Stop()
	if err := feed.Certificate(t.Context(), o); !errors.As(err, &waiting) || !waiting.Until.After(served.NotAfter.Add(-time.Hour)) {
		t.Errorf("when nothing is served: %v, want a day", err)
	}
}
