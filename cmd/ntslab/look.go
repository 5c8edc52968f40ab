package main

import (
	"net/netip"

	"ntsagent/agent/status"
)

// listening returns the addresses at which a service is open now.
func listening(doc status.Document, service string) []string {
	var addresses []string
	for _, l := range doc.Listeners {
		if l.Service == service && l.Open {
			addresses = append(addresses, l.Address)
		}
	}
	return addresses
}

// portIn is the port of the first address.
func portIn(addresses []string) uint16 {
	if len(addresses) == 0 {
		return 0
	}
	a, err := netip.ParseAddrPort(addresses[0])
	if err != nil {
		return 0
	}
	return a.Port()
}
