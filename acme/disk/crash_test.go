package disk

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// roleEnv makes the test binary play a part in a child process instead of running tests.
const roleEnv = "DISK_TEST_ROLE"

func TestMain(m *testing.M) {
	switch role, dir, _ := strings.Cut(os.Getenv(roleEnv), ":"); role {
	case "":
		os.Exit(m.Run())
	case "writer":
		writeForever(filepath.Join(dir, "key"))
	case "holder":
		holdLock(filepath.Join(dir, "lock"))
	case "full":
		if err := meetFullAndReadOnly(dir); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
}

func role(name, dir string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleEnv+"="+name+":"+dir)
	cmd.Stderr = os.Stderr
	return cmd
}

// content is one of the two files the writer alternates between; 64 KiB, so that a torn write has room to show.
func content(n int) []byte {
	return bytes.Repeat(fmt.Appendf(nil, "generation %d\n", n%2), 64<<10/13)
}

func writeForever(path string) {
	for n := 0; ; n++ {
		if err := WriteFile(path, content(n), 0o600); err != nil {
			panic(err)
		}
		if n == 0 {
			fmt.Println("ready")
		}
	}
}

func TestKilledWritersLeaveAWholeFileAndSweepRemovesTheRest(t *testing.T) {
	const kills = 500
	dir := t.TempDir()
	path := filepath.Join(dir, "key")
	left, seen, life := 0, map[string]int{}, 4*time.Millisecond
	for n := range kills {
		if n%50 == 49 && (left == 0 || len(seen) < 2) {
			life *= 2 // the disk is slow: a second file takes longer
		}
		startAndKill(t, role("writer", dir), time.Duration(rand.Int64N(int64(life))))
		switch got := mustRead(t, path); got {
		case string(content(0)), string(content(1)):
			seen[got[:12]]++
		default:
			t.Fatalf("torn file of %d bytes", len(got))
		}
		left += len(entries(t, dir)) - 1
		if err := Sweep(dir); err != nil {
			t.Fatal(err)
		}
		if got := entries(t, dir); len(got) != 1 {
			t.Fatalf("after the sweep: %q", got)
		}
	}
	t.Logf("%d kills: %v, %d temporary files swept", kills, seen, left)
	if left == 0 || len(seen) != 2 {
		t.Errorf("the kills never hit a write (%d temporary files, contents %v): nothing was tested", left, seen)
	}
}

// startAndKill kills a child a while after it said that it is at work.
func startAndKill(t *testing.T, cmd *exec.Cmd, after time.Duration) {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	<-time.After(after) // the point of the kill is to fall anywhere
	cmd.Process.Kill()
	cmd.Wait()
	if err != nil || line != "ready\n" {
		t.Fatalf("child said %q, %v", line, err)
	}
}

func holdLock(path string) {
	f, err := Lock(path)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	defer f.Close()
	fmt.Println("ready")
	bufio.NewReader(os.Stdin).ReadString('\n') // until killed
}

func TestLockOfAKilledProcessIsFree(t *testing.T) {
	dir := t.TempDir()
	cmd := role("holder", dir)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("child said %q, %v", line, err)
	}
	path := filepath.Join(dir, "lock")
	if _, err := Lock(path); !errors.Is(err, ErrLocked) {
		t.Errorf("beside a live holder: %v", err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	f, err := Lock(path)
	if err != nil {
		t.Fatalf("after the holder was killed: %v", err)
	}
	f.Close()
}

func TestFullAndReadOnlyDisksLeaveTheOldFile(t *testing.T) {
	cmd := role("full", t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}}
	if os.Getuid() == 0 { // root needs no user namespace, and some kernels forbid them
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
	}
	if out, err := cmd.Output(); err != nil {
		t.Fatalf("in a mount namespace of its own: %v: %s", err, out)
	}
}

// meetFullAndReadOnly runs in a mount namespace of its own: a tiny file system on dir fills up, then turns read-only.
func meetFullAndReadOnly(dir string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		return fmt.Errorf("mount tmpfs: %w", err)
	}
	path := filepath.Join(dir, "key")
	if err := WriteFile(path, []byte("old"), 0o600); err != nil {
		return err
	}
	attempt := func(want syscall.Errno) error {
		err := WriteFile(path, make([]byte, 1<<20), 0o600)
		if !errors.Is(err, want) || !strings.Contains(err.Error(), path) {
			return fmt.Errorf("got %v, want %v", err, want)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != "old" {
			return fmt.Errorf("after %v the old file reads %q, %w", want, got, err)
		}
		list, err := os.ReadDir(dir)
		if err != nil || len(list) != 1 {
			return fmt.Errorf("after %v the directory holds %v, %w", want, list, err)
		}
		return nil
	}
	if err := attempt(unix.ENOSPC); err != nil {
		return err
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("remount read-only: %w", err)
	}
	return attempt(unix.EROFS)
}
