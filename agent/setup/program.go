package setup

import (
	"path/filepath"
	"strconv"
	"strings"
)

// program is a time daemon as its name shows it.
type program struct {
	name    string   // as the file is called
	kinds   []Kind   // what it may be
	config  string   // the letter of the option that names the configuration
	values  string   // all letters of options that have a value
	long    string   // the long form of config
	version bool     // it tells its version, and can be asked without harm
	users   []string // as whom distributions run it
	units   []string // as what
}

// programs are those we know by name.
func programs() []program {
	return []program{
		{name: "chronyd", kinds: []Kind{Chrony}, config: "f", values: "fFhlLPtu", version: true,
			users: []string{"_chrony", "chrony"}, units: []string{"chrony.service", "chronyd.service", "chronyd-restricted.service"}},
		{name: "ntp-daemon", kinds: []Kind{NTPDRS}, config: "c", values: "cl", long: "config", version: true,
			users: []string{"ntpd-rs"}, units: []string{"ntpd-rs.service"}},
		{name: "ntpd", kinds: []Kind{NTPsec, OpenNTPD, NTPD}, config: "cf", values: "cDfiIklprstuUvw", long: "configfile", version: true,
			users: []string{"ntpsec", "ntp", "ntpd", "openntpd", "_ntp"}, units: []string{"ntpsec.service", "ntpd.service", "ntp.service", "openntpd.service"}},
		{name: "busybox", kinds: []Kind{Busybox}},
		{name: "systemd-timesyncd", kinds: []Kind{Timesyncd}, users: []string{"systemd-timesync"}},
	}
}

// invocation is what a process runs: the program file and its arguments.
type invocation struct {
	path string
	args []string
	ask  []string // what tells its version instead of the program itself; nil but in tests
}

// invoked reads the command of a process.
func (h Host) invoked(p process) invocation {
	if h.Invoked != nil {
		if path, args, ask := h.Invoked(p.argv, p.exe); path != "" {
			return invocation{path, args, ask}
		}
	}
	return invoked(p.argv, p.exe)
}

func invoked(argv []string, exe string) invocation {
	exe = strings.TrimSuffix(exe, " (deleted)")
	if exe == "" && len(argv) > 0 {
		exe = argv[0]
	}
	return invocation{path: exe, args: tail(argv, 1)}
}

func tail(s []string, n int) []string {
	if n >= len(s) {
		return nil
	}
	return s[n:]
}

// programOf tells which program a process is; false = none we know.
func (p process) program() (program, bool) {
	base := filepath.Base(p.in.path)
	if p.in.path == "" { // neither may be read
		base = p.comm
	}
	for _, known := range programs() {
		switch {
		case known.name != base && !(p.exe == "" && known.name[:min(15, len(known.name))] == p.comm):
		case base == "busybox" && !busyboxNTPD(p):
		default:
			return known, true
		}
	}
	return program{}, false
}

// busyboxNTPD tells the applet from all others.
func busyboxNTPD(p process) bool {
	if len(p.argv) == 0 {
		return p.comm == "ntpd"
	}
	applet := filepath.Base(p.argv[0])
	return applet == "ntpd" || applet == "busybox" && len(p.argv) > 1 && p.argv[1] == "ntpd"
}

// configArg is the configuration named in args; "" = none is.
func (p program) configArg(args []string) (path string) {
	for i := 0; i < len(args); i++ {
		a := args[i]
		if value, ok := strings.CutPrefix(a, "--"); ok {
			name, path2, joined := strings.Cut(value, "=")
			if p.long != "" && name == p.long {
				if joined {
					path = path2
				} else if i+1 < len(args) {
					i++
					path = args[i]
				}
			}
			continue
		}
		if len(a) < 2 || a[0] != '-' {
			continue
		}
		for j := 1; j < len(a); j++ {
			if !strings.ContainsRune(p.values, rune(a[j])) {
				continue
			}
			value := a[j+1:]
			if value == "" && i+1 < len(args) {
				i++
				value = args[i]
			}
			if strings.ContainsRune(p.config, rune(a[j])) {
				path = value
			}
			break
		}
	}
	return path
}

// build is what a program says of itself.
type build struct {
	kind    Kind
	version string // "" = it does not say
	noNTS   bool   // it was built without
}

// parseBuild reads what `--version` printed. OpenNTPD has no such option and
// prints how it is used.
func parseBuild(out string) build {
	line, _, _ := strings.Cut(strings.TrimSpace(out), "\n")
	word := func(prefix string) (string, bool) {
		rest, ok := strings.CutPrefix(line, prefix)
		rest, _, _ = strings.Cut(strings.TrimSpace(rest), " ")
		rest, _, _ = strings.Cut(rest, "@")
		return printable(rest), ok
	}
	if v, ok := word("chronyd (chrony) version "); ok {
		return build{Chrony, v, strings.Contains(line, "-NTS")}
	}
	if v, ok := word("ntpd ntpsec-"); ok {
		return build{NTPsec, v, false}
	}
	if v, ok := word("ntp-daemon "); ok {
		return build{NTPDRS, v, false}
	}
	if v, ok := word("ntpd "); ok && strings.HasPrefix(v, "4.") {
		return build{NTPD, v, true}
	}
	if strings.Contains(out, "usage: ntpd [-dnSsv]") || strings.Contains(out, "usage: ntpd [-dnv]") {
		return build{OpenNTPD, "", true}
	}
	return build{}
}

// older tells whether a version is below another; "" is not.
func older(version string, major, minor int) bool {
	a, rest, _ := strings.Cut(version, ".")
	n, err := strconv.Atoi(a)
	if err != nil {
		return false
	}
	b := rest
	for i, r := range rest {
		if r < '0' || r > '9' {
			b = rest[:i]
			break
		}
	}
	m, _ := strconv.Atoi(b) // none is 0
	return n < major || n == major && m < minor
}
