// Package disk is the one way the agent writes files that must survive a crash and reads files it does not control.
//
// A written file is, at every instant and after every crash, either wholly the old one or wholly the new one. A file
// read is a regular file of bounded size, or an error: a FIFO, a device or a huge file put in its place can neither hang
// nor exhaust the reader. The package keeps no state and starts no goroutine.
package disk

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// tempPrefix begins the name of every temporary file and link made here, so that Sweep knows them.
const tempPrefix = ".ntsagent-tmp-"

// ErrLocked is what Lock returns when another holder has the lock.
var ErrLocked = errors.New("locked by another process")

// WriteFile replaces the file at path by one that holds data and has exactly the permission bits perm, whatever the
// umask. It writes a temporary file in the same directory, syncs it, renames it over path and syncs the directory. A
// symbolic link at path is itself replaced; nothing is ever written through it. Any error leaves the old file as it was
// and no temporary file, but for one: when only the last sync of the directory failed the new file is in place and
// might not survive a power loss.
func WriteFile(path string, data []byte, perm os.FileMode) error {
	err := replace(path, func(dir *os.Root, base string) (*Staged, error) { return Stage(dir, base, data, perm, nil) })
	if err != nil {
		return fmt.Errorf("write file %s: %w", path, err)
	}
	return nil
}

// Symlink makes path a symbolic link to target, atomically and durably; an older link or file there is replaced.
func Symlink(target, path string) error {
	err := replace(path, func(dir *os.Root, base string) (*Staged, error) {
		s := newStaged(dir, base)
		if err := dir.Symlink(target, s.temp); err != nil {
			return nil, err
		}
		return s, nil
	})
	if err != nil {
		return fmt.Errorf("link %s to %s: %w", path, target, err)
	}
	return nil
}

// replace puts what stage makes beside path in its place. The directory is held open throughout, so that all steps happen
// in the same one even when its name is moved meanwhile.
func replace(path string, stage func(dir *os.Root, base string) (*Staged, error)) error {
	base := filepath.Base(path)
	if strings.HasSuffix(path, "/") || base == "." || base == ".." {
		return errors.New("the path names no file")
	}
	dir, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	s, err := stage(dir, base)
	if err != nil {
		return err
	}
	return s.Commit()
}

// Owner is who a file is to belong to; -1 leaves it as it comes.
type Owner struct{ UID, GID int }

// Staged is a file that is whole and on the disk, under a temporary name beside the one it is for.
type Staged struct {
	dir        *os.Root
	temp, base string
}

func newStaged(dir *os.Root, base string) *Staged {
	return &Staged{dir: dir, temp: tempPrefix + rand.Text(), base: base}
}

// Stage is the first half of WriteFile, for files that must appear one right after the other, or in a directory that has
// to be looked at first: all that takes time or can fail for want of room. own may be nil. dir must stay open until Commit
// or Discard.
func Stage(dir *os.Root, base string, data []byte, perm os.FileMode, own *Owner) (*Staged, error) {
	s := newStaged(dir, base)
	f, err := dir.OpenFile(s.temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if own != nil {
		err = f.Chown(own.UID, own.GID) // before the mode, which lets others in
	}
	if err == nil {
		err = fill(f, data, perm)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		s.Discard()
		return nil, err
	}
	return s, nil
}

// Commit puts the file in place, and syncs the directory.
func (s *Staged) Commit() error { return CommitAll(s) }

// CommitAll puts files in place one right after the other, then syncs their directories. What comes after one that fails
// is discarded.
func CommitAll(all ...*Staged) error {
	for i, s := range all {
		if err := s.dir.Rename(s.temp, s.base); err != nil {
			for _, rest := range all[i:] {
				rest.Discard()
			}
			return err
		}
	}
	var err error
	for _, s := range all {
		err = errors.Join(err, syncRoot(s.dir))
	}
	return err
}

// Discard removes a file that is not to be committed.
func (s *Staged) Discard() { s.dir.Remove(s.temp) } // may not exist; the first error is the one that tells

// fill brings a fresh file to its content and mode and onto the disk. After a failed sync the caller must throw the
// file away: the kernel may have dropped the pages, and a second sync would report success for nothing.
func fill(f *os.File, data []byte, perm os.FileMode) error {
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Chmod(perm.Perm()); err != nil {
		return err
	}
	return f.Sync()
}

// SyncDir makes what was created, renamed or removed in dir durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func syncRoot(dir *os.Root) error {
	d, err := dir.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Sweep removes what writers that were killed left in dir: temporary files and links of this package, in dir itself,
// not below. The caller must hold whatever lock keeps other writers out of dir.
func Sweep(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("sweep: %w", err)
	}
	swept := false
	for _, e := range entries {
		ours := e.Type().IsRegular() || e.Type() == fs.ModeSymlink
		if !ours || !strings.HasPrefix(e.Name(), tempPrefix) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("sweep: %w", err)
		}
		swept = true
	}
	if !swept {
		return nil
	}
	if err := SyncDir(dir); err != nil {
		return fmt.Errorf("sweep: %w", err)
	}
	return nil
}

// ReadFile reads a file that somebody else may have made: a regular one of at most maxBytes octets. Symbolic links are
// followed, as certificate tools use them. It never waits on a FIFO and never takes a terminal.
func ReadFile(path string, maxBytes int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, fmt.Errorf("read file: %w", err)
	}
	defer f.Close()
	if err := mustBeRegular(f); err != nil {
		return nil, fmt.Errorf("read file %s: %w", path, err)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read file: %w", err)
	}
	if int64(len(data)) > maxBytes {
		return nil, fmt.Errorf("read file %s: larger than %d bytes", path, maxBytes)
	}
	return data, nil
}

// mustBeRegular tells what f is when it is anything but a regular file.
func mustBeRegular(f *os.File) error {
	info, err := f.Stat()
	switch {
	case err != nil:
		return err
	case info.IsDir():
		return errors.New("is a directory, not a file")
	case !info.Mode().IsRegular():
		return errors.New("is not a regular file")
	}
	return nil
}

// MkdirAll makes the directory path and the parents it lacks, each with exactly the permission bits perm and each made
// durable in its parent. Directories that exist stay as they are.
func MkdirAll(path string, perm os.FileMode) error {
	path = filepath.Clean(path)
	info, err := os.Stat(path)
	if err == nil && info.IsDir() {
		return nil
	}
	if err == nil {
		return fmt.Errorf("make directory %s: a file is in its place", path)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("make directory: %w", err)
	}
	parent := filepath.Dir(path)
	if err := MkdirAll(parent, perm); err != nil {
		return err
	}
	if err := os.Mkdir(path, perm.Perm()); err != nil {
		if info, again := os.Stat(path); errors.Is(err, fs.ErrExist) && again == nil && info.IsDir() {
			return nil // somebody was faster
		}
		return fmt.Errorf("make directory: %w", err)
	}
	if err := os.Chmod(path, perm.Perm()); err != nil { // the umask may have taken bits away
		return fmt.Errorf("make directory: %w", err)
	}
	if err := SyncDir(parent); err != nil {
		return fmt.Errorf("make directory %s: %w", path, err)
	}
	return nil
}

// Lock takes the exclusive lock on the file at path, which it makes when missing and never removes. It does not wait:
// when somebody else holds the lock the error is ErrLocked. The lock lasts until the returned file is closed or the
// process ends, however it ends. A symbolic link at path is refused.
func Lock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if err := mustBeRegular(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	if err := flock(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

// Unlock frees what Lock locked. Closing alone would not while another goroutine
// starts a process: until that one runs, it holds the file too.
func Unlock(f *os.File) error {
	return errors.Join(unix.Flock(int(f.Fd()), unix.LOCK_UN), f.Close())
}

func flock(f *os.File) error {
	for {
		switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err {
		case unix.EINTR:
		case unix.EWOULDBLOCK:
			return ErrLocked
		default:
			return err
		}
	}
}
