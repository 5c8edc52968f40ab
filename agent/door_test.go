package agent

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
)

// openDoor runs a door on a loopback port until the test ends.
func openDoor(t *testing.T, ready func() bool, serve func(context.Context, net.Listener) error) (*door, *book) {
	b := newBook()
	d := &door{
		purpose: "test", asked: loopback(0)[:1], book: b, serve: serve, kick: make(chan struct{}, 1), log: hclog.NewNullLogger(),
		ready: func(time.Time) (bool, string) { return ready(), "the test says so" },
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		b.closeAll()
	})
	return d, b
}

func always() bool { return true }

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(patience)
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for !ok() {
		select {
		case <-again.C:
		case <-deadline:
			t.Fatalf("not in time: %s", what)
		}
	}
}

func TestASocketThatIsNoLongerServedIsOpenedAgain(t *testing.T) {
	t.Parallel()
	var served atomic.Int32
	d, b := openDoor(t, always, func(ctx context.Context, _ net.Listener) error {
		if served.Add(1) == 1 {
			return errors.New("out of socket buffers")
		}
		<-ctx.Done()
		return nil
	})
	eventually(t, "the second opening", func() bool { return served.Load() == 2 && len(b.addresses("test")) == 1 && d.reason() == "" })
}

func TestADoorFollowsWhetherItIsReady(t *testing.T) {
	t.Parallel()
	var ready atomic.Bool
	d, b := openDoor(t, ready.Load, func(ctx context.Context, _ net.Listener) error { <-ctx.Done(); return nil })
	eventually(t, "the reason why it is closed", func() bool { return d.reason() == "the test says so" })
	ready.Store(true)
	d.knock()
	eventually(t, "it opens", func() bool { return len(b.addresses("test")) == 1 })
	addr := b.addresses("test")[0]
	ready.Store(false)
	d.knock()
	eventually(t, "it closes", func() bool { return len(b.addresses("test")) == 0 })
	if c, err := net.Dial("tcp", addr); err == nil {
		c.Close()
		t.Error("a closed door lets clients in")
	}
}

// Whoever looks while ready says no for a moment sees a door that is open.
func TestAnOpenDoorIsPatient(t *testing.T) {
	t.Parallel()
	var ready atomic.Bool
	var shifts, looks atomic.Int32
	ready.Store(true)
	b := newBook()
	d := &door{
		purpose: "test", asked: loopback(0)[:1], book: b, patience: time.Hour, kick: make(chan struct{}, 1), log: hclog.NewNullLogger(),
		ready: func(time.Time) (bool, string) { looks.Add(1); return ready.Load(), "the test says so" },
		serve: func(ctx context.Context, _ net.Listener) error { shifts.Add(1); <-ctx.Done(); return nil },
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.run(ctx) }()
	eventually(t, "it opens", func() bool { return shifts.Load() == 1 })
	for range 5 {
		ready.Store(!ready.Load())
		before := looks.Load()
		d.knock()
		eventually(t, "it looks", func() bool { return looks.Load() > before })
	}
	if ready.Load() || len(b.addresses("test")) != 1 || shifts.Load() != 1 {
		t.Errorf("ready %v, addresses %q, opened %d times", ready.Load(), b.addresses("test"), shifts.Load())
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	b.closeAll()
}

func TestAnOpenDoorsPatienceEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var ready atomic.Bool
		ready.Store(true)
		var ends atomic.Int32
		d := &door{
			purpose: "test", book: newBook(), patience: 300 * time.Millisecond, kick: make(chan struct{}, 1), log: hclog.NewNullLogger(),
			ready: func(time.Time) (bool, string) { return ready.Load(), "the test says so" },
		}
		d.book.rows["test"] = &page{listeners: []net.Listener{noListener{}}}
		d.serve = func(ctx context.Context, _ net.Listener) error { <-ctx.Done(); ends.Add(1); return nil }
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- d.run(ctx) }()
		synctest.Wait()
		ready.Store(false)
		d.knock()
		<-time.After(299 * time.Millisecond)
		synctest.Wait()
		if ends.Load() != 0 {
			t.Error("closed before its patience was over")
		}
		<-time.After(2 * time.Millisecond)
		synctest.Wait()
		if ends.Load() != 1 || d.reason() != "the test says so" {
			t.Errorf("closed %d times, because %q", ends.Load(), d.reason())
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// noListener is one in name.
type noListener struct{ net.Listener }

func (noListener) Addr() net.Addr { return &net.TCPAddr{} }
func (noListener) Close() error   { return nil }

// says runs d for two seconds and returns what it has logged.
func says(d *door, level hclog.Level) string {
	var said bytes.Buffer
	d.log = hclog.New(&hclog.LoggerOptions{Output: &said, Level: level})
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_ = d.run(ctx) // it ends with ctx
	return said.String()
}

func TestADoorThatOpensInAMomentIsNoWarning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for patience, warnings := range map[time.Duration]int{time.Hour: 0, time.Second: 1, 0: 1} {
			d := &door{
				purpose: "test", asked: loopback(0), book: newBook(), patience: patience, kick: make(chan struct{}, 1),
				ready: func(time.Time) (bool, string) { return false, "not yet" },
			}
			if log := says(d, hclog.Info); strings.Count(log, "[WARN]") != warnings {
				t.Errorf("patience %v:\n%s", patience, log)
			}
			d.shutAt = func(netip.AddrPort) string { return "not there" }
			if log := says(d, hclog.Warn); strings.Count(log, "not there") != warnings*len(d.asked) {
				t.Errorf("patience %v, by address:\n%s", patience, log)
			}
		}
	})
}

func TestASocketThatAReloadKeepsIsToldOfOnce(t *testing.T) {
	b := newBook()
	defer b.closeAll()
	next := func() *door {
		return &door{
			purpose: "test", asked: loopback(0)[:1], book: b, kick: make(chan struct{}, 1), ready: func(time.Time) (bool, string) { return true, "" },
			serve: func(ctx context.Context, _ net.Listener) error { <-ctx.Done(); return nil },
		}
	}
	for i, want := range []int{1, 0} {
		var said bytes.Buffer
		d := next()
		d.log = hclog.New(&hclog.LoggerOptions{Output: &said})
		_ = d.open(t.Context(), d.asked)
		if got := strings.Count(said.String(), "listening"); got != want {
			t.Errorf("opened %d times before, it says\n%s", i, said.String())
		}
	}
}
