package agent

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"

	"ntsagent/agent/config"
	"ntsagent/agent/task"
	"ntsagent/ntske/client"
	"ntsagent/ntske/cookie"
	"ntsagent/ntske/keyring"
)

// newOwning builds the part for the gateway, whose keys are ours alone; see
// newKeys. The gateway is asked as any daemon is, and it is that of the parts in
// service: this one may outlive several.
func (a *agent) newOwning(cfg *config.Config, old *parts) (*keys, error) {
	log := a.Log.Named("keys")
	k := &keys{
		kind: config.KindGateway, log: a.Log, tasks: task.NewGroup(a.Log),
		address: cfg.Daemon.Address, seen: new(atomic.Pointer[sighting]),
	}
	var before *keyring.Own
	if old != nil {
		before, _ = old.keys.ring.(*keyring.Own)
		k.seen = old.keys.seen
	}
	observe := func(r client.Reply) { k.seen.Store(&sighting{time.Now(), r}) }
	prove := func(ctx context.Context, c []byte, s *cookie.Session) keyring.Answer {
		return a.parts.Load().gateway.ask(ctx, c, s, observe)
	}
	folder, _ := keyFolders(cfg)
	file := ringFile(filepath.Join(folder, "gateway"))
	own, err := keyring.NewOwn(keyring.OwnConfig{
		RotateEvery: cfg.Keys.RotateEvery, Keep: cfg.Keys.Keep, CheckEvery: cfg.Observe.SelfCheck,
		Load: func() ([]byte, error) { return file.loadOwn(log) }, Save: file.save, Aside: file.aside, Prove: prove,
		Help: func() keyring.Help { return a.parts.Load().gateway.help() },
		Rand: rand.Reader, Log: log, Changed: func() { a.knock(); k.others.look() }, After: before,
	})
	if err != nil {
		return nil, err
	}
	k.ring = own
	k.others = &algorithms{
		format: cookie.Own{}, candidates: cookie.Own{}.Carries(), current: own.Current, await: own.Await, prove: prove,
		every: cfg.Observe.SelfCheck, asked: new(lastAsked), rand: rand.Reader, log: log,
		shown: new(atomic.Pointer[shown]), wake: make(chan struct{}, 1),
	}
	if before != nil {
		k.others.shown = old.keys.others.shown
	}
	k.beside = []task.Task{
		{Name: "the gateway's algorithms", Run: k.others.run},
		{Name: "the gateway's condition", Run: func(ctx context.Context) error {
			return a.parts.Load().gateway.tell(ctx, func() { own.Look(false, false) })
		}},
		{Name: "the gateway's requests of a day", Run: func(ctx context.Context) error {
			for pause(ctx, time.Minute) {
				a.traffic.day(a.parts.Load().gateway, time.Now())
			}
			return nil
		}},
	}
	return k, nil
}

// loadOwn loads a file that is ours alone. What stands in its place and can be no
// file of ours is keyring.ErrDamaged.
func (f ringFile) loadOwn(log hclog.Logger) ([]byte, error) {
	info, err := os.Stat(string(f))
	if err != nil {
		return nil, err
	}
	folder, err := os.Stat(filepath.Dir(string(f)))
	if err != nil {
		return nil, err
	}
	file, above := info.Sys().(*syscall.Stat_t), folder.Sys().(*syscall.Stat_t)
	if why := unfit(info.Mode(), info.Size(), file.Uid, above.Uid); why != "" {
		return nil, fmt.Errorf("%w: %s: %s", keyring.ErrDamaged, f, why)
	}
	if info.Mode().Perm()&0o077 != 0 { // the folder keeps others out, unless somebody has opened that, too
		log.Warn("the file of our cookie keys was open to others, closing it", "file", string(f), "mode", info.Mode().String(), "folder", folder.Mode().String())
		if err := os.Chmod(string(f), 0o600); err != nil {
			return nil, fmt.Errorf("close the file of our cookie keys to others: %w", err)
		}
	}
	return f.load()
}

// unfit says why a file can be none of ours, or "". Root and whoever has the folder
// could have put any file there.
func unfit(mode os.FileMode, size int64, owner, above uint32) string {
	switch {
	case !mode.IsRegular():
		return "no regular file"
	case size > maxKeyFile:
		return fmt.Sprintf("%d octets, more than %d", size, maxKeyFile)
	case owner != 0 && owner != above && owner != uint32(os.Geteuid()):
		return fmt.Sprintf("it belongs to user %d, not to the agent's", owner)
	}
	return ""
}

// aside puts the file out of the way of the next save, and tells where.
func (f ringFile) aside() (string, error) {
	kept := fmt.Sprintf("%s.damaged", f)
	err := os.Rename(string(f), kept)
	if err != nil { // something is there that cannot be replaced
		kept = fmt.Sprintf("%s-%d", kept, time.Now().Unix())
		err = os.Rename(string(f), kept)
	}
	if err != nil {
		return "", err
	}
	return kept, nil
}
