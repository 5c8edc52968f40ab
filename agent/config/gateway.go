package config

import (
	"fmt"
	"net/netip"
)

// Bounds of keys.keep and daemon.gateway.limits.burst.
const (
	leastKept, mostKept = 2, 64
	mostBurst           = 1 << 20
)

// gateway checks what stands for the server of ours in front of a daemon without
// NTS. Its values are checked whatever the kind, as those of the others are.
func (v validator) gateway(c *Config) {
	g := &c.Daemon.Gateway
	v.listen("daemon.gateway.listen", g.Listen)
	v.oneOf("daemon.gateway.mode", g.Mode, ModeMirror, ModeRelay)
	v.between("daemon.gateway.limits.burst", g.Limits.Burst, 1, mostBurst)
	v.between("keys.keep", c.Keys.Keep, leastKept, mostKept)
	for i, a := range g.Listen {
		if a.Port() != g.Listen[0].Port() {
			v.fail(fmt.Sprintf("daemon.gateway.listen[%d]", i), fmt.Sprintf("port %d is another than that of %s", a.Port(), g.Listen[0]),
				"give all the same port: the key exchange announces one")
			break
		}
	}
	if c.Daemon.Kind != KindGateway || !v.d.trusts("daemon.kind") {
		if c.Daemon.Kind != KindAuto && c.Keys.Keep != Default().Keys.Keep && v.d.trusts("daemon.kind") {
			v.fail("keys.keep", "only the gateway keeps keys of its own: a daemon decides that itself", "remove the key, or set daemon.kind: gateway")
		}
		return
	}
	if len(g.Listen) == 0 {
		v.fail("daemon.gateway.listen", "the list is empty", "the gateway needs an address")
	}
	for _, a := range g.Listen {
		if v.d.trusts("daemon.gateway.listen") && loops(c.Daemon.Address, a) {
			v.fail("daemon.address", fmt.Sprintf("%s is the gateway itself, which listens on %s", c.Daemon.Address, a),
				"name the address and port that the NTP server answers on, or listen elsewhere")
			break
		}
	}
}

// loops says whether what is sent to a daemon there would arrive at a socket at
// listen. Port 0 is one that nobody else has.
func loops(daemon, listen netip.AddrPort) bool {
	// A zone has two spellings, a name and a number; nobody has one address on two links of one host.
	to, at := daemon.Addr().Unmap().WithZone(""), listen.Addr().Unmap().WithZone("")
	return daemon.Port() == listen.Port() && to.Is4() == at.Is4() && (to == at || at.IsUnspecified())
}
