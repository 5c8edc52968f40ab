package agent

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"ntsagent/acme/disk"
	"ntsagent/ntske/cookie"
	"ntsagent/ntske/keyring"
)

const crashEnv = "AGENT_TEST_ROTATE_IN"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashEnv); dir != "" {
		rotateForever(dir)
	}
	flag.Parse()
	if parallel := flag.Lookup("test.parallel"); parallel.Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		_ = parallel.Value.Set(strconv.Itoa(2 * runtime.GOMAXPROCS(0))) // most of the time they wait for daemons
	}
	os.Exit(m.Run())
}

// crashRing is a Keyring on the agent's own file beside a daemon that opens
// everything, so that a rotation takes as long as its writes do. The daemon
// cannot be seen as long as blind says so.
func crashRing(dir string, blind bool) (*keyring.Keyring, error) {
	file := ringFile(filepath.Join(dir, "ring"))
	answer := keyring.Answered
	if blind {
		answer = keyring.Silent
	}
	return keyring.New(keyring.Config{
		Load: file.load, Save: file.save, Rand: rand.Reader, RotateEvery: 24 * time.Hour, CheckEvery: time.Hour,
		HandOver: func(context.Context, []byte) error { return nil },
		Prove:    func(context.Context, []byte, *cookie.Session) keyring.Answer { return answer },
		Plain:    func(context.Context) bool { return !blind },
	})
}

// rotateForever says the current key after each rotation that is done.
func rotateForever(dir string) {
	ring, err := crashRing(dir, false)
	if err != nil {
		panic(err)
	}
	go ring.Run(context.Background())
	for {
		if err := ring.Rotate(context.Background()); err == nil {
			fmt.Printf("%08x\n", ring.Current().Current().ID())
		}
	}
}

func TestAnAgentKilledWhileItRotatesServesTheSameKeysAgain(t *testing.T) {
	t.Parallel()
	const kills = 200
	dir := t.TempDir()
	swept := 0
	for n := range kills {
		done := rotateAndKill(t, dir, time.Duration(mathrand.Int64N(int64(6*time.Millisecond))))
		swept += leftOvers(t, dir)
		if err := disk.Sweep(dir); err != nil {
			t.Fatal(err)
		}
		if left := leftOvers(t, dir); left != 0 {
			t.Fatalf("kill %d: %d temporary files after the sweep of a start", n, left)
		}
		// After the restart the daemon is not to be seen: what was published
		// before has to serve, and that is the last rotation that was done, or
		// the one that was under way.
		ring, err := crashRing(dir, true)
		if err != nil {
			t.Fatalf("kill %d: %v", n, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- ring.Run(ctx) }()
		serving := waitForRing(t, ring)
		cancel()
		<-ended
		if id := serving.Current().ID(); id != done && id != done+1 {
			t.Fatalf("kill %d: serves with key %08x, the last rotation made %08x current", n, id, done)
		}
		if serving.Find(done) == nil {
			t.Fatalf("kill %d: key %08x that clients hold cookies under is gone", n, done)
		}
	}
	t.Logf("%d kills, %d temporary files swept", kills, swept)
	if swept == 0 {
		t.Error("no kill ever hit a write: nothing was tested")
	}
}

// rotateAndKill returns the id of the key that the last finished rotation made
// current, as the killed process said it.
func rotateAndKill(t *testing.T, dir string, after time.Duration) uint32 {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashEnv+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		t.Fatalf("the child said nothing: %v", errors.Join(lines.Err(), cmd.Wait()))
	}
	last := lines.Text()
	<-time.After(after) // the point of the kill is to fall anywhere
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() {
		last = lines.Text()
	}
	_ = cmd.Wait() // it was killed
	var id uint32
	if _, err := fmt.Sscanf(last, "%08x", &id); err != nil {
		t.Fatalf("the child said %q: %v", last, err)
	}
	return id
}

func waitForRing(t *testing.T, ring *keyring.Keyring) *cookie.Ring {
	t.Helper()
	deadline := time.After(patience)
	again := time.NewTicker(time.Millisecond)
	defer again.Stop()
	for {
		if r := ring.Current(); r != nil {
			return r
		}
		select {
		case <-again.C:
		case <-deadline:
			t.Fatalf("nothing is published after the restart: %+v", ring.State())
		}
	}
}

func leftOvers(t *testing.T, dir string) int {
	t.Helper()
	n := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if strings.HasPrefix(d.Name(), ".ntsagent-tmp-") {
			n++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}
