package config

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Host is what Warnings needs of the machine.
type Host struct {
	Unprivileged int          // the lowest port that any user may take
	Addrs        []netip.Addr // its own, those of loopback need not be among them
}

// portStart is what Linux has unless it is told otherwise.
const portStart = 1024

// ThisHost looks at the machine. What cannot be seen is taken for the usual.
func ThisHost() Host {
	h := Host{Unprivileged: portStart}
	if b, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start"); err == nil { // for IPv6, too
		if n, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
			h.Unprivileged = n
		}
	}
	all, _ := net.InterfaceAddrs()
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			h.Addrs = append(h.Addrs, p.Addr())
		}
	}
	return h
}

func (h Host) owns(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	return addr.IsLoopback() || slices.Contains(h.Addrs, addr)
}

// Warnings are what may be meant as it is but lets others in, one line each, with
// what to do. Of daemons with NTS a stranger at the port proves nothing: he cannot
// open the cookies. The gateway has plain NTP to go by.
func (c *Config) Warnings(h Host) []string {
	d := c.Daemon
	if d.Kind != KindGateway || int(d.Address.Port()) < h.Unprivileged || !h.owns(d.Address.Addr()) {
		return nil
	}
	return []string{fmt.Sprintf("daemon.address: any user of this host may answer at %s, for ports from %d on are free to all "+
		"(net.ipv4.ip_unprivileged_port_start), and the gateway serves the time it is told there; have the NTP server answer at port 123",
		d.Address, h.Unprivileged)}
}
