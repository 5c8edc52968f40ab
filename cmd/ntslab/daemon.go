package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"ntsagent/ntske/client"
	"ntsagent/packaging/parts"
)

// daemon is the NTP server of the lab, running.
type daemon struct {
	*child            // nil = it is in this process
	ntp      []string // where it answers
	line     string   // of the story
	section  string   // `daemon:` of the agent's configuration
	releases []func()
}

// daemons are what --daemon takes.
var daemons = []string{"gateway", "chrony", "ntpsec", "ntpd-rs"}

// startDaemon starts one of daemons, which writes only below w.
func startDaemon(ctx context.Context, kind string, w *workspace, s *story) (*daemon, error) {
	d := &daemon{}
	var err error
	switch kind {
	case "gateway":
		err = d.startPlain(ctx)
	case "chrony":
		var root parts.Root
		if root, err = unpacked(ctx, s, parts.Debian12, "chrony", parts.UnpackChrony); err == nil {
			err = d.startChronyd(ctx, root, w)
		}
	case "ntpsec":
		var root parts.Root
		if root, err = unpacked(ctx, s, parts.Debian12, "ntpsec", parts.UnpackNTPsec); err == nil {
			err = d.startNTPsec(ctx, root, w)
		}
	case "ntpd-rs":
		var root parts.Root
		if root, err = unpacked(ctx, s, parts.Debian13, "ntpd-rs", parts.UnpackNTPDRS); err == nil {
			err = d.startNTPDRS(ctx, root, w, freeUDP)
		}
	default:
		err = fmt.Errorf("no daemon is called %q", kind)
	}
	if err == nil {
		err = d.awaitTime(ctx)
	}
	if err != nil {
		d.stop()
		return nil, err
	}
	return d, nil
}

// unpacked returns the root of a daemon and tells when that takes a while.
func unpacked(ctx context.Context, s *story, r parts.Release, pkg string, unpack func(context.Context, string, parts.Release) (parts.Root, error)) (parts.Root, error) {
	repo, err := repoDir()
	if err != nil {
		return "", err
	}
	suite := map[int]string{12: "bookworm", 13: "trixie"}[r.Debian]
	if _, err := os.Stat(filepath.Join(repo, ".parts", suite, pkg)); err != nil {
		s.tell("daemon", "unpacking Debian %d's %s into %s/.parts, once", r.Debian, pkg, repo)
	}
	return unpack(ctx, repo, r)
}

// awaitTime waits until the daemon tells the time at all its addresses.
func (d *daemon) awaitTime(ctx context.Context) error {
	for _, addr := range d.ntp {
		if err := eventually(ctx, time.Minute, func(ctx context.Context) error { return d.tellsTime(ctx, addr) }); err != nil {
			return err
		}
	}
	return nil
}

// tellsTime asks the daemon at one of its addresses.
func (d *daemon) tellsTime(ctx context.Context, addr string) error {
	if gone := d.gone(); gone != nil {
		return inVain{gone}
	}
	ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond) // a daemon that starts does not hear the first query
	defer cancel()
	reply, err := client.Plain(ctx, netip.MustParseAddrPort(addr))
	if h := reply.Header; err == nil && (h.Stratum == 0 || h.Leap == 3) {
		err = errors.New("the answer is no time")
	}
	if err != nil {
		return fmt.Errorf("ask the daemon at %s: %w; %s", addr, err, d.said("it"))
	}
	return nil
}

// over is closed when the daemon has ended by itself; nil = it cannot.
func (d *daemon) over() <-chan struct{} {
	if d.child == nil {
		return nil
	}
	return d.ended
}

// atEnd has f called when the daemon has stopped.
func (d *daemon) atEnd(f func()) { d.releases = append(d.releases, f) }

func (d *daemon) stop() {
	if d.child != nil {
		d.child.stop()
	}
	for _, release := range d.releases {
		release()
	}
}

// writeFiles writes what a daemon is to read, by path.
func writeFiles(files map[string][]byte) error {
	for path, data := range files {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			return fmt.Errorf("write the daemon's files: %w", err)
		}
	}
	return nil
}

// quoted is v as JSON, which YAML includes.
func quoted(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings and lists of strings always encode
	}
	return string(b)
}

// startPlain is for the gateway: a server without NTS, in this process, so that
// the lab needs no package.
func (d *daemon) startPlain(ctx context.Context) error {
	source, err := startSource(ctx, loopback4)
	if err != nil {
		return err
	}
	d.atEnd(source.stop)
	d.ntp = []string{source.addr()}
	d.line = fmt.Sprintf("a plain NTP server without NTS, in this process, tells this host's time at %s", source.addr())
	d.section = gatewaySection(source.addr(), []string{loopback4 + ":0", "[" + loopback6 + "]:0"})
	return nil
}

// gatewaySection is section for the agent's own gateway, which listens.
func gatewaySection(daemon string, listen []string) string {
	return fmt.Sprintf("daemon:\n  kind: gateway\n  address: %s\n  gateway: {listen: %s}\n", quoted(daemon), quoted(listen))
}

// section is `daemon:` of the agent's configuration: the kind, where the daemon is
// asked, and the kind's own keys and values.
func section(kind, address, name string, pairs ...string) string {
	var own strings.Builder
	for i := 0; i < len(pairs); i += 2 {
		fmt.Fprintf(&own, "    %s: %s\n", pairs[i], quoted(pairs[i+1]))
	}
	return fmt.Sprintf("daemon:\n  kind: %s\n  address: %s\n  %s:\n%s", kind, quoted(address), name, &own)
}
