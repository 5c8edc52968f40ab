package feed_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ntsagent/agent/config"
	"ntsagent/agent/feed"
)

// writeEnv makes this binary export one pair after the other, over and over, to
// the folder that it names.
const writeEnv = "FEED_TEST_EXPORT_TO"

func init() {
	dir := os.Getenv(writeEnv)
	if dir == "" || len(os.Args) > 1 && os.Args[1] == "feed" {
		return
	}
	var n int
	_, err := fmt.Sscan(os.Args[1], &n)
	fmt.Println("ready")
	for ; err == nil; n++ {
		if err = leavePair(dir, n); err == nil {
			err = exportPair(context.Background(), dir, n)
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// leavePair makes the pair n of a folder, whole or not at all.
func leavePair(dir string, n int) error {
	pair, err := makePair(exportedName)
	if err != nil {
		return err
	}
	path := fmt.Sprintf("%s/pair%d", dir, n)
	return errors.Join(os.WriteFile(path+".new", pair, 0o600), os.Rename(path+".new", path))
}

// exportPair exports the pair n of a folder to that folder, for a daemon that has
// to be restarted.
func exportPair(ctx context.Context, dir string, n int) error {
	e, err := config.ParseExport(fmt.Sprintf("{name: %s, cert: %s/etc/cert.pem, key: %s/etc/key.pem, then: restart, command: [/bin/true]}", exportedName, dir, dir))
	if err != nil {
		return err
	}
	err = feed.Certificate(ctx, feed.CertificateOptions{Export: e, From: fmt.Sprintf("%s/pair%d", dir, n),
		KE: netip.MustParseAddrPort("127.0.0.1:1"), Record: feed.RestartRecord(filepath.Join(dir, "state"))})
	if waiting := (*feed.Waiting)(nil); errors.As(err, &waiting) {
		return nil
	}
	return err
}

// exported is a folder to which pairs are exported, each known by its number.
type exported struct {
	t           *testing.T
	dir, etc    string
	keys, certs map[string]int
}

// learn takes note of the pairs that were made since.
func (x *exported) learn() {
	for {
		b, err := os.ReadFile(fmt.Sprintf("%s/pair%d", x.dir, len(x.keys)))
		if err != nil {
			return
		}
		pair := string(b)
		at := strings.Index(pair, "-----BEGIN CERTIFICATE")
		x.keys[pair[:at]], x.certs[pair[at:]] = len(x.keys), len(x.certs)
	}
}

// read looks at the key and then at the certificate.
func (x *exported) read() (key, cert int) {
	x.t.Helper()
	k, c := content(x.t, x.etc+"/key.pem"), content(x.t, x.etc+"/cert.pem")
	x.learn()
	key, isKey := x.keys[k]
	cert, isCert := x.certs[c]
	if !isKey || !isCert {
		x.t.Fatalf("a torn file: %q, %q", k, c)
	}
	return key, cert
}

// together looks at both until the key was the same before and after.
func (x *exported) together() (key, cert int) {
	x.t.Helper()
	for before, cert := x.read(); ; {
		after, next := x.read()
		if before == after {
			return before, cert
		}
		before, cert = after, next
	}
}

// Whoever reads at any moment, and whoever starts after a kill at any moment, finds
// a pair, or the next key beside a certificate: never a certificate without a key
// that came before it, and nothing that is torn.
func TestAKilledExportLeavesAPairOrTheNextKey(t *testing.T) {
	t.Parallel()
	const kills = 60
	x := &exported{t: t, dir: t.TempDir(), keys: map[string]int{}, certs: map[string]int{}}
	x.etc = filepath.Join(x.dir, "etc")
	must(t, os.Mkdir(x.etc, 0o755), leavePair(x.dir, 0), exportPair(t.Context(), x.dir, 0))
	swept, between, looks, seen := 0, 0, 0, 0
	at := 0
	for range kills {
		x.learn()
		from := len(x.keys) // what was made and never exported has a number, too
		belong := func(key, cert int) bool {
			return key == cert || key == cert+1 && cert >= from || key == from && cert == at
		}
		kill := startExporting(t, x.dir, from)
		for begun := time.Now(); len(x.keys) == from && time.Since(begun) < time.Minute; x.learn() { // until it is at it
		}
		for end := time.Now().Add(rand.N(20 * time.Millisecond)); time.Now().Before(end); {
			key, cert := x.together()
			if looks++; key != cert {
				seen++
			}
			if !belong(key, cert) {
				t.Fatalf("key %d beside certificate %d", key, cert)
			}
		}
		kill()
		key, cert := x.read()
		if key != cert {
			between++
		}
		if !belong(key, cert) {
			t.Fatalf("after the kill: key %d beside certificate %d", key, cert)
		}
		swept += len(left(t, x.etc)) - 2
		must(t, exportPair(t.Context(), x.dir, key))
		at = key
		if k, c := x.read(); k != key || c != key || len(left(t, x.etc)) != 2 {
			t.Fatalf("after the next start: key %d, certificate %d, files %q; want %d", k, c, left(t, x.etc), key)
		}
	}
	t.Logf("%d kills, %d temporary files swept, %d between the two; %d looks at both, %d between the two", kills, swept, between, looks, seen)
	if swept == 0 {
		t.Error("no kill ever hit a write: nothing was tested")
	}
}

// startExporting starts a process that does, from that pair on.
func startExporting(t *testing.T, dir string, from int) (kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0], fmt.Sprint(from))
	cmd.Env = append(os.Environ(), writeEnv+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	must(t, cmd.Start())
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("the child said %q, %v", line, err)
	}
	kill = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	}
	t.Cleanup(kill)
	return kill
}

// left are the files in a folder, but for the lock, which stays.
func left(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != ".ntsagent.lock" {
			names = append(names, e.Name())
		}
	}
	return names
}

// The states in which a kill can leave the files, each made on purpose: the next
// export mends them.
func TestWhereverAnExportWasKilledTheNextOneMendsIt(t *testing.T) {
	t.Parallel()
	old, next := newPair(t, exportedName), newPair(t, exportedName)
	at := func(pair []byte) int { return strings.Index(string(pair), "-----BEGIN CERTIFICATE") }
	for sentence, after := range map[string]func(t *testing.T, dir string){
		"the first":                    func(t *testing.T, dir string) { must(t, os.Remove(dir+"/key.pem"), os.Remove(dir+"/cert.pem")) },
		"the new key was half written": func(t *testing.T, dir string) { put(t, dir+"/.ntsagent-tmp-A", string(next[:50])) },
		"both were written": func(t *testing.T, dir string) {
			put(t, dir+"/.ntsagent-tmp-A", string(next[:at(next)]))
			put(t, dir+"/.ntsagent-tmp-B", string(next[at(next):]))
		},
		"the key was in place": func(t *testing.T, dir string) {
			put(t, dir+"/key.pem", string(next[:at(next)]))
			put(t, dir+"/.ntsagent-tmp-B", string(next[at(next):]))
		},
		"the key was and there was none before": func(t *testing.T, dir string) {
			put(t, dir+"/key.pem", string(next[:at(next)]))
			must(t, os.Remove(dir+"/cert.pem"))
		},
		"both were and nobody is told": func(t *testing.T, dir string) {
			put(t, dir+"/key.pem", string(next[:at(next)]))
			put(t, dir+"/cert.pem", string(next[at(next):]))
		},
	} {
		t.Run(sentence, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			put(t, dir+"/key.pem", string(old[:at(old)]))
			put(t, dir+"/cert.pem", string(old[at(old):]))
			after(t, dir)
			e := exportTo(t, dir, "")
			must(t, feed.Certificate(t.Context(), feed.CertificateOptions{Export: e, Pair: next}))
			if !hasPair(t, e, next) || len(left(t, dir)) != 2 {
				t.Errorf("there are %q", left(t, dir))
			}
		})
	}
}
