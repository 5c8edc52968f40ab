package main

import (
	"github.com/spf13/cobra"

	"ntsagent/agent/status"
)

func certCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cert",
		Short: "look at the certificates",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(asking(&cobra.Command{
		Use:   "show",
		Short: "print the certificate of each name and when it is renewed",
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := fetch(cmd, g)
			if err != nil {
				return err
			}
			return show(cmd, g, d.Certificates, status.CertificatesText(d))
		},
	}, lookPatience))
	return cmd
}
