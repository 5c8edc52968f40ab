package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"ntsagent/agent/status"
)

func reloadCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "reload",
		Short: "have the agent read its configuration again; a bad one changes nothing",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return order(cmd, g, 30*time.Second, func(c *status.Client, ctx context.Context) error { return c.Reload(ctx) },
				"ok    configuration reloaded")
		},
	}
}
