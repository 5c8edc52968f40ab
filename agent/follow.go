package agent

import (
	"context"
	"crypto/rand"
	"fmt"
	"io/fs"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"ntsagent/agent/config"
	"ntsagent/agent/daemon"
	"ntsagent/agent/status"
	"ntsagent/agent/task"
	"ntsagent/agent/watch"
	"ntsagent/ntske/client"
	"ntsagent/ntske/keyring"
)

// follower is the cookie keys of a daemon that rotates them itself.
type follower struct {
	*keyring.Follower
	daemon daemon.Followed
}

// Rotate says that there is nothing to do.
func (f follower) Rotate(context.Context) error {
	return fmt.Errorf("%w: %s", status.ErrPointless, f.daemon.NoRotation())
}

// newFollowing builds the part for a daemon that owns its keys; see newKeys. What
// was proven of the daemon at an address stays so, whichever file of it we read.
func (a *agent) newFollowing(cfg *config.Config, old *parts) (*keys, error) {
	d := daemon.FollowedOf(cfg.Daemon)
	log := a.Log.Named("keys")
	k := &keys{kind: d.Kind, log: a.Log, tasks: task.NewGroup(a.Log), address: d.Addr, seen: new(atomic.Pointer[sighting])}
	var before follower
	if old != nil && old.keys.kind == d.Kind && old.keys.address == d.Addr {
		before, _ = old.keys.ring.(follower)
		k.seen = old.keys.seen
	}
	observe := func(r client.Reply) { k.seen.Store(&sighting{time.Now(), r}) }
	asked := new(lastAsked)
	prove := asked.noted(daemon.Prove(d.Addr, observe))
	f, err := keyring.NewFollower(keyring.FollowConfig{
		Format: d.Format, Read: d.ReadKeys, Behind: d.Behind, CheckEvery: cfg.Observe.SelfCheck,
		Prove: prove, Plain: asked.notedPlain(daemon.Plain(d.Addr, observe)), Spacing: d.Spacing,
		Help: d.Help, Rand: rand.Reader, Log: log, Changed: func() { a.knock(); k.others.look() }, After: before.Follower,
	})
	if err != nil {
		return nil, err
	}
	k.ring = follower{f, d}
	k.others = &algorithms{
		format: d.Format, candidates: d.Format.AEADs(), current: f.Current, await: f.Await, prove: prove,
		every: cfg.Observe.SelfCheck, spacing: d.Spacing, asked: asked, rand: rand.Reader, log: log,
		shown: new(atomic.Pointer[shown]), wake: make(chan struct{}, 1),
	}
	if before.Follower != nil {
		k.others.shown = old.keys.others.shown
	}
	k.beside = []task.Task{
		{Name: "the daemon's key file", Run: func(ctx context.Context) error { return watchKeyFile(ctx, d, f, log) }},
		{Name: "the daemon's algorithms", Run: k.others.run},
	}
	a.addFamilies(k, old, netip.Addr{})
	return k, nil
}

// keyFilePoll is how often the key file is looked at where no event tells.
const keyFilePoll = time.Minute

// watchKeyFile tells f what happens to the key file of d until ctx is done. A
// whole one without the key we mint under means that the daemon has started and
// found none, and a new one that is closed to us may mean it: then all waits until
// it was asked.
func watchKeyFile(ctx context.Context, d daemon.Followed, f *keyring.Follower, log hclog.Logger) error {
	if err := d.Closed(); err != nil {
		log.Info("the folder of the daemon's key file is closed to us: a rotation is noticed at the next self-check only", "cause", err)
		return nil
	}
	var known fs.FileInfo
	return watch.Files(ctx, []string{d.KeysFile}, atOnce, keyFilePoll, log, func() {
		now, hidden := d.Hidden(known)
		known = now
		ring := f.Current()
		f.Look(ring != nil && (hidden || d.OtherKeys(ring.Current())), false)
		select { // somebody may change the folder all the time
		case <-time.After(looksApart):
		case <-ctx.Done():
		}
	})
}
