package agent

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"ntsagent/acme/store"
	"ntsagent/agent/config"
	"ntsagent/agent/status"
	"ntsagent/agent/task"
)

// openParts runs m's agent with its parts in the test's hands: as Run does, but
// without the control socket and the signals. The daemon is asked every spacing
// at most; 0 = as its configuration allows.
func (m *member) openParts(spacing time.Duration) (*agent, netip.AddrPort) {
	m.t.Helper()
	cfg, err := config.Load(m.conf)
	if err != nil {
		m.t.Fatal(err)
	}
	lock, err := lockState(cfg.StateDir)
	if err != nil {
		m.t.Fatal(err)
	}
	to := m.logTo()
	to.Level = hclog.Info
	log := hclog.New(to)
	a := &agent{
		Options: Options{ConfigPath: m.conf, Log: log, Version: "test"}, started: time.Now(), book: newBook(),
		counts: newCounters(), reloads: make(chan reload), tasks: task.NewGroup(log),
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.t.Cleanup(func() {
		cancel()
		if p := a.parts.Load(); p != nil {
			if err := p.stop(); err != nil {
				m.t.Errorf("the parts ended with %v", err)
			}
		}
		a.book.closeAll()
		lock.Close()
	})
	a.outcome.Store(&reloadOutcome{ok: time.Now()})
	if a.store, err = store.Open(filepath.Join(cfg.StateDir, "acme")); err != nil {
		m.t.Fatal(err)
	}
	p, err := a.build(ctx, nil, cfg)
	if err != nil {
		m.t.Fatal(err)
	}
	if spacing > 0 { // the keys once more: they have not been started, and those just made are on disk
		p.target.Spacing = spacing
		if p.keys, err = a.newKeys(cfg, p.target, nil); err != nil {
			m.t.Fatal(err)
		}
	}
	a.swap(ctx, nil, p)
	m.until("the key exchange listens", func() bool { return len(a.book.addresses(status.ServiceKE)) == 1 })
	return a, netip.MustParseAddrPort(a.book.addresses(status.ServiceKE)[0])
}

// until polls until ok, for as long as a machine may be busy with other things.
func (m *member) until(what string, ok func() bool) {
	m.t.Helper()
	deadline := time.After(patience)
	again := time.NewTicker(2 * time.Millisecond)
	defer again.Stop()
	for !ok() {
		select {
		case <-again.C:
		case <-deadline:
			m.t.Fatalf("waited in vain until %s", what)
		}
	}
}

// firstError keeps the first of many.
type firstError struct{ err atomic.Pointer[error] }

func (f *firstError) fail(err error) { f.err.CompareAndSwap(nil, &err) }

func (f *firstError) failure() error {
	if err := f.err.Load(); err != nil {
		return *err
	}
	return nil
}

// tell writes a row of a table, which the log of `make test` shows.
func tell(t *testing.T, format string, args ...any) {
	t.Helper()
	fmt.Fprintf(t.Output(), format+"\n", args...)
}
