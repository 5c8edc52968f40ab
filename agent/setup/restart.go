package setup

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// knownUnit tells whether a unit is one of a daemon we know. No other is ever
// restarted, whatever a process or a file calls it.
func knownUnit(unit string) bool {
	return slices.ContainsFunc(programs(), func(p program) bool { return slices.Contains(p.units, unit) })
}

// unitIn is the unit that the commands of an older record restart; "" = none we know.
func unitIn(commands [][]string) string {
	for _, argv := range commands {
		if len(argv) == 3 && argv[0] == "systemctl" && argv[1] == "restart" && knownUnit(argv[2]) {
			return argv[2]
		}
	}
	return ""
}

// restartCommands are what makes a change count.
func restartCommands(unit string, reload bool) [][]string {
	if unit == "" {
		return nil
	}
	restart := [][]string{{"systemctl", "restart", unit}}
	if reload {
		return append([][]string{{"systemctl", "daemon-reload"}}, restart...)
	}
	return restart
}

// restart notes what has to be restarted for the change to count.
func (p *Plan) restart(fallback string) {
	if len(p.Changes) == 0 {
		return
	}
	p.unit = p.Daemon.Unit
	if p.unit == "" {
		p.unit = fallback
	}
	if !knownUnit(p.unit) {
		p.Notes = append(p.Notes, p.Daemon.Program+" runs as "+p.unit+", which is left to you: restart it afterwards")
		p.unit = ""
	}
	p.reload = slices.ContainsFunc(p.Changes, func(c Change) bool { return strings.HasPrefix(c.Path, "/etc/systemd/") })
	p.Restart = restartCommands(p.unit, p.reload)
}

// Restart runs the commands by which what was applied or reverted counts.
func Restart(ctx context.Context, h Host, commands [][]string) error {
	for _, argv := range commands {
		if out, err := h.run(ctx, argv...); err != nil {
			said := strings.TrimSpace(printable(strings.ReplaceAll(strings.TrimSpace(string(out)), "\n", ", ")))
			return fmt.Errorf("%s: %w: %s; fix: see `systemctl status %s`", strings.Join(argv, " "), err, said, argv[len(argv)-1])
		}
	}
	return nil
}
