package task

import (
	"net"
	"path/filepath"
	"regexp"
	"testing"
	"time"
)

// manager is a stand-in for systemd's end of NOTIFY_SOCKET.
func manager(t *testing.T) func() string {
	t.Helper()
	addr := &net.UnixAddr{Net: "unixgram", Name: filepath.Join(t.TempDir(), "notify")}
	conn, err := net.ListenUnixgram("unixgram", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", addr.Name)
	return func() string {
		t.Helper()
		b := make([]byte, 4096)
		conn.SetReadDeadline(time.Now().Add(time.Minute))
		n, err := conn.Read(b)
		if err != nil {
			t.Fatalf("no notification: %v", err)
		}
		return string(b[:n])
	}
}

func TestNotificationsAsSystemdReadsThem(t *testing.T) {
	receive := manager(t)
	for _, c := range []struct {
		name string
		send func() error
		want string // regular expression
	}{
		{"ready with a status", func() error { return NotifyReady("serving") }, `^READY=1\nSTATUS=serving$`},
		{"ready without one", func() error { return NotifyReady("") }, `^READY=1$`},
		{"reloading carries the clock", func() error { return NotifyReloading("reading") }, `^RELOADING=1\nMONOTONIC_USEC=[1-9][0-9]*\nSTATUS=reading$`},
		{"stopping", func() error { return NotifyStopping("draining") }, `^STOPPING=1\nSTATUS=draining$`},
		{"a status cannot smuggle a variable", func() error { return NotifyReady("a\nMAINPID=1") }, `^READY=1\nSTATUS=a MAINPID=1$`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := c.send(); err != nil {
				t.Fatal(err)
			}
			if got := receive(); !regexp.MustCompile(c.want).MatchString(got) {
				t.Errorf("sent %q, want %s", got, c.want)
			}
		})
	}
}

func TestWithoutAServiceManagerNothingHappens(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if err := NotifyReady("serving"); err != nil {
		t.Error(err)
	}
}
