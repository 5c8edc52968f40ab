package keyring

import (
	"slices"
	"time"
)

// Standing is what we know of the daemon and our keys.
type Standing string

const (
	Starting Standing = "starting" // nothing proven yet
	Proven   Standing = "proven"   // the daemon opens what we mint
	Refuses  Standing = "refused"  // the daemon refuses our keys: nothing is minted
	Unseen   Standing = "unseen"   // cannot see the daemon from here: serving goes on as before
)

// KeyState is one held key, without its secret.
type KeyState struct {
	ID          uint32
	Fingerprint string
}

// State is a snapshot of a Keyring. Times are zero when there is none.
type State struct {
	Mode         string // "lead" or "follow"
	Standing     Standing
	Minting      bool       // cookies are minted now
	Current      uint32     // id of the key minted under, if Minting
	Next         uint32     // id of the key that is current after the next rotation
	Pending      bool       // new keys wait for the daemon to take and prove them
	Held         []KeyState // oldest first
	NextRotation time.Time
	ProvenAt     time.Time // the daemon last opened a cookie of ours
	Why          string    // why Standing is not Proven, or keys are Pending, and what to do; else empty
	LastError    string    // the last error of our file or of the hand-over
}

// note publishes a new State and says so.
func (k *Keyring) note() {
	s := k.snapshot()
	k.state.Store(&s)
	k.cfg.Changed()
}

// snapshot makes a State of what Run knows.
func (k *Keyring) snapshot() State {
	l, f := &k.lead, k.lead.file
	s := State{
		Mode: "lead", Standing: l.standing, Pending: f.pending(),
		NextRotation: f.rotated.Add(k.cfg.RotateEvery), ProvenAt: l.provenAt,
		Why: l.why, LastError: l.lastError,
	}
	if s.Standing == "" {
		s.Standing = Starting
	}
	keys := f.ring.Keys()
	for _, key := range keys {
		s.Held = append(s.Held, KeyState{ID: key.ID(), Fingerprint: key.Fingerprint()})
	}
	current := f.ring.Current()
	if ring := k.ring.Load(); ring != nil {
		s.Minting, s.Current = true, ring.Current().ID()
		current = ring.Current()
	}
	if i := slices.IndexFunc(s.Held, func(h KeyState) bool { return h.ID == current.ID() }); i >= 0 && i+1 < len(s.Held) {
		s.Next = s.Held[i+1].ID
	}
	if s.Standing == Proven && s.Pending && s.Why == "" {
		s.Why = notTaken
	}
	return s
}
