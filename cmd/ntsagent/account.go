package main

import (
	"errors"
	"io/fs"

	"github.com/spf13/cobra"

	"ntsagent/agent"
	"ntsagent/agent/config"
)

func accountCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "account",
		Short: "look at the account at the CA",
		Long: `An account at a CA is a key, which the agent makes with its first order and keeps in
state_dir as acme/accounts/at-HOST-HASH/key.pem (0600), one for each directory URL.

There is no key rollover (RFC 8555 section 7.3.5): the ACME library in use, lego v4,
has none. To have a new key, have a new account:
  1. take accounturi out of the CAA records of the names, or the records away, and
     wait for their TTL: the new account has another URL
  2. stop the agent, and move its folder below acme/accounts away
  3. start the agent, and: ntsagent cert renew --force
  4. publish the records that ntsagent account show prints now
The certificate in use stays valid and serves meanwhile, but it cannot be revoked
any more by the new account: if that is why, revoke it first. Whoever has the old
key can order for the names until the new records are published.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(verb(&cobra.Command{
		Use:   "show",
		Short: "print the account's URL and the CAA record that binds the names to it",
		Long: `show prints the account that certificates are ordered with, and for each name the
CAA record to publish: with it no other account, no other CA and no other way of
validation gets a certificate for the name (RFC 8659, RFC 8657). With a fallback CA
there are two accounts, and the records of both are to be published.

It reads the files of state_dir and needs no running agent. It exits 4 when it may
not read them, and 5 when there is no account yet, at either CA.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := config.Load(g.Config)
			if err != nil {
				return configError(err)
			}
			a, err := agent.ReadAccount(c)
			switch {
			case errors.Is(err, agent.ErrNoAccount):
				return exit(exitTemporary, err)
			case errors.Is(err, fs.ErrPermission):
				return exit(exitNotPermitted, errors.New(err.Error()+"; run as root or as the agent's user"))
			case err != nil:
				return exit(exitFailed, err)
			}
			return show(cmd, g, a, a.Text())
		},
	}, "config", "json", "quiet"))
	return cmd
}
