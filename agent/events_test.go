package agent

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"ntsagent/agent/daemon/chronytest"
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
	e.promised("down for 50 clients", func(c *traffic) {
		s.Stop()
		c.come(50)
		s.Restart()
	})
	for _, b := range breakages {
		e.promised("key file "+b.name, func(*traffic) { b.do(m, s.KeysFile, good); handedOver() })
		e.promised("key file "+b.name+", once more there restarted", func(*traffic) { b.do(m, s.KeysFile, good); handedOver(); s.Restart() })
		e.promised("stopped, key file "+b.name+", once more there started", func(*traffic) {
			s.Stop()
			b.do(m, s.KeysFile, good)
			handedOver()
			s.Restart()
		})
	}
	for _, b := range breakages {
		e.during("key file "+b.name+" and restarted in the same moment (not promised)", func(*traffic) { b.do(m, s.KeysFile, good); s.Restart() })
		e.during("stopped, key file "+b.name+", started in the same moment (not promised)", func(*traffic) {
			s.Stop()
			b.do(m, s.KeysFile, good)
			s.Restart()
		})
	}
	e.during("restarted where it has no keys, and back (not promised)", func(*traffic) {
		s.Reconfigure(chronytest.Options{ExtraConf: []string{"ntsdumpdir " + t.TempDir()}})
		m.wait("it is refused", func(d status.Document) bool { return d.Keys.State == status.KeysRefused })
		s.Reconfigure(chronytest.Options{})
	})
}

func TestWhatClientsSeeWhileTheAgentChanges(t *testing.T) {
	t.Parallel()
	m := newMember(t, time.Hour, chronytest.Options{})
	addr := fixedPort(t)
	m.configure(at(addr))
	stop := m.run()
	defer func() { stop() }()
	m.wait("it serves", provenAndOpen(m))
	restart := func(*traffic) { stop(); stop = m.run() }
	reload := func(extra string) func(*traffic) {
		return func(*traffic) {
			m.configure(extra)
			if err := m.reload(); err != nil {
				t.Error(err)
			}
		}
	}
	e := m.eventTable(addr, "agent")
	e.promised("restarted", restart)
	e.promised("reloaded: nothing new", reload(at(addr)))
	e.promised("reloaded: ke", reload(fmt.Sprintf("ke: {listen: [%q], timeout: 2s, cookies: 7}\n", addr)))
	e.promised("reloaded: keys", reload(at(addr)+rotateEvery(9)))
	e.promised("reloaded: certificates", reload(at(addr)+fmt.Sprintf(
		"names: [%s]\ncertificate: {source: files, files: [{name: %s, cert: %s, key: %s}]}\n", memberName, memberName, m.cert, m.key)))
	e.promised("reloaded: a bad configuration", func(*traffic) {
		m.configure("nonsense: yes\n")
		if m.reload() == nil {
			t.Error("a bad configuration was taken")
		}
	})
	m.configure(at(addr))
	e.promised("key rotated", func(*traffic) {
		if err := m.rotate(); err != nil {
			t.Error(err)
		}
	})
	ring := filepath.Join(m.state, "keys", "ring")
	for _, b := range breakages {
		spoil := func(c *traffic) { b.do(m, ring, m.read(ring)); restart(c) }
		if b.name == "removed" { // which looks like a first start
			e.served("own key file removed and restarted", spoil)
			continue
		}
		e.promised("own key file "+b.name+" and restarted", spoil)
	}
	for _, b := range breakages {
		cert, key := m.read(m.cert), m.read(m.key)
		e.promised("certificate "+b.name, func(c *traffic) { b.do(m, m.cert, cert); c.come(50) })
		e.promised("certificate "+b.name+" and restarted, then mended", func(c *traffic) {
			stop()
			stop = m.run()
			m.wait("it waits for a certificate", func(d status.Document) bool { return d.Keys.State == status.KeysProven && !m.ke(d).IsValid() })
			c.come(50)
			m.write(m.cert, cert)
			m.write(m.key, key)
		})
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

// run is start for an agent that is stopped before the test ends.
func (m *member) run() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() { m.ended <- Run(ctx, Options{ConfigPath: m.conf, Log: hclog.New(m.logTo()), Version: "test"}) }()
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
	cmd.Stderr = testWriter{m.t}
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	return func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	}
}
