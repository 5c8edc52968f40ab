package setup

import (
	"bufio"
	"os"
	"strings"
)

// configs are where distributions put a daemon's configuration.
func (k Kind) configs() []string {
	switch k {
	case Chrony:
		return []string{"/etc/chrony/chrony.conf", "/etc/chrony.conf"}
	case NTPsec:
		return []string{"/etc/ntpsec/ntp.conf", "/etc/ntp.conf"}
	case NTPDRS:
		return []string{"/etc/ntpd-rs/ntp.toml", "/etc/ntp.toml"}
	case NTPD:
		return []string{"/etc/ntp.conf"}
	case OpenNTPD:
		return []string{"/etc/openntpd/ntpd.conf", "/etc/ntpd.conf"}
	case Timesyncd:
		return []string{"/etc/systemd/timesyncd.conf"}
	}
	return nil
}

// whichNTPD tells the daemons called ntpd apart where the program does not say.
func (t tree) whichNTPD(config, unit string) Kind {
	hint := config + " " + unit
	switch {
	case strings.Contains(hint, "openntpd"):
		return OpenNTPD
	case strings.Contains(hint, "ntpsec"):
		return NTPsec
	case config == "" && t.has("/etc/openntpd/ntpd.conf"):
		return OpenNTPD
	case config == "" && t.has("/etc/ntpsec/ntp.conf"):
		return NTPsec
	}
	return NTPD
}

// installed is the daemon whose program is there though none runs.
func (h Host) installed() Daemon {
	t := h.files()
	for _, c := range []struct {
		path string
		kind Kind
	}{{"chronyd", Chrony}, {"ntp-daemon", NTPDRS}, {"ntpd", None}, {"systemd-timesyncd", Timesyncd}} {
		if t.first("/usr/sbin/"+c.path, "/usr/bin/"+c.path, "/lib/systemd/"+c.path) == "" {
			continue
		}
		if c.kind == None {
			c.kind = t.whichNTPD("", "")
		}
		return h.completed(Daemon{Kind: c.kind, Program: c.path})
	}
	return Daemon{}
}

// Named is the daemon of a kind as the distribution's files tell of it, running or not.
func Named(h Host, k Kind) Daemon {
	d := Daemon{Kind: k, Program: string(k)}
	for _, p := range programs() {
		for _, kind := range p.kinds {
			if kind == k {
				d.Program = p.name
			}
		}
	}
	d = h.completed(d)
	d.Mode, d.Why = d.mode(Options{})
	return d
}

// packageVersion is the upstream version of a Debian package; "" = not to be had.
func (t tree) packageVersion(name string) string {
	f, err := os.Open(t.at("/var/lib/dpkg/status"))
	if err != nil {
		return ""
	}
	defer f.Close()
	in := false
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line := lines.Text()
		if p, ok := strings.CutPrefix(line, "Package: "); ok {
			in = p == name
		}
		if v, ok := strings.CutPrefix(line, "Version: "); ok && in {
			return upstream(v)
		}
	}
	return ""
}

// upstream takes epoch and revision off a Debian version.
func upstream(v string) string {
	if _, after, ok := strings.Cut(v, ":"); ok {
		v = after
	}
	if i := strings.LastIndexByte(v, '-'); i >= 0 {
		v = v[:i]
	}
	return printable(v)
}

// unitDirs are where systemd reads units, the first counts.
func unitDirs() []string {
	return []string{"/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"}
}
