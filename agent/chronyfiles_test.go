package agent

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/go-hclog"

	"ntsagent/agent/daemon"
)

func TestAChronydIsKnownByItsCommandSocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "chrony") // the names of sockets are limited to 107 octets
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s")
	bind := func() net.Conn {
		c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	f := newChronyFiles(daemon.Chronyd{CommandSocket: path}, hclog.NewNullLogger())
	want := func(what string, started, down bool) {
		t.Helper()
		if s, d := f.look(); s != started || d != down {
			t.Errorf("%s: started %v, down %v; want %v and %v", what, s, d, started, down)
		}
	}
	want("none yet", false, true)
	first := bind()
	want("the first", true, false)
	want("the first, again", false, false)
	f = newChronyFiles(daemon.Chronyd{CommandSocket: path}, hclog.NewNullLogger())
	want("one that was there before us", false, false)
	first.Close()
	if err := os.Rename(path, path+"-old"); err != nil { // keeps its inode from being used again
		t.Fatal(err)
	}
	want("stopped", false, true)
	want("still stopped", false, true)
	defer bind().Close()
	want("the second", true, false)
	want("the second, again", false, false)
}
