package agent

import (
	"context"

	"ntsagent/acme/dnscheck"
	"ntsagent/acme/store"
	"ntsagent/agent/config"
	"ntsagent/hostcheck"
)

// lookAtDNS returns the look at a name that goes before each order at directory. The account is read anew each time: the first order
// makes it.
func lookAtDNS(cfg *config.Config, directory string) func(context.Context, hostcheck.Name) dnscheck.Verdict {
	ask := dnscheck.Config{Resolvers: cfg.ACME.Resolvers}
	return func(ctx context.Context, name hostcheck.Name) dnscheck.Verdict {
		want := dnscheck.Want{Public: cfg.PublicAddresses, Host: dnscheck.HostAddresses(), Methods: cfg.ACME.Challenges}
		if account, err := store.ReadAccount(acmeDir(cfg), directory); err == nil {
			want.Account, want.Identities = account.URI, account.CAAIdentities
		}
		return dnscheck.Judge(ask.Look(ctx, name), want)
	}
}
