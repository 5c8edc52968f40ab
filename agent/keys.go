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

	"ntsagent/acme/disk"
	"ntsagent/agent/config"
	"ntsagent/agent/daemon"
	"ntsagent/agent/feed"
	"ntsagent/agent/task"
	"ntsagent/ntske/client"
	"ntsagent/ntske/cookie"
	"ntsagent/ntske/keyring"
)

// maxKeyFile bounds our own key file in octets; a real one has some 600.
const maxKeyFile = 64 << 10

// keys keeps agent and daemon on one ring.
type keys struct {
	tasks   *task.Group
	ring    *keyring.Keyring
	address netip.AddrPort // where the daemon is asked
	seen    *atomic.Pointer[sighting]
}

// sighting is the daemon's last answer.
type sighting struct {
	at    time.Time
	reply client.Reply
}

// target is where the daemon is asked and how fast. Its configuration, which
// tells, may be unreadable for us or not be there yet.
func (a *agent) target(cfg *config.Config) (daemon.Target, error) {
	t, err := daemon.ChronyTarget(chronyConf(cfg), cfg.Daemon.Address)
	if t.ConfErr != nil {
		a.Log.Info("chrony's configuration not read, asking chronyd slowly", "cause", t.ConfErr)
	}
	return t, err
}

func chronyConf(cfg *config.Config) string {
	if cfg.Daemon.Chrony.ConfigFile != "" {
		return cfg.Daemon.Chrony.ConfigFile
	}
	return daemon.FindChronyConf()
}

func (a *agent) newKeys(cfg *config.Config, target daemon.Target) (*keys, error) {
	own := filepath.Join(cfg.StateDir, "keys")
	handed := filepath.Join(cfg.StateDir, "chrony")
	for dir, mode := range map[string]os.FileMode{own: 0o700, handed: 0o750} {
		if err := disk.MkdirAll(dir, mode); err != nil {
			return nil, fmt.Errorf("make folder for cookie keys: %w", err)
		}
		if err := disk.Sweep(dir); err != nil {
			return nil, fmt.Errorf("sweep folder of cookie keys: %w", err)
		}
	}
	k := &keys{tasks: task.NewGroup(a.Log), address: target.Addr, seen: new(atomic.Pointer[sighting])}
	file := ringFile(filepath.Join(own, "ring"))
	observe := func(r client.Reply) { k.seen.Store(&sighting{time.Now(), r}) }
	ring, err := keyring.New(keyring.Config{
		Format: cookie.Chrony{}, RotateEvery: cfg.Keys.RotateEvery, CheckEvery: cfg.Observe.SelfCheck,
		Load: file.load, Save: file.save,
		HandOver: feed.ChronyHandOver(feed.HandOverOptions{
			Options: feed.Options{
				KeysFile:      cfg.Daemon.Chrony.KeysFile,
				CommandSocket: cfg.Daemon.Chrony.CommandSocket,
				ChronyConf:    chronyConf(cfg),
			},
			File: filepath.Join(handed, "ntskeys"),
		}),
		Prove: daemon.Prove(k.address, observe), Plain: daemon.Plain(k.address, observe),
		Spacing: target.Spacing, Help: daemon.Help(k.address), Rand: rand.Reader,
		Log: a.Log.Named("keys"), Changed: a.knock,
	})
	if err != nil {
		return nil, err
	}
	k.ring = ring
	return k, nil
}

// ringFile is the path of our own key file.
type ringFile string

func (f ringFile) load() ([]byte, error) { return disk.ReadFile(string(f), maxKeyFile) }
func (f ringFile) save(b []byte) error   { return disk.WriteFile(string(f), b, 0o600) }

func (k *keys) start(ctx context.Context) {
	k.tasks.Go(ctx, task.Task{Name: "cookie keys", Run: k.ring.Run, Policy: task.Once})
}

// knock makes the key exchange look at once whether it may be open.
func (a *agent) knock() {
	if p := a.parts.Load(); p != nil {
		p.ke.door.knock()
	}
}
