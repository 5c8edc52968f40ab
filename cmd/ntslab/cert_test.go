package main

import (
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// cert runs `ntsagent cert` against the lab's agent and returns the exit code and all it said.
func (l *runningLab) cert(t *testing.T, args ...string) (code int, said string) {
	t.Helper()
	all := append([]string{"cert"}, args...)
	out, err := exec.CommandContext(t.Context(), filepath.Join(binaries, "ntsagent"), append(all, "--config", l.env["CONFIG"])...).CombinedOutput()
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		t.Fatal(err)
	}
	if ended != nil {
		code = ended.ExitCode()
	}
	if strings.Contains(string(out), "PRIVATE KEY") {
		t.Errorf("ntsagent cert %s shows a key", args[0])
	}
	return code, string(out)
}

// must is cert for what has to go well.
func (l *runningLab) must(t *testing.T, args ...string) string {
	t.Helper()
	code, said := l.cert(t, args...)
	if code != 0 {
		t.Fatalf("ntsagent cert %s: exit code %d\n%s", strings.Join(args, " "), code, said)
	}
	return said
}

// serial is that of the certificate in use.
func (l *runningLab) serial(t *testing.T) string {
	t.Helper()
	d, err := l.status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return d.Certificates[0].Serial
}

// What an operator does about a certificate, with a real authority behind.
func TestACertificateIsRenewedWhenAnOperatorWishes(t *testing.T) {
	t.Parallel()
	lab := startLab(t, "http-01", "--daemon", "gateway")
	first := lab.serial(t)
	if said := lab.must(t, "renew"); !strings.Contains(said, "not due until") || lab.serial(t) != first {
		t.Errorf("a certificate that is not due: %s", said)
	}
	said := lab.must(t, "renew", "--force")
	second := lab.serial(t)
	if second == first || !strings.Contains(said, "certificate "+second+" by Pebble") {
		t.Errorf("serial %s after %s, and it says %s", second, first, said)
	}
	await(t, 30*time.Second, "the new one to serve", lab.check)
}
