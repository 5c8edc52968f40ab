package setup

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ntsagent/acme/disk"
)

// Apply writes what p says, after a copy of what is there. It is an error that is
// ErrChanged if a file is no longer what p was made for, and disk.ErrLocked if
// somebody else is at it. A failure half way leaves a record that Revert goes by.
func Apply(h Host, p Plan, stateDir string, now time.Time) error {
	t, s := h.files(), h.store(stateDir)
	if len(p.Changes) == 0 {
		return nil
	}
	unlock, err := s.lock()
	if err != nil {
		return err
	}
	defer unlock()
	for _, c := range p.Changes {
		if err := t.mayWrite(c); err != nil {
			return err
		}
	}
	changes, err := made(p.Changes, now)
	if err != nil {
		return err
	}
	r, err := s.load()
	if err != nil {
		return err
	}
	for _, c := range changes {
		if err := r.note(t, s, c); err != nil {
			return permission("keep a copy of "+c.Path, err)
		}
	}
	r.Unit, r.Reload = p.unit, p.reload
	if err := s.save(r); err != nil {
		return permission("note what is applied", err)
	}
	for _, c := range changes {
		if err := t.write(c); err != nil {
			return permission("write "+c.Path, fmt.Errorf("%w; to undo what is done: ntsagent daemon revert", err))
		}
	}
	return nil
}

// lock makes the folder of the record and keeps others out.
func (s store) lock() (unlock func(), err error) {
	dir, err := disk.MkdirTrusted(s.dir, 0o700)
	switch {
	case errors.Is(err, disk.ErrUntrusted):
		return nil, s.untrusted(err)
	case err != nil:
		return nil, permission("keep a record of what is applied", err)
	}
	defer dir.Close()
	f, err := disk.Lock(filepath.Join(s.dir, "lock"))
	if err != nil {
		return nil, permission("keep a record of what is applied", err)
	}
	return func() { f.Close() }, nil
}

// made gives the changes that are pairs their content.
func made(changes []Change, now time.Time) ([]Change, error) {
	var out []Change
	var key, cert []byte
	var err error
	for _, c := range changes {
		if c.pair != nil {
			if key == nil {
				if key, cert, err = c.pair.make(now); err != nil {
					return nil, fmt.Errorf("make a certificate: %w", err)
				}
			}
			if c.New = key; c.Path == c.pair.cert {
				c.New = cert
			}
		}
		out = append(out, c)
	}
	return out, nil
}

// note records a change before it is made. What was there before the first one
// stays what Revert puts back.
func (r *record) note(t tree, s store, c Change) error {
	e := r.entry(c.Path)
	if e == nil {
		before := c.Old
		if c.base != nil {
			before = c.base
		}
		if strings.HasPrefix(string(before), dropInHead) { // its record is lost
			before = nil
		}
		sum, err := s.keep(before)
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if before != nil {
			if err := unix.Stat(t.at(c.Path), &st); err != nil {
				return err
			}
		}
		r.Files = append(r.Files, entry{Path: c.Path, Before: sum, Mode: os.FileMode(st.Mode & 0o7777), UID: int(st.Uid), GID: int(st.Gid),
			Block: c.base != nil, Pair: c.pair != nil, MadeDir: !t.isDir(filepath.Dir(c.Path))})
		e = &r.Files[len(r.Files)-1]
	} else if c.base != nil {
		sum, err := s.keep(c.base)
		if err != nil {
			return err
		}
		e.Before = sum
	}
	if c.pair != nil {
		e.After = checksum(c.New) // no copy of a key
		return nil
	}
	var err error
	e.After, err = s.keep(c.New)
	return err
}

// mayWrite finds out beforehand what would keep a change from being made.
func (t tree) mayWrite(c Change) error {
	path := t.at(c.Path)
	info, err := os.Lstat(path)
	if err == nil && info.Mode()&os.ModeSymlink != 0 {
		target, _ := os.Readlink(path)
		return &Failure{What: "write " + c.Path, Kind: ErrInTheWay, Err: fmt.Errorf("it is a symbolic link to %s", target),
			Fix: "make it a file, or add the lines of `ntsagent daemon diff` where it points to yourself"}
	}
	if err == nil && !info.Mode().IsRegular() {
		return &Failure{What: "write " + c.Path, Kind: ErrInTheWay, Err: errors.New("it is no regular file"), Fix: "see what it is, and move it away"}
	}
	dir := filepath.Dir(path)
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) && strings.HasSuffix(dir, ".d") {
		dir = filepath.Dir(dir) // a unit's folder of drop-ins, which may be ours to make
	}
	switch err := unix.Access(dir, unix.W_OK|unix.X_OK); {
	case err == unix.EROFS:
		return &Failure{What: "write " + c.Path, Kind: ErrInTheWay, Err: err,
			Fix: "the file system is read-only: add the lines of `ntsagent daemon diff` where that system's configuration is made"}
	case err != nil:
		return permission("write "+c.Path, err)
	}
	if err := t.trusts("write", c.Path); err != nil {
		return err
	}
	now, err := t.readIfThere(c.Path)
	if err != nil {
		return err
	}
	if (now == nil) != (c.Old == nil) || !bytes.Equal(now, c.Old) {
		return &Failure{What: "write " + c.Path, Kind: ErrChanged, Fix: "somebody else wrote it meanwhile: look at `ntsagent daemon diff` again"}
	}
	return nil
}

// write makes one change; a file that is there keeps its owner and mode.
func (t tree) write(c Change) error {
	base := filepath.Base(c.Path)
	if c.New == nil {
		return t.remove(c.Path)
	}
	dir, err := disk.MkdirTrusted(t.at(filepath.Dir(c.Path)), 0o755)
	if err != nil {
		return err
	}
	defer dir.Close()
	perm, uid, gid := c.Perm, -1, c.GID
	if info, err := dir.Lstat(base); c.Old != nil && err == nil {
		st := info.Sys().(*syscall.Stat_t)
		perm, uid, gid = info.Mode().Perm(), int(st.Uid), int(st.Gid)
	}
	return writeAs(dir, base, c.New, perm, uid, gid)
}

// remove removes a file, if it is there.
func (t tree) remove(path string) error {
	dir, err := disk.OpenTrusted(t.at(filepath.Dir(path)))
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := dir.Remove(filepath.Base(path)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return disk.SyncDir(dir.Name())
}

// writeAs writes a file that belongs to uid and gid before it is there; -1 = as it
// comes.
func writeAs(dir *os.Root, base string, data []byte, perm os.FileMode, uid, gid int) error {
	if os.Geteuid() != 0 && uid >= 0 && uid != os.Geteuid() {
		return fmt.Errorf("%s belongs to another user, which only root can keep: %w", filepath.Join(dir.Name(), base), os.ErrPermission)
	}
	if uid == os.Geteuid() {
		uid = -1
	}
	if gid == os.Getegid() {
		gid = -1
	}
	s, err := disk.Stage(dir, base, data, perm, &disk.Owner{UID: uid, GID: gid})
	if err != nil {
		return err
	}
	return s.Commit()
}
