package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"ntsagent/agent/feed"
)

// feedCommand is what a systemd unit, or an agent that is root, runs as the
// daemon's own user. Operators have no need of it, so help does not list it.
func feedCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use:    "feed",
		Short:  "hand cookie keys to the NTP daemon, as the daemon's user (internal)",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE:   func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var o feed.Options
	chrony := &cobra.Command{
		Use:   "chrony",
		Short: "install a key file as chronyd's and have chronyd load it",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			limit := 30 * time.Second // the program that starts this one has its own
			if cmd.Flags().Changed("timeout") {
				limit = g.Timeout
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), limit)
			defer cancel()
			o.Stdin = cmd.InOrStdin()
			return feedError(feed.Chrony(ctx, o))
		},
	}
	f := chrony.Flags()
	f.StringVar(&o.From, "from", "-", "key `file`, - for the standard input")
	f.StringVar(&o.KeysFile, "keys-file", "", "chronyd's key `file` (default: the distribution's)")
	f.StringVar(&o.CommandSocket, "command-socket", "", "chronyd's command socket `file` (default: the distribution's)")
	f.StringVar(&o.ChronyConf, "chrony-conf", "", "chronyd's configuration `file` (default: the distribution's)")
	cmd.AddCommand(chrony)
	return cmd
}

func feedError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, feed.ErrNotPermitted):
		return exit(exitNotPermitted, err)
	case errors.Is(err, feed.ErrNotRunning), errors.Is(err, feed.ErrNoReply), errors.Is(err, context.DeadlineExceeded):
		return exit(exitTemporary, err)
	}
	return exit(exitFailed, err)
}
