package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"ntsagent/packaging/parts"
)

// startNTPDRS runs an unmodified ntp-daemon of ntpd-rs whose keys the agent
// follows. It says that it has no time until it has a source, so it gets one in
// this process, at another address than its own: it takes that for a loop. It
// needs no root, and is kept from the clock.
func (d *daemon) startNTPDRS(ctx context.Context, root parts.Root, w *workspace) error {
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
	for range triesPort { // it shares no port, so somebody may take it before it does
		port, c4, c6, err := listenUDP(ctx)
		if err != nil {
			return err
		}
		c4.Close()
		c6.Close()
		d.ntp = both(port)
		if err := writeFiles(map[string][]byte{conf: []byte(ntpdrsConfig(dir, port, source.addr()))}); err != nil {
			return err
		}
		held := exec.Command(self, append([]string{clockVerb}, program.Args...)...)
		if d.child, err = startChild("ntp-daemon", held, w.path("log", "ntp-daemon.log")); err != nil {
			return err
		}
		if err := d.awaitTime(ctx); err == nil {
			break
		} else if d.gone() == nil || ctx.Err() != nil {
			return err
		}
	}
	if err := d.gone(); err != nil {
		return err
	}
	d.line = fmt.Sprintf("ntp-daemon %s of ntpd-rs, unmodified, serves NTP at %s and %s (pid %d)", parts.Debian13.NTPDRS, d.ntp[0], d.ntp[1], d.pid)
	d.section = section("ntpd-rs", d.ntp[0], "ntpd_rs", "keys_file", filepath.Join(dir, "keys"))
	return nil
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
