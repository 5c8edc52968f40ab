package status

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrInUse says that another agent answers on the control socket.
var ErrInUse = errors.New("another agent answers there")

// socketMode lets the agent's group read the status; what changes something is
// checked per peer.
const socketMode = 0o660

// Listen opens the control socket at path. Its folder is made private (0750)
// when it does not exist. A socket nobody answers on is a leftover and is
// replaced; a live one is ErrInUse, and any other kind of file stays.
func Listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, fmt.Errorf("make the folder of the control socket: %w", err)
	}
	if err := removeStale(path); err != nil {
		return nil, fmt.Errorf("control socket %s: %w", path, err)
	}
	// The socket has its mode before it has its name, so it is never open wider;
	// the umask of the process, which others use meanwhile, is left alone.
	conf := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var inner error
		err := raw.Control(func(fd uintptr) { inner = unix.Fchmod(int(fd), socketMode) })
		return errors.Join(err, inner)
	}}
	ln, err := conf.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, fmt.Errorf("open the control socket: %w", err)
	}
	if err := widen(path); err != nil {
		return nil, errors.Join(fmt.Errorf("let the group use the control socket: %w", err), ln.Close())
	}
	return ln, nil
}

// widen gives the socket at path what the umask took. A chmod by name would
// follow a link that somebody put in its place.
func widen(path string) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var is unix.Stat_t
	if err := unix.Fstat(fd, &is); err != nil {
		return err
	}
	if is.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return errors.New("something else has taken its place")
	}
	return os.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), socketMode)
}

func removeStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return errors.New("is in the way and no socket; move it or set observe.socket")
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		conn.Close()
		return ErrInUse
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return err
	}
	return os.Remove(path)
}

// peerKey is where a connection's context keeps the uid of its peer.
type peerKey struct{}

// withPeer puts the uid of the process at the other end of c into ctx. A
// connection whose peer cannot be told gets none, and so may change nothing.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	uc, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return ctx
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) { cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err != nil || credErr != nil {
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, cred.Uid)
}

// mayChange says whether the peer of a connection may use a mutating verb: root
// and the agent's own user may.
func mayChange(ctx context.Context, self uint32) bool {
	uid, known := ctx.Value(peerKey{}).(uint32)
	return known && (uid == 0 || uid == self)
}
