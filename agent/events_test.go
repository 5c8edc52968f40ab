package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"ntsagent/agent/daemon/chronytest"
	"ntsagent/agent/daemon/daemontest"
	"ntsagent/agent/status"
)

// breakages are the ways in which a file goes bad.
var breakages = []struct {
	name string
	do   func(m *member, path string, good []byte)
}{
	{"removed", func(m *member, path string, _ []byte) {
		if err := os.Remove(path); err != nil {
			m.t.Fatal(err)
		}
	}},
	{"garbage", func(m *member, path string, _ []byte) { m.write(path, []byte("not what belongs here\n")) }},
	{"cut off", func(m *member, path string, good []byte) { m.write(path, good[:len(good)/2]) }},
	{"empty", func(m *member, path string, _ []byte) { m.write(path, nil) }},
}

func TestWhatClientsSeeWhileChronydChanges(t *testing.T) {
	t.Parallel()
	m := newMember(t, time.Hour, chronytest.Options{})
	m.selfCheck = "1h" // whatever happens is seen when it happens
	addr := fixedPort(t)
	m.configure(at(addr))
	m.start()
	m.wait("it serves", provenAndOpen(m))
	s := m.chronyd
	good := m.read(s.KeysFile)
	handedOver := func() {
		m.until("the key file is handed over again", func() bool {
			b, err := os.ReadFile(s.KeysFile)
			return err == nil && bytes.Equal(b, good)
		})
	}
	e := m.eventTable(addr, "chronyd")
	e.promised("restarted", func(*traffic) { s.Restart() })
	e.promised("restarted and then frozen for 300 ms", func(c *traffic) { m.freezeAtStart(c) }).waited()
	e.promised("down for 50 clients", func(c *traffic) {
		s.Stop()
		c.come(50)
		s.Restart()
	})
	for _, b := range breakages {
		e.unnoticed("key file "+b.name, func(*traffic) { b.do(m, s.KeysFile, good); handedOver() })
		e.promised("key file "+b.name+", once more there restarted", func(*traffic) { b.do(m, s.KeysFile, good); handedOver(); s.Restart() })
		e.promised("stopped, key file "+b.name+", once more there started", func(*traffic) {
			s.Stop()
			b.do(m, s.KeysFile, good)
			handedOver()
			s.Restart()
		})
	}
	for _, b := range breakages {
		e.bounded("key file "+b.name+" and restarted in the same moment", func(*traffic) { b.do(m, s.KeysFile, good); s.Restart() })
		e.bounded("stopped, key file "+b.name+", started in the same moment", func(*traffic) {
			s.Stop()
			b.do(m, s.KeysFile, good)
			s.Restart()
		})
	}
	e.bounded("restarted where it has no keys, and back", func(*traffic) {
		s.Reconfigure(chronytest.Options{ExtraConf: []string{"ntsdumpdir " + t.TempDir()}})
		m.wait("it is refused", func(d status.Document) bool { return d.Keys.State == status.KeysRefused })
		s.Reconfigure(chronytest.Options{})
	})
}

const reloads = 50

func TestWhatClientsSeeWhileTheAgentChanges(t *testing.T) {
	t.Parallel()
	m := newMember(t, time.Hour, chronytest.Options{})
	addr := fixedPort(t)
	m.configure(at(addr))
	stop := m.run()
	defer func() { stop() }()
	m.wait("it serves", provenAndOpen(m))
	restart := func(*traffic) { stop(); stop = m.run() }
	reload := func(extra string) func(*traffic) { // there and back, often enough to hit a gap of a millisecond
		return func(*traffic) {
			for n := range reloads {
				m.configure([]string{extra, at(addr)}[n%2])
				if err := m.reload(); err != nil {
					t.Error(err)
				}
			}
		}
	}
	e := m.eventTable(addr, "agent")
	e.promised("restarted", restart).restarted()
	e.unnoticed(fmt.Sprintf("reloaded %d times: nothing new", reloads), reload(at(addr)))
	e.unnoticed(fmt.Sprintf("reloaded %d times: ke", reloads), reload(fmt.Sprintf("ke: {listen: [%q], timeout: 29s, cookies: 7}\n", addr)))
	e.unnoticed(fmt.Sprintf("reloaded %d times: keys", reloads), reload(at(addr)+rotateEvery(9)))
	e.unnoticed(fmt.Sprintf("reloaded %d times: certificates", reloads), reload(at(addr)+fmt.Sprintf(
		"names: [%s]\ncertificate: {source: files, files: [{name: %s, cert: %s, key: %s}]}\n", memberName, memberName, m.cert, m.key)))
	e.unnoticed("reloaded: a bad configuration", func(*traffic) {
		m.configure("nonsense: yes\n")
		if m.reload() == nil {
			t.Error("a bad configuration was taken")
		}
	})
	m.configure(at(addr))
	e.unnoticed("key rotated", func(*traffic) {
		if err := m.rotate(); err != nil {
			t.Error(err)
		}
	})
	ring := filepath.Join(m.state, "keys", "ring")
	for _, b := range breakages {
		spoil := func(c *traffic) { b.do(m, ring, m.read(ring)); restart(c) }
		if b.name == "removed" { // which looks like a first start
			e.served("own key file removed and restarted", spoil).restarted()
			continue
		}
		e.promised("own key file "+b.name+" and restarted", spoil).restarted()
	}
	for _, b := range breakages {
		cert, key := m.read(m.cert), m.read(m.key)
		e.unnoticed("certificate "+b.name, func(c *traffic) { b.do(m, m.cert, cert); c.come(50) })
		e.promised("certificate "+b.name+" and restarted, then mended", func(c *traffic) {
			stop()
			stop = m.run()
			m.wait("it waits for a certificate", func(d status.Document) bool { return d.Keys.State == status.KeysProven && !m.ke(d).IsValid() })
			c.come(50)
			m.write(m.cert, cert)
			m.write(m.key, key)
		}).restarted()
	}
}

func TestWhatClientsSeeWhenTheAgentIsKilled(t *testing.T) {
	t.Parallel()
	m := newMember(t, time.Hour, chronytest.Options{})
	addr := fixedPort(t)
	m.configure(at(addr))
	kill := m.child()
	defer func() { kill() }()
	m.wait("it serves", provenAndOpen(m))
	e := m.eventTable(addr, "agent, a process")
	for n := range 5 {
		e.promised(fmt.Sprintf("killed and started, %d", n+1), func(*traffic) { kill(); kill = m.child() })
	}
	e.promised("killed between hand-over and proof of a rotation and started", func(*traffic) {
		handed := m.read(m.chronyd.KeysFile)
		asked := make(chan struct{})
		go func() { defer close(asked); _ = m.rotate() }() // ends with the agent
		m.until("the new keys are handed over", func() bool { return !bytes.Equal(m.read(m.chronyd.KeysFile), handed) })
		kill()
		<-asked
		kill = m.child()
	})
}

// freezeAtStart restarts chronyd and freezes it for 300 ms before it has proven
// the keys. Who is the first to see that it has started, chronyd's freezer or the
// agent, is left to chance: it is tried again until no client was served meanwhile
// but by what was under way.
func (m *member) freezeAtStart(c *traffic) {
	m.t.Helper()
	for end := time.Now().Add(2 * patience); time.Now().Before(end); {
		thaw := m.chronyd.RestartFrozen()
		from := c.exchanged()
		<-time.After(300 * time.Millisecond) // which is what happens
		during := c.exchanged() - from
		thaw()
		if during <= places {
			return
		}
		m.until("clients are served again", func() bool { return c.exchanged() > from+during })
	}
	m.t.Fatal("the agent has always been faster than the freezer")
}

// at is the configuration of a key exchange at addr.
func at(addr fmt.Stringer) string { return fmt.Sprintf("ke: {listen: [%q]}\n", addr) }

func (m *member) read(path string) []byte {
	m.t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		m.t.Fatal(err)
	}
	return b
}

// run is start for an agent that is stopped before the test ends. The lock of the
// one before it may be held for a moment: a process that another test is starting
// has all our files until it runs its own program.
func (m *member) run() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		err := ErrBusy
		for errors.Is(err, ErrBusy) && ctx.Err() == nil {
			err = Run(ctx, Options{ConfigPath: m.conf, Log: hclog.New(m.logTo()), Version: "test"})
		}
		m.ended <- err
	}()
	return func() {
		cancel()
		if err := <-m.ended; err != nil {
			m.t.Errorf("the agent ended with %v", err)
		}
	}
}

// child runs the agent as a process of its own, which can be killed.
func (m *member) child() (kill func()) {
	m.t.Helper()
	cmd := exec.Command("/proc/self/exe", m.conf)
	cmd.Env = append(os.Environ(), asUserEnv+"=agent")
	cmd.Stderr = m.said()
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	loose, err := daemontest.Leash(cmd.Process.Pid)
	if err != nil {
		m.t.Error(err)
		loose = func() {}
	}
	return func() {
		loose()
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	}
}
