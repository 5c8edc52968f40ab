package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"

	"ntsagent/agent/status"
)

// look asks the agent for its status over its control socket.
func look(ctx context.Context, socket string) (status.Document, error) {
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
	}}
	var doc status.Document
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://ntsagent/status", nil)
	if err != nil {
		return doc, err
	}
	answer, err := client.Do(request)
	if err != nil {
		return doc, fmt.Errorf("ask the agent for its status: %w", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return doc, fmt.Errorf("ask the agent for its status: %s", answer.Status)
	}
	if err := json.NewDecoder(answer.Body).Decode(&doc); err != nil {
		return doc, fmt.Errorf("read the agent's status: %w", err)
	}
	return doc, nil
}

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
