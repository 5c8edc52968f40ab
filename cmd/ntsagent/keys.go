package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"ntsagent/agent/status"
)

// rotationPatience covers proving four keys to a daemon whose rate limit lets a
// query through every eight seconds.
const rotationPatience = 2 * time.Minute

func keysCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "look at the cookie keys or rotate them",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		asking(&cobra.Command{
			Use:   "show",
			Short: "print ids and fingerprints, never a key",
			RunE: func(cmd *cobra.Command, _ []string) error {
				d, err := fetch(cmd, g)
				if err != nil {
					return err
				}
				return show(cmd, g, d.Keys, status.KeysText(d))
			},
		}, lookPatience),
		asking(&cobra.Command{
			Use:   "rotate",
			Short: "rotate the cookie keys now and prove them (chrony and the gateway; ntpsec and ntpd-rs rotate theirs themselves)",
			RunE: func(cmd *cobra.Command, _ []string) error {
				return order(cmd, g, func(c *status.Client, ctx context.Context) error { return c.Rotate(ctx) },
					"ok    keys rotated")
			},
		}, rotationPatience),
	)
	return cmd
}
