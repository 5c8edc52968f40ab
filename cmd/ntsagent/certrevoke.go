package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"ntsagent/agent"
	"ntsagent/agent/status"
)

const revokeLong = `revoke has the CA revoke the certificate in use, with the account that has ordered
it (RFC 8555 section 7.6). It asks first, unless --yes is given, and revokes exactly
the certificate that it has shown.

The agent then orders another certificate with a new key at once, and revoke waits
for it. Until it is there the revoked one serves on: clients of NTS hardly ever look
at revocations, and all of them do at a server that has no certificate. If no new
one can be had yet, that is told, the exit code is 0, and the agent goes on trying.
If the CA does not answer, it is not known whether it has done it: that is told as
a failure, and the agent asks again until the CA answers, over a restart too.

--reason says why, in the words of RFC 5280:
  unspecified            the default
  keyCompromise          somebody else may have the key: no key of this name that
                         exists now is used again, and a request that cert csr has
                         printed is void
  superseded             another certificate has taken its place
  cessationOfOperation   the name is given up: the certificate is taken out of
                         service at once, and nothing is ordered any more until
                         ntsagent cert renew --force; a daemon that has a copy by
                         certificate.export keeps it

A certificate that was imported is revoked where it was made.`

func revokeCommand(g *globals) *cobra.Command {
	var name, reason string
	var yes bool
	cmd := asking(&cobra.Command{
		Use:   "revoke",
		Short: "have the CA revoke the certificate in use, and order another one",
		Long:  revokeLong,
		RunE: func(cmd *cobra.Command, _ []string) error {
			why, err := agent.RevocationReason(reason)
			if err != nil {
				return misused(cmd, "--reason: "+err.Error())
			}
			certs, err := named(cmd, g, name, true)
			if err != nil {
				return err
			}
			c := certs[0]
			if c.Serial == "" {
				return exit(exitFailed, fmt.Errorf("%s: there is no certificate to revoke", c.Name))
			}
			then := "Another one with a new key is ordered at once; this one serves until it is there."
			if why == agent.ReasonCessation {
				then = "It is taken out of service at once, and no other is ordered."
			}
			if !yes {
				if err := say(cmd, g, fmt.Sprintf("%s: %s\n%s", c.Name, certificateLine(c), then)); err != nil {
					return err
				}
			}
			if err := agreed(cmd, g, yes, "Revoke it ("+why+")"); err != nil {
				return err
			}
			out, err := wish(cmd, g, status.Wish{Name: c.Name, Serial: c.Serial, Reason: why}, (*status.Client).Revoke)
			if err != nil {
				return about(c.Name, err)
			}
			if err := say(cmd, g, revokedText(out, why)); err != nil {
				return err
			}
			return sayJSON(cmd, g, out)
		},
	}, orderPatience)
	cmd.Flags().StringVar(&name, "name", "", "whose certificate; may be left out where the agent has one `name`")
	cmd.Flags().StringVar(&reason, "reason", "unspecified", "why: "+agent.RevocationReasons)
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

func revokedText(o status.Outcome, why string) string {
	c := o.Certificate
	text := fmt.Sprintf("ok    %s: certificate %s is revoked (%s)\n", c.Name, o.Revoked, why)
	switch {
	case why == agent.ReasonCessation:
		text += "ok    " + c.Name + ": out of service, and no other is ordered; to begin again: ntsagent cert renew --force --name " + c.Name
		for _, path := range o.Copies {
			text += "\nwarn  " + c.Name + ": the daemon that " + path + " was exported for serves it on; fix: stop it, or take the file away"
		}
		return text
	case o.Missing != "":
		return text + "warn  " + c.Name + ": " + o.Missing + "\n      the revoked one serves until another is there, and the agent goes on trying: ntsagent cert show"
	}
	return text + "ok    " + c.Name + ": " + certificateLine(c) + " has taken its place, with a new key"
}
