package agent

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"ntsagent/acme/disk"
	"ntsagent/agent/daemon"
	"ntsagent/agent/watch"
	"ntsagent/ntske/keyring"
)

// atOnce is how long events about chronyd's files are collected: not at all, for
// each millisecond is one in which a cookie may be handed out in vain.
const atOnce = time.Nanosecond

// looksApart is the least time between two looks.
const looksApart = 2 * time.Millisecond

// chronyFiles tells the keyring what happens to chronyd's files: that the key
// file is gone or another one, before chronyd starts without it, and that there
// is another command socket, so another chronyd. It binds that socket before it
// answers its first query.
type chronyFiles struct {
	keys, socket string
	met          *atomic.Pointer[fs.FileInfo] // the command socket as last seen; of nil when there was none yet
	log          hclog.Logger
}

// newChronyFiles notes which chronyd there is now: call it before that is asked.
func newChronyFiles(c daemon.Chronyd, log hclog.Logger) chronyFiles {
	f := chronyFiles{keys: c.KeysFile, socket: c.CommandSocket, met: new(atomic.Pointer[fs.FileInfo]), log: log}
	if info, err := os.Lstat(f.socket); err == nil {
		f.met.Store(&info)
	}
	return f
}

// read is for keyring.Config.Held.
func (f chronyFiles) read() ([]byte, error) { return disk.ReadFile(f.keys, maxKeyFile) }

// watch tells ring until ctx is done, and calls restarted first when there is
// another chronyd. Where we may not look, and then it returns
// at once, the keyring's own checks find out later.
func (f chronyFiles) watch(ctx context.Context, ring *keyring.Keyring, restarted func()) error {
	for _, dir := range []string{filepath.Dir(f.keys), filepath.Dir(f.socket)} {
		d, err := os.Open(dir)
		if errors.Is(err, fs.ErrPermission) {
			f.log.Info("chrony's files are closed to us: keys that chronyd loses are noticed at the next self-check only", "cause", err)
			return nil
		}
		if err == nil {
			d.Close()
		}
	}
	return watch.Files(ctx, []string{f.keys, f.socket}, atOnce, 0, f.log, func() {
		started, down := f.look()
		if started {
			restarted()
		}
		ring.Look(started, down)
		select { // somebody may change the folder all the time
		case <-time.After(looksApart):
		case <-ctx.Done():
		}
	})
}

// look tells whether the command socket is another one than at the last look, and
// whether it is gone.
func (f chronyFiles) look() (started, down bool) {
	info, err := os.Lstat(f.socket)
	if err != nil {
		return false, errors.Is(err, fs.ErrNotExist)
	}
	before := f.met.Swap(&info)
	return before == nil || !os.SameFile(*before, info) || !(*before).ModTime().Equal(info.ModTime()), false
}
