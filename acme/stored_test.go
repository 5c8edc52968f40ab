package acme

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestACertificateThatHoldsLongerServesAgainWhenAWorseOneEnds(t *testing.T) {
	for _, tt := range []struct {
		name  string
		worse int // certificates of two minutes before the CA falls silent
	}{{"after one", 1}, {"after more than are kept", 5}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca := newFakeCA(t)
				ca.life = 36 * time.Hour
				h := newHouse(t, ca, "")
				stop := h.run(t)
				synctest.Wait()
				good := h.live.Leaf(h.name)
				sleep(12 * time.Hour)
				given := 0
				ca.set(func(_ context.Context, o Order) ([]byte, error) {
					if given++; given > tt.worse {
						time.Sleep(5 * time.Minute) // silence
						return nil, errDown
					}
					return ca.sign(o.CSR.DNSNames[0], o.CSR.PublicKey, time.Now(), time.Now().Add(2*time.Minute)), nil
				})
				sleep(6*time.Hour - 30*time.Minute)
				for range 3 * 60 {
					sleep(20 * time.Second)
					if !h.live.Valid(time.Now()) {
						t.Fatalf("nothing is served, though a certificate here holds for another %v", time.Until(good.NotAfter))
					}
				}
				sleep(2 * time.Hour)
				if given <= tt.worse || !h.live.Leaf(h.name).Equal(good) {
					t.Fatalf("%d orders, served until %s; want the first to serve again", given, h.live.Leaf(h.name).NotAfter)
				}
				stop()
				h = newHouse(t, ca, h.dir)
				ca.set(fails(errDown))
				stop = h.run(t)
				synctest.Wait()
				if l := h.live.Leaf(h.name); l == nil || !l.Equal(good) {
					t.Error("a restart has changed what serves")
				}
				ca.set(nil)
				sleep(12 * time.Hour)
				if h.live.Leaf(h.name).Equal(good) {
					t.Error("it is not renewed any more")
				}
				stop()
			})
		})
	}
}

func TestACertificateThatHoldsLongerDoesNotComeBackWhenItWasRevoked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newFakeCA(t)
		ca.life = 90 * day
		h := newHouse(t, ca, "")
		stop := h.run(t)
		synctest.Wait()
		revoked := h.live.Leaf(h.name)
		ca.set(func(_ context.Context, o Order) ([]byte, error) {
			ca.set(fails(errDown))
			return ca.sign(o.CSR.DNSNames[0], o.CSR.PublicKey, time.Now(), time.Now().Add(2*time.Minute)), nil
		})
		if replacement, err := h.Revoke(t.Context(), h.serial(), Superseded); err != nil || replacement != nil {
			t.Fatal(err, replacement)
		}
		sleep(day)
		if h.live.Leaf(h.name).Equal(revoked) || h.served(t) != nil {
			t.Error("what was revoked serves again")
		}
		stop()
	})
}

// renewalFile is where the store keeps what is noted of the last attempts.
func (h *house) renewalFile() string {
	return filepath.Join(h.dir, "names", h.name.String(), "renewal.json")
}

// unreadable makes the file one that cannot be read, as an error of the disk does, until back is called.
func (h *house) unreadable(t *testing.T) (back func()) {
	t.Helper()
	kept := h.renewalFile() + ".kept"
	if err := os.Rename(h.renewalFile(), kept); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(h.renewalFile(), 0o700); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := os.Remove(h.renewalFile()); err != nil { // not empty = it was written over
			t.Fatal(err)
		}
		if err := os.Rename(kept, h.renewalFile()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestNothingIsOrderedNorForgottenWhileTheStateCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newFakeCA(t)
		h := newHouse(t, ca, "")
		stop := h.run(t)
		synctest.Wait()
		if _, err := h.Revoke(t.Context(), h.serial(), CessationOfOperation); err != nil {
			t.Fatal(err)
		}
		stop()
		before, err := os.ReadFile(h.renewalFile())
		if err != nil {
			t.Fatal(err)
		}
		back := h.unreadable(t)
		h = newHouse(t, ca, h.dir)
		h.cfg.Synced = func() bool { return true }
		stop = h.run(t)
		sleep(5 * day)
		if s := h.State(); s.Condition != StateUnread || !strings.Contains(s.Why, "renewal.json") || ca.count() != 1 {
			t.Errorf("%d orders, condition %q, %q; want none, and why", ca.count(), s.Condition, s.Why)
		}
		if r := wished(t, h.Manager, true); !strings.Contains(r.Why, "renewal.json") || r.Hint == "" {
			t.Errorf("refused with %+v", r)
		}
		if err := h.Import(t.Context(), ca.sign(h.name.String(), strangerKey(t), time.Now(), time.Now().Add(day))); err == nil || !strings.Contains(err.Error(), "renewal.json") {
			t.Errorf("an import answers %v", err)
		}
		if n := strings.Count(h.log.String(), "renewal state not read"); n != 1 {
			t.Errorf("it is logged %d times", n)
		}
		synctest.Wait() // nobody reads while there is none
		back()
		sleep(time.Minute)
		if s := h.State(); s.Condition != NameCeased || h.served(t) != nil || h.live.Leaf(h.name) != nil || ca.count() != 1 {
			t.Errorf("%d orders, condition %q, served %v; want it to have ceased", ca.count(), s.Condition, h.live.Leaf(h.name) != nil)
		}
		stop()
		if after, err := os.ReadFile(h.renewalFile()); err != nil || !bytes.Contains(after, []byte(`"ceased"`)) || len(after) < len(before) {
			t.Errorf("state afterwards %s, %v", after, err)
		}
	})
}

func TestWhatIsCurrentServesWhileTheStateCannotBeReadAndOrdersGoOnAfterwards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newFakeCA(t)
		ca.life = 12 * day
		h := newHouse(t, ca, "")
		stop := h.run(t)
		synctest.Wait()
		served := h.served(t)
		stop()
		back := h.unreadable(t)
		h = newHouse(t, ca, h.dir)
		stop = h.run(t)
		sleep(9 * day)
		if !bytes.Equal(h.served(t), served) || ca.count() != 1 {
			t.Errorf("%d orders; want the current one to serve, and none", ca.count())
		}
		synctest.Wait() // nobody reads while there is none
		back()
		sleep(time.Hour)
		if bytes.Equal(h.served(t), served) || ca.count() != 2 || h.State().Condition != "" {
			t.Errorf("%d orders, state %+v; want it renewed", ca.count(), h.State())
		}
		stop()
	})
}
