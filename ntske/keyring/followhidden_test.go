package keyring

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var errHidden = errors.New("permission denied")

// A key file that is lost or closed to us hides whether the daemon has started.
func TestADaemonWhoseFileCannotBeReadIsAskedAtOnce(t *testing.T) {
	forBoth(t, func(t *testing.T, d *owner) {
		f, _ := following(t, d.config())
		after(10 * time.Second)
		d.set(func(d *owner) { d.fileErr, d.answers = errHidden, nil })
		f.Look(false, false)
		synctest.Wait()
		if s := wantFollowed(t, f, Proven, 7); len(d.answers) != 1 || !strings.Contains(s.Why, "waiting for a whole key file") {
			t.Errorf("asked %d times; state %+v", len(d.answers), s)
		}
		f.Look(false, false)
		after(10 * time.Second)
		if len(d.answers) != 1 {
			t.Errorf("asked %d times though nothing is new", len(d.answers))
		}
	})
}

func TestADaemonThatIsDownIsAskedOftenWhileItsFileCannotBeRead(t *testing.T) {
	forBoth(t, func(t *testing.T, d *owner) {
		f, _ := following(t, d.config())
		after(10 * time.Second)
		d.set(func(d *owner) { d.fileErr, d.down, d.answers = errHidden, true, nil })
		f.Look(true, false)
		after(30 * time.Second)
		wantFollowed(t, f, Unseen, 0)
		if n := len(d.answers); n < 5 || n > 12 {
			t.Errorf("asked %d times in 30 s", n)
		}
		d.set(func(d *owner) { d.down = false })
		after(askUnseen + 3*time.Second)
		s := wantFollowed(t, f, Proven, 7) // it holds what it held
		if !strings.Contains(s.Why, "waiting for a whole key file") {
			t.Errorf("state %+v", s)
		}
		d.set((*owner).renew) // it starts once more
		f.Look(true, false)
		after(30 * time.Second) // NTPsec says it by silence
		wantFollowed(t, f, Refuses, 0)
		d.set(func(d *owner) { d.fileErr = nil })
		f.Look(false, false)
		after(10 * time.Second)
		wantFollowed(t, f, Proven, 107)
	})
}
