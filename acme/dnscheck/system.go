package dnscheck

import (
	"net"
	"net/netip"

	"github.com/miekg/dns"
)

// systemResolvers are those of /etc/resolv.conf, or of this host when it names none, as resolv.conf(5) has it.
func systemResolvers() []netip.AddrPort {
	return resolversOf("/etc/resolv.conf")
}

func resolversOf(path string) (found []netip.AddrPort) {
	if c, err := dns.ClientConfigFromFile(path); err == nil {
		for _, s := range c.Servers {
			if a, err := netip.ParseAddr(s); err == nil {
				found = append(found, netip.AddrPortFrom(a, 53))
			}
		}
	}
	if len(found) == 0 {
		found = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")}
	}
	return found
}

// HostAddresses are the addresses of this host's interfaces; nil when they cannot be had, which tells nothing.
func HostAddresses() (found []netip.Addr) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	for _, a := range addrs {
		if p, ok := a.(*net.IPNet); ok {
			if addr, ok := netip.AddrFromSlice(p.IP); ok {
				found = append(found, addr.Unmap())
			}
		}
	}
	return found
}
