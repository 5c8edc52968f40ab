// Package agent builds the parts, wires them and keeps them running. It is the
// only room that knows all the others.
//
// The parts are three: certificates come in, cookie keys are kept on one ring
// with the NTP daemon, and the key exchange hands out cookies made of both. For a
// daemon without NTS there is a fourth, the gateway, which opens the cookies.
// None waits for another: the key exchange listens exactly while it has a valid
// certificate and keys the daemon has proven.
package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"

	"ntsagent/acme/disk"
	"ntsagent/acme/store"
	"ntsagent/agent/setup"
	"ntsagent/agent/status"
	"ntsagent/agent/task"
)

// ErrBusy says that another agent works on the same state directory.
var ErrBusy = errors.New("another agent uses this state directory")

// Options are what Run needs from its caller.
type Options struct {
	ConfigPath string // read now and at every reload
	Log        hclog.Logger
	Version    string
	Built      time.Time  // the clock cannot be before this; zero = not known
	Host       setup.Host // where daemon.kind: auto looks; zero = this machine
	Inherited  task.Inherited
}

// agent is one running process. What it serves is in parts; everything else
// lives as long as the process.
type agent struct {
	Options
	started  time.Time
	book     *book
	notTaken []string // why sockets of the service manager are not used
	events   status.Events
	counts   *status.Counters
	traffic  traffic24
	reloads  chan reload
	store    *store.Store
	parts    atomic.Pointer[parts]
	outcome  atomic.Pointer[reloadOutcome]
	tasks    *task.Group
}

// Run serves until ctx is done; then it ends what runs and returns nil. A bad
// configuration is a *config.Error or config.Errors; ErrBusy means that the
// state directory is taken. No failure of a peer, a CA or the daemon ends it.
func Run(ctx context.Context, o Options) error {
	cfg, doubt, err := LoadConfig(o.ConfigPath)
	if err != nil {
		return err
	}
	lock, err := lockState(cfg.StateDir)
	if err != nil {
		return err
	}
	defer disk.Unlock(lock)
	given, problems := takeGiven(o.Inherited)
	sayGiven(o.Log, given, problems)
	a := &agent{
		Options: o, started: time.Now(), book: newBookOf(given), notTaken: problems, counts: newCounters(),
		reloads: make(chan reload), tasks: task.NewGroup(o.Log),
	}
	defer a.book.closeAll()
	if a.store, err = store.Open(acmeDir(cfg)); err != nil {
		return err
	}
	control, err := status.Listen(cfg.Observe.Socket)
	if err != nil {
		return err
	}
	a.took(&reloadOutcome{ok: time.Now(), doubt: doubt})
	if err := a.exchange(ctx, cfg); err != nil {
		return errors.Join(err, control.Close())
	}
	a.Log.Info("ntsagent started", "version", o.Version, "config", o.ConfigPath, "socket", cfg.Observe.Socket)
	a.tasks.Go(ctx, task.Task{Name: "control socket", Run: func(ctx context.Context) error {
		ln := control
		if control = nil; ln == nil { // Serve closes what it served
			var err error
			if ln, err = status.Listen(cfg.Observe.Socket); err != nil {
				return err
			}
		}
		return a.control().Serve(ctx, ln)
	}})
	_ = task.NotifyReady("serving") // systemd may not be there
	a.wait(ctx)
	_ = task.NotifyStopping("stopping")
	a.Log.Info("ntsagent stops")
	return errors.Join(a.tasks.Stop(), a.parts.Load().stop())
}

// wait handles reloads one at a time until ctx is done.
func (a *agent) wait(ctx context.Context) {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangups:
			_ = a.reload(ctx) // said in the log and in the status
		case r := <-a.reloads:
			r.done <- a.reload(ctx)
		}
	}
}

// control is the server behind the control socket.
func (a *agent) control() status.Server {
	return status.Server{
		Status: func() status.Document { return a.document(time.Now()) },
		Reload: a.askReload,
		Rotate: func(ctx context.Context) error { return a.parts.Load().keys.ring.Rotate(ctx) },
		Log:    a.Log.Named("control"),
		Renew:  a.renew, Revoke: a.revoke, Request: a.request, Import: a.importChain,
	}
}

// lockState makes sure that no other agent works on dir as long as the process
// lives: the kernel frees the lock even after SIGKILL. Others may pass through
// dir, for the daemon's helper has to reach the one folder in it that is for
// it; all other folders are closed to them, and nobody can list dir.
func lockState(dir string) (*os.File, error) {
	if err := disk.MkdirAll(dir, 0o711); err != nil {
		return nil, fmt.Errorf("make state_dir: %w", err)
	}
	lock, err := disk.Lock(filepath.Join(dir, "lock"))
	if errors.Is(err, disk.ErrLocked) {
		return nil, fmt.Errorf("%w: %s; stop it first, or set another state_dir", ErrBusy, dir)
	}
	if err != nil {
		return nil, fmt.Errorf("lock state_dir: %w", err)
	}
	return lock, nil
}
