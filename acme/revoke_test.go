package acme

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ntsagent/acme/store"
)

// serial is that of the certificate in use, as Revoke wants it.
func (h *house) serial() string { return h.live.Leaf(h.name).SerialNumber.Text(16) }

func TestRevocationBringsANewCertificateWithANewKeyAtOnce(t *testing.T) {
	for _, reason := range []Reason{Unspecified, KeyCompromise, Superseded} {
		t.Run(reason.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t, newFakeCA(t), "")
				stop := h.run(t)
				synctest.Wait()
				old := h.live.Leaf(h.name)
				served := h.served(t)
				h.ca.revoke = func(leaf *x509.Certificate, got Reason) error {
					if got != reason || !leaf.Equal(old) || !bytes.Equal(h.served(t), served) {
						t.Errorf("revoked %s for %s", leaf.SerialNumber, got)
					}
					return nil
				}
				replacement, err := h.Revoke(t.Context(), h.serial(), reason)
				if err != nil || replacement != nil || h.ca.count() != 2 || sameKey(old.PublicKey, h.live.Leaf(h.name).PublicKey) {
					t.Errorf("%v, replacement %v, %d orders; want another certificate with another key", err, replacement, h.ca.count())
				}
				if !slices.ContainsFunc(h.events, func(e Event) bool { return e.Kind == Revoked }) {
					t.Errorf("events %v tell of no revocation", h.events)
				}
				s := h.State()
				if s.Revoked != "" || s.RenewAt.IsZero() {
					t.Errorf("state %+v, want that of a certificate in force", s)
				}
				stop()
			})
		})
	}
}

// The CA revokes, and then has no certificate to give for half a day. The agent is restarted meanwhile.
func TestARevokedCertificateServesUntilItsSuccessorIsThereAndNeverAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newFakeCA(t)
		h := newHouse(t, ca, "")
		stop := h.run(t)
		synctest.Wait()
		revoked := h.served(t)
		ca.set(fails(errDown))
		replacement, err := h.Revoke(t.Context(), h.serial(), KeyCompromise)
		var failed *Error
		if err != nil || !errors.As(replacement, &failed) || failed.Class != ClassConnection {
			t.Fatalf("%v, replacement %v; want it revoked and the failure of the order", err, replacement)
		}
		if s := h.State(); s.Revoked != "keyCompromise" || !s.RenewAt.IsZero() || s.NextAttempt.IsZero() || !bytes.Equal(h.served(t), revoked) {
			t.Errorf("state %+v; want it to serve, and the next attempt", s)
		}
		stop()

		h = newHouse(t, ca, h.dir)
		stop = h.run(t)
		synctest.Wait()
		if !bytes.Equal(h.served(t), revoked) || h.State().Revoked == "" {
			t.Error("a restart has changed what serves")
		}
		sleep(12 * time.Hour)
		ca.set(nil)
		sleep(7 * time.Hour) // as late as can be, so that six hours are the longest wait
		good := h.served(t)
		if bytes.Equal(good, revoked) || h.State().Revoked != "" {
			t.Fatal("there is no successor yet")
		}
		orders := ca.count()
		stop()

		// The successor is damaged. What was revoked would be the last resort, but a compromised key is none.
		pairs, err := h.store.Pairs(h.name)
		if err != nil || len(pairs) != 2 {
			t.Fatalf("%d pairs, %v", len(pairs), err)
		}
		if err := h.store.Import(h.name, pairs[1].Chain, pairs[1].Key); err != nil { // behind the agent's back
			t.Fatal(err)
		}
		if err := h.store.Import(h.name, ca.sign("bob.example", publicOf(t, pairs[0].Key), time.Now(), time.Now().Add(day)), pairs[0].Key); err != nil {
			t.Fatal(err)
		}
		ca.set(fails(errDown))
		h = newHouse(t, ca, h.dir)
		stop = h.run(t)
		synctest.Wait()
		if !bytes.Equal(h.served(t), good) || ca.count() != orders {
			t.Errorf("served is %x, want the one before the damage", h.served(t))
		}
		stop()
	})
}

func TestAfterTheEndOfOperationNothingIsServedNorOrderedUntilItIsForced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newFakeCA(t)
		ca.life = 90 * day // so that all of them could serve for long
		h := newHouse(t, ca, "")
		stop := h.run(t)
		synctest.Wait()
		if err := h.Renew(t.Context(), true); err != nil { // so that there is an older one
			t.Fatal(err)
		}
		if replacement, err := h.Revoke(t.Context(), h.serial(), CessationOfOperation); err != nil || replacement != nil {
			t.Fatalf("%v, %v", err, replacement)
		}
		for range 2 {
			sleep(10 * day)
			if h.served(t) != nil || ca.count() != 2 || h.State().Condition != NameCeased || !strings.Contains(h.State().Why, "--force") {
				t.Fatalf("%d orders, served %v, state %+v; want nothing", ca.count(), h.served(t) != nil, h.State())
			}
			if r := wished(t, h.Manager, false); !strings.Contains(r.Hint, "--force") {
				t.Errorf("refused with %+v", r)
			}
			stop()
			h = newHouse(t, ca, h.dir)
			stop = h.run(t)
		}
		ca.set(fails(errDown))
		synctest.Wait()
		var failed *Error
		if err := h.Renew(t.Context(), true); !errors.As(err, &failed) {
			t.Errorf("the CA is down, and the answer is %v", err)
		}
		ca.set(nil)
		sleep(7 * time.Hour)
		if h.served(t) == nil || h.State().Condition != "" {
			t.Errorf("state %+v; want it to go on by itself once it was forced", h.State())
		}
		stop()
	})
}

func TestWhatIsNotRevokedChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, newFakeCA(t), "")
		if _, err := h.leftKey(); err != nil {
			t.Fatal(err)
		}
		stop := h.run(t)
		synctest.Wait()
		served := h.served(t)
		if _, err := h.Revoke(t.Context(), "bad", Unspecified); !errors.Is(err, ErrOther) || !strings.Contains(err.Error(), h.serial()) {
			t.Errorf("of another serial number: %v", err)
		}
		h.ca.revoke = func(*x509.Certificate, Reason) error {
			return &Error{Class: ClassMalformed, Declined: true, Err: errors.New("not for this reason")}
		}
		for _, reason := range []Reason{CessationOfOperation, KeyCompromise} {
			if _, err := h.Revoke(t.Context(), h.serial(), reason); err == nil || errors.Is(err, ErrUnfinished) {
				t.Errorf("a CA that declines: %v", err)
			}
		}
		sleep(day)
		if s := h.State(); s.Revoked != "" || s.Condition != "" || h.ca.count() != 1 || !bytes.Equal(h.served(t), served) || len(h.renewal.Revoked) != 0 {
			t.Errorf("%d orders, state %+v", h.ca.count(), s)
		}
		stop()
		if _, err := h.Revoke(t.Context(), h.serial(), Unspecified); !errors.Is(err, ErrStopped) {
			t.Errorf("one that has stopped answers %v", err)
		}

		h = newHouse(t, h.ca, h.dir)
		h.cfg.Directory = "https://another.example/directory"
		h.ca.revoke = func(*x509.Certificate, Reason) error { t.Error("the wrong CA was asked"); return nil }
		stop = h.run(t)
		synctest.Wait()
		var e *Error
		if _, err := h.Revoke(t.Context(), h.serial(), Unspecified); !errors.As(err, &e) || !strings.Contains(e.Error(), simulated) {
			t.Errorf("another CA's certificate: %v, want to be told whose it is", err)
		}
		stop()
	})
}

func TestAfterACompromiseNoKeyThatExistedIsUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, newFakeCA(t), "")
		stop := h.run(t)
		synctest.Wait()
		compromised := h.live.Leaf(h.name).PublicKey
		left, err := h.leftKey() // by an order that was cut short
		if err != nil {
			t.Fatal(err)
		}
		requested, err := h.store.RequestKey(h.name, store.P256)
		if err != nil {
			t.Fatal(err)
		}
		if replacement, err := h.Revoke(t.Context(), h.serial(), KeyCompromise); err != nil || replacement != nil {
			t.Fatalf("%v, %v", err, replacement)
		}
		if now := h.live.Leaf(h.name).PublicKey; sameKey(now, compromised) || sameKey(now, left.Public()) {
			t.Error("the new certificate has a key that existed")
		}
		served := h.served(t)
		chain := h.ca.sign(h.name.String(), requested.Public(), time.Now(), time.Now().Add(day))
		if err := h.Import(t.Context(), chain); err == nil || !strings.Contains(err.Error(), "cert csr") {
			t.Errorf("a chain for the request of before: %v", err)
		}
		// Even where somebody puts the key back.
		pairs, err := h.store.Pairs(h.name)
		if err != nil || len(pairs) != 2 {
			t.Fatalf("%d pairs, %v", len(pairs), err)
		}
		if err := h.store.Import(h.name, pairs[1].Chain, pairs[1].Key); err != nil {
			t.Fatal(err)
		}
		chain = h.ca.sign(h.name.String(), compromised, time.Now(), time.Now().Add(day))
		if err := h.Import(t.Context(), chain); err == nil || !strings.Contains(err.Error(), "keyCompromise") {
			t.Errorf("a new certificate for the compromised key: %v", err)
		}
		if !bytes.Equal(h.served(t), served) {
			t.Error("it serves something else")
		}
		stop()
	})
}

// leftKey is the key of an order that is under way.
func (h *house) leftKey() (*ecdsa.PrivateKey, error) {
	key, err := h.store.PendingKey(h.name, store.P256)
	if err != nil {
		return nil, err
	}
	return key.(*ecdsa.PrivateKey), nil
}

// publicOf is the public key of a PEM key.
func publicOf(t *testing.T, keyPEM []byte) crypto.PublicKey {
	t.Helper()
	block, _ := pem.Decode(keyPEM)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return key.(*ecdsa.PrivateKey).Public()
}

func TestTheCAThatMadeACertificateRevokesItAndEitherMayReplaceIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := newFakeCA(t), newFakeCA(t)
		first.set(fails(errGone))
		h := twoHouses(t, first, second, "")
		stop := h.run(t)
		sleep(time.Hour)
		if !h.State().Fallback || second.count() != 1 {
			t.Fatalf("%d orders at the fallback, %+v", second.count(), h.State())
		}
		old := h.served(t)
		replacement, err := h.Revoke(t.Context(), h.serial(), KeyCompromise)
		if err != nil || replacement == nil || len(first.revoked) != 0 || len(second.revoked) != 1 || !bytes.Equal(h.served(t), old) {
			t.Fatalf("%v, replacement %v, revoked %v and %v; want it revoked by the fallback", err, replacement, first.revoked, second.revoked)
		}
		stop()
		h = twoHouses(t, first, second, h.dir)
		stop = h.run(t)
		sleep(7 * time.Hour)
		stop()
		if s := h.State(); second.count() != 2 || !s.Fallback || s.Revoked != "" || bytes.Equal(h.served(t), old) {
			t.Errorf("%d orders at the fallback, %+v; want its successor from there", second.count(), s)
		}
		if r, err := h.store.Renewal(h.name); err != nil || len(r.Revoked) != 1 || r.Revoked[0].Key == "" {
			t.Errorf("remembered of it: %+v, %v", r.Revoked, err)
		}
	})
}
