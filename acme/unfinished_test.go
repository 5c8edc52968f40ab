package acme

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"ntsagent/acme/store"
)

var errLost = &Error{Class: ClassNetwork, Err: errors.New("connection reset")}

// The CA revokes and its answer is lost, or the agent dies before it comes.
func TestARevocationWhoseAnswerIsLostIsAskedAgainUntilTheCAAnswers(t *testing.T) {
	for _, reason := range []Reason{Superseded, KeyCompromise, CessationOfOperation} {
		t.Run(reason.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t, newFakeCA(t), "")
				h.ca.life = 90 * day
				stop := h.run(t)
				synctest.Wait()
				crashed := filepath.Join(t.TempDir(), "acme")
				old := h.live.Leaf(h.name)
				var asked atomic.Int32
				var answers atomic.Bool
				h.ca.revoke = func(leaf *x509.Certificate, got Reason) error {
					if asked.Add(1); !leaf.Equal(old) || got != reason {
						t.Errorf("asked to revoke %s for %s", leaf.SerialNumber, got)
					}
					if answers.Load() {
						return nil
					}
					if asked.Load() == 1 {
						if err := os.CopyFS(crashed, os.DirFS(h.dir)); err != nil { // what a SIGKILL now would leave
							t.Error(err)
						}
					}
					return errLost
				}
				finished := func(h *house) bool {
					if reason == CessationOfOperation {
						return h.live.Leaf(h.name) == nil && h.State().Condition == NameCeased
					}
					return !h.live.Leaf(h.name).Equal(old) && h.State().Revoked == ""
				}
				_, err := h.Revoke(t.Context(), h.serial(), reason)
				if !errors.Is(err, ErrUnfinished) || !strings.Contains(err.Error(), "not known whether") {
					t.Errorf("told %v", err)
				}
				synctest.Wait()
				if s := h.State(); h.live.Leaf(h.name).Equal(old) && !strings.Contains(s.Revoked, "not known whether") {
					t.Errorf("state %+v", s)
				}
				orders := h.ca.count()
				sleep(2 * day)
				if reason == CessationOfOperation && (h.ca.count() != orders || h.live.Leaf(h.name) == nil) {
					t.Errorf("%d orders more for what is to end, served %v; want it to serve until the CA answers", h.ca.count()-orders, h.live.Leaf(h.name) != nil)
				}
				if n := asked.Load(); n < 20 || n > 70 {
					t.Errorf("asked %d times in two days", n)
				}
				answers.Store(true)
				sleep(time.Hour + time.Minute)
				if n := asked.Load(); !finished(h) {
					t.Errorf("asked %d times, state %+v; want it done", n, h.State())
				}
				n := asked.Load()
				sleep(day)
				if asked.Load() != n || len(h.renewal.Revoked) != 1 || h.renewal.Revoked[0].Open {
					t.Errorf("asked %d times more, remembered %+v", asked.Load()-n, h.renewal.Revoked)
				}
				stop()

				h = newHouse(t, h.ca, crashed)
				stop = h.run(t)
				synctest.Wait()
				if asked.Load() != n+1 || !finished(h) {
					t.Errorf("after the crash: asked %d times, state %+v; want it done at once", asked.Load()-n, h.State())
				}
				stop()
			})
		})
	}
}

func TestNoCAIsAskedForARevocationThatCouldNotBeStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, newFakeCA(t), "")
		stop := h.run(t)
		synctest.Wait()
		back := h.unreadable(t) // nor written
		h.ca.revoke = func(*x509.Certificate, Reason) error { t.Error("the CA was asked"); return nil }
		if _, err := h.Revoke(t.Context(), h.serial(), CessationOfOperation); err == nil || errors.Is(err, ErrUnfinished) {
			t.Errorf("told %v", err)
		}
		synctest.Wait()
		back()
		sleep(time.Hour)
		if s := h.State(); s.Revoked != "" || s.Condition != "" || h.served(t) == nil {
			t.Errorf("state %+v", s)
		}
		stop()
	})
}

func TestARevocationWhoseEndCouldNotBeStoredHoldsAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, newFakeCA(t), "")
		stop := h.run(t)
		synctest.Wait()
		var back func()
		h.ca.revoke = func(*x509.Certificate, Reason) error { back = h.unreadable(t); return nil }
		if _, err := h.Revoke(t.Context(), h.serial(), CessationOfOperation); err != nil || h.live.Leaf(h.name) != nil {
			t.Errorf("%v, served %v", err, h.live.Leaf(h.name) != nil)
		}
		stop()
		back()
		h.ca.revoke = nil // it was revoked already
		h = newHouse(t, h.ca, h.dir)
		stop = h.run(t)
		synctest.Wait()
		if s := h.State(); h.live.Leaf(h.name) != nil || s.Condition != NameCeased || h.ca.count() != 1 {
			t.Errorf("%d orders, state %+v", h.ca.count(), s)
		}
		stop()
	})
}

func TestAForcedOrderWhileTheEndIsNotAnsweredKeepsTheName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, newFakeCA(t), "")
		h.ca.life = 90 * day
		stop := h.run(t)
		synctest.Wait()
		old := h.live.Leaf(h.name)
		var answers atomic.Bool
		h.ca.revoke = func(*x509.Certificate, Reason) error {
			if answers.Load() {
				return nil
			}
			return errLost
		}
		if _, err := h.Revoke(t.Context(), h.serial(), CessationOfOperation); !errors.Is(err, ErrUnfinished) {
			t.Error(err)
		}
		if r := wished(t, h.Manager, false); !strings.Contains(r.Why, "operation has ended") {
			t.Errorf("refused with %+v", r)
		}
		if err := h.Renew(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		answers.Store(true)
		sleep(2 * time.Hour)
		if l := h.live.Leaf(h.name); l == nil || l.Equal(old) || h.State().Condition != "" || len(h.ca.revoked) != 1 {
			t.Errorf("revoked %v, state %+v; want the old one revoked and the new one in service", h.ca.revoked, h.State())
		}
		stop()
	})
}

func TestWhatWasReplacedOrCeasedDoesNotComeBackWhenTheSuccessorIsUnreadable(t *testing.T) {
	t.Run("the key of the one before is known", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := newHouse(t, newFakeCA(t), "")
			stop := h.run(t)
			synctest.Wait()
			compromised := h.served(t)
			if r, err := h.Revoke(t.Context(), h.serial(), KeyCompromise); r != nil || err != nil {
				t.Fatal(r, err)
			}
			stop()
			link, err := os.Readlink(filepath.Join(filepath.Dir(h.renewalFile()), "current"))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(filepath.Dir(h.renewalFile()), link, "fullchain.pem"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			h.ca.set(fails(errDown))
			h = newHouse(t, h.ca, h.dir)
			stop = h.run(t)
			synctest.Wait()
			if bytes.Equal(h.served(t), compromised) {
				t.Error("the compromised key serves again")
			}
			stop()
		})
	})
	t.Run("operation has ended, and the order that was forced since fails", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := newHouse(t, newFakeCA(t), "")
			stop := h.run(t)
			synctest.Wait()
			if _, err := h.Revoke(t.Context(), h.serial(), CessationOfOperation); err != nil {
				t.Fatal(err)
			}
			h.ca.set(fails(errDown))
			if err := h.Renew(t.Context(), true); err == nil {
				t.Error("the CA is down")
			}
			stop()
			h = newHouse(t, h.ca, h.dir)
			stop = h.run(t)
			synctest.Wait()
			if h.live.Leaf(h.name) != nil {
				t.Error("what was withdrawn serves again")
			}
			h.ca.set(nil)
			sleep(7 * time.Hour)
			if h.served(t) == nil {
				t.Error("orders do not go on")
			}
			stop()
		})
	})
}

func TestARequestOutlivesARevocationUntilTheCAHasAnswered(t *testing.T) {
	for _, answers := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			h := newHouse(t, newFakeCA(t), "")
			stop := h.run(t)
			synctest.Wait()
			csr := requested(t, h)
			h.ca.revoke = func(*x509.Certificate, Reason) error {
				if answers {
					return nil
				}
				return errLost
			}
			if _, err := h.Revoke(t.Context(), h.serial(), KeyCompromise); errors.Is(err, ErrUnfinished) == answers {
				t.Errorf("told %v", err)
			}
			chain := h.ca.sign(h.name.String(), csr.PublicKey, time.Now(), time.Now().Add(90*day))
			err := h.Import(t.Context(), chain)
			block, _ := pem.Decode(chain)
			if imported := bytes.Equal(h.served(t), block.Bytes); imported == answers || err == nil == answers {
				t.Errorf("the CA has answered: %v; imported: %v, %v", answers, imported, err)
			}
			stop()
		})
	}
}

func TestKnownKeysAreRememberedBeforeOtherRevocations(t *testing.T) {
	var list []store.Revocation
	for n := range 10 * maxRevoked {
		v := store.Revocation{Certificate: string(rune('a' + n))}
		if n == 3 {
			v.Key = "known"
		}
		list = remembered(list, v)
	}
	if len(list) != maxRevoked || !slices.ContainsFunc(list, func(v store.Revocation) bool { return v.Key != "" }) {
		t.Errorf("%d remembered, the known key not among them", len(list))
	}
}
