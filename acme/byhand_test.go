package acme

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// requested is the request that the Manager makes.
func requested(t *testing.T, h *house) *x509.CertificateRequest {
	t.Helper()
	b, err := h.Request()
	if err != nil {
		t.Fatal(err)
	}
	block, rest := pem.Decode(b)
	if block == nil || block.Type != "CERTIFICATE REQUEST" || len(rest) > 0 || bytes.Contains(b, []byte("PRIVATE")) {
		t.Fatalf("the request is %q", b)
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if err := csr.CheckSignature(); err != nil || len(csr.DNSNames) != 1 || csr.DNSNames[0] != h.name.String() || csr.Subject.CommonName != "" {
		t.Errorf("%v: the request is for %q", err, csr.DNSNames)
	}
	return csr
}

func TestAnImportedCertificateServesAtOnceAndIsRenewedByAnOrderWhenItIsDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newFakeCA(t)
		h := newHouse(t, ca, "")
		stop := h.run(t)
		synctest.Wait()
		ordered := h.served(t)
		csr := requested(t, h)
		if again := requested(t, h); !sameKey(again.PublicKey, csr.PublicKey) {
			t.Error("a second request is for another key: the first would be in vain")
		}
		if err := h.Renew(t.Context(), true); err != nil { // which must not take the request's key
			t.Fatal(err)
		}
		chain := ca.sign(h.name.String(), csr.PublicKey, time.Now(), time.Now().Add(60*day))
		if err := h.Import(t.Context(), chain); err != nil {
			t.Fatal(err)
		}
		imported := h.served(t)
		if block, _ := pem.Decode(chain); !bytes.Equal(imported, block.Bytes) || bytes.Equal(imported, ordered) {
			t.Error("something else is served")
		}
		if s := h.State(); !s.Imported {
			t.Errorf("state %+v does not tell that it was imported", s)
		}
		if h.events[len(h.events)-1].Kind != Imported {
			t.Errorf("the last event is %v", h.events[len(h.events)-1])
		}
		if err := h.Import(t.Context(), chain); !errors.Is(err, ErrInUse) {
			t.Errorf("imported again: %v", err)
		}
		h.ca.revoke = func(*x509.Certificate, Reason) error {
			t.Error("a CA is asked to revoke what it has not made")
			return nil
		}
		if _, err := h.Revoke(t.Context(), h.serial(), KeyCompromise); err == nil || !strings.Contains(asError(err).Hint, "revoke it where it was made") || !bytes.Equal(h.served(t), imported) {
			t.Errorf("revoked: %v", err)
		}
		questions := ca.questions()
		sleep(time.Hour)
		stop()
		h = newHouse(t, ca, h.dir)
		stop = h.run(t)
		sleep(39 * day)
		if !bytes.Equal(h.served(t), imported) || !h.State().Imported || ca.count() != 2 || ca.questions() != questions {
			t.Errorf("%d orders, %d questions more to a CA that has not made it", ca.count(), ca.questions()-questions)
		}
		ca.set(func(_ context.Context, o Order) ([]byte, error) {
			if o.Replaces != nil {
				t.Error("the CA is told that its certificate replaces one of another")
			}
			return ca.sign(o.Name.String(), o.CSR.PublicKey, time.Now(), time.Now().Add(9*day)), nil
		})
		sleep(2 * day) // two thirds of its life are over
		stop()
		if bytes.Equal(h.served(t), imported) || h.State().Imported || ca.count() != 3 {
			t.Errorf("%d orders; want it renewed by one", ca.count())
		}
		if key := requested(t, h).PublicKey; sameKey(key, csr.PublicKey) {
			t.Error("the next request is for a key that was used")
		}
	})
}

func TestWhatIsImportedIsLookedAtAsIfACAHadSentIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newFakeCA(t)
		h := newHouse(t, ca, "")
		stop := h.run(t)
		synctest.Wait()
		served, key, now := h.served(t), requested(t, h).PublicKey, time.Now()
		kept, err := h.store.Pairs(h.name)
		if err != nil {
			t.Fatal(err)
		}
		name := h.name.String()
		good := ca.sign(name, key, now, now.Add(day))
		other := newFakeCA(t)
		for _, c := range []struct {
			name, says string
			chain      []byte
		}{
			{"nothing", "no certificate", nil},
			{"no PEM", "no certificate", []byte("chain of command")},
			{"a key instead", "no certificate", []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")},
			{"a certificate for another key", "cert csr", ca.sign(name, strangerKey(t), now, now.Add(day))},
			{"one for another name", "bob.example", ca.sign("bob.example", key, now, now.Add(day))},
			{"one that is over", "expired", ca.sign(name, key, now.Add(-2*day), now.Add(-day))},
			{"one of the future", "not valid before", ca.sign(name, key, now.Add(day), now.Add(2*day))},
			{"one with another's intermediate", "not", append(bytes.Clone(good), other.sign("x.example", other.key.Public(), now, now.Add(day))...)},
			{"one with text around it", "PEM", append([]byte("subject=alice\n"), good...)},
			{"one without its intermediate", "intermediate certificate is missing", other.sign(name, key, now, now.Add(day))},
			{"one without its intermediate by a clock that is ahead", "intermediate certificate is missing", other.sign(name, key, now.Add(time.Minute), now.Add(day))},
			{"one that is too large", "", append(bytes.Clone(good), bytes.Repeat([]byte("\n"), 2<<20)...)},
		} {
			if err := h.Import(t.Context(), c.chain); err == nil || !strings.Contains(err.Error(), c.says) || strings.ContainsAny(err.Error(), "\n") {
				t.Errorf("%s: %v, want one line with %q", c.name, err, c.says)
			}
			if !bytes.Equal(h.served(t), served) {
				t.Fatalf("%s: what serves has changed", c.name)
			}
		}
		if pairs, err := h.store.Pairs(h.name); err != nil || !reflect.DeepEqual(pairs, kept) || ca.count() != 1 {
			t.Errorf("%d orders, %d pairs in the store, %v", ca.count(), len(pairs), err)
		}
		if err := h.Import(t.Context(), good); err != nil {
			t.Errorf("after all that the good one: %v", err)
		}
		root := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: other.cert.Raw})
		if err := h.Import(t.Context(), append(other.sign(name, key, now, now.Add(day)), root...)); err != nil {
			t.Errorf("one with its issuer, whom nobody here knows: %v", err)
		}
		stop()
	})
}

// A name that the CA does not serve is helped by hand, and what the CA has counted is not forgotten by it.
func TestAnImportEndsARowOfFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, newFakeCA(t), "")
		h.ca.set(fails(&Error{Class: ClassUnauth, Validations: 1, Err: errors.New("404")}))
		stop := h.run(t)
		synctest.Wait()
		if s := h.State(); s.Failures != 1 {
			t.Fatalf("state %+v", s)
		}
		chain := h.ca.sign(h.name.String(), requested(t, h).PublicKey, time.Now(), time.Now().Add(60*day))
		if err := h.Import(t.Context(), chain); err != nil {
			t.Fatal(err)
		}
		sleep(time.Hour)
		stop()
		if s := h.State(); s.Failures != 0 || s.LastError != "" || h.ca.count() != 1 {
			t.Errorf("%d orders, state %+v; want none that waits", h.ca.count(), s)
		}
		if r, err := h.store.Renewal(h.name); err != nil || len(r.Validations) != 1 {
			t.Errorf("%d validations noted, %v; want the one that failed", len(r.Validations), err)
		}
	})
}

// TestWhatNoCAMakesBeforeTheEndIsToldAsSuch imports certificates into the week in which orders have used up the CA's.
func TestWhatNoCAMakesBeforeTheEndIsToldAsSuch(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		orders   int
		life     time.Duration
		fallback bool
		renews   time.Duration // after the import
		force    string        // what --force would come to
	}{
		{"five orders are all there are, and the certificate is over before the next", 5, day, false, week + budgetSlack, "--force orders none before 2000-01-08T00:02Z: "},
		{"it is over after the next, which is late all the same", 5, 8 * day, false, week + budgetSlack, "--force orders none before 2000-01-08T00:02Z: "},
		{"a long one is renewed as ever", 5, 20 * day, false, 320 * time.Hour, "--force orders none before 2000-01-08T00:02Z: "},
		{"four orders leave one for when little is left", 4, day, false, 19*time.Hour + 12*time.Minute, "--force orders now"},
		{"three leave one for when it is due", 3, day, false, 12 * time.Hour, "--force orders now"},
		{"the fallback has all of its own", 5, day, true, 15 * time.Hour, "--force orders none before 2000-01-08T00:02Z: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca := newFakeCA(t)
				ca.life = tt.life - time.Minute // none that was ordered is to outlive the one that is imported
				h := newHouse(t, ca, "")
				if tt.fallback {
					h = twoHouses(t, ca, newFakeCA(t), "")
				}
				stop := h.run(t)
				synctest.Wait()
				for range tt.orders - 1 {
					if err := h.Renew(t.Context(), true); err != nil {
						t.Fatal(err)
					}
				}
				began := time.Now()
				chain := ca.sign(h.name.String(), requested(t, h).PublicKey, began, began.Add(tt.life))
				if err := h.Import(t.Context(), chain); err != nil {
					t.Fatal(err)
				}
				if s := h.State(); s.RenewAt.Sub(began) != tt.renews || s.RenewWhy == "" || s.Condition == "" && tt.orders > 3 && tt.life < 20*day {
					t.Errorf("%+v: renews in %v, want %v", s, s.RenewAt.Sub(began), tt.renews)
				}
				if r := wished(t, h.Manager, false); !r.Early || !strings.HasPrefix(r.Hint, tt.force) {
					t.Errorf("a wish comes to %+v, want it to say %q", r, tt.force)
				}
				sleep(tt.renews - time.Minute)
				if ca.count() != tt.orders || h.State().Fallback {
					t.Errorf("%d orders, %+v; want none before it was told to come", ca.count(), h.State())
				}
				sleep(2 * time.Minute)
				if renewed := h.State().LastSuccess; renewed.Before(began.Add(tt.renews)) {
					t.Errorf("renewed at %v, want %v", renewed, began.Add(tt.renews))
				}
				stop()
			})
		})
	}
}

func TestALimitThatOutlivesTheCertificateIsToldAsSuch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ca := newFakeCA(t) // whose certificates live for nine days
		h := newHouse(t, ca, "")
		stop := h.run(t)
		sleep(4 * day)
		until := time.Now().Add(6 * day)
		ca.set(fails(&Error{Class: ClassLimit, Domain: "pool.example", Until: until, RetryAfter: 6 * day, Err: errors.New("429")}))
		sleep(day)
		if s := h.State(); s.Condition != LimitReached || !s.RenewAt.Equal(until) || !s.RenewAt.After(s.NotAfter) || !s.NextAttempt.Before(s.NotAfter) {
			t.Errorf("%+v: want the certificate to be renewed at %v, after its end", s, until)
		}
		stop()
	})
}
