package daemontest

import (
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// Network is a network namespace with nothing in it but a loopback device, for
// daemons that insist on their ports.
type Network struct {
	do chan func()
}

// NewNetwork makes one that goes away with the test and all its processes. It
// needs root.
func NewNetwork(t testing.TB) *Network {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root: its daemon gets a network of its own")
	}
	return enter(t, func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		return linkUp("lo")
	})
}

// Here is the network that this process is in, for a cable to another: that of Isolated.
func Here(t testing.TB) *Network {
	t.Helper()
	return enter(t, func() error { return nil })
}

// enter gives a network a thread of its own, which gets there by how.
func enter(t testing.TB, how func() error) *Network {
	t.Helper()
	n := &Network{do: make(chan func())}
	made := make(chan error)
	go func() {
		runtime.LockOSThread() // for ever: the thread ends with this goroutine, and is never used by another
		made <- how()
		for f := range n.do {
			f()
		}
	}()
	if err := <-made; err != nil {
		close(n.do)
		t.Fatalf("make a network: %v", err)
	}
	t.Cleanup(func() { close(n.do) })
	return n
}

// Do calls f in the network: what it opens or starts is in there. f must not
// start goroutines that do so, nor call Do. Calls wait for each other.
func (n *Network) Do(f func()) {
	done := make(chan struct{})
	n.do <- func() {
		defer close(done)
		f()
	}
	<-done
}

func linkUp(name string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r)
}
