package daemon

import (
	"net/netip"
	"time"
)

// Target is the chronyd we ask: where, how often, and what its configuration says.
type Target struct {
	Addr    netip.AddrPort
	Spacing time.Duration // for keyring.Config.Spacing
	Conf    Chrony        // chrony's defaults if ConfErr
	ConfErr error         // why the configuration could not be read; then Spacing is a careful guess
}

// ChronyTarget finds out how to ask the chronyd configured in the file conf.
// addr is our own configuration's word; zero = as chrony.conf says. The error
// says that chronyd serves no NTP at all.
func ChronyTarget(conf string, addr netip.AddrPort) (Target, error) {
	c, err := ReadChrony(conf)
	if err != nil {
		c = defaultChrony()
	}
	t := Target{Addr: addr, Spacing: c.Spacing(), Conf: c, ConfErr: err}
	if err != nil {
		t.Spacing = UnknownSpacing()
	}
	if !addr.IsValid() {
		if t.Addr, err = c.Address(); err != nil {
			return Target{}, err
		}
	}
	return t, nil
}
