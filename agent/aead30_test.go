package agent

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ntsagent/agent/daemon/chronytest"
	"ntsagent/agent/daemon/clienttest"
	"ntsagent/agent/daemon/daemontest"
	"ntsagent/agent/status"
	"ntsagent/ntske/aead"
	"ntsagent/ntske/cookie"
	debian "ntsagent/packaging/parts"
)

// memberOf is an agent beside the chronyd of a release.
func memberOf(t *testing.T, r debian.Release, extra string) *member {
	t.Helper()
	m := newMember(t, time.Hour, chronytest.Options{Release: r})
	m.configure(extra)
	m.start()
	return m
}

// knows waits until exactly these algorithms are shown to be opened.
func (m *member) knows(opens ...uint16) status.Document {
	m.t.Helper()
	return m.wait(fmt.Sprintf("it is known to open %v", opens), func(d status.Document) bool {
		return provenAndOpen(m)(d) && slices.Equal(d.Daemon.Opens, opens)
	})
}

// agrees exchanges keys with nothing but alg, and asks the daemon with each cookie.
// What a chronyd opens that has just been started is tried anew, maybe not before
// the status was looked at.
func (m *member) agrees(d status.Document, alg aead.ID, size int) {
	m.t.Helper()
	var session cookie.Session
	var cookies [][]byte
	err := patiently(func() (err error) {
		session, cookies, err = daemontest.Exchange(m.ke(d), memberName, m.ca.roots, alg)
		return err
	})
	if err != nil {
		m.t.Fatal(err)
	}
	for _, c := range cookies {
		if len(c) != size {
			m.t.Errorf("cookie of %d octets, want %d", len(c), size)
		}
		if reply, err := daemontest.Query(m.chronyd.Addr, session, c, 1); err != nil || len(reply.Cookies) != 2 || len(reply.Cookies[0]) != size {
			m.t.Errorf("%v: %d cookies, %v", alg, len(reply.Cookies), err)
		}
	}
}

func (m *member) refuses30(d status.Document) {
	m.t.Helper()
	if _, _, err := daemontest.Exchange(m.ke(d), memberName, m.ca.roots, aead.GCMSIV128); err == nil {
		m.t.Error("agreed to AEAD 30")
	}
}

func TestAEAD30IsOfferedBesideAChronydThatOpensIt(t *testing.T) {
	t.Parallel()
	m := memberOf(t, debian.Debian13, "")
	d := m.knows(15, 30)
	m.agrees(d, aead.SIVCMAC256, 100)
	m.agrees(d, aead.GCMSIV128, 68)
	if err := m.rotate(); err != nil {
		t.Fatal(err)
	}
	d = m.knows(15, 30)
	m.agrees(d, aead.GCMSIV128, 68)

	m.configure("ke: {listen: [\"127.0.0.1:0\"], aeads: [15]}\n")
	if err := m.reload(); err != nil {
		t.Fatal(err)
	}
	m.refuses30(d)
}

func TestAEAD30IsNotOfferedBesideAChronydThatHasItNot(t *testing.T) {
	t.Parallel()
	m := memberOf(t, debian.Debian12, "ke: {listen: [\"127.0.0.1:0\"], aeads: [15, 30]}\n")
	d := m.knows(15)
	asked := d.Daemon.Seen
	d = m.wait("it was tried", func(d status.Document) bool { return d.Daemon.Seen.Sub(asked) > 2*time.Second })
	if !slices.Equal(d.Daemon.Opens, []uint16{15}) {
		t.Errorf("opens %v", d.Daemon.Opens)
	}
	m.refuses30(d)
	m.agrees(d, aead.SIVCMAC256, 100)
}

// A downgrade of chrony: what the newer one opened is not offered any more. What
// does not tell the agent that chronyd has started is found out by the trials.
func TestAnotherChronydIsTriedAnew(t *testing.T) {
	t.Parallel()
	for _, told := range []bool{true, false} {
		t.Run(fmt.Sprintf("told %v", told), func(t *testing.T) {
			t.Parallel()
			m := memberOf(t, debian.Debian13, "")
			m.knows(15, 30)
			if !told {
				conf, err := os.ReadFile(m.conf)
				if err != nil {
					t.Fatal(err)
				}
				m.write(m.conf, bytes.ReplaceAll(conf, []byte(m.chronyd.Socket), []byte("/nowhere/sock")))
				if err := m.reload(); err != nil {
					t.Fatal(err)
				}
				m.knows(15, 30)
			}
			m.chronyd.Reconfigure(chronytest.Options{Release: debian.Debian12})
			m.refuses30(m.knows(15))
			if !strings.Contains(m.chronyd.Log(), "version 4.3 ") {
				t.Error("the same chronyd runs")
			}
			m.chronyd.Reconfigure(chronytest.Options{Release: debian.Debian13})
			m.agrees(m.knows(15, 30), aead.GCMSIV128, 68)
		})
	}
}

// What real clients choose of their own accord, and get.
func TestARealChronydGetsTheAlgorithmItCanSpeak(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		sentence       string
		server, client debian.Release
		aead           aead.ID
		length         int
	}{
		{"a new client of a new server speaks AEAD 30", debian.Debian13, debian.Debian13, 30, 68},
		{"an old client of a new server speaks AEAD 15", debian.Debian13, debian.Debian12, 15, 100},
		{"a new client of an old server speaks AEAD 15", debian.Debian12, debian.Debian13, 15, 100},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			t.Parallel()
			m := memberOf(t, c.server, "")
			opens := []uint16{15}
			if c.server == debian.Debian13 {
				opens = append(opens, 30)
			}
			d := m.knows(opens...)
			a := m.asked(c.client, d).Reaches(t, memberName, 4)
			if a.AEAD != c.aead || a.Length != c.length || a.NAKs != 0 || a.Cookies == 0 {
				t.Errorf("%+v, want AEAD %d with cookies of %d octets", a, c.aead, c.length)
			}
		})
	}
}

// fourTimesASecond is as often as chronyd asks.
const fourTimesASecond = "minpoll -2 maxpoll -2"

// asked starts the release's chronyd as a client of m.
func (m *member) asked(r debian.Release, d status.Document) *clienttest.Client {
	ca := filepath.Join(m.dir, "ca.pem")
	m.write(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: m.ca.cert.Raw}))
	ke := m.ke(d)
	return clienttest.Chrony(m.t, r, ca, []clienttest.Server{{Name: memberName, Port: ke.Port(), Addr: ke.Addr(), Poll: fourTimesASecond}})
}
