package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"ntsagent/agent/status"
)

// The CA of choice is gone for good, and the certificate is not worth anything any more. What keeps an agent going then is the
// fallback, by its own account.
func TestAnAgentTurnsToTheFallbackCA(t *testing.T) {
	t.Parallel()
	lab := startLab(t, "http-01", "--daemon", "gateway")
	path := lab.env["CONFIG"]
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	reload := func(directories string) {
		t.Helper()
		after := regexp.MustCompile(`(?m)^  directory: "(https://127\.0\.0\.1(:.*))"$`).ReplaceAll(before, []byte(directories))
		if bytes.Equal(before, after) {
			t.Fatalf("no directory in\n%s", before)
		}
		if err := os.WriteFile(path, after, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := lab.agent(t.Context(), "reload", "--config", path); err != nil {
			t.Fatal(err)
		}
	}
	// The account is there before it is needed. Another host is another CA.
	reload("  directory: \"$1\"\n  fallback_directory: \"https://localhost$2\"")
	await(t, 2*time.Minute, "an account at the fallback", func(ctx context.Context) error {
		out, err := lab.agent(ctx, "account", "show", "--config", path)
		if err == nil && bytes.Count(out, []byte("accounturi=")) != 2 {
			err = fmt.Errorf("told\n%s", out)
		}
		return err
	})

	reload("  directory: https://127.0.0.1:0/directory\n  fallback_directory: \"$1\"") // nobody can listen on port 0
	var first status.Certificate
	await(t, 90*time.Second, "the certificate to be one of the fallback", func(context.Context) error {
		if first = lab.certificate(t); !first.Fallback || first.Serial == "" {
			return fmt.Errorf("there is %+v", first)
		}
		return nil
	})
	// It is revoked where it was made. The order that follows, and the wishes, find the first CA gone three times.
	if _, said := lab.cert(t, "", "revoke", "--yes", "--reason", "superseded"); !strings.Contains(said, "is revoked (superseded)") || !strings.Contains(said, "127.0.0.1:0") {
		t.Fatalf("want no other certificate yet:\n%s", said)
	}
	var now status.Certificate
	for range 4 { // one more than it takes, and the agent may be ahead of us
		lab.cert(t, "", "renew")
		if now = lab.certificate(t); now.Serial != first.Serial {
			break
		}
	}
	if now.Serial == first.Serial || !now.Fallback || now.Revoked != "" || now.Failures != 0 {
		t.Errorf("there is %+v, want another one by the fallback", now)
	}
	await(t, 90*time.Second, "it to serve", lab.check)
	if d, err := lab.status(t.Context()); err != nil || d.State != status.Degraded || !strings.Contains(strings.Join(d.Reasons, " "), "fallback CA") {
		t.Errorf("%s %q, %v; want someone to look at the first CA", d.State, d.Reasons, err)
	}
}
