package issuer_test

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ntsagent/acme"
	"ntsagent/acme/challenge"
	"ntsagent/acme/issuer"
	"ntsagent/acme/live"
	"ntsagent/acme/store"
	"ntsagent/hostcheck"
)

// homeEnv makes the test binary an agent that obtains one certificate, to be killed on the way.
const homeEnv = "NTSAGENT_ISSUER_TEST_HOME"

// home is all that a restart finds of an agent: its folder, and what its configuration says.
type home struct {
	Dir, Name, Email, Directory, CAFile string
	Old                                 []byte // the certificate that is to be renewed, in DER; nil = none
}

func (h home) state() string   { return filepath.Join(h.Dir, "acme") }
func (h home) webroot() string { return filepath.Join(h.Dir, "webroot") }

// household is the agent there: one name's Manager, Issuer and store, put together as the service does.
type household struct {
	*acme.Manager
	name   hostcheck.Name
	set    *live.Set
	store  *store.Store
	events chan acme.Event
}

func (h home) open() (*household, error) {
	name, err := hostcheck.ParseName(h.Name)
	if err != nil {
		return nil, err
	}
	webroot := challenge.Webroot(h.webroot())
	if err := webroot.Sweep(); err != nil {
		return nil, err
	}
	s, err := store.Open(h.state())
	if err != nil {
		return nil, err
	}
	names := []hostcheck.Name{name}
	i, err := issuer.New(issuer.Config{Directory: h.Directory, Email: h.Email, AgreeToTerms: true, CAFile: h.CAFile, Challenges: []string{issuer.HTTP01},
		Responder: challenge.New(hostcheck.NewSet(names), nullLog), Webroot: webroot, Store: s, Log: nullLog})
	if err != nil {
		return nil, err
	}
	a := &household{name: name, store: s, set: live.NewSet(names), events: make(chan acme.Event, 100)}
	directory := h.Directory
	if raceDetector {
		directory = "" // no order replaces another: pebble notes it without a lock
	}
	a.Manager = acme.NewManager(acme.Config{Name: name, Issuer: i, Store: s, Live: a.set, Directory: directory, Log: nullLog,
		Event: func(e acme.Event) { a.events <- e }})
	return a, nil
}

// done tells whether the certificate in the store is a new one.
func (h home) done(a *household) bool {
	chain, _, err := a.store.Current(a.name)
	if err != nil {
		return false
	}
	block, _ := pem.Decode(chain)
	return block != nil && !bytes.Equal(block.Bytes, h.Old)
}

// finish brings the order to an end that there is to be, or finds that it has come to one.
func (h home) finish(ctx context.Context, a *household) (acme.State, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	done := h.done(a)
	var running sync.WaitGroup
	running.Go(func() { a.Run(ctx) })
	defer running.Wait()
	defer cancel()
	if done {
		select {
		case e := <-a.events:
			if e.Kind != acme.Installed {
				return a.State(), fmt.Errorf("%s: %s", e.Kind, e.Text)
			}
		case <-ctx.Done():
			return a.State(), ctx.Err()
		}
		return a.State(), nil
	}
	err := a.Renew(ctx, h.Old != nil) // rather than wait
	if early := (*acme.Refused)(nil); errors.As(err, &early) && early.Early {
		err = nil // it has ordered by itself
	}
	return a.State(), err
}

// obtain is the child.
func obtain(job string) error {
	if err := submit(3); err != nil {
		return err
	}
	var h home
	if err := json.Unmarshal([]byte(job), &h); err != nil {
		return err
	}
	a, err := h.open()
	if err != nil {
		return err
	}
	_, err = h.finish(context.Background(), a)
	return err
}

// liveUntil lets an agent live until its at-th change of a file, or for one order if at is 0 or never comes.
func (h home) liveUntil(at int) (changes []string, killed bool, err error) {
	sockets, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, false, err
	}
	ours, theirs := sockets[0], os.NewFile(uintptr(sockets[1]), "socket")
	defer unix.Close(ours)
	defer theirs.Close()
	job, err := json.Marshal(h)
	if err != nil {
		return nil, false, err
	}
	var said bytes.Buffer
	child := exec.Command(os.Args[0])
	// A call that a signal of the scheduler interrupts would be counted twice.
	child.Env = append(os.Environ(), homeEnv+"="+string(job), "GODEBUG=asyncpreemptoff=1")
	child.ExtraFiles, child.Stderr = []*os.File{theirs}, &said
	if err := child.Start(); err != nil {
		return nil, false, err
	}
	theirs.Close() // so that the end of the child is the end of the socket
	waited := make(chan error, 1)
	go func() { waited <- child.Wait() }() // older kernels tell of the end only once it has been waited for
	changes, err = watch(child.Process, ours, h.Dir, at)
	if err != nil {
		child.Process.Kill()
	}
	ended := <-waited
	if err != nil || ended != nil && child.ProcessState.Exited() {
		return changes, false, fmt.Errorf("%v; the child: %v: %s", err, ended, said.String())
	}
	return changes, ended != nil, nil
}
