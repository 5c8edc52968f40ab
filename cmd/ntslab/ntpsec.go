package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"ntsagent/packaging/parts"
)

// startNTPsec runs an unmodified ntpd of NTPsec whose keys the agent follows. It
// insists on UDP port 123 and TCP port 4460, so it gets a network of its own, with
// a relay from a port of this one.
func (d *daemon) startNTPsec(ctx context.Context, root parts.Root, w *workspace) error {
	certPEM, keyPEM, err := newCert("ntpd's own, for nobody", time.Now())
	if err != nil {
		return err
	}
	dir := w.path("daemon")
	conf, keys, pidFile := filepath.Join(dir, "ntp.conf"), filepath.Join(dir, "nts-keys"), filepath.Join(dir, "ntpd.pid")
	if err := writeFiles(map[string][]byte{
		filepath.Join(dir, "own.crt"): certPEM,
		filepath.Join(dir, "own.key"): keyPEM,
		conf:                          []byte(ntpsecConfig(dir)),
	}); err != nil {
		return err
	}
	program := root.Command(context.WithoutCancel(ctx), "ntpd", "-n", "-p", pidFile, "-c", conf)
	if program.Err != nil {
		return program.Err
	}
	var port uint16
	if d.child, port, err = startInNetwork(ctx, "ntpd", program.Args, w.path("log", "ntpd.log")); err != nil {
		return err
	}
	d.ntp = both(port)
	if err := d.awaitTime(ctx); err != nil {
		return err
	}
	pid, err := readPID(pidFile)
	if err != nil {
		return err
	}
	d.line = fmt.Sprintf("ntpd %s of NTPsec, unmodified, in a network of its own where it has ports 123 and 4460, serves NTP through %s and %s (pid %d)",
		parts.Debian12.NTPsec, d.ntp[0], d.ntp[1], pid)
	d.section = section("ntpsec", d.ntp[0], "ntpsec", "keys_file", keys)
	return nil
}

func readPID(path string) (int, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("find out the process of a daemon: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid <= 0 {
		return 0, errors.New("find out the process of a daemon: " + path + " holds no number")
	}
	return pid, nil
}

// ntpsecConfig is what an operator writes beside the agent (and a stratum for a
// server without sources). All that the relay brings comes from one address, and
// ntpd answers some 20 packets at once of one that no line lets in.
func ntpsecConfig(dir string) string {
	return fmt.Sprintf(`# written by ntslab
tos orphan 8 orphanwait 0
restrict 127.0.0.1
restrict ::1

# what the agent needs of ntpd
nts cert %s
nts key %s
nts cookie %s
nts enable
`, filepath.Join(dir, "own.crt"), filepath.Join(dir, "own.key"), filepath.Join(dir, "nts-keys"))
}
