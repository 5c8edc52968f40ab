//go:build slow

package issuer_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"ntsagent/acme"
	"ntsagent/acme/front/fronttest"
	"ntsagent/acme/issuer"
	"ntsagent/acme/live"
	"ntsagent/hostcheck"
)

// stepCA makes the world's CA another one: step-ca, which knows neither profiles nor renewal information, and whose certificates
// live for four minutes, one of which is over when they come.
func (w *world) stepCA(t *testing.T) {
	t.Helper()
	program := os.Getenv("NTSAGENT_STEP_CA")
	if program == "" {
		t.Fatal("NTSAGENT_STEP_CA names no step-ca: make test-slow builds it")
	}
	dir := t.TempDir()
	w.caFile = authorityFiles(t, dir)
	addr := fmt.Sprintf("127.0.0.1:%d", fronttest.FreePort(t))
	config, err := json.Marshal(map[string]any{
		"root": w.caFile, "crt": filepath.Join(dir, "intermediate.crt"), "key": filepath.Join(dir, "intermediate.key"),
		"address": addr, "dnsNames": []string{"127.0.0.1"}, "logger": map[string]any{"format": "text"},
		"db":  map[string]any{"type": "bbolt", "dataSource": filepath.Join(dir, "db")},
		"crl": map[string]any{"enabled": true, "generateOnRevoke": true},
		"authority": map[string]any{"provisioners": []any{map[string]any{"type": "ACME", "name": "pool",
			"claims": map[string]any{"minTLSCertDuration": "1m", "defaultTLSCertDuration": "3m"}}}},
	})
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "ca.json"), config, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	_, tlsPort, err := net.SplitHostPort(w.tlsAddr)
	if err != nil {
		t.Fatal(err)
	}
	var said logOf
	cmd := exec.Command(program, filepath.Join(dir, "ca.json"), "--insecure", "--resolver="+w.zone.addr,
		fmt.Sprintf("--acme-http-port=%d", port(w.http.Listener)), "--acme-tls-port="+tlsPort)
	cmd.Env = append(os.Environ(), "STEPPATH="+dir)
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = &said, &said, &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-ended
		if t.Failed() {
			t.Logf("step-ca said: %s", said.String())
		}
	})
	for deadline := time.Now().Add(time.Minute); ; {
		resp, err := w.client(t).Get("https://" + addr + "/health")
		if err == nil {
			resp.Body.Close()
			break
		}
		select {
		case <-ended:
			t.Fatal("step-ca ended")
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("step-ca is not there after a minute: %v", err)
		}
	}
	w.directory = "https://" + addr + "/acme/pool/directory"
}

// client trusts the world's CA.
func (w *world) client(t *testing.T) *http.Client {
	t.Helper()
	b, err := os.ReadFile(w.caFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(b)
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}}
}

// authorityFiles makes a root and an intermediate in dir, and returns the root's file.
func authorityFiles(t *testing.T, dir string) string {
	t.Helper()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	certify := func(serial int64, name string, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
			KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
		if parent == nil {
			parent, parentKey = template, key
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return cert, key
	}
	root, rootKey := certify(1, "Step Root", nil, nil)
	intermediate, key := certify(2, "Step Intermediate", root, rootKey)
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write("intermediate.crt", "CERTIFICATE", intermediate.Raw)
	write("intermediate.key", "EC PRIVATE KEY", der)
	return write("root.crt", "CERTIFICATE", root.Raw)
}

// logOf is what a program said.
type logOf struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logOf) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logOf) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestStepCAIsASecondOpinion lives with another implementation of ACME than pebble: a first certificate, a renewal that comes by
// itself, one that is wished for, a revocation, and a name that is gone.
func TestStepCAIsASecondOpinion(t *testing.T) {
	for _, kind := range []string{issuer.HTTP01, issuer.TLSALPN01} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			name := mustName(t, "alice.members.pool.example")
			w := newWorld(t, settings{}, name)
			w.stepCA(t)
			s, set := openStore(t, t.TempDir()), live.NewSet([]hostcheck.Name{name})
			i := w.issuer(t, withStore(s), only(kind))
			events := make(chan acme.Event, 100)
			m := acme.NewManager(acme.Config{Name: name, Issuer: i, Store: s, Live: set, Log: nullLog, Directory: w.directory, Profile: "tlsserver",
				Event: func(e acme.Event) { events <- e }})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var running sync.WaitGroup
			running.Go(func() { m.Run(ctx) })
			defer running.Wait()
			defer cancel()

			await(t, events, acme.Obtained)
			first := set.Leaf(name)
			if life := first.NotAfter.Sub(first.NotBefore); first.Issuer.CommonName != "Step Intermediate" || life != 4*time.Minute {
				t.Errorf("certificate of %s for %v, want four minutes of step-ca's", first.Issuer, life)
			}
			if _, err := i.RenewalInfo(t.Context(), first); !errors.Is(err, acme.ErrNoRenewalInfo) {
				t.Errorf("renewal information: %v, want none", err)
			}
			account, err := s.Account(w.directory)
			if err != nil || account.URI == "" {
				t.Fatalf("account %v, %v", account, err)
			}

			ordered := awaitFor(t, events, acme.Ordered, 3*time.Minute)
			await(t, events, acme.Obtained)
			second := set.Leaf(name)
			if left := first.NotAfter.Sub(ordered.Time); left > 2*time.Minute || left < time.Minute {
				t.Errorf("renewed by itself with %v left, want half of the four minutes or less", left)
			}
			if second.Equal(first) || bytes.Equal(second.RawSubjectPublicKeyInfo, first.RawSubjectPublicKeyInfo) {
				t.Error("the renewal brought no new certificate with a new key")
			}

			if err := m.Renew(t.Context(), true); err != nil {
				t.Errorf("a wish for an order: %v", err)
			}
			third := set.Leaf(name)
			for range 2 { // what is revoked already is no error
				if err := i.Revoke(t.Context(), second, acme.Superseded); err != nil {
					t.Errorf("revoke: %v", err)
				}
			}
			if revoked := w.revoked(t); len(revoked) != 1 || revoked[0].SerialNumber.Cmp(second.SerialNumber) != 0 {
				t.Errorf("on the list of revoked certificates: %v, want %v alone", revoked, second.SerialNumber)
			}

			w.zone.set(name, "")
			var failed *acme.Error
			// It leaves the challenge open, and says there what it has found.
			if err := m.Renew(t.Context(), true); !errors.As(err, &failed) || failed.Class != acme.ClassConnection {
				t.Errorf("order for a name that is gone: %v; want to hear what step-ca has found", err)
			}
			if !set.Leaf(name).Equal(third) {
				t.Error("a failure has changed what is served")
			}
			if again, err := s.Account(w.directory); err != nil || again.URI != account.URI {
				t.Errorf("account %v, %v; it was %v", again, err, account)
			}
			w.mustHaveNoProof(t, name)
		})
	}
}

// awaitFor is await with more patience.
func awaitFor(t *testing.T, events <-chan acme.Event, kind acme.Kind, patience time.Duration) acme.Event {
	t.Helper()
	select {
	case e := <-events:
		if e.Kind != kind {
			t.Fatalf("%s: %s", e.Kind, e.Text)
		}
		return e
	case <-time.After(patience):
		t.Fatalf("no %s within %v", kind, patience)
		return acme.Event{}
	}
}

// revoked is the CA's list of revoked certificates.
func (w *world) revoked(t *testing.T) []x509.RevocationListEntry {
	t.Helper()
	resp, err := w.client(t).Get(w.directory[:len(w.directory)-len("/acme/pool/directory")] + "/crl")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	der, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		t.Fatalf("list of revoked certificates: %v (%s)", err, resp.Status)
	}
	return list.RevokedCertificateEntries
}
