package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ntsagent/agent/status"
)

// binaries is the folder with the programs as `make build` makes them.
var binaries string

func TestMain(m *testing.M) {
	// The daemons of the lab are started through its own program, which here is this one.
	if len(os.Args) > 1 && slices.Contains([]string{clockVerb, networkVerb}, os.Args[1]) {
		main()
	}
	if len(os.Args) > 1 && os.Args[1] == tryVerb {
		tryTheClock()
		os.Exit(0)
	}
	os.Exit(buildAndTest(m))
}

// binariesEnv tells a test that runs once more as a process of its own where they are.
const binariesEnv = "NTSLAB_TEST_BINARIES"

func buildAndTest(m *testing.M) int {
	var err error
	if binaries = os.Getenv(binariesEnv); binaries != "" {
		return m.Run()
	}
	if binaries, err = os.MkdirTemp("", "ntslab-test-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(binaries)
	build := exec.Command("make", "-C", "../..", "build", "BIN="+binaries)
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "make build: %v\n%s", err, out)
		return 1
	}
	if err := os.Setenv(binariesEnv, binaries); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// process is one of our programs at work.
type process struct {
	cmd  *exec.Cmd
	told lockedBuffer
	done chan struct{} // closed when it is gone and cmd.ProcessState tells how
}

func startProgram(t *testing.T, deathSignal syscall.Signal, program string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(filepath.Join(binaries, program), args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.told, &p.told
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: deathSignal} // a test run that is cut off leaves nothing behind
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	return p
}

// runningLab is a `ntslab --dir` that is ready.
type runningLab struct {
	*process
	dir string
	env map[string]string
}

// startLab starts the real program and waits for its lab.env.
func startLab(t *testing.T, challenge string, more ...string) *runningLab {
	t.Helper()
	dir, err := os.MkdirTemp("", "lab-") // short: sockets live in it
	if err != nil {
		t.Fatal(err)
	}
	l := &runningLab{process: startProgram(t, syscall.SIGINT, "ntslab", append([]string{"--dir", dir, "--challenge", challenge}, more...)...), dir: dir}
	t.Cleanup(func() {
		l.end(t)
		if t.Failed() {
			agentLog, _ := os.ReadFile(filepath.Join(dir, "log/ntsagent.log"))
			t.Logf("the lab told:\n%s\nthe agent's log:\n%s", &l.told, agentLog)
		}
		os.RemoveAll(dir)
	})
	await(t, 150*time.Second, "lab.env", func(context.Context) error {
		select {
		case <-l.done:
			t.Fatalf("the lab ended early:\n%s", &l.told)
		default:
		}
		l.env, err = readEnv(filepath.Join(dir, envName))
		return err
	})
	return l
}

// end interrupts the lab as Ctrl-C does and wants it to end well.
func (l *runningLab) end(t *testing.T) {
	t.Helper()
	select {
	case <-l.done:
		return
	default:
	}
	if err := l.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Errorf("interrupt the lab: %v", err)
	}
	select {
	case <-l.done:
		if code := l.cmd.ProcessState.ExitCode(); code != 0 {
			t.Errorf("the lab ended with %d after Ctrl-C:\n%s", code, &l.told)
		}
	case <-time.After(time.Minute):
		_ = l.cmd.Process.Kill() // the failure is told; nothing more to do
		t.Error("the lab did not end within a minute of Ctrl-C")
	}
}

func (l *runningLab) agent(ctx context.Context, args ...string) ([]byte, error) {
	out, err := exec.CommandContext(ctx, filepath.Join(binaries, "ntsagent"), args...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("ntsagent %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return out, err
}

func (l *runningLab) status(ctx context.Context) (doc status.Document, err error) {
	out, err := exec.CommandContext(ctx, filepath.Join(binaries, "ntsagent"), "status", "--json", "--socket", l.env["SOCKET"]).Output()
	if len(out) == 0 { // its exit code says how healthy the agent is
		return doc, fmt.Errorf("ntsagent status: %w", err)
	}
	return doc, json.Unmarshal(out, &doc)
}

func (l *runningLab) check(ctx context.Context) error {
	_, port, _ := strings.Cut(l.env["KE"], ":")
	_, err := l.agent(ctx, "check", "--ca", l.env["CA"], "--resolver", l.env["DNS"], l.env["NAME"]+":"+port)
	return err
}

func readEnv(path string) (map[string]string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	vars := map[string]string{}
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		vars[key] = value
	}
	return vars, nil
}

// await fails the test unless try succeeds in time.
func await(t *testing.T, most time.Duration, what string, try func(context.Context) error) {
	t.Helper()
	if err := eventually(t.Context(), most, try); err != nil {
		t.Fatalf("waited %v for %s: %v", most, what, err)
	}
}

// alive tells whether there is a process. A zombie is one: threads of it may
// still hold what it had.
func alive(pid string) bool {
	_, err := os.Stat("/proc/" + pid)
	return err == nil
}

// wantGone waits for the end of processes: a kill takes its time.
func wantGone(t *testing.T, pids []string) {
	t.Helper()
	await(t, time.Minute, "the end of the lab's processes", func(context.Context) error {
		for _, pid := range pids {
			if alive(pid) {
				return fmt.Errorf("process %s still runs", pid)
			}
		}
		return nil
	})
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
