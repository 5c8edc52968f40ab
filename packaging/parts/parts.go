// Package parts puts real, unmodified NTP daemons beside the agent: each is a
// Debian package unpacked with its whole dependency closure into a root of
// its own in the repository's git-ignored .parts folder. Nothing is installed
// and no root is needed. For tests and the laboratory only.
package parts

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// Release is a Debian release and the upstream versions of the NTP daemons it
// ships; "" where it ships none or none is used. What we know of their bytes was
// measured on these, so another version is refused.
type Release struct {
	Debian   int
	suite    string
	Chrony   string
	NTPsec   string
	NTPDRS   string // ntpd-rs
	OpenNTPD string
}

// The releases tests run against: the oldest chrony that is supported, whose
// clients and key files know AEAD 15 alone, and one that prefers AEAD 30.
var (
	Debian12 = Release{Debian: 12, suite: "bookworm", Chrony: "4.3", NTPsec: "1.2.2", OpenNTPD: "6.2p3"}
	Debian13 = Release{Debian: 13, suite: "trixie", Chrony: "4.6.1", NTPsec: "1.2.3", NTPDRS: "1.4.0"}
)

func (r Release) String() string { return "chrony " + r.Chrony }

//go:embed unpack.sh
var unpackScript []byte

// Root is the absolute path of an unpacked package, laid out like a file system.
type Root string

// unpack runs the script, which does nothing when the root is already there.
func unpack(ctx context.Context, parts string, r Release, pkg string) (Root, error) {
	parts, err := filepath.Abs(parts)
	if err != nil {
		return "", fmt.Errorf("unpack %s: %w", pkg, err)
	}
	root := filepath.Join(parts, r.suite, pkg)
	if info, err := os.Stat(root); err == nil && info.IsDir() {
		return Root(root), nil
	}
	cmd := exec.CommandContext(ctx, "sh", "-s", "--", parts, r.suite, pkg)
	cmd.Stdin = bytes.NewReader(unpackScript)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("unpack Debian %d's %s into %s: %w: %s", r.Debian, pkg, parts, err, lastLine(out))
	}
	return Root(root), nil
}

func lastLine(out []byte) string {
	out = bytes.TrimSpace(out)
	return string(out[bytes.LastIndexByte(out, '\n')+1:])
}

// RepoDir walks up from dir to the folder that holds go.mod.
func RepoDir(dir string) (string, error) {
	for d := dir; ; d = filepath.Dir(d) {
		_, err := os.Stat(filepath.Join(d, "go.mod"))
		if err == nil {
			return d, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("find the repository: %w", err)
		}
		if d == filepath.Dir(d) {
			return "", fmt.Errorf("find the repository: no go.mod in %s or above it", dir)
		}
	}
}

// Command prepares a program of the root's usr/sbin or usr/bin. It runs through
// the root's own loader and libraries, so the machine's own do not matter. When
// the program is not there, running the command returns the reason.
func (r Root) Command(ctx context.Context, program string, args ...string) *exec.Cmd {
	loader, err := r.loader()
	if err != nil {
		return &exec.Cmd{Err: err}
	}
	path, err := r.program(program)
	if err != nil {
		return &exec.Cmd{Err: err}
	}
	lib := filepath.Join(string(r), "usr/lib", triplet())
	return exec.CommandContext(ctx, loader, append([]string{"--library-path", lib + ":" + filepath.Join(lib, "systemd"), "--argv0", program, path}, args...)...)
}

// Invoked tells what a process with these words runs, and what prints the version
// of that, for setup.Host. It knows those that Command starts; path "" = no such.
func Invoked(argv []string, exe string) (path string, args, ask []string) {
	const at = 5 // loader, --library-path, lib, --argv0, name, path
	if len(argv) > at && strings.HasPrefix(filepath.Base(exe), "ld-linux") && argv[1] == "--library-path" && argv[3] == "--argv0" {
		return argv[at], argv[at+1:], append(argv[:at+1:at+1], "--version")
	}
	return "", nil, nil
}

func (r Root) program(name string) (string, error) {
	for _, dir := range []string{"usr/sbin", "usr/bin"} {
		path := filepath.Join(string(r), dir, name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s has no program %s", r, name)
}

func (r Root) loader() (string, error) {
	name, ok := map[string]string{"amd64": "lib64/ld-linux-x86-64.so.2", "arm64": "lib/ld-linux-aarch64.so.1"}[runtime.GOARCH]
	if !ok {
		return "", fmt.Errorf("run a program of %s: no loader known for %s", r, runtime.GOARCH)
	}
	return filepath.Join(string(r), name), nil
}

func triplet() string {
	if runtime.GOARCH == "arm64" {
		return "aarch64-linux-gnu"
	}
	return "x86_64-linux-gnu"
}
