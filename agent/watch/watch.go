// Package watch tells when files that someone else writes have changed.
//
// It knows when to look, not what to load: Files calls a func, and that func
// decides whether what it finds is complete. All the ways in which files are
// replaced are seen: written in place, renamed over, reached through a symlink
// that is replaced (certbot's live/), through a folder that is swapped
// (..data of Kubernetes), or through a folder that goes away and comes back.
//
// This is the only package that imports fsnotify.
package watch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

// What Files uses for a debounce or poll of zero.
const (
	DefaultDebounce = 500 * time.Millisecond
	DefaultPoll     = time.Minute
)

// patience is how many debounces an unending stream of events may hold back a
// call: 5 s with the default.
const patience = 10

// Files calls changed once when the watches stand, and again whenever one of
// the files at paths may have changed, until ctx ends. Calling first, after the
// watches stand, leaves no gap between a caller's first load and the watching.
//
// Events are collected until there was none for the time debounce, at most ten
// times that long; every poll the files are compared by device, inode, size and
// times as a backstop (network file systems, lost events). Where inotify is not
// to be had that is all that is done, and a warning says so once. changed runs
// in the caller's goroutine and is never called twice at a time.
//
// The paths must be absolute; files and folders on the way need not exist yet.
func Files(ctx context.Context, paths []string, debounce, poll time.Duration, log hclog.Logger, changed func()) error {
	if debounce <= 0 {
		debounce = DefaultDebounce
	}
	if poll <= 0 {
		poll = DefaultPoll
	}
	w := &watcher{paths: paths, log: log, watched: map[string]identity{}}
	defer w.close()

	w.look()
	changed()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	quiet := time.NewTimer(debounce)
	quiet.Stop()
	var first time.Time // when the oldest event not acted on came; zero: there is none
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.events():
			now := time.Now()
			if first.IsZero() {
				first = now
			}
			quiet.Reset(min(debounce, max(0, patience*debounce-now.Sub(first))))
		case err := <-w.errors():
			w.log.Debug("watch lost events", "error", err)
			if first.IsZero() {
				first = time.Now()
				quiet.Reset(debounce)
			}
		case <-quiet.C:
			first = time.Time{}
			if w.look() {
				changed()
			}
		case <-tick.C:
			if w.look() {
				changed()
			}
		}
	}
}

// watcher holds what is watched and how the files looked last.
type watcher struct {
	paths   []string
	log     hclog.Logger
	notify  *fsnotify.Watcher // nil while inotify is not to be had
	warned  bool
	watched map[string]identity // folder → which one it was when the watch was set
	seen    []stamp             // of paths, in order
}

// identity tells a folder from another one at the same path.
type identity struct{ dev, ino uint64 }

// stamp is what changes when a file does; the zero stamp is a missing file.
type stamp struct {
	identity
	size         int64
	mtime, ctime unix.Timespec
}

// look sets the watches anew, then says whether a file differs from the last
// look. In that order nothing can change unseen between the two.
func (w *watcher) look() bool {
	w.rearm()
	now := make([]stamp, len(w.paths))
	for i, p := range w.paths {
		now[i] = stampOf(p)
	}
	differs := false
	for i := range now {
		differs = differs || w.seen == nil || now[i] != w.seen[i]
	}
	w.seen = now
	return differs
}

func stampOf(path string) stamp {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return stamp{}
	}
	return stamp{identity{uint64(st.Dev), st.Ino}, st.Size, st.Mtim, st.Ctim}
}

// rearm makes the watched folders those that matter now. A folder may appear
// while it runs, so it goes on until two rounds agree.
func (w *watcher) rearm() {
	if w.notify == nil && !w.open() {
		return
	}
	for range 5 {
		want := map[string]bool{}
		for _, p := range w.paths {
			for _, dir := range folders(p) {
				want[dir] = true
			}
		}
		settled, err := w.set(want)
		if err != nil {
			w.pollOnly(err)
			return
		}
		if settled {
			w.warned = false
			return
		}
	}
}

// set watches exactly the folders in want and says whether it found that done
// already. A folder that vanished meanwhile is no error: the next round knows.
func (w *watcher) set(want map[string]bool) (settled bool, err error) {
	settled = true
	for dir, was := range w.watched {
		if id, ok := identify(dir); !want[dir] || !ok || id != was {
			_ = w.notify.Remove(dir) // inotify itself drops what is gone
			delete(w.watched, dir)
			settled = false
		}
	}
	standing := map[string]bool{}
	for _, dir := range w.notify.WatchList() {
		standing[dir] = true
	}
	for dir := range want {
		if _, ok := w.watched[dir]; ok && standing[dir] {
			continue
		}
		settled = false
		id, ok := identify(dir)
		if !ok {
			continue
		}
		switch err := w.notify.Add(dir); {
		case err == nil:
			w.watched[dir] = id
		case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		default:
			return false, fmt.Errorf("watch %s: %w", dir, err)
		}
	}
	return settled, nil
}

func identify(dir string) (identity, bool) {
	s := stampOf(dir)
	return s.identity, s != stamp{}
}

func (w *watcher) open() bool {
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		w.pollOnly(err)
		return false
	}
	w.notify = notify
	return true
}

// pollOnly gives inotify up until the next poll and says so once.
func (w *watcher) pollOnly(err error) {
	w.close()
	if !w.warned {
		w.warned = true
		w.log.Warn("watch by inotify failed, looking at the files now and then instead", "error", err,
			"hint", "raise fs.inotify.max_user_instances or max_user_watches")
	}
}

func (w *watcher) close() {
	if w.notify != nil {
		w.notify.Close()
	}
	w.notify = nil
	clear(w.watched)
}

// events and errors are nil channels, on which nothing comes, without inotify.
func (w *watcher) events() <-chan fsnotify.Event {
	if w.notify == nil {
		return nil
	}
	return w.notify.Events
}

func (w *watcher) errors() <-chan error {
	if w.notify == nil {
		return nil
	}
	return w.notify.Errors
}
