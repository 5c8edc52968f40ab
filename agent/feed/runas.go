package feed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"ntsagent/acme/disk"
	"ntsagent/agent/daemon"
)

// maxSaid bounds what we keep of the helper's words.
const maxSaid = 4096

// runAs runs this very program as `ntsagent feed VERB …` under uid and gid, with
// no other group, and hands it stdin over a pipe. It needs root.
func runAs(ctx context.Context, uid, gid uint32, args []string, stdin []byte) error {
	// By the kernel's own link: the user need not reach the program's path, and
	// an upgrade in between changes nothing.
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Args[0] = "ntsagent"
	cmd.Stdin = bytes.NewReader(stdin)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: uid, Gid: gid}, // drops all supplementary groups
	}
	said, err := daemon.Output(cmd)
	if err == nil {
		return nil
	}
	verb := strings.Join(args[:2], " ")
	words := helperWords(verb, string(said[:min(len(said), maxSaid)]))
	if words == "" {
		return fmt.Errorf("%s as user %d: %w", verb, uid, errors.Join(err, ctx.Err()))
	}
	return &helperError{fmt.Sprintf("%s as user %d: %s", verb, uid, words), kindOf(cmd.ProcessState.ExitCode())}
}

// helperError is what the helper said, and what its exit code makes of it.
type helperError struct {
	said string
	kind error
}

func (e *helperError) Error() string { return e.said }
func (e *helperError) Unwrap() error { return e.kind }

// kindOf tells by the exit code what kind of failure the helper met.
func kindOf(code int) error {
	switch code {
	case 4:
		return ErrNotPermitted
	case 5:
		return ErrNotRunning
	}
	return nil
}

// helperWords makes one line of what the helper said, without the beginnings
// that name the program and what it does, which ours names too.
func helperWords(verb, said string) string {
	words := strings.Join(strings.Fields(said), " ")
	words = strings.TrimPrefix(words, "ntsagent: ")
	return strings.TrimPrefix(words, verb+": ")
}

// HandOverOptions say how keys reach chronyd.
type HandOverOptions struct {
	Options
	// File is where the keys are left for the helper that a systemd path unit
	// starts, when this process may not feed chronyd itself.
	File string
}

// ChronyHandOver returns the func that gives a key file to chronyd, for
// keyring.Config.HandOver. Who owns chrony's folder decides how: that user
// itself feeds it at once, root does so as that user, anybody else leaves the
// file for the helper, and then a nil error means only "asked".
func ChronyHandOver(o HandOverOptions) func(ctx context.Context, keyFile []byte) error {
	o.Options = o.Options.withDefaults()
	return func(ctx context.Context, keyFile []byte) error {
		uid, _, err := dirOwner(o.KeysFile)
		if err != nil {
			return err
		}
		if mayFeed(uint32(os.Geteuid()), uid) {
			opts := o.Options
			opts.Source = keyFile
			return Chrony(ctx, opts)
		}
		return leave(o.File, keyFile)
	}
}

// mayFeed: chronyd's own user and root do it, as owner. Write access by a group
// is not enough: the command socket's directory is open to the owner alone.
func mayFeed(euid, owner uint32) bool { return euid == owner || euid == 0 }

// leave writes the file the path unit watches. Its group is that of its folder.
func leave(path string, keyFile []byte) error {
	if path == "" {
		return &Failure{What: "hand keys over to chronyd", Kind: ErrNotPermitted,
			Fix: "run ntsagent as root, or set up the path unit that runs `ntsagent feed chrony` as chronyd's user"}
	}
	keys, err := clean(keyFile)
	if err != nil {
		return err
	}
	if err := disk.WriteFile(path, keys, 0o640); err != nil {
		return fmt.Errorf("leave keys for chronyd's helper: %w", err)
	}
	return nil
}
