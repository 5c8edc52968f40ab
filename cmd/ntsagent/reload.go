package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"ntsagent/agent/status"
)

// reloadPatience covers opening sockets and ending what the new configuration
// does without.
const reloadPatience = 30 * time.Second

func reloadCommand(g *globals) *cobra.Command {
	return asking(&cobra.Command{
		Use:   "reload",
		Short: "have the agent read its configuration again; a bad one changes nothing",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return order(cmd, g, func(c *status.Client, ctx context.Context) error { return c.Reload(ctx) },
				"ok    configuration reloaded")
		},
	}, reloadPatience)
}
