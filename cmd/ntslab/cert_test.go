package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ntsagent/agent/status"
)

// cert runs `ntsagent cert` against the lab's agent and returns the exit code and all it said.
func (l *runningLab) cert(t *testing.T, stdin string, args ...string) (code int, said string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(binaries, "ntsagent"), append([]string{"cert", "--config", l.env["CONFIG"]}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		t.Fatal(err)
	}
	if ended != nil {
		code = ended.ExitCode()
	}
	if bytes.Contains(out, []byte("BEGIN PRIVATE KEY")) {
		t.Errorf("ntsagent cert %s shows a key", args[0])
	}
	return code, string(out)
}

// must is cert for what has to go well and say these words.
func (l *runningLab) must(t *testing.T, says string, args ...string) string {
	t.Helper()
	code, said := l.cert(t, "", args...)
	if code != 0 || !strings.Contains(said, says) {
		t.Fatalf("ntsagent cert %s: exit code %d, want 0 and %q\n%s", strings.Join(args, " "), code, says, said)
	}
	return said
}

// certificate is the one in use, as the agent tells it.
func (l *runningLab) certificate(t *testing.T) status.Certificate {
	t.Helper()
	d, err := l.status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return d.Certificates[0]
}

// What an operator does about certificates, with a real authority behind.
func TestAnOperatorRenewsAndRevokesCertificates(t *testing.T) {
	t.Parallel()
	lab := startLab(t, "http-01", "--daemon", "gateway")
	first := lab.certificate(t)
	lab.must(t, "not due until", "renew")
	if now := lab.certificate(t); now.Serial != first.Serial {
		t.Errorf("certificate %s came though %s was not due", now.Serial, first.Serial)
	}
	said := lab.must(t, " by Pebble", "renew", "--force")
	second := lab.certificate(t)
	if second.Serial == first.Serial || !strings.Contains(said, "certificate "+second.Serial) {
		t.Errorf("serial %s after %s, and it says %s", second.Serial, first.Serial, said)
	}
	lab.must(t, second.Fingerprint, "show")

	for _, answer := range []string{"", "no\n", "n\n"} {
		if code, said := lab.cert(t, answer, "revoke"); code != 1 || !strings.Contains(said, "certificate "+second.Serial+" by Pebble") ||
			!strings.Contains(said, "[y/N]") || lab.certificate(t).Serial != second.Serial {
			t.Errorf("asked whether to revoke and told %q, exit code %d:\n%s", answer, code, said)
		}
	}
	lab.must(t, "ok    "+lab.env["NAME"]+": certificate "+second.Serial+" is revoked (keyCompromise)\n", "revoke", "--yes", "--reason", "key-compromise")
	third := lab.certificate(t)
	if third.Serial == second.Serial || third.Revoked != "" {
		t.Errorf("after the revocation of %s there is %+v", second.Serial, third)
	}
	await(t, 90*time.Second, "the new one to serve", lab.check)

	if code, said := lab.cert(t, "yes\n", "revoke", "--reason", "cessationOfOperation"); code != 0 || !strings.Contains(said, "out of service") {
		t.Errorf("exit code %d:\n%s", code, said)
	}
	if c := lab.certificate(t); c.Serial != "" || c.Condition != status.ConditionCeased {
		t.Errorf("operation has ended, and there is %+v", c)
	}
	if code, said := lab.cert(t, "", "renew"); code != 1 || !strings.Contains(said, "--force") {
		t.Errorf("renewed after the end: exit code %d\n%s", code, said)
	}
	lab.must(t, " by Pebble", "renew", "--force")
	await(t, 90*time.Second, "it to serve again", lab.check)
}

// A certificate from a CA that speaks no ACME.
func TestAnOperatorImportsACertificateThatWasMadeElsewhere(t *testing.T) {
	t.Parallel()
	lab := startLab(t, "http-01", "--daemon", "gateway")
	first, ca := lab.certificate(t), newPaperCA(t)
	request := lab.must(t, "BEGIN CERTIFICATE REQUEST", "csr")
	block, rest := pem.Decode([]byte(request))
	if block == nil || len(rest) > 0 {
		t.Fatalf("csr printed %q", request)
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if err := csr.CheckSignature(); err != nil || len(csr.DNSNames) != 1 || csr.DNSNames[0] != lab.env["NAME"] {
		t.Fatalf("%v: a request for %q", err, csr.DNSNames)
	}
	kept := filepath.Join(lab.dir, "state/acme/names", lab.env["NAME"], "csr.key")
	info, err := os.Stat(kept)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%s: %v, %v; want 0600", kept, info, err)
	}
	keyPEM, err := os.ReadFile(kept)
	if err != nil {
		t.Fatal(err)
	}

	now := time.Now()
	write := func(name string, b []byte) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	chain := ca.sign(t, csr.PublicKey, lab.env["NAME"], now.Add(240*time.Hour))
	for name, row := range map[string]struct {
		chain []byte
		says  string
	}{
		"another name's":               {ca.sign(t, csr.PublicKey, "bob.example", now.Add(time.Hour)), "bob.example"},
		"one that is over":             {ca.sign(t, csr.PublicKey, lab.env["NAME"], now.Add(-time.Minute)), "expired"},
		"a stranger's":                 {ca.sign(t, ca.key.Public(), lab.env["NAME"], now.Add(time.Hour)), "cert csr"},
		"one without its intermediate": {chain, "ca_file"},
		"one with its key":             {append(bytes.Clone(chain), keyPEM...), "private key"},
		"one without an end":           {bytes.Repeat([]byte("A"), 2<<20), "no certificate chain"},
	} {
		if code, said := lab.cert(t, "", "import", "--chain", write("chain.pem", row.chain)); code != 1 || !strings.Contains(said, row.says) || strings.Count(said, "\n") != 1 {
			t.Errorf("%s: exit code %d, want 1 and one line with %q:\n%s", name, code, row.says, said)
		}
	}
	if c := lab.certificate(t); c.Serial != first.Serial {
		t.Errorf("certificate %s serves after all that, before %s", c.Serial, first.Serial)
	}

	root := write("root.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw}))
	lab.know(t, root)
	lab.must(t, "certificate 5ca1ab1e by paper CA", "import", "--chain", write("chain.pem", chain))
	if c := lab.certificate(t); c.Serial != "5ca1ab1e" || c.RenewAt.IsZero() || c.Source != status.SourceImported || c.Profile != "" {
		t.Errorf("there is %+v", c)
	}
	if _, err := os.Stat(kept); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the key in use still waits for its certificate: %v", err)
	}
	_, port, _ := strings.Cut(lab.env["KE"], ":")
	await(t, 90*time.Second, "it to serve", func(ctx context.Context) error {
		_, err := lab.agent(ctx, "check", "--ca", root, "--resolver", lab.env["DNS"], lab.env["NAME"]+":"+port)
		return err
	})
	if code, said := lab.cert(t, string(chain), "import", "--chain", "-"); code != 1 || !strings.Contains(said, "in use already") {
		t.Errorf("imported again: exit code %d\n%s", code, said)
	}
	// The authority of the lab has not made it.
	if code, said := lab.cert(t, "", "revoke", "--yes"); code != 1 || !strings.Contains(said, "it was imported, ") || !strings.Contains(said, "fix: revoke it where it was made") || lab.certificate(t).Serial != "5ca1ab1e" {
		t.Errorf("revoked by another CA: exit code %d\n%s", code, said)
	}
	lab.must(t, " by Pebble", "renew", "--force")
	await(t, 90*time.Second, "the ordered one to serve", lab.check)
}

// know has the agent trust the root in a file besides those it knows.
func (l *runningLab) know(t *testing.T, root string) {
	t.Helper()
	all := filepath.Join(t.TempDir(), "roots.pem")
	var pems [3][]byte
	for i, path := range []string{root, l.env["ACME_CA"], l.env["CONFIG"]} {
		var err error
		if pems[i], err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
	conf := bytes.ReplaceAll(pems[2], []byte(l.env["ACME_CA"]), []byte(all))
	for path, b := range map[string][]byte{all: slices.Concat(pems[0], pems[1]), l.env["CONFIG"]: conf} {
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.agent(t.Context(), "reload", "--config", l.env["CONFIG"]); err != nil {
		t.Fatal(err)
	}
}

// paperCA makes certificates out of requests.
type paperCA struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newPaperCA(t *testing.T) paperCA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "paper CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(480 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return paperCA{key, cert}
}

func (ca paperCA) sign(t *testing.T, key any, name string, until time.Time) []byte {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(0x5ca1ab1e), DNSNames: []string{name}, NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, ca.cert, key, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
