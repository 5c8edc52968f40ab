package ntpdrstest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"ntsagent/agent/daemon/daemontest"
	"ntsagent/ntske/client"
	"ntsagent/ntske/cookie"
)

var format cookie.NTPDRS

// ring is what the key file holds; it is written in place, and may be half written.
func ring(t *testing.T, s *Server) (r *cookie.Ring) {
	t.Helper()
	waitFor(t, func() bool {
		b, err := s.ReadKeys()
		if err == nil {
			r, err = format.ParseKeys(b)
		}
		return err == nil
	})
	return r
}

func TestTheDaemonOpensWhatWeMintAndWeOpenWhatItMints(t *testing.T) {
	s := Start(t, Options{})
	r := ring(t, s)
	for _, alg := range format.AEADs() {
		t.Run(alg.String(), func(t *testing.T) {
			session, sealed := daemontest.Mint(t, format, r.Current(), alg)
			reply, err := daemontest.Query(s.Addr, session, sealed, 0)
			if err != nil || len(reply.Cookies) != 1 {
				t.Fatalf("with our cookie: %d cookies, %v", len(reply.Cookies), err)
			}
			if got, err := format.Open(nil, r, reply.Cookies[0]); err != nil || !same(got, session) {
				t.Errorf("its cookie for our session: %v", err)
			}
			session, cookies, err := daemontest.Exchange(s.KE, Name, s.Roots, alg)
			if err != nil || len(cookies) != 8 {
				t.Fatalf("key exchange: %d cookies, %v", len(cookies), err)
			}
			for _, c := range cookies {
				if got, err := format.Open(nil, r, c); err != nil || !same(got, session) || len(c) != len(sealed) {
					t.Errorf("its cookie of %d octets, ours has %d: %v", len(c), len(sealed), err)
				}
			}
		})
	}
	damaged := func() []byte { _, c := daemontest.Mint(t, format, r.Current(), 15); c[40] ^= 1; return c }()
	if _, err := daemontest.Query(s.Addr, cookie.Session{AEAD: 15, C2S: make([]byte, 32), S2C: make([]byte, 32)}, damaged, 0); !errors.Is(err, client.ErrNAK) {
		t.Errorf("to a damaged cookie: %v, not a NAK", err)
	}
}

func same(a, b cookie.Session) bool {
	return a.AEAD == b.AEAD && bytes.Equal(a.C2S, b.C2S) && bytes.Equal(a.S2C, b.S2C)
}

func TestIdsThatRunOverTheEndAreHonoured(t *testing.T) {
	first := Start(t, Options{RotateEvery: time.Second})
	var b []byte // as it was then: it may be ended in the middle of the next one
	waitFor(t, func() (whole bool) {
		var err error
		b, err = first.ReadKeys()
		return err == nil && len(b) > 20+2*64 && len(b) == 20+64*int(binary.BigEndian.Uint32(b[16:]))
	})
	first.Stop()
	binary.BigEndian.PutUint32(b[8:], 0xffffffff) // so the second key has the id 0
	s := Start(t, Options{KeyFile: b})
	r := ring(t, s)
	if r.Keys()[0].ID() != 0xffffffff || r.Keys()[1].ID() != 0 {
		t.Fatalf("ids %v", r.Keys())
	}
	for _, key := range r.Keys() {
		session, sealed := daemontest.Mint(t, format, key, 15)
		if _, err := daemontest.Query(s.Addr, session, sealed, 0); err != nil {
			t.Errorf("%v: %v", key, err)
		}
	}
}

func TestARotationAddsAKeyAndForgetsTheOldest(t *testing.T) {
	s := Start(t, Options{RotateEvery: time.Second, StaleKeys: 1})
	before := ring(t, s).Current()
	waitFor(t, func() bool {
		b, _ := s.ReadKeys()
		r, err := format.ParseKeys(b)
		return err == nil && r.Find(before.ID()) == nil
	})
	session, sealed := daemontest.Mint(t, format, before, 15)
	waitFor(t, func() bool { // the file comes first
		_, err := daemontest.Query(s.Addr, session, sealed, 0)
		return errors.Is(err, client.ErrNAK)
	})
}

func TestARestartKeepsTheKeysAndADenialAnswersNobody(t *testing.T) {
	s := Start(t, Options{})
	before := ring(t, s).Current()
	s.Restart()
	if after := ring(t, s).Current(); after.Fingerprint() != before.Fingerprint() {
		t.Errorf("%v became %v", before, after)
	}
	deaf := Start(t, Options{Deny: true})
	session, sealed := daemontest.Mint(t, format, ring(t, deaf).Current(), 15)
	if _, err := daemontest.QueryOnce(deaf.Addr, session, sealed, 0); !errors.Is(err, client.ErrSilent) {
		t.Errorf("a daemon that is to answer nobody: %v", err)
	}
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(time.Minute)
	for !ok() {
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatal("waited a minute in vain")
		}
	}
}
