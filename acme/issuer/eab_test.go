package issuer_test

import (
	"bytes"
	"crypto/elliptic"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/go-hclog"

	"ntsagent/acme"
	"ntsagent/acme/issuer"
)

// A customer of a CA that asks for an external account binding.
const (
	customer    = "kid-1"
	customerKey = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
)

// keyFile writes an HMAC key as an operator would.
func keyFile(t *testing.T, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hmac")
	if err := errors.Join(os.WriteFile(path, []byte(text), 0o600), os.Chmod(path, mode)); err != nil {
		t.Fatal(err)
	}
	return path
}

func withEAB(e issuer.EAB) func(*issuer.Config) { return func(c *issuer.Config) { c.EAB = e } }

// book is a log that is written by several.
type book struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *book) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *book) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestACustomerOpensAnAccountOnceAndNeedsTheKeyNoMore(t *testing.T) {
	t.Parallel()
	name := mustName(t, "alice.members.pool.example")
	w := newWorld(t, settings{eab: true}, name)
	s := openStore(t, t.TempDir())
	path, log := keyFile(t, customerKey+"==\n", 0o640), new(book)
	traced := func(c *issuer.Config) {
		c.Log = hclog.New(&hclog.LoggerOptions{Output: log, Level: hclog.Trace})
	}
	order, _ := newOrder(t, name, elliptic.P256())
	issue(t, w.issuer(t, withStore(s), withEAB(issuer.EAB{KID: customer, HMACFile: path}), traced), order)
	if strings.Contains(log.String(), customerKey) || !strings.Contains(log.String(), "account registered") {
		t.Errorf("log = %s", log)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	issue(t, w.issuer(t, withStore(s), withEAB(issuer.EAB{KID: customer, HMACFile: path})), order)
}

func TestExternalAccountBindingThatIsNotTakenIsOneLineWithTheCure(t *testing.T) {
	t.Parallel()
	name := mustName(t, "alice.members.pool.example")
	w := newWorld(t, settings{eab: true}, name)
	other := base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte("x"), 48))
	for _, tt := range []struct {
		name        string
		kid, path   string
		class       acme.Class
		says, advis string
	}{
		{"a key that is not the CA's", customer, keyFile(t, other, 0o600), acme.ClassAccount, "opens no account", "kid and hmac_file"},
		{"a kid that the CA does not know", "kid-2", keyFile(t, customerKey, 0o600), acme.ClassAccount, "opens no account", "kid and hmac_file"},
		{"no file", customer, filepath.Join(t.TempDir(), "none"), acme.ClassAccount, "no such file", "base64url"},
		{"a file for everybody to read", customer, keyFile(t, customerKey, 0o644), acme.ClassAccount, "everybody may read", "alone to read"},
		{"a file for others to write", customer, keyFile(t, customerKey, 0o620), acme.ClassAccount, "others may write", "alone to read"},
		{"a key that is not base64url", customer, keyFile(t, "+"+customerKey, 0o600), acme.ClassAccount, "not base64url", "base64url"},
		{"a key that was cut short", customer, keyFile(t, customerKey[:8], 0o600), acme.ClassAccount, "a key of 6 octets", "base64url"},
		{"an empty file", customer, keyFile(t, "\n", 0o600), acme.ClassAccount, "a key of 0 octets", "base64url"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			order, _ := newOrder(t, name, elliptic.P256())
			_, err := w.issuer(t, withEAB(issuer.EAB{KID: tt.kid, HMACFile: tt.path})).Issue(t.Context(), order)
			var e *acme.Error
			if !errors.As(err, &e) || e.Class != tt.class || !strings.Contains(e.Error(), tt.says) || !strings.Contains(e.Hint, tt.advis) {
				t.Fatalf("err = %v; want class %s, %q and a hint with %q", err, tt.class, tt.says, tt.advis)
			}
			for _, text := range []string{e.Error(), e.Hint, fmt.Sprintf("%+v %#v", err, e)} {
				if strings.Contains(text, customerKey[:8]) || strings.Contains(text, other) || strings.ContainsAny(e.Error(), "\r\n") {
					t.Errorf("the key, or more than a line: %q", text)
				}
			}
		})
	}
}
