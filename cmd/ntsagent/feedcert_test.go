package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"
)

// A restart that has to wait is no failure: the systemd unit of the helper would
// be told of as failed for a day.
func TestTheHelperSaysThatARestartWaits(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"alice.example"}}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	pair := append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})...)
	dir := t.TempDir()
	conf := filepath.Join(dir, "ntsagent.yaml")
	if err := errors.Join(os.MkdirAll(dir+"/state/export", 0o700), os.WriteFile(dir+"/state/export/alice.example.pem", pair, 0o600), os.WriteFile(conf, fmt.Appendf(nil, `names: [alice.example]
certificate: {source: files, cert: /c, key: /k, export: [{name: alice.example, cert: %s/cert.pem, key: %s/key.pem, then: restart, command: [/bin/true]}]}
daemon: {kind: chrony, mode: certificate}
state_dir: %s/state
`, dir, dir, dir), 0o600)); err != nil {
		t.Fatal(err)
	}
	const waits = `^/bin/true was restarted less than a day ago, and is again at [0-9-]+T[0-9:]+Z; the files are written\n$`
	for _, c := range []struct{ args, want string }{{"", "^$"}, {"", waits}, {"--quiet", "^$"}} {
		args := []string{"feed", "certificate", "--config", conf}
		if c.args != "" {
			args = append(args, c.args)
		}
		var out bytes.Buffer
		if code := execute(t.Context(), args, &out, &out); code != 0 || !regexp.MustCompile(c.want).Match(out.Bytes()) {
			t.Errorf("%q: exit %d, it says %q", args, code, out.String())
		}
	}
}
