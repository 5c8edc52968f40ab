package status

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"ntsagent/agent/config"
)

// agent serves a Server on a socket of its own and returns the path.
func agent(t *testing.T, s Server) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "agent") // not t.TempDir: the names of sockets are limited to 107 octets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "run", "control.sock")
	ln, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	s.Log = hclog.NewNullLogger()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve ended with %v", err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket is left behind: %v", err)
		}
	})
	return path
}

// changing are the paths of what changes something.
var changing = []string{"/reload", "/keys/rotate", "/certificates/renew", "/certificates/revoke", "/certificates/request", "/certificates/import"}

func fine(context.Context) error { return nil }

func serving(reload, rotate func(context.Context) error) Server {
	do := func(ctx context.Context, _ Wish) (Outcome, error) { return Outcome{}, rotate(ctx) }
	return Server{
		Status: func() Document { return good().Judged(now) },
		Reload: reload, Rotate: rotate,
		Renew: do, Revoke: do, Request: do, Import: do,
	}
}

func TestAClientReadsWhatTheServerSays(t *testing.T) {
	c := NewClient(agent(t, serving(fine, fine)))
	d, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d.State != Healthy || d.Schema != Schema || d.Keys.Current.ID != "10203042" || !d.Time.Equal(now) {
		t.Errorf("got %+v", d)
	}
}

func TestOrdersReachTheAgentAndTheirErrorsComeBack(t *testing.T) {
	bad := config.Errors{{File: "x.yaml", Line: 3, Key: "ke", Problem: "unknown key"}, {File: "x.yaml", Line: 4, Problem: "more"}}
	for _, c := range []struct {
		name  string
		err   error
		class error
		text  string
	}{
		{"all is well", nil, nil, ""},
		{"a bad configuration", fmt.Errorf("reload: %w", bad), ErrInvalid, "reload: x.yaml:3: ke: unknown key\nx.yaml:4: more"},
		{"something else", errors.New("the daemon is away"), ErrTemporary, "the daemon is away"},
	} {
		t.Run(c.name, func(t *testing.T) {
			reloads, rotations := 0, 0
			client := NewClient(agent(t, serving(
				func(context.Context) error { reloads++; return c.err },
				func(context.Context) error { rotations++; return c.err })))
			for _, do := range []func(context.Context) error{client.Reload, client.Rotate} {
				err := do(t.Context())
				if !errors.Is(err, c.class) || err != nil && err.Error() != c.text {
					t.Errorf("got %v, want %v: %s", err, c.class, c.text)
				}
			}
			if reloads != 1 || rotations != 1 {
				t.Errorf("%d reloads and %d rotations, want one each", reloads, rotations)
			}
		})
	}
}

// TestOnlyRootAndTheAgentsOwnUserMayChangeAnything runs the handler with peers
// of every kind; that a real peer's uid arrives is shown by the test above.
func TestOnlyRootAndTheAgentsOwnUserMayChangeAnything(t *testing.T) {
	const self = 998
	for _, c := range []struct {
		name string
		ctx  context.Context
		may  bool
	}{
		{"root", context.WithValue(context.Background(), peerKey{}, uint32(0)), true},
		{"the agent's user", context.WithValue(context.Background(), peerKey{}, uint32(self)), true},
		{"another user", context.WithValue(context.Background(), peerKey{}, uint32(1000)), false},
		{"nobody knows who", context.Background(), false},
	} {
		for _, path := range changing {
			t.Run(c.name+" posts "+path, func(t *testing.T) {
				called := false
				do := func(context.Context) error { called = true; return nil }
				w := httptest.NewRecorder()
				serving(do, do).handler(self).ServeHTTP(w, httptest.NewRequestWithContext(c.ctx, "POST", path, strings.NewReader("{}")))
				if called != c.may || (w.Code == http.StatusOK) != c.may {
					t.Errorf("called %v, status %d; want %v", called, w.Code, c.may)
				}
				if !c.may && !errors.Is(refusal(w.Code, w.Body.Bytes()), ErrNotPermitted) {
					t.Errorf("a client takes %d %s for something else", w.Code, w.Body)
				}
			})
		}
		t.Run(c.name+" reads", func(t *testing.T) {
			w := httptest.NewRecorder()
			serving(fine, fine).handler(self).ServeHTTP(w, httptest.NewRequestWithContext(c.ctx, "GET", "/status", nil))
			if w.Code != http.StatusOK {
				t.Errorf("status %d", w.Code)
			}
		})
	}
}

func TestAGetChangesNothing(t *testing.T) {
	never := func(context.Context) error { t.Error("a GET was taken for an order"); return nil }
	for _, path := range changing {
		w := httptest.NewRecorder()
		ctx := context.WithValue(t.Context(), peerKey{}, uint32(0))
		serving(never, never).handler(0).ServeHTTP(w, httptest.NewRequestWithContext(ctx, "GET", path, nil))
		if w.Code != http.StatusMethodNotAllowed {
			t.Errorf("GET %s gave %d", path, w.Code)
		}
	}
}

func TestTheSocketIsPrivateAndForTheGroup(t *testing.T) {
	path := agent(t, serving(fine, fine))
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("socket mode %v %v, want 0660", info.Mode(), err)
	}
	if info, err := os.Stat(filepath.Dir(path)); err != nil || info.Mode().Perm()&0o007 != 0 {
		t.Errorf("folder mode %v %v, want nothing for others", info.Mode(), err)
	}
}

func TestListenReplacesOnlyALeftOverSocket(t *testing.T) {
	t.Run("a socket nobody answers on is replaced", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "s")
		old, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
		if err != nil {
			t.Fatal(err)
		}
		old.SetUnlinkOnClose(false)
		old.Close()
		ln, err := Listen(path)
		if err != nil {
			t.Fatal(err)
		}
		ln.Close()
	})
	t.Run("a live one stays", func(t *testing.T) {
		path := agent(t, serving(fine, fine))
		if _, err := Listen(path); !errors.Is(err, ErrInUse) {
			t.Errorf("got %v, want ErrInUse", err)
		}
		if _, err := NewClient(path).Status(t.Context()); err != nil {
			t.Errorf("the first agent was disturbed: %v", err)
		}
	})
	t.Run("a socket of another kind stays", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "s")
		other, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: path})
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		if _, err := Listen(path); err == nil {
			t.Error("somebody else's socket was replaced")
		}
	})
	t.Run("another file stays", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "s")
		if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "no socket") {
			t.Errorf("got %v", err)
		}
		if b, _ := os.ReadFile(path); string(b) != "mine" {
			t.Error("the file is gone")
		}
	})
}

func TestWhatAClientSaysWhenNobodyAnswers(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(dir, "left")
	old, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: left})
	if err != nil {
		t.Fatal(err)
	}
	old.SetUnlinkOnClose(false)
	old.Close()
	for name, path := range map[string]string{"no file": filepath.Join(dir, "none"), "no socket": file, "a leftover": left} {
		if _, err := NewClient(path).Status(t.Context()); !errors.Is(err, ErrNotRunning) {
			t.Errorf("%s: got %v, want ErrNotRunning", name, err)
		}
	}
	deaf, err := net.Listen("unix", filepath.Join(dir, "deaf"))
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := NewClient(deaf.Addr().String()).Status(ctx); !errors.Is(err, ErrTemporary) {
		t.Errorf("a deaf agent: got %v, want ErrTemporary", err)
	}
}

func TestListenChangesTheModeOfNothingElse(t *testing.T) {
	dir := t.TempDir()
	victim, path := filepath.Join(dir, "victim"), filepath.Join(dir, "s")
	if err := os.WriteFile(victim, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, path); err != nil {
		t.Fatal(err)
	}
	if ln, err := Listen(path); err == nil {
		ln.Close()
		t.Error("a link in the socket's place was taken")
	}
	if info, err := os.Stat(victim); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file behind the link has mode %v, %v", info.Mode(), err)
	}
}

// Whatever else this process makes meanwhile keeps its mode.
func TestListenLeavesTheUmaskAlone(t *testing.T) {
	before := unix.Umask(0o027)
	defer unix.Umask(before)
	dir := t.TempDir()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			made := filepath.Join(dir, fmt.Sprint("d", n))
			if err := os.Mkdir(made, 0o700); err != nil {
				t.Error(err)
				return
			}
			if info, err := os.Stat(made); err != nil || info.Mode().Perm() != 0o700 {
				t.Errorf("a folder made meanwhile has mode %v, %v", info.Mode(), err)
				return
			}
		}
	}()
	for n := range 300 {
		path := filepath.Join(dir, "s")
		ln, err := Listen(path)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != socketMode {
			t.Errorf("socket %d has mode %v, %v", n, info.Mode(), err)
		}
		ln.Close()
	}
	close(stop)
	<-stopped
}
