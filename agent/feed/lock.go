package feed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ntsagent/acme/disk"
)

// lockName is the file that is locked in a folder, and stays there.
const lockName = ".ntsagent.lock"

// lock waits for the lock on a folder that is written to, and keeps other helpers
// out. It is a file, closed to all but the writer, and not the folder itself: who
// may read that could lock it too, and hold the writer up for as long as he likes.
// The name of the folder is for errors.
func lock(ctx context.Context, dir *os.Root, name string) (unlock func(), err error) {
	path := filepath.Join(name, lockName)
	f, err := dir.OpenFile(lockName, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0o600)
	if errors.Is(err, os.ErrPermission) {
		if _, there := dir.Lstat(lockName); there == nil {
			err = fmt.Errorf("%w; remove it if it is left from another user", err)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	if err := oursAlone(dir, f); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w; remove it", path, err)
	}
	if err := waitFor(ctx, f); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { disk.Unlock(f) }, nil
}

// oursAlone refuses a lock file that others could have made, or could open.
func oursAlone(dir *os.Root, f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	there, err := dir.Lstat(lockName)
	if err != nil {
		return err
	}
	st := info.Sys().(*syscall.Stat_t)
	switch {
	case !os.SameFile(info, there):
		return errors.New("it is a link")
	case !info.Mode().IsRegular():
		return errors.New("it is not a regular file")
	case int(st.Uid) != os.Geteuid():
		return fmt.Errorf("it belongs to user %d", st.Uid)
	case st.Mode&0o077 != 0:
		return fmt.Errorf("others may open it, it has mode %04o", st.Mode&0o7777)
	}
	return nil
}

func waitFor(ctx context.Context, f *os.File) error {
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil || !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-again.C:
		}
	}
}
