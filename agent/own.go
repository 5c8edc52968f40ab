package agent

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

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
		Load: file.load, Save: file.save, Aside: file.aside, Prove: prove,
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

// aside puts the file out of the way of the next save, and tells where.
func (f ringFile) aside() (string, error) {
	kept := fmt.Sprintf("%s.damaged", f)
	if err := os.Rename(string(f), kept); err != nil {
		return "", err
	}
	return kept, nil
}
