package setup

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Anybody can start a process that is called chronyd and names any file. So a
// process is taken for a daemon only if it is root's, ours or of the user that
// distributions run that daemon as; and what it names is used only if it is root's
// or ours and the kernel shows what it runs, or is one of the usual places.

// judge marks the processes that are taken for daemons. Of a family of one
// program the eldest counts, which lets the others be of another user.
func (h Host) judge(all []process) {
	for i := range all {
		all[i].in = h.invoked(all[i])
	}
	for i := range all {
		if prog, ok := all[i].program(); ok {
			p := eldest(all[i], prog, all)
			all[i].own = trustedUser(p.uid) || slices.Contains(prog.users, h.files().userNames()[p.uid])
		}
	}
}

// trustedUser tells whether we do what a user's processes say.
func trustedUser(uid int) bool { return uid == 0 || uid == os.Geteuid() }

// believed tells whether the paths that a process names are used.
func (h Host) believed(p process) bool { return trustedUser(p.uid) && p.exe != "" }

// usual tells whether a configuration is where a distribution puts it.
func (p program) usual(config string) bool {
	return slices.ContainsFunc(p.kinds, func(k Kind) bool { return slices.Contains(k.configs(), config) })
}

// impostor tells of a process with the name of a daemon that is not taken for one.
func (h Host) impostor(all []process) []Finding {
	for _, p := range all {
		if _, ok := p.program(); ok && !p.own {
			return []Finding{{fmt.Sprintf("%s of %s runs: not asked, not changed", p, h.userName(p.uid)),
				"if it is the daemon of this host, name it with --daemon and --daemon-config"}}
		}
	}
	return nil
}

// mayServe tells whether a holder of the NTP port that is no daemon of ours can be
// taken for a server all the same: root has let it have the port.
func (h Host) mayServe(p process, port uint16) bool {
	if _, impostor := p.program(); impostor {
		return false
	}
	return trustedUser(p.uid) || int(port) < h.firstFreePort()
}

// firstFreePort is the first that any user may take.
func (h Host) firstFreePort() int {
	b, _ := os.ReadFile(filepath.Join(h.Proc, "sys/net/ipv4/ip_unprivileged_port_start")) // where there is none, it is the usual one
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 1024
	}
	return n
}

// userNames are the users of the host by number.
func (t tree) userNames() map[int]string {
	b, _ := t.read("/etc/passwd") // without it there are none
	names := map[int]string{}
	for line := range strings.Lines(string(b)) {
		f := strings.Split(line, ":")
		if len(f) < 3 {
			continue
		}
		if uid, err := strconv.Atoi(f[2]); err == nil && names[uid] == "" {
			names[uid] = printable(f[0])
		}
	}
	return names
}

// userName tells people of a user.
func (h Host) userName(uid int) string {
	if uid == mixed {
		return "no single user"
	}
	if name := h.files().userNames()[uid]; name != "" {
		return "user " + name
	}
	return fmt.Sprintf("user %d", uid)
}
