package daemon

import (
	"net/netip"
	"time"
)

// Chronyd is what our own configuration says of the chronyd beside us.
type Chronyd struct {
	Addr          netip.AddrPort // where it answers NTP
	ConfigFile    string         // its chrony.conf
	KeysFile      string         // the ntskeys in its ntsdumpdir
	CommandSocket string         // where it takes commands
}

// Target is the chronyd we ask: where, how often, and what its configuration says.
type Target struct {
	Chronyd
	Spacing time.Duration // for keyring.Config.Spacing
	Conf    Chrony        // chrony's defaults if ConfErr
	ConfErr error         // why the configuration could not be read; then Spacing is a careful guess
}

// ChronyTarget reads the configuration of c and finds out how to ask it.
func ChronyTarget(c Chronyd) Target {
	conf, err := ReadChrony(c.ConfigFile)
	if err != nil {
		return Target{Chronyd: c, Spacing: unknownSpacing(), Conf: defaultChrony(), ConfErr: err}
	}
	return Target{Chronyd: c, Spacing: conf.Spacing(), Conf: conf}
}
