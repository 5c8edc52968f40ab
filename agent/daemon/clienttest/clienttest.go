// Package clienttest runs real, unmodified NTP daemons as clients with NTS for
// tests, and asks them what they know of their servers. None touches the host's
// clock.
package clienttest

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ntsagent/ntske/aead"
)

// Server is one that a client is told of.
type Server struct {
	Name string     // host name, as in its certificate
	Port uint16     // of its key exchange
	Addr netip.Addr // where the name leads; zero = wherever the host's own names do. Chrony alone takes one
	Poll string     // how often it is asked, as chrony has it; "" = once a second
}

func (s Server) String() string { return fmt.Sprintf("%s:%d", s.Name, s.Port) }

// Said is what a client says of one server.
type Said struct {
	AEAD    aead.ID // it agreed to; 0 = none yet
	Cookies int     // it holds
	NAKs    int     // it was given
	Reached bool    // authentic answers came lately
	Words   string  // its own about that
	// Of chrony alone.
	Length int           // of its cookies, in octets
	Times  int           // that an answer came to its last eight queries
	Since  time.Duration // its last key exchange
}

// Client is a running daemon, or several of a kind.
type Client struct {
	Name string        // with its version
	Log  func() string // what it has printed
	// Said asks it what it knows, by name of the server.
	Said func(context.Context) (map[string]Said, error)
}

// Reaches waits until the client, a chrony, has had so many authentic answers of its
// last eight queries of a server.
func (c *Client) Reaches(t testing.TB, name string, times int) Said {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		all, err := c.Said(ctx)
		if s := all[name]; err == nil && s.Times >= times {
			return s
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			t.Fatalf("the client does not reach %s %d times: %+v, %v\n%s", name, times, all, err, c.Log())
		}
	}
}

// folder is for the files of one client: the names of sockets are limited to
// 107 octets.
func folder(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "client")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func write(t testing.TB, dir, name string, lines []string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
