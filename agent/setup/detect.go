package setup

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"ntsagent/acme/disk"
	"ntsagent/agent/daemon"
)

// Ports are where to look: 123 and 4460 but for tests.
type Ports struct {
	NTP uint16 // UDP
	KE  uint16 // TCP
}

// Daemon is what Detect found.
type Daemon struct {
	Kind    Kind   `json:"daemon"`
	Program string `json:"program"`
	Version string `json:"version"`           // "" = it could not be told
	PID     int    `json:"pid"`               // 0 = it does not run
	Unit    string `json:"unit"`              // of systemd; "" = none
	Serves  bool   `json:"serves"`            // it holds the NTP port
	Assumed bool   `json:"assumed,omitempty"` // no more is known than that it runs and that a process hidden from us holds the port
	Config  string `json:"configuration"`
	Mode    Mode   `json:"mode"`
	Why     string `json:"why"`
	// Stranger is who holds the NTP port though no daemon we know: a server without
	// NTS, as far as can be told. "" = nobody, or one that cannot be seen.
	Stranger string    `json:"stranger,omitempty"`
	InWay    []Finding `json:"in_the_way"`

	noNTS  bool
	absent bool    // not installed where distributions put it
	holds  process // who has the KE port
}

// Detect finds the NTP daemon of the host: who holds the NTP port at o.Address, else
// who runs, else what is installed; of o.Kind, if that names one. Without any the Kind is None. What may not be looked at
// is an error that is ErrNotPermitted.
func Detect(ctx context.Context, h Host, ports Ports, o Options) (Daemon, error) {
	o = o.withDefaults()
	d, err := h.find(ctx, ports, o)
	if err != nil {
		return Daemon{}, err
	}
	if d.Kind == None {
		return d, nil
	}
	d.Mode, d.Why = d.mode(o)
	d.InWay = append(d.InWay, d.obstacles(h.files(), ports, o)...)
	return d, nil
}

// find does all but judge.
func (h Host) find(ctx context.Context, ports Ports, o Options) (Daemon, error) {
	if h.Proc == "" {
		return h.asWritten(ctx, h.installed(), nil, nil, o), nil
	}
	at, ke, err := h.sockets(ports)
	if err != nil {
		return Daemon{}, err
	}
	wanted, ntp := map[uint64]bool{}, reached(at, o.Address.Addr())
	for _, inode := range slices.Concat(ntp, ke) {
		wanted[inode] = true
	}
	all, err := processes(h.Proc, wanted)
	if err != nil {
		return Daemon{}, &Failure{What: "look at the processes", Kind: ErrNotPermitted, Err: err, Fix: "run as root where /proc is mounted"}
	}
	h.judge(all)
	d, err := h.holder(ctx, all, ntp, ports)
	if err != nil {
		return Daemon{}, err
	}
	d = h.asWritten(ctx, d, all, ntp, o)
	if takers := holding(all, ke); len(takers) > 0 {
		d.holds = takers[0]
	}
	return d, nil
}

// holder is the daemon at the NTP port, else one that runs or is installed, with
// what is in its way.
func (h Host) holder(ctx context.Context, all []process, ntp []uint64, ports Ports) (Daemon, error) {
	holders := holding(all, ntp)
	d, ok := h.known(ctx, holders, all)
	if ok {
		d.Serves = true
		return d, nil
	}
	var inWay []Finding
	unseen := len(ntp) > 0 && len(holders) == 0
	d, ok = h.known(ctx, all, all)
	switch {
	case unseen && slices.ContainsFunc(all, func(p process) bool { return p.hidden }):
		who := servers(all)
		if len(who) != 1 {
			return Daemon{}, &Failure{What: strings.TrimSpace(fmt.Sprintf("find who holds UDP port %d %s", ports.NTP, oneOf(who))), Kind: ErrNotPermitted,
				Fix: "run as root: the sockets of other users are not shown to this one"}
		}
		d.Serves, d.Assumed = true, true
	case unseen:
		inWay = []Finding{{fmt.Sprintf("UDP port %d is held by a process that is not to be seen here, of a container perhaps", ports.NTP),
			"run this where that process runs"}}
	case len(holders) > 0:
		inWay = []Finding{h.stranger(holders[0], ports.NTP)}
	default:
		inWay = h.impostor(all)
	}
	if installed := h.installed(); !ok || d.Kind == Timesyncd && installed.Kind != None && installed.Kind != Timesyncd { // a server that has not started yet
		d = installed
	}
	d.InWay = append(inWay, d.InWay...)
	if len(holders) > 0 && holders[0].pid != 1 && holders[0].comm != "ntsagent" && h.mayServe(holders[0], ports.NTP) {
		d.Stranger = holders[0].String()
	}
	return d, nil
}

// servers are the names of the server programs that run, and a process of each.
func servers(all []process) map[string]process {
	who := map[string]process{}
	for _, p := range all {
		prog, ok := p.program()
		if _, met := who[prog.name]; ok && p.own && !met && prog.kinds[0] != Timesyncd {
			who[prog.name] = p
		}
	}
	return who
}

// oneOf lists them for people; "" = there are none.
func oneOf(who map[string]process) string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(who)) {
		names = append(names, who[name].String())
	}
	if names == nil {
		return ""
	}
	return "among " + strings.Join(names, ", ")
}

// stranger tells of a holder of the NTP port that is no daemon we know.
func (h Host) stranger(p process, port uint16) Finding {
	if p.pid == 1 {
		if unit := h.socketUnit(port); unit != "" {
			return Finding{fmt.Sprintf("UDP port %d is held by systemd for %s, whose service does not run", port, unit),
				"start that service, or: systemctl disable --now " + unit}
		}
	}
	if !h.mayServe(p, port) {
		return Finding{fmt.Sprintf("UDP port %d: %s of %s answers there: not asked, not changed", port, p, h.userName(p.uid)),
			"if it is to serve time, write daemon.kind and name it here with --daemon and --daemon-config; else stop it"}
	}
	return Finding{fmt.Sprintf("UDP port %d: %s answers there, which is no NTP daemon we know", port, p), "if it serves time, daemon.kind: gateway puts NTS before it, which auto does; else stop it, or let it use another port"}
}

// socketUnit is the systemd socket unit that listens at a UDP port.
func (h Host) socketUnit(port uint16) string {
	t := h.files()
	for _, dir := range unitDirs() {
		units, _ := t.list(dir, ".socket") // a folder we may not read has none for us
		for _, path := range units {
			b, _ := t.read(path)
			for line := range strings.Lines(string(b)) {
				value, ok := strings.CutPrefix(strings.TrimSpace(line), "ListenDatagram=")
				if ok && (value == fmt.Sprint(port) || strings.HasSuffix(value, fmt.Sprintf(":%d", port))) {
					return filepath.Base(path)
				}
			}
		}
	}
	return ""
}

// sockets are the inodes at the two ports.
func (h Host) sockets(ports Ports) (ntp []socket, ke []uint64, err error) {
	for _, name := range []string{"udp", "udp6", "tcp", "tcp6"} {
		table, err := os.ReadFile(filepath.Join(h.Proc, "thread-self/net", name))
		if errors.Is(err, os.ErrNotExist) { // no IPv6, or a tree without threads
			if table, err = os.ReadFile(filepath.Join(h.Proc, "net", name)); errors.Is(err, os.ErrNotExist) {
				continue
			}
		}
		if err != nil {
			return nil, nil, fmt.Errorf("look at the sockets: %w", err)
		}
		for _, s := range parseSockets(table) {
			switch {
			case s.inode == 0: // its process has ended
			case strings.HasPrefix(name, "udp") && s.local.Port() == ports.NTP:
				ntp = append(ntp, s)
			case strings.HasPrefix(name, "tcp") && s.local.Port() == ports.KE && s.state == listening:
				ke = append(ke, s.inode)
			}
		}
	}
	return ntp, ke, nil
}

// holding are the processes that hold one of the sockets, parents before their
// children and systemd, which holds sockets for others, last.
func holding(all []process, inodes []uint64) []process {
	var held []process
	for _, p := range all {
		if slices.ContainsFunc(inodes, func(i uint64) bool { return p.inodes[i] }) {
			held = append(held, p)
		}
	}
	slices.SortStableFunc(held, func(a, b process) int {
		switch {
		case a.pid == 1 || b.pid == a.parent:
			return 1
		case b.pid == 1 || a.pid == b.parent:
			return -1
		}
		return a.pid - b.pid
	})
	return held
}

// known is the first process that is a daemon we know; a client alone comes last.
func (h Host) known(ctx context.Context, some, all []process) (Daemon, bool) {
	var client *Daemon
	for _, p := range some {
		prog, ok := p.program()
		if !ok || !p.own {
			continue
		}
		d := h.daemonOf(ctx, eldest(p, prog, all), prog)
		if d.Kind != Timesyncd {
			return d, true
		}
		if client == nil {
			client = &d
		}
	}
	if client != nil {
		return *client, true
	}
	return Daemon{}, false
}

// eldest is the process that others of the same program come from: helpers, like
// OpenNTPD's engine that holds the socket, do not show the command line.
func eldest(p process, prog program, all []process) process {
	for range len(all) { // parents cannot go round, but /proc changes while it is read
		i := slices.IndexFunc(all, func(q process) bool { return q.pid == p.parent })
		if i < 0 {
			break
		}
		known, ok := all[i].program()
		if !ok || known.name != prog.name {
			break
		}
		p = all[i]
	}
	return p
}

// daemonOf asks and reads what a process is.
func (h Host) daemonOf(ctx context.Context, p process, prog program) Daemon {
	t := h.files()
	d := Daemon{Kind: prog.kinds[0], Program: prog.name, PID: p.pid, Unit: p.unit}
	named := prog.configArg(p.in.args)
	if h.believed(p) {
		d.Config = named
	} else if prog.usual(named) {
		d.Config, named = named, ""
	}
	if prog.version {
		b := h.ask(ctx, p)
		d.Version, d.noNTS = b.version, b.noNTS
		switch {
		case slices.Contains(prog.kinds, b.kind):
			d.Kind = b.kind
		case len(prog.kinds) > 1:
			d.Kind = t.whichNTPD(d.Config, p.unit)
		}
	}
	if prog.name == "busybox" {
		d.Program = "busybox ntpd"
	}
	if d.Config != "" && !filepath.IsAbs(d.Config) && filepath.IsAbs(p.cwd) {
		d.Config = filepath.Join(p.cwd, d.Config)
	}
	d = h.completed(d)
	if named != "" && !h.believed(p) {
		d.Config = ""
		d.InWay = []Finding{{fmt.Sprintf("%s of %s names %s as its configuration: not read, not changed, for of such a process only the usual places are believed", p, h.userName(p.uid), printable(named)),
			"if that is right, name it with --daemon and --daemon-config"}}
	}
	return d
}

// completed adds what the distribution's files tell.
func (h Host) completed(d Daemon) Daemon {
	t := h.files()
	if d.Config == "" {
		d.Config = t.first(d.Kind.configs()...)
	}
	if d.Version == "" && d.Kind == OpenNTPD {
		d.Version = t.packageVersion("openntpd")
	}
	return d
}

// askWithin bounds asking a program for its version. One that is slow to start on a
// busy host must not be taken for another: what an ntpd is, it alone can say.
const askWithin = 10 * time.Second

// ask runs the program of a process for its version, if only root or we can have
// put it there. What is run is the file that was looked at, whatever its path leads
// to by then, without a word of the process.
func (h Host) ask(ctx context.Context, p process) build {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	if p.in.ask != nil {
		out, _ := h.run(ctx, p.in.ask...)
		return parseBuild(string(out))
	}
	usual := slices.Contains([]string{"/usr/sbin", "/usr/bin", "/sbin", "/bin"}, filepath.Dir(p.in.path))
	if !filepath.IsAbs(p.in.path) || !usual && !h.believed(p) || h.files().at("/") != "/" {
		return build{}
	}
	f, err := disk.OpenTrustedFile(p.in.path)
	if err != nil {
		return build{}
	}
	defer f.Close()
	out, _ := h.runFile(ctx, f, p.in.path, "--version") // OpenNTPD says by failing who it is
	return parseBuild(string(out))
}

func (h Host) run(ctx context.Context, argv ...string) ([]byte, error) {
	if h.Run != nil {
		return h.Run(ctx, argv...)
	}
	return daemon.Output(exec.CommandContext(ctx, argv[0], argv[1:]...))
}

// runFile runs a program that is open, by its descriptor.
func (h Host) runFile(ctx context.Context, f *os.File, argv ...string) ([]byte, error) {
	if h.Run != nil {
		return h.Run(ctx, argv...)
	}
	cmd := exec.CommandContext(ctx, "/proc/self/fd/3")
	cmd.Args, cmd.ExtraFiles = argv, []*os.File{f}
	return daemon.Output(cmd)
}
