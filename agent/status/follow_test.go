package status

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// following is good beside a daemon that owns its keys.
func following() Document {
	d := good()
	d.Daemon.Kind, d.Daemon.Opens = "ntpsec", []uint16{15, 16, 17}
	d.Keys = Keys{Mode: "follow", State: KeysProven, Current: Key{"00000011", "aaaaaaaa"}, Held: []Key{{"00000011", "aaaaaaaa"}}, ProvenAt: now}
	return d
}

func TestKeysThatAreFollowedAreTold(t *testing.T) {
	text := Text(following().Judged(now))
	for _, want := range []string{
		"Daemon        ntpsec on 127.0.0.1:123   stratum 2, synchronised, offset +0.21 ms   opens AEAD 15, 16, 17   seen 40s ago\n",
		"Cookie keys   we follow   current 00000011   1 held   proven by an NTS query 0s ago\n",
		"Notices       none\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

// What is proven serves on without its key file, but not for ever.
func TestAFollowedKeyFileThatIsWaitedForWantsALook(t *testing.T) {
	d := following()
	d.Keys.Why = "waiting for a whole key file"
	if state, reasons := Judge(d, now); state != Degraded || !slices.Equal(reasons, []string{"cookie keys: waiting for a whole key file"}) {
		t.Errorf("%s: %q", state, reasons)
	}
	d.Keys.Mode = "lead" // for the moment of a rotation
	if state, reasons := Judge(d, now); state != Healthy {
		t.Errorf("leading: %s: %q", state, reasons)
	}
}

func TestARotationThatIsTheDaemonsOwnIsNoTemporaryFailure(t *testing.T) {
	c := NewClient(agent(t, serving(fine, func(context.Context) error { return fmt.Errorf("%w: ntpsec does it", ErrPointless) })))
	err := c.Rotate(t.Context())
	if !errors.Is(err, ErrPointless) || errors.Is(err, ErrTemporary) || err.Error() != "nothing to do: ntpsec does it" {
		t.Errorf("got %v", err)
	}
}
