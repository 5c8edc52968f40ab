package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"ntsagent/agent/config"
	"ntsagent/agent/feed"
)

// feedPatience bounds a helper that a unit starts; an agent that starts it has
// its own limit.
const feedPatience = 30 * time.Second

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
	chrony := patient(&cobra.Command{
		Use:   "chrony",
		Short: "install a key file as chronyd's and have chronyd load it",
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), g.Timeout)
			defer cancel()
			o.Stdin = cmd.InOrStdin()
			return feedError(feed.Chrony(ctx, o))
		},
	}, feedPatience, "quiet")
	places := config.Default().Daemon.Chrony
	f := chrony.Flags()
	f.StringVar(&o.From, "from", "-", "key `file`, - for the standard input")
	f.StringVar(&o.KeysFile, "keys-file", places.KeysFile, "chronyd's key `file`")
	f.StringVar(&o.CommandSocket, "command-socket", places.CommandSocket, "chronyd's command socket `file`")
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
