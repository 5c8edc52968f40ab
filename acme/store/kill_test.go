package store

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io/fs"
	"math/big"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"ntsagent/hostcheck"
)

const (
	childEnv  = "NTSAGENT_STORE_TEST_CHILD"
	directory = "https://ca.example/directory"
	kills     = 500
)

// TestMain turns the test binary into the writer that is killed when its parent asks for it.
func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		fmt.Fprintln(os.Stderr, writeForEver(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// writeForEver does all a Manager and an Issuer do to a store, over and over, and says what it has brought to an end.
func writeForEver(dir string) error {
	s, err := Open(dir)
	if err != nil {
		return err
	}
	name, err := hostcheck.ParseName("alice.members.pool.example")
	if err != nil {
		return err
	}
	account, err := s.Account(directory)
	if os.IsNotExist(err) || account.Key == nil {
		key, err := NewKey(P256)
		if err != nil {
			return err
		}
		account = Account{Directory: directory, Key: key}
	}
	serial := int64(0)
	if chain, _, err := s.Current(name); err == nil {
		serial = serialOf(chain)
	}
	fmt.Println("ready", 0)
	for n := int64(1); ; n++ {
		account.URI = "https://ca.example/acct/" + strconv.FormatInt(n, 10)
		if err := s.SaveAccount(account); err != nil {
			return err
		}
		fmt.Println("account", n)
		if err := s.SaveRenewal(name, Renewal{Failures: int(n), LastFailure: time.Now(), LastError: strings.Repeat("x", 300)}); err != nil {
			return err
		}
		key, err := s.PendingKey(name, P256)
		if err != nil {
			return err
		}
		serial++
		if err := s.Commit(name, selfSigned(key.(*ecdsa.PrivateKey), name, serial)); err != nil {
			return err
		}
		fmt.Println("serial", serial)
		requested, err := s.RequestKey(name, P256)
		if err != nil {
			return err
		}
		chain := selfSigned(requested.(*ecdsa.PrivateKey), name, serial+1)
		keyPEM, err := s.KeyFor(name, chain)
		if err != nil {
			return err
		}
		if err := s.Import(name, chain, keyPEM); err != nil {
			return err
		}
		serial++
		fmt.Println("serial", serial)
	}
}

// TestKilledWriterLosesNothing kills the writer at random and looks at what a restart finds.
func TestKilledWriterLosesNothing(t *testing.T) {
	for lane := range 2 {
		t.Run(fmt.Sprintf("lane %d", lane), func(t *testing.T) {
			t.Parallel()
			dir, name := filepath.Join(t.TempDir(), "acme"), mustName(t, "alice.members.pool.example")
			var key string
			var committed int64
			mid, life := 0, 12*time.Millisecond // mid: kills that left something to tidy
			for n := range kills / 2 {
				if n%25 == 24 && committed == 0 {
					life *= 2 // the disk is slow: a certificate takes longer
				}
				promised := runAndKill(t, dir, life)
				if len(leftovers(t, dir)) > 0 {
					mid++
				}
				s, err := Open(dir)
				if err != nil {
					t.Fatalf("open after the kill: %v", err)
				}
				if left := leftovers(t, dir); len(left) > 0 {
					t.Fatalf("left after restart: %q", left)
				}
				committed = max(committed, promised.serial)
				if committed > 0 {
					got := checkCurrent(t, s, dir, name)
					if got < committed {
						t.Fatalf("certificate %d is current after restart, %d had been committed", got, committed)
					}
					committed = got
				}
				if key != "" || promised.account {
					key = checkAccount(t, s, key)
				}
				if _, err := s.Renewal(name); err != nil {
					t.Fatalf("renewal state: %v", err)
				}
			}
			t.Logf("%d kills, %d in the middle of a write, %d certificates committed", kills/2, mid, committed)
			if committed == 0 || mid == 0 {
				t.Errorf("%d certificates committed, %d kills in the middle of a write: the test did not test", committed, mid)
			}
		})
	}
}

// promise is what the writer had reported as done when it died.
type promise struct {
	serial  int64
	account bool
}

// runAndKill runs a writer for a random while, as long as life at most.
func runAndKill(t *testing.T, dir string, life time.Duration) promise {
	t.Helper()
	child := exec.Command(os.Args[0], "-test.run=^$")
	child.Env = append(os.Environ(), childEnv+"="+dir)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var p promise
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var what string
		var n int64
		if _, err := fmt.Sscan(lines.Text(), &what, &n); err != nil {
			continue // a line cut by the kill
		}
		switch what {
		case "ready":
			time.AfterFunc(mathrand.N(life), func() { child.Process.Kill() })
		case "account":
			p.account = true
		case "serial":
			p.serial = n
		}
	}
	if err := child.Wait(); err == nil || child.ProcessState.Exited() {
		t.Fatalf("the writer ended by itself: %v", child.ProcessState)
	}
	return p
}

// checkCurrent returns the serial number of the current certificate and fails unless it is whole and private.
func checkCurrent(t *testing.T, s *Store, dir string, name hostcheck.Name) int64 {
	t.Helper()
	chain, key, err := s.Current(name)
	if err != nil {
		t.Fatalf("current: %v", err)
	}
	if _, err := tls.X509KeyPair(chain, key); err != nil {
		t.Fatalf("current pair: %v", err)
	}
	own := filepath.Join(dir, "names", name.String())
	if pending, err := os.ReadFile(filepath.Join(own, "pending.key")); err == nil && string(pending) == string(key) {
		t.Fatal("the key in use is still pending: the next certificate would have it too")
	}
	if have, err := generations(own); err != nil || len(have) > keep {
		t.Fatalf("generations = %v, %v; want at most %d", have, err, keep)
	}
	return serialOf(chain)
}

// checkAccount returns the account's key and fails when it is not the one wanted.
func checkAccount(t *testing.T, s *Store, want string) string {
	t.Helper()
	a, err := s.Account(directory)
	if err != nil {
		t.Fatalf("account: %v", err)
	}
	got, err := fingerprint(a.Key)
	if err != nil {
		t.Fatal(err)
	}
	if want != "" && got != want {
		t.Fatal("the account has another key")
	}
	return got
}

// leftovers lists what should not survive a restart: temporary names, and anything open to others.
func leftovers(t *testing.T, dir string) []string {
	t.Helper()
	var left []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if strings.HasPrefix(d.Name(), tmpPrefix) || d.Type() != fs.ModeSymlink && info.Mode().Perm()&0o077 != 0 {
			left = append(left, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return left
}

func mustName(t *testing.T, s string) hostcheck.Name {
	t.Helper()
	n, err := hostcheck.ParseName(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// selfSigned makes a certificate for key; it panics rather than fail, as the killed writer has no *testing.T.
func selfSigned(key *ecdsa.PrivateKey, name hostcheck.Name, serial int64) []byte {
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), DNSNames: []string{name.String()},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func serialOf(chain []byte) int64 {
	block, _ := pem.Decode(chain)
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		panic(err)
	}
	return leaf.SerialNumber.Int64()
}
