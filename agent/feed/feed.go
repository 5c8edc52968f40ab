// Package feed is what happens as the NTP daemon's own user: the agent's key
// file is checked, written out anew as the daemon's, and the daemon is told; or
// the key file of a daemon that makes its own is copied for the agent.
//
// The agent's user can write neither chrony's folder nor its command socket.
// `ntsagent feed chrony` runs this as chrony's user, from a systemd unit or
// started by an agent that is root. What it is handed is trusted no further
// than that: only a complete key file passes, and only its keys are written.
// Nor can it read the key file of NTPsec, which `ntsagent feed ntpsec` exports.
package feed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"ntsagent/acme/disk"
	"ntsagent/agent/daemon"
	"ntsagent/ntske/cookie"
)

// What can be wrong, for errors.Is; the error text says what to do about it.
var (
	ErrSource        = errors.New("source is no key file")
	ErrSymmetricKeys = errors.New("chronyd would lose its symmetric keys")
	ErrNotPermitted  = errors.New("not permitted")
	ErrNotRunning    = errors.New("chronyd is not there")
	ErrNoReply       = errors.New("chronyd does not reply")
	ErrRefused       = errors.New("chronyd refuses the command")
	ErrOwnKeys       = errors.New("chronyd has keys of its own, which its clients hold cookies of")
)

// Failure is an error with its remedy; its Kind is one of those above.
type Failure = daemon.Failure

// Options say from where to where. Empty ones have Debian's and RHEL's places.
type Options struct {
	Source        []byte    // the key file; nil = read From
	From          string    // path of the key file; "-" = Stdin
	Stdin         io.Reader // for From "-"
	KeysFile      string    // chrony's `ntskeys` in its ntsdumpdir
	CommandSocket string    // chronyd's
	ChronyConf    string    // tells where chronyd keeps its symmetric keys
}

func (o Options) withDefaults() Options {
	if o.KeysFile == "" {
		o.KeysFile = daemon.ChronyKeysFile
	}
	if o.CommandSocket == "" {
		o.CommandSocket = daemon.ChronyCommandSocket
	}
	if o.ChronyConf == "" {
		o.ChronyConf = daemon.FindChronyConf()
	}
	return o
}

// Args are the arguments of `ntsagent` that mean these options, Source and
// Stdin apart: no key ever is an argument.
func (o Options) Args() []string {
	o = o.withDefaults()
	from := o.From
	if o.Source != nil || from == "" {
		from = "-"
	}
	return []string{"feed", "chrony", "--from", from, "--keys-file", o.KeysFile,
		"--command-socket", o.CommandSocket, "--chrony-conf", o.ChronyConf}
}

// maxSource is far more than a key file of four keys.
const maxSource = 4096

// Chrony installs the keys as chronyd's key file and has chronyd load it. As
// root beside a chronyd of another user it does so as that user, in a process
// of its own. A nil error says that chronyd took the command, which proves
// nothing about the keys.
func Chrony(ctx context.Context, o Options) error {
	o = o.withDefaults()
	keys, err := o.keys()
	if err != nil {
		return err
	}
	if err := o.ownKeys(keys); err != nil {
		return err
	}
	uid, gid, err := dirOwner(o.KeysFile)
	if err != nil {
		return err
	}
	if os.Geteuid() == 0 && uid != 0 {
		o.Source = keys // makes Args read standard input
		return runAs(ctx, uid, gid, o.Args(), keys)
	}
	if err := install(ctx, o.KeysFile, keys); err != nil {
		return err
	}
	if err := checkSymmetricKeys(o.ChronyConf); err != nil {
		return err
	}
	return Rekey(ctx, o.CommandSocket)
}

// keys reads the source and returns it written anew.
func (o Options) keys() ([]byte, error) {
	source := o.Source
	var err error
	switch {
	case source != nil:
	case o.From == "-" && o.Stdin != nil:
		source, err = io.ReadAll(io.LimitReader(o.Stdin, maxSource+1))
	case o.From == "" || o.From == "-":
		return nil, errors.New("feed chrony: no source given: name a key file, or - for standard input")
	default:
		source, err = readSource(o.From)
	}
	if err != nil {
		return nil, fmt.Errorf("feed chrony: read the keys: %w", err)
	}
	return clean(source)
}

// clean parses a key file strictly and serialises what it holds.
func clean(source []byte) ([]byte, error) {
	const fix = "hand over the key file that ntsagent writes, whole"
	if len(source) > maxSource {
		return nil, &Failure{What: "feed chrony", Kind: ErrSource, Err: fmt.Errorf("more than %d bytes", maxSource), Fix: fix}
	}
	ring, err := cookie.Chrony{}.ParseKeys(source)
	if err != nil {
		return nil, &Failure{What: "feed chrony", Kind: ErrSource, Err: err, Fix: fix}
	}
	return cookie.Chrony{}.AppendKeys(nil, ring), nil
}

// ownKeys refuses to write over keys that chronyd has made itself where the agent,
// which left a file for us, may not have been able to see them: it takes over what
// it can read. Our own writing of keys differs from chronyd's.
func (o Options) ownKeys(keys []byte) error {
	if o.Source != nil || o.From == "-" {
		return nil // of an agent that is root
	}
	there, err := disk.ReadFile(o.KeysFile, maxSource)
	if err != nil {
		return nil // nothing is lost
	}
	held, err := cookie.Chrony{}.ParseKeys(there)
	if err != nil || bytes.Equal(there, cookie.Chrony{}.AppendKeys(nil, held)) {
		return nil
	}
	ring, err := cookie.Chrony{}.ParseKeys(keys)
	if err != nil {
		return err
	}
	current := held.Current()
	if ours := ring.Find(current.ID()); ours != nil && ours.Fingerprint() == current.Fingerprint() {
		return nil
	}
	return &Failure{What: "feed chrony: install the keys over " + o.KeysFile, Kind: ErrOwnKeys,
		Fix: "have the agent take them over: stop it, copy that file to keys/ring in its state_dir, for its user alone, and start it; or remove the file, and all clients exchange keys anew"}
}

// readSource reads a file in a folder of somebody with fewer rights: never
// through a link, never a pipe or a device.
func readSource(path string) ([]byte, error) { return readUpTo(path, maxSource) }

// readUpTo is readSource for another length; one octet more says that there is more.
func readUpTo(path string, most int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(fmt.Errorf("%s is not a regular file", path), err)
	}
	return io.ReadAll(io.LimitReader(f, most+1))
}

// install writes the key file: chronyd's user reads it, its group may, nobody
// else. One at a time, so that nobody sweeps away what another is writing.
func install(ctx context.Context, path string, keys []byte) error {
	dir := filepath.Dir(path)
	root, err := os.OpenRoot(dir)
	if err != nil {
		return notInstalled(dir, err)
	}
	defer root.Close()
	unlock, err := lock(ctx, root, dir)
	if err != nil {
		return notInstalled(dir, err)
	}
	defer unlock()
	if err := disk.Sweep(dir); err != nil {
		return notInstalled(dir, err)
	}
	if err := disk.WriteFile(path, keys, 0o640); err != nil {
		return notInstalled(dir, err)
	}
	return nil
}

func notInstalled(dir string, err error) error {
	if !errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("feed chrony: install the keys: %w", err)
	}
	return &Failure{What: "feed chrony: install the keys", Kind: ErrNotPermitted, Err: err,
		Fix: "run it as the user that owns " + dir}
}

// dirOwner is the user chrony's folder belongs to: the one chronyd runs as.
func dirOwner(path string) (uid, gid uint32, err error) {
	dir := filepath.Dir(path)
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return 0, 0, &Failure{What: "find chrony's folder " + dir, Kind: ErrNotRunning, Err: err,
			Fix: "install chrony, or set daemon.chrony.keys_file to the file ntskeys in its ntsdumpdir"}
	}
	return st.Uid, groupOf(st.Uid, st.Gid), nil
}

// groupOf is the one group chronyd keeps when it drops to the user: the user's
// own, and the folder's only for a user that has no entry. A folder's group says
// nothing about chronyd; it may be root's.
func groupOf(uid, folder uint32) uint32 {
	u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	if err != nil {
		return folder
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return folder
	}
	return uint32(gid)
}
