package keyring

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ntsagent/ntske/aead"
	"ntsagent/ntske/cookie"
)

// stockKeys is the key file of a chronyd that is an NTS server of its own, as it
// writes it: four rows of these algorithms, 15 or 30.
func stockKeys(t *testing.T, first uint32, algs ...int) ([]byte, *cookie.Ring) {
	t.Helper()
	out := []byte("NKS1\n4711.2\n")
	for i, alg := range algs {
		id := first + uint32(i)
		out = fmt.Appendf(out, "%08X %s %d\n", id, strings.Repeat(fmt.Sprintf("%02X", byte(id)), aead.ID(alg).KeyLen()), alg)
	}
	ring, err := chrony.ParseKeys(out)
	if err != nil {
		t.Fatal(err)
	}
	return out, ring
}

func TestTheFirstHandOverTakesTheDaemonsKeysRowByRow(t *testing.T) {
	for _, algs := range [][]int{{15, 15, 15, 15}, {30, 30, 30, 30}, {15, 15, 15, 30}, {15, 15, 30, 30}} {
		t.Run(fmt.Sprint(algs), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				file, ring := stockKeys(t, 0xfe, algs...)
				d := &fakeDaemon{file: file, ring: ring}
				k, _ := running(t, d.config(func(c *Config) { c.Held = d.held }))
				after(10 * time.Second)
				if s := wantState(t, k, Proven, true); s.Current != 0x100 || k.Current().Current().AEAD() != aead.ID(algs[2]) {
					t.Errorf("minting under %08x", s.Current)
				}
				d.set(func(d *fakeDaemon) {
					if !bytes.Equal(d.file, chrony.AppendKeys(nil, ring)) {
						t.Errorf("handed over\n%s", d.file)
					}
				})
				for n := range 6 { // never from 30 back to 15
					before := k.Current().Current()
					if err := k.Rotate(t.Context()); err != nil {
						t.Fatal(err)
					}
					now := k.Current()
					if now.Find(before.ID()) == nil {
						t.Errorf("rotation %d drops the key before", n+1)
					}
					if before.AEAD() == aead.GCMSIV128 && now.Current().AEAD() != aead.GCMSIV128 {
						t.Errorf("rotation %d goes from %v to %v", n+1, before.AEAD(), now.Current().AEAD())
					}
				}
			})
		})
	}
}

// A chronyd that runs with its own keys takes none of ours, and writes its own at
// its end. It must find them when it starts set up for us.
func TestKeysThatTheDaemonWritesAtItsEndAreTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file, ring := stockKeys(t, 7, 30, 30, 30, 30)
		d := &fakeDaemon{ring: ring, deaf: true}
		k, _ := running(t, d.config(func(c *Config) { c.Held = d.held }))
		after(10 * time.Minute)
		if s := wantState(t, k, Refuses, false); !strings.Contains(s.Why, "cannot open our cookies") || strings.Contains(s.Why, "older than 4.4") {
			t.Errorf("why: %s", s.Why)
		}
		d.set(func(d *fakeDaemon) { d.file, d.silent = file, true })
		k.Look(false, true)
		after(5 * time.Second)
		d.set(func(d *fakeDaemon) {
			held, err := chrony.ParseKeys(d.file)
			if err != nil || !sameKeys(held, ring) {
				t.Fatalf("it would find other keys at its start: %v", err)
			}
			d.ring, d.deaf, d.silent = held, false, false
		})
		k.Look(true, false)
		after(time.Second)
		if s := wantState(t, k, Proven, true); s.Current != 9 {
			t.Errorf("minting under %08x", s.Current)
		}
	})
}

// After a revert chronyd goes on by itself. When it is set up again its keys are
// the live ones, not those we had.
func TestKeysOfADaemonThatWentOnWithoutUsAreTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDaemon{}
		held := func(c *Config) { c.Held = d.held }
		k, stop := running(t, d.config(held))
		after(10 * time.Second)
		wantState(t, k, Proven, true)
		stop()
		file, ring := stockKeys(t, 0xa0, 15, 30, 30, 30)
		d.set(func(d *fakeDaemon) { d.file, d.ring = file, ring })
		k, _ = running(t, d.config(held))
		after(10 * time.Second)
		if s := wantState(t, k, Proven, true); s.Current != 0xa2 {
			t.Errorf("minting under %08x", s.Current)
		}
	})
}

// But an old copy of a file of ours is none of its own: those who hold newer
// cookies get their keys back.
func TestAnOldCopyOfOurFileIsNotTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDaemon{}
		k, _ := running(t, d.config(func(c *Config) { c.Held = d.held }))
		after(10 * time.Second)
		old := bytes.Clone(d.file)
		for range 5 {
			if err := k.Rotate(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		before := wantState(t, k, Proven, true)
		ring, err := chrony.ParseKeys(old)
		if err != nil {
			t.Fatal(err)
		}
		d.set(func(d *fakeDaemon) { d.file, d.ring = old, ring })
		k.Look(true, false)
		after(10 * time.Second)
		if s := wantState(t, k, Proven, true); s.Current != before.Current {
			t.Errorf("minting under %08x, before under %08x", s.Current, before.Current)
		}
	})
}

func TestAFileOfTheDaemonThatCannotBeUsedIsNotTaken(t *testing.T) {
	for sentence, held := range map[string]func() ([]byte, error){
		"it is closed to us":  func() ([]byte, error) { return nil, os.ErrPermission },
		"it is half a file":   func() ([]byte, error) { return []byte("NKS1\n4711.2\n00000007 07"), nil },
		"it is empty":         func() ([]byte, error) { return nil, nil },
		"it is not there yet": func() ([]byte, error) { return nil, os.ErrNotExist },
	} {
		t.Run(sentence, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &fakeDaemon{}
				k, _ := running(t, d.config(func(c *Config) { c.Held = held }))
				after(10 * time.Second)
				if len(d.handed) == 0 || !bytes.HasPrefix(d.handed[0], []byte("NKS0\n")) {
					t.Errorf("handed over %q", d.handed)
				}
				_ = k
			})
		})
	}
}

// A chronyd before 4.4 can do nothing with keys of AEAD 30.
func TestRefusedKeysOfAEAD30SayWhatMayBeWrong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file, _ := stockKeys(t, 7, 30, 30, 30, 30)
		d := &fakeDaemon{file: file, deaf: true}
		k, _ := running(t, d.config(func(c *Config) { c.Held = d.held }))
		after(time.Minute)
		if s := wantState(t, k, Refuses, false); !strings.Contains(s.Why, "older than 4.4") {
			t.Errorf("why: %s", s.Why)
		}
	})
}
