// Package daemon holds what we know of each NTP daemon from outside: where its
// files are, what its configuration says, how it is asked. chrony is the only
// one yet. Nothing is written here; agent/feed does that as the daemon's user.
package daemon

import (
	"context"
	"errors"
	"net/netip"

	"ntsagent/ntske/client"
	"ntsagent/ntske/cookie"
	"ntsagent/ntske/keyring"
)

// Prove returns the func that tells whether the daemon at addr opens a cookie:
// one authenticated query (RFC 8915 section 5). It fits keyring.Config.Prove.
func Prove(addr netip.AddrPort) func(ctx context.Context, c []byte, s *cookie.Session) keyring.Answer {
	return func(ctx context.Context, c []byte, s *cookie.Session) keyring.Answer {
		keys := client.Keys{AEAD: s.AEAD, C2S: s.C2S, S2C: s.S2C}
		_, err := client.Query(ctx, addr, keys, c, 0)
		switch {
		case err == nil:
			return keyring.Answered
		case errors.Is(err, client.ErrNAK):
			return keyring.Refused
		}
		return keyring.Silent
	}
}

// Plain returns the func that tells whether the daemon at addr answers a query
// without NTS. It fits keyring.Config.Plain.
func Plain(addr netip.AddrPort) func(ctx context.Context) bool {
	return func(ctx context.Context) bool {
		_, err := client.Plain(ctx, addr)
		return err == nil
	}
}
