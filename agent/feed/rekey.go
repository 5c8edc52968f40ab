package feed

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// chronyd's control protocol, version 6, as far as REKEY needs it. Integers are
// big endian.
//
//	       request                    reply
//	 0     version 6                  6
//	 1     type 1                     2
//	 2-3   0                          0
//	 4-5   command 16                 the same
//	 6-7   attempt                    reply code 1
//	 8-11  sequence                   status u16, 0
//	16-19  0                          sequence echoed
//	20-27  0                          0
const (
	controlVersion = 6
	controlRequest = 1
	controlReply   = 2
	commandRekey   = 16
	replyNull      = 1
	controlLen     = 28
)

// ownSocket is the prefix and suffix of the sockets we bind beside chronyd's.
const (
	ownPrefix = "ntsagent."
	ownSuffix = ".sock"
)

// Tries of one REKEY, and how long each waits for the reply.
var rekeyWaits = [...]time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second}

var errNotOurs = errors.New("not a reply to our request")

func appendRekey(dst []byte, sequence uint32, attempt uint16) []byte {
	var b [controlLen]byte
	b[0], b[1] = controlVersion, controlRequest
	binary.BigEndian.PutUint16(b[4:], commandRekey)
	binary.BigEndian.PutUint16(b[6:], attempt)
	binary.BigEndian.PutUint32(b[8:], sequence)
	return append(dst, b[:]...)
}

// parseReply returns the status of the reply to the REKEY with that sequence.
// errNotOurs is worth waiting on, another error is chronyd's last word.
func parseReply(b []byte, sequence uint32) (status uint16, err error) {
	if len(b) < controlLen || b[1] != controlReply || binary.BigEndian.Uint32(b[16:]) != sequence {
		return 0, errNotOurs
	}
	if b[0] != controlVersion {
		return 0, fmt.Errorf("%w: protocol version %d, not %d", ErrRefused, b[0], controlVersion)
	}
	if binary.BigEndian.Uint16(b[4:]) != commandRekey {
		return 0, errNotOurs
	}
	status = binary.BigEndian.Uint16(b[8:])
	if status == 0 && binary.BigEndian.Uint16(b[6:]) != replyNull {
		return 0, fmt.Errorf("%w: reply code %d", ErrRefused, binary.BigEndian.Uint16(b[6:]))
	}
	return status, nil
}

// Rekey tells the chronyd that listens on the unix socket to load its key files
// again. It must run as chronyd's user: chronyd replies to a socket we bind in
// its directory, and that directory is closed to all others.
func Rekey(ctx context.Context, socket string) error {
	what := "send REKEY to " + socket
	if err := checkOwner(socket); err != nil {
		return explainRekey(what, socket, err)
	}
	dir := filepath.Dir(socket)
	sweepSockets(dir)
	var name [8]byte
	rand.Read(name[:])
	own := filepath.Join(dir, ownPrefix+hex.EncodeToString(name[:])+ownSuffix)
	if len(own) >= len(unix.RawSockaddrUnix{}.Path) {
		return fmt.Errorf("%s: the path of a reply socket beside it is longer than a socket address", what)
	}
	conn, err := net.DialUnix("unixgram", &net.UnixAddr{Name: own, Net: "unixgram"}, &net.UnixAddr{Name: socket, Net: "unixgram"})
	defer os.Remove(own) // bound even when the connection was refused
	if err != nil {
		return explainRekey(what, socket, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	for attempt, wait := range rekeyWaits {
		status, err := rekeyOnce(conn, uint16(attempt), wait)
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("%s: %w", what, context.Cause(ctx))
		case err == nil && status == 0:
			return nil
		case err == nil:
			return &Failure{What: what, Kind: ErrRefused, Err: fmt.Errorf("status %d", status),
				Fix: "run `chronyc rekey` as chronyd's user to see why"}
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return explainRekey(what, socket, err)
		}
	}
	return &Failure{What: what, Kind: ErrNoReply, Fix: "restart chronyd; see that it is not stopped or overloaded"}
}

func rekeyOnce(conn *net.UnixConn, attempt uint16, wait time.Duration) (uint16, error) {
	var random [4]byte
	rand.Read(random[:])
	sequence := binary.BigEndian.Uint32(random[:])
	if err := conn.SetDeadline(time.Now().Add(wait)); err != nil {
		return 0, err
	}
	if _, err := conn.Write(appendRekey(nil, sequence, attempt)); err != nil {
		return 0, err
	}
	var b [512]byte
	for {
		n, err := conn.Read(b[:])
		if err != nil {
			return 0, err
		}
		status, err := parseReply(b[:n], sequence)
		if !errors.Is(err, errNotOurs) {
			return status, err
		}
	}
}

// checkOwner sees that chronyd runs as our user. As root beside another user
// its reply could not reach us, short of a chmod by name in a directory that
// user owns, which is a race for a link.
func checkOwner(socket string) error {
	var st unix.Stat_t
	if err := unix.Stat(socket, &st); err != nil {
		return &os.PathError{Op: "stat", Path: socket, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return fmt.Errorf("%s is not a socket: %w", socket, syscall.ECONNREFUSED)
	}
	if int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("chronyd runs as user %d, this as user %d: %w", st.Uid, os.Geteuid(), os.ErrPermission)
	}
	return nil
}

func explainRekey(what, socket string, err error) error {
	switch {
	case errors.Is(err, ErrRefused):
		return &Failure{What: what, Kind: ErrRefused, Err: err, Fix: "run `chronyc rekey` as chronyd's user instead"}
	case errors.Is(err, os.ErrPermission):
		return &Failure{What: what, Kind: ErrNotPermitted, Err: err,
			Fix: "run `ntsagent feed chrony` as chronyd's user (_chrony or chrony), which also owns its key folder"}
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return &Failure{What: what, Kind: ErrNotRunning, Err: err,
			Fix: "start chronyd, or set daemon.chrony.command_socket to its bindcmdaddress"}
	}
	return fmt.Errorf("%s: %w", what, err)
}

// sweepSockets removes what killed helpers left behind, as well as it can: a
// socket of ours that nobody holds any more refuses a connection.
func sweepSockets(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // binding there will tell
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ownPrefix) || !strings.HasSuffix(e.Name(), ownSuffix) || e.Type() != os.ModeSocket {
			continue
		}
		path := filepath.Join(dir, e.Name())
		conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
		switch {
		case err == nil:
			conn.Close()
		case errors.Is(err, syscall.ECONNREFUSED):
			os.Remove(path)
		}
	}
}
