package keyring

import (
	"bytes"
	"slices"
	"time"

	"ntsagent/ntske/cookie"
)

// adopt takes over the keys the daemon has made itself, row by row, so that those
// who hold its cookies lose none. They are those in its key file while nothing of
// ours is proven: any before the first proof, and later, when it refuses our keys,
// such as it has written itself. It may write them at its end, which is when it is
// set up for us; so whoever is about to hand keys over looks once more.
func (k *Keyring) adopt() {
	l := &k.lead
	if l.file.mintingKey() != nil {
		return
	}
	ring, own := k.daemonsKeys()
	if ring == nil || own && !l.file.provenAt.IsZero() || sameKeys(ring, l.file.ring) {
		return
	}
	next := file{ring: ring, rotated: wall(time.Now())}
	if err := k.save(next); err != nil {
		k.fail(err)
		return
	}
	l.file, l.unsaved, l.lost = next, false, false
	k.cfg.Log.Info("taking over the daemon's keys", "current", hexID(ring.Current().ID()), "aead", ring.Current().AEAD().String())
}

// daemonsKeys reads the daemon's key file; nil = there is none that it could load,
// or we cannot tell. own says that it is as we write it: chronyd writes another
// age, and since 4.4 another format.
func (k *Keyring) daemonsKeys() (ring *cookie.Ring, own bool) {
	if k.cfg.Held == nil {
		return nil, false
	}
	b, err := k.cfg.Held()
	if err != nil {
		return nil, false
	}
	if ring, err = k.cfg.Format.ParseKeys(b); err != nil {
		return nil, false
	}
	return ring, bytes.Equal(b, k.cfg.Format.AppendKeys(nil, ring))
}

func sameKeys(a, b *cookie.Ring) bool {
	return sameKey(a.Current(), b.Current()) && slices.EqualFunc(a.Keys(), b.Keys(), sameKey)
}

// tooNew is said of refused keys that not every chronyd can hold.
const tooNew = "; if chronyd is older than 4.4 now, it has no AES-128-GCM-SIV, of which these keys are: stop it and the agent, " +
	"remove its ntskeys and keys/ring in the agent's state_dir, and start both; all clients then exchange keys anew"

// hint adds to why the daemon refuses our keys.
func (k *Keyring) hint(why string) string {
	old := k.cfg.Format.AEADs()[0] // which every chronyd has
	if slices.ContainsFunc(k.lead.file.ring.Keys(), func(key *cookie.Key) bool { return key.AEAD() != old }) {
		why += tooNew
	}
	return why
}
