// Package setup finds out which NTP daemon a host has and brings its
// configuration to what the agent needs: Detect looks, PlanFor says what would
// change, Apply writes it with a way back, Revert goes that way.
//
// Nothing but the planned files is touched, and a file that is not ours is never
// written without a copy of what was there. Whatever is read comes from a Host, so
// that the system mounted at some folder can be looked at as well as this one.
package setup

import (
	"context"
	"errors"
	"path/filepath"

	"ntsagent/acme/disk"
	"ntsagent/agent/daemon"
)

// What can be wrong, for errors.Is; the error text says what to do about it.
var (
	ErrNotPermitted = errors.New("not permitted")
	ErrNoDaemon     = errors.New("no NTP daemon")
	ErrInTheWay     = errors.New("a file is not as it must be")
	ErrChanged      = errors.New("changed since it was applied")
	ErrNotApplied   = errors.New("nothing is applied")
	ErrLocked       = disk.ErrLocked // somebody else is at it
)

// Failure is an error with its remedy; its Kind is one of those above.
type Failure = daemon.Failure

// Kind is a program that keeps time.
type Kind string

// The daemons that are told apart.
const (
	None      Kind = ""
	Chrony    Kind = "chrony"
	NTPsec    Kind = "ntpsec"
	NTPDRS    Kind = "ntpd-rs"
	NTPD      Kind = "ntpd" // of ntp.org
	OpenNTPD  Kind = "openntpd"
	Busybox   Kind = "busybox"
	Timesyncd Kind = "systemd-timesyncd" // a client, no server
	Other     Kind = "other"             // a server that we do not know
)

// called is what people call a daemon without NTS.
func (k Kind) called() string {
	switch k {
	case NTPD:
		return "ntpd of ntp.org"
	case OpenNTPD:
		return "OpenNTPD"
	case Busybox:
		return "ntpd of busybox"
	}
	return string(k)
}

// Mode is how the agent works with a daemon.
type Mode string

// The modes, in the order of preference.
const (
	Lead        Mode = "lead"        // the agent makes the cookie keys
	Follow      Mode = "follow"      // the daemon does, and the agent reads them
	Certificate Mode = "certificate" // the daemon exchanges keys itself, the agent renews its certificate
	Gateway     Mode = "gateway"     // the agent speaks NTS for a daemon that has none
	NoMode      Mode = "none"        // there is no server to work with
)

// Finding is something an operator should know, and what to do about it.
type Finding struct {
	What string `json:"what"`
	Fix  string `json:"fix"`
}

// Host is the system to look at.
type Host struct {
	Root string // its file system, "/" for this one
	Proc string // its /proc; "" = none, as for an image that is not running
	// Run runs a program without a shell and returns all that it prints; nil = really run it.
	Run func(ctx context.Context, argv ...string) ([]byte, error)
	// Invoked tells what a process runs, its arguments and the command that prints its
	// version, for tests, whose daemons run through a loader of their own; nil, and
	// path "", mean what the kernel says, and that the program is asked itself.
	Invoked func(argv []string, exe string) (path string, args, ask []string)
}

// maxConf bounds each file that is read.
const maxConf = 1 << 20

// tree is the host's files with some replaced, as they would be: nil = not there.
type tree struct {
	root string
	over map[string][]byte
}

func (h Host) files() tree { return tree{root: h.Root} }

// at is where the host's path is for us.
func (t tree) at(path string) string { return filepath.Join("/", t.root, path) }

// with is the tree with one more file replaced.
func (t tree) with(path string, data []byte) tree {
	over := map[string][]byte{path: data}
	for p, b := range t.over {
		if p != path {
			over[p] = b
		}
	}
	return tree{t.root, over}
}

func (t tree) read(path string) ([]byte, error) {
	if b, ok := t.over[path]; ok {
		if b == nil {
			return nil, errGone
		}
		return b, nil
	}
	return disk.ReadFile(t.at(path), maxConf)
}
