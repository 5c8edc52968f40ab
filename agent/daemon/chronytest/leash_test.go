package chronytest

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// victimEnv makes this binary start a chronyd of that user and wait to be killed.
const victimEnv = "CHRONYTEST_VICTIM"

func TestChronydEndsWithATestThatIsKilled(t *testing.T) {
	if who, victim := os.LookupEnv(victimEnv); victim {
		fmt.Printf("pid %d\n", Start(t, Options{User: who}).process.Pid)
		select {}
	}
	for _, c := range []struct{ name, user string }{
		{"as the user that runs the test", ""},
		{"as a user it drops to", "nobody"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			pid := killedVictim(t, c.user)
			deadline := time.After(time.Minute)
			again := time.NewTicker(5 * time.Millisecond)
			defer again.Stop()
			for running(pid) {
				select {
				case <-again.C:
				case <-deadline:
					if n, err := strconv.Atoi(pid); err == nil {
						_ = syscall.Kill(n, syscall.SIGKILL)
					}
					t.Fatalf("chronyd, process %s, goes on", pid)
				}
			}
		})
	}
}

// killedVictim returns the process of a chronyd whose test was killed.
func killedVictim(t *testing.T, user string) (pid string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "killed") // what the test leaves; the names of sockets are limited to 107 octets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()[:strings.IndexByte(t.Name(), '/')]+"$")
	cmd.Env = append(os.Environ(), victimEnv+"="+user, "TMPDIR="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait() // it was killed
	defer cmd.Process.Kill()
	lines, said := bufio.NewScanner(out), ""
	for lines.Scan() {
		if pid, ok := strings.CutPrefix(lines.Text(), "pid "); ok {
			if !running(pid) {
				t.Fatalf("chronyd, process %s, ended before its test", pid)
			}
			return pid
		}
		said += lines.Text() + "\n"
	}
	t.Fatalf("the test to be killed started no chronyd: %s", said)
	return ""
}

// running: a process that has ended and is not waited for has no command line.
func running(pid string) bool {
	b, err := os.ReadFile("/proc/" + pid + "/cmdline")
	return err == nil && len(b) > 0
}
