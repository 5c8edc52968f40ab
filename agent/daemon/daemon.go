// Package daemon holds what we know of each NTP daemon from outside: where its
// files are, what its configuration says, how it is asked. chrony takes its keys
// from us (Target); NTPsec and ntpd-rs make their own (Followed). Nothing is
// written here; agent/feed does that as the daemon's user.
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
// seen gets every reply that counts; it may be nil.
func Prove(addr netip.AddrPort, seen func(client.Reply)) func(ctx context.Context, c []byte, s *cookie.Session) keyring.Answer {
	return func(ctx context.Context, c []byte, s *cookie.Session) keyring.Answer {
		keys := client.Keys{AEAD: s.AEAD, C2S: s.C2S, S2C: s.S2C}
		reply, err := client.Query(ctx, addr, keys, c, 0)
		switch {
		case err == nil:
			tell(seen, reply)
			return keyring.Answered
		case errors.Is(err, client.ErrNAK):
			return keyring.Refused
		}
		return keyring.Silent
	}
}

// Plain returns the func that tells whether the daemon at addr answers a query
// without NTS. It fits keyring.Config.Plain.
func Plain(addr netip.AddrPort, seen func(client.Reply)) func(ctx context.Context) bool {
	return func(ctx context.Context) bool {
		reply, err := client.Plain(ctx, addr)
		if err == nil {
			tell(seen, reply)
		}
		return err == nil
	}
}

func tell(seen func(client.Reply), r client.Reply) {
	if seen != nil {
		seen(r)
	}
}
