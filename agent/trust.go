package agent

import (
	"errors"
	"fmt"
	"os"

	"ntsagent/acme/disk"
	"ntsagent/agent/config"
	"ntsagent/agent/daemon"
)

// ErrConfigUntrusted says that root does not do what a configuration says.
var ErrConfigUntrusted = errors.New("not read as root, who writes the files and runs the commands of certificate.export")

// maxConfig is more than config.Parse takes.
const maxConfig = 1 << 20

// LoadConfig is config.Load for a process that does what the file says. As root it
// takes certificate.export, which names files to write and commands to run, from
// nobody but root: from others it is an error that wraps ErrConfigUntrusted, by the
// very file that is read. Where there is no export, the file of another user may be
// meant so, as in a container: doubt tells of it then, and is "" otherwise.
func LoadConfig(path string) (c *config.Config, doubt string, err error) {
	if os.Geteuid() != 0 || path == "-" {
		c, err = config.Load(path)
		return c, "", err
	}
	b, untrusted := disk.ReadTrusted(path, maxConfig)
	if untrusted == nil {
		c, err = config.Parse(path, b)
		return c, "", err
	}
	c, err = config.Load(path)
	const fix = "chown root and chmod go-w what is named, or keep the file in /etc/ntsagent"
	switch {
	case err != nil:
		return nil, "", err
	case len(c.Certificate.Export) > 0:
		return nil, "", &daemon.Failure{What: path, Kind: ErrConfigUntrusted, Err: untrusted, Fix: fix}
	}
	return c, fmt.Sprintf("%s: root does what it says, and %v; %s", path, untrusted, fix), nil
}

// took notes that a configuration is in effect, and what is in doubt about its file.
func (a *agent) took(now *reloadOutcome) {
	before := a.outcome.Swap(now)
	if now.doubt != "" && (before == nil || before.doubt != now.doubt) {
		a.Log.Warn("others may change the configuration", "cause", now.doubt)
	}
}
