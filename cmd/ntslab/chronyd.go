package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"time"

	"ntsagent/ntske/client"
	"ntsagent/packaging/parts"
)

// daemon is the unmodified chronyd the agent feeds.
type daemon struct {
	*child
	port     uint16
	keysFile string
	socket   string // its command socket
	config   string
	release  func()
}

// startChronyd runs chronyd in dir with NTP on 127.0.0.1 and ::1. The clock is
// never touched (-x); root is not needed (-U).
func startChronyd(ctx context.Context, root parts.Root, dir, socketDir, logPath string, now time.Time) (*daemon, error) {
	port, release, err := reserveUDP(ctx)
	if err != nil {
		return nil, err
	}
	d := &daemon{
		port:     port,
		keysFile: filepath.Join(dir, "ntskeys"),
		socket:   filepath.Join(socketDir, "chronyd.sock"),
		config:   filepath.Join(dir, "chrony.conf"),
		release:  release,
	}
	if err := d.start(ctx, root, dir, logPath, now); err != nil {
		d.stop()
		return nil, err
	}
	return d, nil
}

func (d *daemon) start(ctx context.Context, root parts.Root, dir, logPath string, now time.Time) error {
	certPEM, keyPEM, err := newCert("chronyd's own, for nobody", now)
	if err != nil {
		return err
	}
	kePort, err := freePort(ctx)
	if err != nil {
		return err
	}
	for path, data := range map[string][]byte{
		filepath.Join(dir, "own.crt"): certPEM,
		filepath.Join(dir, "own.key"): keyPEM,
		d.config:                      []byte(chronyConfig(dir, d.socket, d.port, kePort)),
	} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			return fmt.Errorf("write chronyd's files: %w", err)
		}
	}
	me, err := user.Current() // chronyd stays who we are: there may be no _chrony on this machine
	if err != nil {
		return fmt.Errorf("find the user for chronyd: %w", err)
	}
	args := []string{"-U", "-x", "-d", "-u", me.Username, "-f", d.config}
	if d.child, err = startChild("chronyd", root.Command(context.WithoutCancel(ctx), "chronyd", args...), logPath); err != nil {
		return err
	}
	for _, addr := range []string{on4(d.port), on6(d.port)} {
		if err := eventually(ctx, 10*time.Second, func(ctx context.Context) error { return d.tellsTime(ctx, addr) }); err != nil {
			return err
		}
	}
	return nil
}

// tellsTime asks chronyd at one of its addresses.
func (d *daemon) tellsTime(ctx context.Context, addr string) error {
	if gone := d.gone(); gone != nil {
		return inVain{gone}
	}
	reply, err := client.Plain(ctx, netip.MustParseAddrPort(addr))
	if err == nil && reply.Header.Stratum == 0 {
		err = errors.New("the answer is no time")
	}
	if err != nil {
		return fmt.Errorf("ask chronyd at %s: %w; %s", addr, err, d.said("it"))
	}
	return nil
}

func (d *daemon) stop() {
	if d.child != nil {
		d.child.stop()
	}
	d.release()
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
