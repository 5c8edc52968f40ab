package keyring

import (
	"bytes"
	"time"
)

// Look says that the daemon's process or key file may have changed: started, it
// is another process than before; down, there is none. It may be called at any
// time, from the one who watches both, and does not wait for Run.
//
// A file that is not ours (Config.Held) is handed over again. What the daemon
// may have lost is not minted under any more: all when it has started, until it
// was asked, which happens at once; and what it would not find in the file when
// it is down, until the file is ours again.
func (k *Keyring) Look(started, down bool) {
	k.stir(started || down && !wouldOpen(k.cfg.Held, k.cfg.Format, k.Current()))
}

// heed takes up what somebody has seen, and tells whether that makes what is
// under way moot. In doubt the daemon is asked at once, for it knows of no query
// before, and what was proven waits for it as after a start of our own.
func (k *Keyring) heed() bool {
	l := &k.lead
	doubt, looked := k.take()
	lost := looked && k.findLost()
	if doubt {
		k.asker.forget()
		l.resume = l.file.mintingKey() != nil
	}
	if now := time.Now(); doubt || lost && now.Sub(l.lostAt) >= lossesApart {
		l.failures, l.tryAt = 0, time.Time{}
		l.lostAt = now
	}
	return doubt || lost
}

// lossesApart is the least time between two losses of the daemon's key file that
// are both mended at once: somebody may write it all the time.
const lossesApart = time.Second

// findLost tells whether the daemon's key file turns out to be another one than
// was handed over. New keys are handed over anyway.
func (k *Keyring) findLost() bool {
	l := &k.lead
	if l.lost || l.file.pending() || k.held() {
		return false
	}
	l.lost, l.wary = true, true
	k.cfg.Log.Warn("the daemon's key file is not as it was handed over, doing that again")
	return true
}

// held tells whether the daemon's key file is as we hand it over; see wouldOpen.
func (k *Keyring) held() bool {
	if k.cfg.Held == nil {
		return true
	}
	b, err := k.cfg.Held()
	if err != nil {
		return cannotTell(err)
	}
	return bytes.Equal(b, k.cfg.Format.AppendKeys(nil, k.lead.file.ring))
}
