package daemon

import (
	"fmt"
	"net/netip"
	"os"
	"time"
)

// Places distributions put chrony's files; Debian first, then RHEL.
var chronyConfs = [...]string{"/etc/chrony/chrony.conf", "/etc/chrony.conf"}

// Where chrony keeps what we hand over and ask, unless told otherwise.
const (
	ChronyKeysFile      = "/var/lib/chrony/ntskeys"
	ChronyCommandSocket = "/run/chrony/chronyd.sock"
)

// keysName is the name chronyd's key file has in its ntsdumpdir.
const keysName = "ntskeys"

// FindChronyConf returns the first configuration file of chrony that is there,
// or Debian's path when there is none.
func FindChronyConf() string {
	for _, path := range chronyConfs {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return chronyConfs[0]
}

// RateLimit is chrony's `ratelimit`: a source may send one packet each
// 2^Interval seconds in the long run, Burst at once, and 1 in 2^Leak of what is
// too many is answered all the same.
type RateLimit struct {
	Interval, Burst, Leak int
}

// Chrony is what chrony.conf says, as far as it matters to us. Directives that
// are not there have chrony's defaults.
type Chrony struct {
	Port          uint16     // UDP; 0 = chronyd does not serve
	BindAddress4  netip.Addr // zero = all
	BindAddress6  netip.Addr // zero = all
	RateLimit     *RateLimit // nil = none
	Allows        bool       // any `allow` is there
	Access        Access     // whom chronyd serves
	CommandSocket string     // "" = switched off
	KeyFile       string     // symmetric keys; "" = none
	NTSDumpDir    string     // "" = chronyd keeps no NTS keys
	NTSRotate     int        // seconds; 0 = keys are managed from outside
	NTSServerKey  string     // with NTSServerCert needed for NTS; the last of several
	NTSServerCert string

	lines map[string]directive // those that count, by name
}

// The two kinds of bindaddress in Chrony's lines.
const (
	lineBind4 = "bindaddress"
	lineBind6 = "bindaddress of IPv6"
)

func defaultChrony() Chrony {
	return Chrony{Port: 123, NTSRotate: 604800, CommandSocket: ChronyCommandSocket}
}

// said is the line that says something, and where it is.
func (c Chrony) said(name string) string {
	d, ok := c.lines[name]
	if !ok {
		return "default"
	}
	return fmt.Sprintf("`%s` (%s)", d, d.at)
}

// Address is where chronyd answers queries from this host. Without bindaddress
// that is 127.0.0.1. The error says that it serves nowhere.
func (c Chrony) Address() (netip.AddrPort, error) {
	addr := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	switch {
	case c.Port == 0:
		return netip.AddrPort{}, fmt.Errorf("chronyd serves no NTP: `port 0` in its configuration; remove that line")
	case c.BindAddress4.IsValid() && !c.BindAddress4.IsUnspecified():
		addr = c.BindAddress4
	case !c.BindAddress4.IsValid() && c.BindAddress6.IsValid() && !c.BindAddress6.IsUnspecified():
		addr = c.BindAddress6 // who binds IPv6 only runs chronyd for it, with -6 or not
	}
	return netip.AddrPortFrom(addr, c.Port), nil
}

// unlimited is the pause between queries where nothing limits them.
const unlimited = 200 * time.Millisecond

// Spacing is the least time between two of our queries that stays below
// chrony's rate limit for one address, however small its burst.
func (c Chrony) Spacing() time.Duration {
	if c.RateLimit == nil {
		return unlimited
	}
	return spacing(c.RateLimit.Interval)
}

// unknownSpacing is the spacing to keep to when chrony.conf cannot be read: that
// of a bare `ratelimit` (interval 3).
func unknownSpacing() time.Duration { return spacing(defaultInterval) }

// spacing is 2^interval seconds and a margin: chronyd counts in sixteenths of a
// second, and what is sent on time may arrive early.
func spacing(interval int) time.Duration {
	d := time.Second
	if interval < 0 {
		d >>= -interval
	} else {
		d <<= interval
	}
	return max(d+d/32+250*time.Millisecond, unlimited)
}
