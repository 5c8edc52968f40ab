package main

import (
	"context"
	"fmt"
	"os/user"
	"path/filepath"
	"time"

	"ntsagent/packaging/parts"
)

// startChronyd runs an unmodified chronyd that the agent feeds. The clock is
// never touched (-x); root is not needed (-U).
func (d *daemon) startChronyd(ctx context.Context, root parts.Root, w *workspace) error {
	port, release, err := reserveUDP(ctx)
	if err != nil {
		return err
	}
	d.ntp = both(port)
	d.atEnd(release)
	certPEM, keyPEM, err := newCert("chronyd's own, for nobody", time.Now())
	if err != nil {
		return err
	}
	kePort, err := freePort(ctx)
	if err != nil {
		return err
	}
	me, err := user.Current() // chronyd stays who we are: there may be no _chrony on this machine
	if err != nil {
		return fmt.Errorf("find the user for chronyd: %w", err)
	}
	dir, conf, socket := w.path("daemon"), w.path("daemon", "chrony.conf"), filepath.Join(w.daemonDir, "chronyd.sock")
	if err := writeFiles(map[string][]byte{
		filepath.Join(dir, "own.crt"): certPEM,
		filepath.Join(dir, "own.key"): keyPEM,
		conf:                          []byte(chronyConfig(dir, socket, port, kePort)),
	}); err != nil {
		return err
	}
	args := []string{"-U", "-x", "-d", "-u", me.Username, "-f", conf}
	if d.child, err = startChild("chronyd", root.Command(context.WithoutCancel(ctx), "chronyd", args...), w.path("log", "chronyd.log")); err != nil {
		return err
	}
	d.line = fmt.Sprintf("chronyd %s, unmodified, serves NTP at %s and %s (pid %d)", parts.Debian12.Chrony, on4(port), on6(port), d.pid)
	d.section = section("chrony", d.ntp[0], "chrony", "keys_file", filepath.Join(dir, "ntskeys"), "command_socket", socket, "config_file", conf)
	return nil
}

// chronyConfig is what an operator writes beside the agent (and port, addresses
// and stratum for the loopback).
func chronyConfig(dir, socket string, port, kePort uint16) string {
	return fmt.Sprintf(`# written by ntslab
port %d
bindaddress 127.0.0.1
bindaddress ::1
local stratum 8
cmdport 0
bindcmdaddress %s
pidfile %s

# what the agent needs of chronyd
allow
ntsserverkey %s
ntsservercert %s
ntsport %d
ntsrotate 0
ntsdumpdir %s
`, port, socket, filepath.Join(dir, "chronyd.pid"), filepath.Join(dir, "own.key"), filepath.Join(dir, "own.crt"), kePort, dir)
}
