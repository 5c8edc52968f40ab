package ntpsectest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"ntsagent/agent/daemon/daemontest"
	"ntsagent/ntske/aead"
	"ntsagent/ntske/client"
	"ntsagent/ntske/cookie"
	"ntsagent/packaging/parts"
)

var format cookie.NTPsec

func ring(t *testing.T, s *Server) *cookie.Ring {
	t.Helper()
	b, err := s.ReadKeys()
	if err != nil {
		t.Fatal(err)
	}
	r, err := format.ParseKeys(b)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// keyFile is one with keys of that length, filled with one octet each.
func keyFile(rotated int64, length int, fill ...byte) []byte {
	b := fmt.Appendf(nil, "T: %d\nL: %d\n", rotated, length)
	for i, f := range fill {
		b = fmt.Appendf(b, "I: %d\nK: %s\n", 4_000_000_000+i, strings.Repeat(fmt.Sprintf("%02x", f), length))
	}
	return b
}

func (s *Server) query(session cookie.Session, sealed []byte) (reply client.Reply, err error) {
	s.Do(func() { reply, err = daemontest.Query(Addr, session, sealed, 0) })
	return reply, err
}

func (s *Server) isSilent(session cookie.Session, sealed []byte) (err error) {
	s.Do(func() { _, err = daemontest.QueryOnce(Addr, session, sealed, 0) })
	if errors.Is(err, client.ErrSilent) {
		return nil
	}
	return fmt.Errorf("it is not silent: %v", err)
}

func TestNtpdOpensWhatWeMintAndWeOpenWhatItMints(t *testing.T) {
	for _, release := range []parts.Release{parts.Debian12, parts.Debian13} {
		for _, length := range []int{32, 48, 64} {
			t.Run(fmt.Sprintf("NTPsec %s with keys of %d octets", release.NTPsec, length), func(t *testing.T) {
				s := Start(t, Options{Release: release, KeyFile: keyFile(0, length, 7, 8, 9)})
				r := ring(t, s)
				for _, alg := range format.AEADs() {
					bothWays(t, s, r, alg)
				}
			})
		}
	}
}

func bothWays(t *testing.T, s *Server, r *cookie.Ring, alg aead.ID) {
	for _, key := range r.Keys() {
		session, sealed := daemontest.Mint(t, format, key, alg)
		reply, err := s.query(session, sealed)
		if err != nil || len(reply.Cookies) != 1 {
			t.Fatalf("%v with our cookie under %v: %d cookies, %v", alg, key, len(reply.Cookies), err)
		}
		if got, err := format.Open(nil, r, reply.Cookies[0]); err != nil || !same(got, session) || len(reply.Cookies[0]) != len(sealed) {
			t.Errorf("%v, its cookie for our session: %v", alg, err)
		}
	}
	var session cookie.Session
	var cookies [][]byte
	var err error
	s.Do(func() { session, cookies, err = daemontest.Exchange(KE, Name, s.Roots, alg) })
	if err != nil || len(cookies) != 8 {
		t.Fatalf("%v key exchange: %d cookies, %v", alg, len(cookies), err)
	}
	for _, c := range cookies {
		if got, err := format.Open(nil, r, c); err != nil || !same(got, session) {
			t.Errorf("%v, its cookie of %d octets: %v", alg, len(c), err)
		}
	}
}

func same(a, b cookie.Session) bool {
	return a.AEAD == b.AEAD && bytes.Equal(a.C2S, b.C2S) && bytes.Equal(a.S2C, b.S2C)
}

func TestNtpdIsSilentToABadCookieAndWithoutNTS(t *testing.T) {
	s := Start(t, Options{})
	session, sealed := daemontest.Mint(t, format, ring(t, s).Current(), 15)
	sealed[40] ^= 1
	if err := s.isSilent(session, sealed); err != nil {
		t.Errorf("to a damaged cookie: %v", err)
	}
	sealed[40] ^= 1
	if _, err := s.query(session, sealed); err != nil {
		t.Errorf("to the same cookie, whole: %v", err)
	}
	s.Reconfigure(Options{NoNTS: true})
	if err := s.isSilent(session, sealed); err != nil {
		t.Errorf("without NTS: %v", err)
	}
}

func TestNtpdRotatesByItselfAndWritesANewFile(t *testing.T) {
	for _, release := range []parts.Release{parts.Debian12, parts.Debian13} {
		t.Run("NTPsec "+release.NTPsec, func(t *testing.T) {
			s := Start(t, Options{Release: release, KeyFile: keyFile(1_700_000_000, 32, 7)})
			before := ring(t, s)
			s.Rotate()
			after := ring(t, s)
			keys := after.Keys()
			if len(keys) != 2 || keys[0].Fingerprint() != before.Current().Fingerprint() || after.Current() != keys[1] {
				t.Fatalf("%v became %v", before, after)
			}
			for _, key := range keys {
				session, sealed := daemontest.Mint(t, format, key, 15)
				if _, err := s.query(session, sealed); err != nil {
					t.Errorf("under %v: %v", key, err)
				}
			}
		})
	}
}

// What ntpd reads past its keys does not count: see cookie.NTPsec.ParseKeys.
func TestNtpdPassesOverWhatAnOlderOneLeftBehind(t *testing.T) {
	s := Start(t, Options{KeyFile: append(keyFile(0, 32, 7, 8), "0808f\n"...)})
	for _, key := range ring(t, s).Keys() {
		session, sealed := daemontest.Mint(t, format, key, 15)
		if _, err := s.query(session, sealed); err != nil {
			t.Errorf("under %v: %v", key, err)
		}
	}
}

func TestNtpdRunsAsAnotherUser(t *testing.T) {
	s := Start(t, Options{User: "nobody"})
	info, err := os.Stat(s.KeysFile)
	if err != nil {
		t.Fatal(err)
	}
	if uid := info.Sys().(*syscall.Stat_t).Uid; uid == 0 || info.Mode() != 0o600 {
		t.Errorf("its key file is user %d's, with mode %v", uid, info.Mode())
	}
	session, sealed := daemontest.Mint(t, format, ring(t, s).Current(), 15)
	if _, err := s.query(session, sealed); err != nil {
		t.Error(err)
	}
}
