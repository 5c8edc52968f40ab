package feed

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What chronyc 4.3 sends for `rekey`, and chronyd 4.3 answers.
const (
	goldenRequest = "06010000001000000123456700000000" + "000000000000000000000000"
	goldenReply   = "06020000001000010000000000000000" + "012345670000000000000000"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRekeyRequestIsWhatChronycSends(t *testing.T) {
	if got := appendRekey([]byte("x"), 0x01234567, 0); !bytes.Equal(got[1:], unhex(t, goldenRequest)) || got[0] != 'x' {
		t.Errorf("request % x", got)
	}
	if got := appendRekey(nil, 0, 2); binary.BigEndian.Uint16(got[6:]) != 2 {
		t.Errorf("attempt in % x", got)
	}
}

func TestParseReply(t *testing.T) {
	with := func(at int, b ...byte) []byte {
		r := unhex(t, goldenReply)
		copy(r[at:], b)
		return r
	}
	for _, c := range []struct {
		sentence string
		reply    []byte
		status   uint16
		err      error
	}{
		{"the golden reply is success", with(0), 0, nil},
		{"a longer one too", append(with(0), 1, 2, 3), 0, nil},
		{"a status is told", with(8, 0, 2), 2, nil},
		{"a status comes whatever the reply code", with(6, 0, 0, 0, 2), 2, nil},
		{"another reply code with success is refused", with(6, 0, 5), 0, ErrRefused},
		{"another protocol version is refused", with(0, 7), 0, ErrRefused},
		{"another sequence is not ours", with(16, 9), 0, errNotOurs},
		{"another command is not ours", with(4, 0, 17), 0, errNotOurs},
		{"a request is not a reply", with(1, 1), 0, errNotOurs},
		{"a cut off one is not ours", with(0)[:27], 0, errNotOurs},
		{"nothing is not ours", nil, 0, errNotOurs},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			status, err := parseReply(c.reply, 0x01234567)
			if status != c.status || !errors.Is(err, c.err) {
				t.Errorf("status %d, error %v; want %d, %v", status, err, c.status, c.err)
			}
		})
	}
}

func FuzzParseReply(f *testing.F) {
	f.Add(unhex(f, goldenReply), uint32(0x01234567))
	f.Add(unhex(f, goldenRequest), uint32(0))
	f.Fuzz(func(t *testing.T, b []byte, sequence uint32) {
		status, err := parseReply(b, sequence)
		if err == nil && (len(b) < controlLen || binary.BigEndian.Uint32(b[16:]) != sequence || binary.BigEndian.Uint16(b[8:]) != status) {
			t.Errorf("took % x for the reply to %08x", b, sequence)
		}
	})
}

// fakeChronyd answers at a socket: reply gets each request and its number, and
// returns the datagrams to send back.
func fakeChronyd(t *testing.T, reply func(n int, request []byte) [][]byte) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "chrony")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "chronyd.sock")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		var b [512]byte
		for n := 0; ; n++ {
			size, from, err := conn.ReadFromUnix(b[:])
			if err != nil {
				return
			}
			for _, r := range reply(n, bytes.Clone(b[:size])) {
				conn.WriteToUnix(r, from)
			}
		}
	}()
	t.Cleanup(func() { conn.Close(); <-done })
	return path
}

func okTo(request []byte) []byte {
	r := make([]byte, controlLen)
	r[0], r[1] = controlVersion, controlReply
	copy(r[4:6], request[4:6])
	r[7] = replyNull
	copy(r[16:20], request[8:12])
	return r
}

func TestRekey(t *testing.T) {
	for _, c := range []struct {
		sentence string
		reply    func(n int, request []byte) [][]byte
		err      error
	}{
		{"success is nil", func(_ int, r []byte) [][]byte { return [][]byte{okTo(r)} }, nil},
		{"a lost request is repeated", func(n int, r []byte) [][]byte {
			if n == 0 {
				return nil
			}
			return [][]byte{okTo(r)}
		}, nil},
		{"junk before the reply is passed over", func(_ int, r []byte) [][]byte { return [][]byte{{1, 2, 3}, r, okTo(r)} }, nil},
		{"a status is refusal", func(_ int, r []byte) [][]byte {
			b := okTo(r)
			b[9] = 2
			return [][]byte{b}
		}, ErrRefused},
		{"silence ends", func(int, []byte) [][]byte { return nil }, ErrNoReply},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			t.Parallel()
			socket := fakeChronyd(t, c.reply)
			if err := Rekey(t.Context(), socket); !errors.Is(err, c.err) {
				t.Errorf("Rekey: %v; want %v", err, c.err)
			}
			entries, err := os.ReadDir(filepath.Dir(socket))
			if err != nil || len(entries) != 1 {
				t.Errorf("left beside the socket: %v, %v", entries, err)
			}
		})
	}
}

func TestRekeyEndsWithItsContext(t *testing.T) {
	soonest := time.Hour
	for range 20 { // any of which may stand still for a moment
		if soonest = min(soonest, cancelledRekey(t)); soonest < rekeyWaits[0] {
			return
		}
	}
	t.Errorf("took %s to end, and waited for the reply", soonest)
}

// cancelledRekey is how long a Rekey takes that is cancelled while it waits.
func cancelledRekey(t *testing.T) time.Duration {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	socket := fakeChronyd(t, func(int, []byte) [][]byte { cancel(); return nil })
	start := time.Now()
	if err := Rekey(ctx, socket); !errors.Is(err, context.Canceled) {
		t.Fatalf("Rekey: %v", err)
	}
	return time.Since(start)
}

func TestRekeySaysWhyThereIsNobody(t *testing.T) {
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale.sock")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: stale, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	l.Close() // the path stays, as after a SIGKILL of chronyd
	plain := filepath.Join(dir, "file")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ sentence, socket string }{
		{"no socket", filepath.Join(dir, "none.sock")},
		{"a socket nobody listens on", stale},
		{"a file that is no socket", plain},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			err := Rekey(t.Context(), c.socket)
			if !errors.Is(err, ErrNotRunning) || !strings.Contains(err.Error(), "start chronyd") {
				t.Errorf("Rekey: %v", err)
			}
		})
	}
}

func TestSweepSocketsRemovesOnlyDeadOnesOfOurs(t *testing.T) {
	dir := t.TempDir()
	for _, s := range []struct {
		name  string
		alive bool
	}{
		{"ntsagent.1.sock", false}, {"ntsagent.2.sock", true}, {"chronyd.sock", false}, {"chronyc.7.sock", false},
	} {
		l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, s.name), Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		if s.alive {
			defer l.Close()
		} else {
			l.Close()
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "ntsagent.3.sock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	sweepSockets(dir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if got := strings.Join(left, " "); got != "chronyc.7.sock chronyd.sock ntsagent.2.sock ntsagent.3.sock" {
		t.Errorf("left %s", got)
	}
}
