package agent

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"ntsagent/agent/daemon/chronytest"
	"ntsagent/agent/daemon/ntpdrstest"
	"ntsagent/agent/daemon/ntpsectest"
	"ntsagent/agent/status"
	"ntsagent/ntske/aead"
	"ntsagent/ntske/client"
	debian "ntsagent/packaging/parts"
)

// faultTable writes a row for each thing that happens to a daemon that owns its
// keys, and what the status said meanwhile. Of its own accord the agent looks at
// nothing: what happens is seen when it happens.
type faultTable struct {
	*eventTable
	f *following
}

func (f *following) faultTable(daemon string) *faultTable {
	d := f.onlyWatched()
	return &faultTable{eventTable: f.eventTable(f.ke(d), daemon), f: f}
}

// keyFile is the daemon's as it is now.
func (f *following) keyFile() []byte {
	f.t.Helper()
	b, err := f.ReadKeys()
	if err != nil {
		f.t.Fatal(err)
	}
	return b
}

// says waits until the status says that, and writes it below the row.
func (e *faultTable) says(part string) {
	e.m.t.Helper()
	d := e.m.wait("the status says "+part, func(d status.Document) bool {
		return d.State != status.Healthy && strings.Contains(d.Keys.Why, part)
	})
	meanwhile(e.m.t, d)
}

// folders of this test alone, which do not belong in a table.
var folders = regexp.MustCompile(`/\S+/`)

// meanwhile writes what the status said during the event of the next row.
func meanwhile(t *testing.T, d status.Document) {
	t.Helper()
	tell(t, "| v the status meanwhile: keys %s; %s | | | | | | | | | |", d.Keys.State, folders.ReplaceAllString(d.Keys.Why, "…/"))
}

// lost is what the daemon cannot promise: it has started without its keys.
func (e *faultTable) lost(name string, happens func(*traffic)) {
	e.m.t.Helper()
	e.few(name, ifItEnds, happens) // some daemons are silent to what they cannot open
	e.f.whole()                    // alone
}

// files are what may become of a key file, whatever the daemon; foreign is one
// that it does not read. To NTPsec that and a half are one thing at its start.
func (e *faultTable) files(foreign []byte, atStart bool) {
	whole := e.f.keyFile()
	for _, c := range []struct {
		name    string
		happens func()
	}{
		{"lost", e.f.Remove},
		{"half written", func() { e.f.WriteKeys(whole[:len(whole)/2]) }},
		{"in another format", func() { e.f.WriteKeys(foreign) }},
	} {
		e.unnoticed("key file "+c.name+", then whole again", func(*traffic) {
			c.happens()
			e.says("waiting for a whole key file")
			e.f.WriteKeys(whole)
		})
		if c.name == "in another format" && !atStart {
			continue
		}
		e.lost("stopped, key file "+c.name+", started", func(*traffic) {
			e.f.Stop()
			c.happens()
			e.says("waiting for a whole key file")
			e.f.Restart()
		})
		whole = e.f.keyFile()
	}
}

func TestWhatClientsSeeWhileNtpdRsChanges(t *testing.T) {
	t.Parallel()
	s := ntpdrstest.Start(t, ntpdrstest.Options{})
	f := newFollowing(t, s, fmt.Sprintf("daemon: {kind: ntpd-rs, address: %q, ntpd_rs: {keys_file: %s}}\n", s.Addr, s.KeysFile))
	e := f.faultTable("ntpd-rs " + debian.Debian13.NTPDRS)
	e.promised("restarted", func(*traffic) { s.Restart() })
	e.promised("restarted to rotate every 2 s, rotates, restarted", func(*traffic) {
		s.Reconfigure(ntpdrstest.Options{RotateEvery: 2 * time.Second})
		f.wait("one key more", func(d status.Document) bool { return len(d.Keys.Held) >= 2 && d.Keys.Why == "" })
		s.Reconfigure(ntpdrstest.Options{})
	})
	// Eight octets in front, as a later version's number might be.
	e.files(append(binary.BigEndian.AppendUint64(nil, 2), f.keyFile()...), true)
}

func TestWhatClientsSeeWhileNTPsecChanges(t *testing.T) {
	t.Parallel()
	f, s := followNTPsec(t, debian.Debian12)
	e := f.faultTable("NTPsec " + debian.Debian12.NTPsec)
	e.promised("restarted", func(*traffic) { s.Restart() })
	options := ntpsectest.Options{ExtraConf: []string{"restrict 127.0.0.1"}}
	for _, release := range []debian.Release{debian.Debian13, debian.Debian12} {
		options.Release = release
		e.promised("becomes NTPsec "+release.NTPsec, func(*traffic) { s.Reconfigure(options) })
	}
	e.unnoticed("rotates", func(*traffic) {
		s.Rotate()
		f.wait("one key more", func(d status.Document) bool { return len(d.Keys.Held) >= 2 && d.Keys.Why == "" })
	})
	whole := f.keyFile()
	longer := fmt.Appendf(nil, "T: 0\nL: 64\nI: 77\nK: %s\n", strings.Repeat("3d", 64))
	e.unnoticed("key file with keys of another length, then its own again", func(*traffic) {
		s.WriteKeys(longer)
		e.says("waiting for the daemon to show that it holds the newest one")
		s.WriteKeys(whole)
	})
	e.lost("stopped, key file with keys of another length, started", func(*traffic) {
		s.Stop()
		s.WriteKeys(longer)
		s.Restart()
	})
	e.files([]byte("V: 2\n"+string(whole)), false)
}

// Keys that a chronyd made with AEAD 30 are kept, though not every chronyd reads
// them.
func TestWhatClientsSeeWhileChronydCannotReadTheKeysTakenOver(t *testing.T) {
	t.Parallel()
	own := chronytest.Options{Release: debian.Debian13, ExtraConf: []string{"ntsrotate 604800"}}
	m := newMember(t, time.Hour, own)
	m.until("chronyd has keys of its own", func() bool {
		b, err := os.ReadFile(m.chronyd.KeysFile)
		return err == nil && bytes.HasPrefix(b, []byte("NKS1\n"))
	})
	m.chronyd.Reconfigure(chronytest.Options{})
	m.selfCheck = "1h"
	addr := fixedPort(t)
	m.configure(at(addr))
	m.start()
	d := m.wait("it serves", provenAndOpen(m))
	e := m.eventTable(addr, "chronyd")
	c := e.bounded("becomes chrony 4.3 and 4.6.1 again", func(*traffic) {
		m.chronyd.Reconfigure(chronytest.Options{Release: debian.Debian12})
		d := m.wait("it is refused", func(d status.Document) bool { return d.Keys.State == status.KeysRefused && !m.ke(d).IsValid() })
		meanwhile(t, d)
		m.chronyd.Reconfigure(chronytest.Options{Release: debian.Debian13})
	})
	if c.before != nil {
		t.Errorf("a cookie from before: %v", c.before)
	}
	if now := m.wait("it serves again", provenAndOpen(m)); now.Keys.Current != d.Keys.Current {
		t.Errorf("%+v became %+v", d.Keys.Current, now.Keys.Current)
	}
}

// The first keys of an agent are NKS0, which every chronyd reads.
func TestWhatClientsSeeWhileChronydIsUpgradedAndBack(t *testing.T) {
	t.Parallel()
	m := newMember(t, time.Hour, chronytest.Options{})
	m.selfCheck = "1h"
	addr := fixedPort(t)
	m.configure(at(addr))
	m.start()
	m.wait("it serves", provenAndOpen(m))
	e := m.eventTable(addr, "chronyd")
	e.promised("becomes chrony 4.6.1", func(*traffic) { m.chronyd.Reconfigure(chronytest.Options{Release: debian.Debian13}) })
	m.wait("AEAD 30 is offered", func(d status.Document) bool { return len(d.Daemon.Opens) == 2 })
	e.promised("becomes chrony 4.3", func(*traffic) { m.chronyd.Reconfigure(chronytest.Options{Release: debian.Debian12}) })
	// What chrony 4.3 does not open is not agreed to any more.
	m.wait("AEAD 30 is not offered", func(d status.Document) bool { return len(d.Daemon.Opens) == 1 })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, err := client.KeyExchange(ctx, client.Config{Addr: addr, Name: memberName, Roots: m.ca.roots, AEADs: []aead.ID{30, 15}})
	if err != nil || r.Keys.AEAD != 15 {
		t.Fatalf("agreed to %v, %v", r.Keys.AEAD, err)
	}
	if _, err := client.Query(ctx, netip.AddrPortFrom(addr.Addr(), r.Port), r.Keys, r.Cookies[0], 0); err != nil {
		t.Error(err)
	}
	if good := m.read(m.chronyd.KeysFile); !bytes.HasPrefix(good, []byte("NKS0\n15 ")) {
		t.Errorf("the key file is of another format: %.10q", good)
	}
}

// As installed: ntpd-rs lets our group read its key file and keeps that, until it
// has to make the file anew.
func TestWhatClientsSeeWhileNtpdRsMakesAKeyFileThatWeMayNotRead(t *testing.T) {
	t.Parallel()
	ours := credential(t, agentsUser)
	s := ntpdrstest.Start(t, ntpdrstest.Options{})
	f := laidOut(t, s, fmt.Sprintf("daemon: {kind: ntpd-rs, address: %q, ntpd_rs: {keys_file: %s}}\n", s.Addr, s.KeysFile))
	addr := fixedPort(t)
	f.write(f.conf, bytes.Replace(f.read(f.conf), []byte("127.0.0.1:0"), []byte(addr.String()), 1))
	f.write(f.conf, bytes.Replace(f.read(f.conf), []byte("self_check: 1s"), []byte("self_check: 1h"), 1))
	for _, path := range []string{f.dir, f.conf, f.cert, f.key} {
		if err := os.Chown(path, int(ours.Uid), int(ours.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	letUsRead := func() {
		err := errors.Join(os.Chmod(filepath.Dir(s.Dir), 0o755), os.Chmod(s.Dir, 0o755), os.Chown(s.KeysFile, 0, int(ours.Gid)), os.Chmod(s.KeysFile, 0o640))
		if err != nil {
			t.Error(err)
		}
	}
	letUsRead()
	agent := asUser(t, ours, "agent", f.conf)
	agent.Stderr = f.said()
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		agent.Process.Kill()
		agent.Wait()
	})
	f.whole()
	e := &faultTable{eventTable: f.eventTable(addr, "ntpd-rs "+debian.Debian13.NTPDRS+", our group reads its key file"), f: f}
	e.promised("restarted", func(*traffic) { s.Restart() })
	e.unnoticed("key file closed to us, then open again", func(*traffic) {
		if err := os.Chmod(s.KeysFile, 0o600); err != nil {
			t.Error(err)
		}
		e.says("chmod 640")
		letUsRead()
	})
	e.lost("key file lost and restarted, then opened to us", func(*traffic) {
		s.Remove()
		s.Restart()
		d := f.wait("it is refused", func(d status.Document) bool { return d.Keys.State == status.KeysRefused && !f.ke(d).IsValid() })
		if !strings.Contains(d.Keys.Why, "chmod 640") {
			t.Errorf("the status says %q", d.Keys.Why)
		}
		meanwhile(t, d)
		letUsRead()
	})
}
