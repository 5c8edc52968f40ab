package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"ntsagent/agent/daemon/daemontest"
	"ntsagent/agent/daemon/ntpdrstest"
	"ntsagent/agent/daemon/ntpsectest"
	"ntsagent/agent/status"
	"ntsagent/ntske/aead"
	debian "ntsagent/packaging/parts"
)

// owner is a daemon that owns its keys, as the tests of following need it.
type owner interface {
	ReadKeys() ([]byte, error)
	WriteKeys([]byte)
	Remove()
	Restart()
	Stop()
	Freeze() (thaw func())
}

// following is an agent that runs in this process beside a real daemon whose
// keys it follows.
type following struct {
	*member
	owner
	daemon string // lines of YAML
}

func followNTPDRS(t *testing.T, o ntpdrstest.Options) *following {
	s := ntpdrstest.Start(t, o)
	return newFollowing(t, s, fmt.Sprintf("daemon: {kind: ntpd-rs, address: %q, ntpd_rs: {keys_file: %s}}\n", s.Addr, s.KeysFile))
}

// followNTPsec follows the ntpd of that release, which is in a network of its
// own, through a relay. Its keys are a day old, and this host is free of its rate
// limit, as Debian has it.
func followNTPsec(t *testing.T, release debian.Release) (*following, *ntpsectest.Server) {
	keys := fmt.Sprintf("T: 1700000000\nL: 32\nI: 17\nK: %s\n", strings.Repeat("5c", 32))
	s := ntpsectest.Start(t, ntpsectest.Options{Release: release, KeyFile: []byte(keys), ExtraConf: []string{"restrict 127.0.0.1"}})
	return newFollowing(t, s, fmt.Sprintf("daemon: {kind: ntpsec, address: %q, ntpsec: {keys_file: %s}}\n", relay(t, localhost, s.Network, ntpsectest.Addr), s.KeysFile)), s
}

func newFollowing(t *testing.T, s owner, daemon string) *following {
	t.Helper()
	f := laidOut(t, s, daemon)
	f.start()
	return f
}

// laidOut is newFollowing before the agent is started.
func laidOut(t *testing.T, s owner, daemon string) *following {
	t.Helper()
	dir, err := os.MkdirTemp("", "follow") // the names of sockets are limited to 107 octets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	f := &following{owner: s, daemon: daemon, member: &member{
		t: t, ca: newAuthority(t), dir: dir, state: filepath.Join(dir, "state"),
		cert: filepath.Join(dir, "fullchain.pem"), key: filepath.Join(dir, "privkey.pem"),
		conf: filepath.Join(dir, "ntsagent.yaml"), socket: filepath.Join(dir, "control.sock"), ended: make(chan error, 1),
	}}
	cert, key, _ := f.ca.issue(time.Hour)
	f.write(f.key, key)
	f.write(f.cert, cert)
	f.configure("1s", 8)
	return f
}

func (f *following) configure(selfCheck string, cookies int) {
	f.write(f.conf, fmt.Appendf(nil, `names: [%s]
certificate: {source: files, cert: %s, key: %s}
ke: {timeout: 30s, listen: ["127.0.0.1:0"], cookies: %d}
observe: {socket: %s, self_check: %s}
state_dir: %s
%s`, memberName, f.cert, f.key, cookies, f.socket, selfCheck, f.state, f.daemon))
}

// relay hands datagrams for at on into a network and the answer to each back. It
// returns the port too.
func relay(t *testing.T, at netip.Addr, n *daemontest.Network, to netip.AddrPort) netip.AddrPort {
	t.Helper()
	in, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(at, 0)))
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() { cancel(); in.Close(); all.Wait() })
	all.Go(func() {
		for {
			b := make([]byte, 2048)
			size, from, err := in.ReadFromUDPAddrPort(b)
			if err != nil {
				return // closed
			}
			var out *net.UDPConn
			if n.Do(func() { out, err = net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(to)) }); err != nil {
				t.Error(err)
				return
			}
			all.Go(func() {
				defer out.Close()
				defer context.AfterFunc(ctx, func() { out.SetDeadline(time.Unix(1, 0)) })()
				out.SetDeadline(time.Now().Add(patience / 2))
				out.Write(b[:size])
				if size, err := out.Read(b); err == nil { // else silence
					in.WriteToUDPAddrPort(b[:size], from)
				}
			})
		}
	})
	return in.LocalAddr().(*net.UDPAddr).AddrPort()
}

// opens exchanges keys for one algorithm and asks the daemon with a cookie.
func (f *following) opens(ke netip.AddrPort, alg aead.ID) error {
	session, cookies, err := daemontest.Exchange(ke, memberName, f.ca.roots, alg)
	if err != nil {
		return err
	}
	if len(cookies) != 8 {
		return fmt.Errorf("%d cookies", len(cookies))
	}
	d, err := f.status()
	if err != nil {
		return err
	}
	_, err = daemontest.Query(netip.MustParseAddrPort(d.Daemon.Address), session, cookies[0], 0)
	return err
}

// exchanges does key exchanges at ke, and asks the daemon nothing.
func (f *following) exchanges(ke netip.AddrPort) func() error {
	return func() error {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_, err := f.keyExchange(ctx, ke)
		return err
	}
}

func (f *following) whole() status.Document {
	f.t.Helper()
	return f.wait("all is well", func(d status.Document) bool { return provenAndOpen(f.member)(d) && d.Keys.Why == "" })
}

// followed are the daemons that each test is for.
func followed(t *testing.T, test func(t *testing.T, kind string, aeads []aead.ID, f *following)) {
	t.Run("ntpd-rs", func(t *testing.T) {
		t.Parallel()
		test(t, "ntpd-rs", []aead.ID{15, 17}, followNTPDRS(t, ntpdrstest.Options{}))
	})
	for _, release := range []debian.Release{debian.Debian12, debian.Debian13} {
		t.Run("NTPsec "+release.NTPsec, func(t *testing.T) {
			t.Parallel()
			f, _ := followNTPsec(t, release)
			test(t, "ntpsec", []aead.ID{15, 16, 17}, f)
		})
	}
}

func TestAMemberServesWithTheKeysOfADaemonThatOwnsThem(t *testing.T) {
	t.Parallel()
	followed(t, func(t *testing.T, kind string, aeads []aead.ID, f *following) {
		d := f.wait("all that the daemon opens is known", func(d status.Document) bool {
			return provenAndOpen(f.member)(d) && len(d.Daemon.Opens) == len(aeads)
		})
		if d.Daemon.Kind != kind || d.Keys.Mode != "follow" || d.Keys.Current.ID == "" || d.Keys.Why != "" || !d.Keys.NextRotation.IsZero() {
			t.Errorf("status %+v, %+v", d.Daemon, d.Keys)
		}
		if text := status.Text(d); !strings.Contains(text, kind+" on 127.0.0.1:") || !strings.Contains(text, "we follow") {
			t.Errorf("status:\n%s", text)
		}
		f.serves(f.ke(d), "", 8)
		for _, alg := range aeads {
			if err := f.opens(f.ke(d), alg); err != nil {
				t.Errorf("%v: %v", alg, err)
			}
		}
		if _, _, err := daemontest.Exchange(f.ke(d), memberName, f.ca.roots, 30); err == nil {
			t.Error("agreed to AEAD 30, which the daemon does not open")
		}
		if err := f.rotate(); !errors.Is(err, status.ErrPointless) || !strings.Contains(err.Error(), kind+" rotates its keys itself") {
			t.Errorf("keys rotate: %v", err)
		}
		if _, err := os.Stat(filepath.Join(f.state, "keys")); err == nil {
			t.Error("there is a folder for keys of our own")
		}
	})
}

func TestAKeyFileThatIsLostOrHalfWrittenChangesNothingButTheStatus(t *testing.T) {
	t.Parallel()
	followed(t, func(t *testing.T, kind string, _ []aead.ID, f *following) {
		before := f.whole()
		whole, err := f.ReadKeys()
		if err != nil {
			t.Fatal(err)
		}
		waits := func(d status.Document) bool {
			return d.State != status.Healthy && d.Keys.State == status.KeysProven && strings.Contains(d.Keys.Why, "waiting for a whole key file")
		}
		f.under(f.ke(before), func() {
			for _, what := range []struct {
				sentence string
				happens  func()
			}{
				{"half of it is there", func() { f.WriteKeys(whole[:len(whole)-10]) }},
				{"nothing is in it", func() { f.WriteKeys(nil) }},
				{"it is lost", f.Remove},
				{"it has another format", func() { f.WriteKeys([]byte(`{"keys": []}`)) }},
			} {
				what.happens()
				d := f.wait(what.sentence, waits)
				if d.Keys.Current != before.Keys.Current || f.ke(d) != f.ke(before) {
					t.Errorf("%s: %+v became %+v", what.sentence, before.Keys, d.Keys)
				}
				f.WriteKeys(whole)
				f.whole()
			}
		})
		f.onlyWatched()
		f.Remove()
		f.wait("it is lost", waits)
		f.Restart() // which makes new keys
		f.wait("the new keys are followed", func(d status.Document) bool {
			return provenAndOpen(f.member)(d) && d.Keys.Why == "" && d.Keys.Current.Fingerprint != before.Keys.Current.Fingerprint
		})
		f.under(f.ke(f.whole()), func() { f.serves(f.ke(before), "", 8) })
	})
}

func TestADaemonThatStartsAgainWithItsKeysCostsNoKeyExchange(t *testing.T) {
	t.Parallel()
	followed(t, func(t *testing.T, _ string, _ []aead.ID, f *following) {
		before := f.whole()
		f.while(func() {
			f.Stop()
			f.wait("it is missed", func(d status.Document) bool { return d.Keys.State == status.KeysUnseen })
			f.Restart()
			if d := f.whole(); d.Keys.Current != before.Keys.Current {
				t.Errorf("%+v became %+v", before.Keys, d.Keys)
			}
		}, f.exchanges(f.ke(before)))
		f.serves(f.ke(before), "", 8)
	})
}

func TestAReloadBesideAFollowedDaemonLosesNoClient(t *testing.T) {
	t.Parallel()
	followed(t, func(t *testing.T, kind string, aeads []aead.ID, f *following) {
		before := f.wait("all that the daemon opens is known", func(d status.Document) bool {
			return provenAndOpen(f.member)(d) && len(d.Daemon.Opens) == len(aeads)
		})
		reload := func(n int) {
			f.configure(fmt.Sprintf("%ds", n), 8)
			if err := f.reload(); err != nil {
				t.Fatal(err)
			}
			if d, err := f.status(); err != nil || len(d.Daemon.Opens) != len(aeads) || d.Keys.Current != before.Keys.Current {
				t.Errorf("after a reload: %+v, %+v, %v", d.Keys, d.Daemon, err)
			}
		}
		f.under(f.ke(before), func() {
			for n := 2; n < 8; n++ {
				reload(n)
			}
		})
		// A daemon that answers nobody proves nothing to the new part.
		thaw := f.Freeze()
		f.while(func() {
			reload(1)
			f.wait("the daemon is missed", func(d status.Document) bool { return d.Keys.State == status.KeysUnseen })
		}, f.exchanges(f.ke(before)))
		thaw()
		f.whole()

		// A key file that is not there keeps nobody from what is proven.
		good := f.daemon
		f.daemon = strings.Replace(good, "keys_file: ", "keys_file: /nowhere", 1)
		f.under(f.ke(before), func() {
			reload(2)
			f.wait("the file is missed", func(d status.Document) bool { return strings.Contains(d.Keys.Why, "/nowhere") })
			f.daemon = good
			reload(1)
			f.whole()
		})
		f.daemon = "daemon: {kind: chrony}\n"
		f.configure("1s", 8)
		if err := f.reload(); err == nil || !strings.Contains(err.Error(), "daemon.kind: has changed, which takes a restart") {
			t.Errorf("another kind of daemon: %v", err)
		}
	})
}

// onlyWatched has the agent ask the daemon and look at its key file so seldom of
// its own accord that a change is noticed by the watch or not at all.
func (f *following) onlyWatched() status.Document {
	f.t.Helper()
	f.whole()
	f.configure("1h", 8)
	if err := f.reload(); err != nil {
		f.t.Fatal(err)
	}
	return f.wait("it serves", provenAndOpen(f.member))
}

func TestARotationOfNtpdRsLosesNoClient(t *testing.T) {
	t.Parallel()
	f := followNTPDRS(t, ntpdrstest.Options{RotateEvery: 2 * time.Second, StaleKeys: 5})
	d := f.onlyWatched()
	f.under(f.ke(d), func() {
		seen := map[string]bool{}
		f.wait("five keys are followed", func(d status.Document) bool {
			if d.Keys.Current.ID != "" {
				seen[d.Keys.Current.ID] = true
			}
			if d.Keys.Next.ID != "" {
				t.Fatalf("a next key is told of, which nobody knows: %+v", d.Keys)
			}
			return len(seen) > 4
		})
	})
}

func TestARotationOfNTPsecLosesNoClient(t *testing.T) {
	t.Parallel()
	for _, release := range []debian.Release{debian.Debian12, debian.Debian13} {
		t.Run("NTPsec "+release.NTPsec, func(t *testing.T) {
			t.Parallel()
			f, s := followNTPsec(t, release)
			before := f.onlyWatched()
			f.under(f.ke(before), func() {
				s.Rotate()
				f.wait("the new key is followed", func(d status.Document) bool {
					return provenAndOpen(f.member)(d) && d.Keys.Current.ID != before.Keys.Current.ID && len(d.Keys.Held) == 2
				})
			})
			f.serves(f.ke(before), "", 8)
		})
	}
}
