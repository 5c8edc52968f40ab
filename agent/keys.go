package agent

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"ntsagent/acme/disk"
	"ntsagent/agent/config"
	"ntsagent/agent/daemon"
	"ntsagent/agent/feed"
	"ntsagent/agent/task"
	"ntsagent/ntske/aead"
	"ntsagent/ntske/client"
	"ntsagent/ntske/cookie"
	"ntsagent/ntske/keyring"
)

// maxKeyFile bounds our own key file in octets; a real one has some 600.
const maxKeyFile = 64 << 10

// keys keeps agent and daemon on one ring.
type keys struct {
	log      hclog.Logger
	tasks    *task.Group // the main loop's alone
	ring     ring
	beside   []task.Task    // what the ring is told by, and more that is asked of the daemon
	kind     string         // of the daemon, as in daemon.kind
	files    chronyFiles    // of a chronyd
	others   *algorithms    // found by trial; nil = none are tried
	families *families      // nil = there is nothing to find out
	access   *access        // nil = everybody is served
	started  chan struct{}  // there is another chronyd: tells access; capacity 1
	address  netip.AddrPort // where the daemon is asked
	seen     *atomic.Pointer[sighting]
}

// ring is the cookie keys, whoever rotates them: a keyring.Keyring leads, a
// follower goes after the daemon, and a keyring.Own is for the gateway.
type ring interface {
	Run(ctx context.Context) error
	Current() *cookie.Ring
	Await(ctx context.Context) *cookie.Ring
	State() keyring.State
	Look(started, down bool)
	Rotate(ctx context.Context) error
}

// sighting is the daemon's last answer.
type sighting struct {
	at    time.Time
	reply client.Reply
}

// target is where the daemon is asked and how fast. chrony's configuration, which
// tells, may be unreadable for us or not be there yet; of another
// daemon the address alone counts.
func (a *agent) target(cfg *config.Config) daemon.Target {
	if !cfg.Daemon.Leads() {
		return daemon.Target{Chronyd: daemon.Chronyd{Addr: cfg.Daemon.Address}}
	}
	t := daemon.ChronyTarget(chronydOf(cfg))
	if t.ConfErr != nil {
		a.Log.Info("chrony's configuration not read, asking chronyd slowly", "cause", t.ConfErr)
	}
	for _, fault := range t.Faults() {
		a.Log.Warn("chrony's configuration does not fit", "cause", fault)
	}
	return t
}

func chronydOf(cfg *config.Config) daemon.Chronyd {
	c := cfg.Daemon.Chrony
	conf := c.ConfigFile
	if conf == "" {
		conf = daemon.FindChronyConf()
	}
	return daemon.Chronyd{Addr: cfg.Daemon.Address, ConfigFile: conf, KeysFile: c.KeysFile, CommandSocket: c.CommandSocket}
}

// keyFolders are the folders in the state directory for our own keys and for
// what is left there for the daemon's helper.
func keyFolders(cfg *config.Config) (own, handed string) {
	return filepath.Join(cfg.StateDir, "keys"), filepath.Join(cfg.StateDir, "chrony")
}

// makeKeyFolders is for the start of the process: later there may be temporary
// files in them that are being written. The folder for the helper, when it is
// there already, keeps the group and the mode that whoever packages us gave it.
func makeKeyFolders(cfg *config.Config) error {
	own, handed := keyFolders(cfg)
	folders := map[string]os.FileMode{own: 0o700}
	if cfg.Daemon.Leads() {
		folders[handed] = 0o750
	}
	for dir, mode := range folders {
		if err := disk.MkdirAll(dir, mode); err != nil {
			return fmt.Errorf("make folder for cookie keys: %w", err)
		}
		if err := disk.Sweep(dir); err != nil {
			return fmt.Errorf("sweep folder of cookie keys: %w", err)
		}
	}
	return nil
}

// newKeys builds the part for cfg. What old publishes is published on, if that
// was for the same daemon; old must be stopped.
func (a *agent) newKeys(cfg *config.Config, target daemon.Target, old *parts) (*keys, error) {
	switch {
	case cfg.Daemon.ServesKE():
		return a.newNotOurs(cfg, old), nil
	case cfg.Daemon.Follows():
		return a.newFollowing(cfg, old)
	case cfg.Daemon.Kind == config.KindGateway:
		return a.newOwning(cfg, old)
	}
	own, handed := keyFolders(cfg)
	k := &keys{kind: config.KindChrony, log: a.Log, tasks: task.NewGroup(a.Log), address: target.Addr, seen: new(atomic.Pointer[sighting])}
	k.files = newChronyFiles(target.Chronyd, a.Log.Named("keys"))
	k.access, k.started = newAccess(target, a.Log.Named("ke")), make(chan struct{}, 1)
	var before *keyring.Keyring
	if old != nil && sameDaemon(old.target.Chronyd, target.Chronyd) {
		before, _ = old.keys.ring.(*keyring.Keyring)
		k.seen, k.files.met = old.keys.seen, old.keys.files.met
	}
	file := ringFile(filepath.Join(own, "ring"))
	observe := func(r client.Reply) { k.seen.Store(&sighting{time.Now(), r}) }
	asked := new(lastAsked)
	prove := asked.noted(daemon.Prove(k.address, observe))
	ring, err := keyring.New(keyring.Config{
		Format: cookie.Chrony{}, RotateEvery: cfg.Keys.RotateEvery, CheckEvery: cfg.Observe.SelfCheck,
		Load: file.load, Save: file.save,
		HandOver: feed.ChronyHandOver(feed.HandOverOptions{
			Options: feed.Options{KeysFile: target.KeysFile, CommandSocket: target.CommandSocket, ChronyConf: target.ConfigFile},
			File:    filepath.Join(handed, "ntskeys"),
		}),
		Held: k.files.read, Prove: prove, Plain: asked.notedPlain(daemon.Plain(k.address, observe)),
		Spacing: target.Spacing, Rand: rand.Reader, Log: a.Log.Named("keys"), Changed: func() { a.knock(); k.others.look() }, After: before,
		Help: func() keyring.Help { return daemon.Help(daemon.ChronyTarget(target.Chronyd)) },
	})
	if err != nil {
		return nil, err
	}
	k.ring = ring
	k.others = &algorithms{
		format: cookie.Chrony{}, candidates: cookie.Chrony{}.Carries(), current: ring.Current, await: ring.Await, prove: prove,
		every: cfg.Observe.SelfCheck, spacing: target.Spacing, asked: asked, rand: rand.Reader, log: a.Log.Named("keys"),
		shown: new(atomic.Pointer[shown]), wake: make(chan struct{}, 1),
	}
	if before != nil {
		k.others.shown = old.keys.others.shown
	}
	k.beside = []task.Task{
		{Name: "chrony's files", Run: func(ctx context.Context) error { return k.files.watch(ctx, ring, k.restarted) }},
		{Name: "the daemon's algorithms", Run: k.others.run},
		{Name: "chrony's access list", Run: func(ctx context.Context) error { return k.access.run(ctx, k.started) }},
	}
	bound := target.Conf.BindAddress6
	if target.Addr.Addr().Is6() {
		bound = target.Conf.BindAddress4
	}
	a.addFamilies(k, old, bound)
	return k, nil
}

// restarted says that there is another daemon.
func (k *keys) restarted() {
	k.others.forget()
	k.families.look()
	select {
	case k.started <- struct{}{}:
	default:
	}
}

func sameDaemon(a, b daemon.Chronyd) bool {
	return a.Addr == b.Addr && a.KeysFile == b.KeysFile && a.CommandSocket == b.CommandSocket
}

// ringFile is the path of our own key file.
type ringFile string

func (f ringFile) load() ([]byte, error) { return disk.ReadFile(string(f), maxKeyFile) }
func (f ringFile) save(b []byte) error   { return disk.WriteFile(string(f), b, 0o600) }

// start may be called again after a stop: a Group that was stopped stays so.
func (k *keys) start(ctx context.Context) {
	k.tasks = task.NewGroup(k.log)
	k.tasks.Go(ctx, task.Task{Name: "cookie keys", Run: k.ring.Run, Policy: task.Once})
	for _, t := range k.beside {
		k.tasks.Go(ctx, t)
	}
}

// opens lists the AEAD algorithms that the daemon has shown to open cookies of.
func (k *keys) opens() []aead.ID {
	if k.others == nil {
		return cookie.Chrony{}.AEADs()
	}
	return k.others.opens()
}

// knock makes the key exchange look at once whether it may be open, and the
// exports whether there is something new.
func (a *agent) knock() {
	if p := a.parts.Load(); p != nil {
		if p.ke != nil {
			p.ke.door.knock()
		}
		p.exports.knock()
	}
}
