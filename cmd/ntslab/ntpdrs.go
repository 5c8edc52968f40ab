package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"ntsagent/packaging/parts"
)

// startNTPDRS runs an unmodified ntp-daemon of ntpd-rs whose keys the agent
// follows. It says that it has no time until it has a source, so it gets one in
// this process, at another address than its own: it takes that for a loop. It
// needs no root, and is kept from the clock. free finds it a port.
func (d *daemon) startNTPDRS(ctx context.Context, root parts.Root, w *workspace, free func(context.Context) (uint16, error)) error {
	source, err := startSource(ctx, "127.0.0.2")
	if err != nil {
		return err
	}
	d.atEnd(source.stop)
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	dir, conf := w.path("daemon"), w.path("daemon", "ntp.toml")
	program := root.Command(context.WithoutCancel(ctx), "ntp-daemon", "-c", conf)
	if program.Err != nil {
		return program.Err
	}
	start := func(port uint16) error {
		d.ntp = both(port)
		if err := writeFiles(map[string][]byte{conf: []byte(ntpdrsConfig(dir, port, source.addr()))}); err != nil {
			return err
		}
		held := exec.Command(self, append([]string{clockVerb}, program.Args...)...)
		d.child, err = startChild("ntp-daemon", held, w.path("log", "ntp-daemon.log"))
		return err
	}
	if err := d.startAtAFreePort(ctx, free, start); err != nil {
		return err
	}
	d.line = fmt.Sprintf("ntp-daemon %s of ntpd-rs, unmodified, serves NTP at %s and %s (pid %d)", parts.Debian13.NTPDRS, d.ntp[0], d.ntp[1], d.pid)
	d.section = section("ntpd-rs", d.ntp[0], "ntpd_rs", "keys_file", filepath.Join(dir, "keys"))
	return nil
}

// withoutPort is what ntp-daemon writes when it cannot have a port. It goes on all
// the same, and tries again each second.
const withoutPort = "Could not open server socket"

// startAtAFreePort starts the daemon, at another port when somebody took the one
// that was free a moment before.
func (d *daemon) startAtAFreePort(ctx context.Context, free func(context.Context) (uint16, error), start func(port uint16) error) error {
	for try := 1; ; try++ {
		port, err := free(ctx)
		if err != nil {
			return err
		}
		if err := start(port); err != nil {
			return err
		}
		taken := false
		err = eventually(ctx, time.Minute, func(ctx context.Context) error {
			for _, addr := range d.ntp {
				if err := d.tellsTime(ctx, addr); err != nil {
					if taken = strings.Contains(d.said("it"), withoutPort); taken {
						return inVain{err}
					}
					return err
				}
			}
			return nil
		})
		if err == nil || !taken && d.gone() == nil || try == triesPort || ctx.Err() != nil {
			return err
		}
		d.child.stop()
		if err := os.Remove(d.logPath); err != nil { // what it says is about this port
			return fmt.Errorf("start %s once more: %w", d.name, err)
		}
	}
}

// ntpdrsConfig has a source that is asked once a second; nothing in it is about
// the agent, which needs no more than the place of the key file.
func ntpdrsConfig(dir string, port uint16, source string) string {
	return fmt.Sprintf(`# written by ntslab
[observability]
log-level = "warn"
[synchronization]
minimum-agreeing-sources = 1
[source-defaults]
poll-interval-limits = { min = 0, max = 4 }
initial-poll-interval = 0
[[source]]
mode = "server"
address = %[1]q
[[server]]
listen = %[2]q
[[server]]
listen = %[3]q
[keyset]
key-storage-path = %[4]q
`, source, on4(port), on6(port), filepath.Join(dir, "keys"))
}
