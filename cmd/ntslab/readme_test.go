package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// readmeCommands are the lines of the README's sh blocks, in their order.
func readmeCommands(t *testing.T) []string {
	t.Helper()
	b, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	if lines := strings.Count(string(b), "\n"); lines > 150 {
		t.Errorf("the README has %d lines, at most 150 are wanted", lines)
	}
	var commands []string
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(b), -1) {
		for line := range strings.Lines(block[1]) {
			commands = append(commands, strings.TrimSpace(line))
		}
	}
	return commands
}

// Some commands would run this test again, or take minutes: .ci/run runs them.
// make bench is only shown: it measures, and package ntsbench tests what it runs.
// All others run here, in order and in one shell, as a reader would.
func TestTheReadmesCommandsWork(t *testing.T) {
	t.Parallel()
	ci, err := os.ReadFile("../../.ci/run")
	if err != nil {
		t.Fatal(err)
	}
	byCI := map[string]string{
		"make test":              "make test",
		"make race":              "go test -race",
		"make fuzz FUZZTIME=30s": "make fuzz",
		"make lint":              "make lint",
	}
	dir, err := os.MkdirTemp("", "readme-") // the lab's folder: short, sockets live in it
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	here := strings.NewReplacer("make bench", "make -n bench | grep 'ntsbench bench'", "DIR=lab", "DIR="+dir+"/lab", ". lab/", ". "+dir+"/lab/", "bin/ntsagent", dir+"/bin/ntsagent")
	inRepo := func(script string) *exec.Cmd {
		cmd := exec.Command("sh", "-eu", "-c", script)
		cmd.Dir = "../.."
		cmd.Env = append(os.Environ(), "BIN="+dir+"/bin", "MAKEFLAGS=") // our own make's flags are not the reader's
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}           // for a Ctrl-C of its own
		return cmd
	}

	var session []string
	var stay *exec.Cmd
	var told lockedBuffer
	ended := make(chan struct{})
	for _, line := range readmeCommands(t) {
		switch {
		case byCI[line] != "":
			if !strings.Contains(string(ci), byCI[line]) {
				t.Errorf("%q is run neither here nor by .ci/run", line)
			}
		case line == "make run DIR=lab":
			stay = inRepo(here.Replace(line))
			stay.Stdout, stay.Stderr = &told, &told
			if err := stay.Start(); err != nil {
				t.Fatal(err)
			}
			go func() {
				_ = stay.Wait() // make reports the interruption; the lab's end has its own test
				close(ended)
			}()
		default:
			command := here.Replace(line)
			if strings.HasPrefix(line, "bin/ntsagent check ") { // which gives up on who is silent for seconds
				command += " || " + command + " || " + command
			}
			session = append(session, "echo '$ "+line+"'", command)
		}
	}
	if stay == nil || len(session) < 10 {
		t.Fatalf("the README shows only %q", session)
	}
	defer func() {
		_ = syscall.Kill(-stay.Process.Pid, syscall.SIGINT) // as Ctrl-C does, to make and all below it
		<-ended
	}()
	await(t, 4*time.Minute, "make run DIR=lab", func(context.Context) error {
		select {
		case <-ended:
			t.Fatalf("make run DIR=lab ended early:\n%s", &told)
		default:
		}
		_, err := os.Stat(filepath.Join(dir, "lab", envName))
		return err
	})
	var out lockedBuffer
	shell := inRepo(strings.Join(session, "\n")) // while the first lab runs
	shell.Stdout, shell.Stderr = &out, &out
	if err := shell.Run(); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	t.Logf("%s", &out)
}
