package main

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"ntsagent/agent/config"
	"ntsagent/agent/feed"
)

// feedPatience bounds a helper that a unit starts; an agent that starts it has
// its own limit.
const feedPatience = 30 * time.Second

// feedCommand is what a systemd unit, or an agent that is root, runs as the
// daemon's own user. Whoever packages the agent writes those units; help does not list it.
func feedCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use:    "feed",
		Short:  "hand files to the NTP daemon or take them from it, as the daemon's user (internal)",
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
	cmd.AddCommand(chrony, feedNTPsecCommand(g), feedCertificateCommand(g))
	return cmd
}

// exportedKeys is where NTPsec's key file is exported to by default, in state_dir.
const exportedKeys = "ntpsec/nts-keys"

func feedNTPsecCommand(g *globals) *cobra.Command {
	var o feed.ExportOptions
	cmd := patient(&cobra.Command{
		Use:   "ntpsec",
		Short: "export the key file of NTPsec's ntpd to where the agent may read it",
		Long: `ntpsec copies the cookie key file that ntpd keeps for itself to a folder of the
agent's group, whole or not at all. A copy whose original is gone is removed.

It runs as ntpd's user, or as root, which does it as that user. A systemd path
unit that watches ntpd's key file starts it at boot and whenever that changes.
daemon.ntpsec.keys_file of the agent then names the copy. An agent that runs as
root needs none of this: it reads ntpd's own file.

It exits 0 when the copy is good, 1 when the original is damaged or the folder of
the copy is not as it must be, 4 when it may not, and 5 when ntpd has no key file.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !filepath.IsAbs(o.From) || !filepath.IsAbs(o.To) {
				return misused(cmd, "--from and --to must be absolute paths")
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), g.Timeout)
			defer cancel()
			return feedError(feed.NTPsec(ctx, o))
		},
	}, feedPatience, "quiet")
	def := config.Default()
	f := cmd.Flags()
	f.StringVar(&o.From, "from", def.Daemon.NTPsec.KeysFile, "ntpd's key `file`, the one of its \"nts cookie\"")
	f.StringVar(&o.To, "to", filepath.Join(def.StateDir, exportedKeys), "the copy, a `file` in a folder that is ntpd's user's and has the agent's group")
	return cmd
}

func feedError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, feed.ErrNotPermitted):
		return exit(exitNotPermitted, err)
	case errors.Is(err, feed.ErrNotRunning), errors.Is(err, feed.ErrNoReply), errors.Is(err, feed.ErrNoKeys),
		errors.Is(err, feed.ErrNoPair), errors.Is(err, feed.ErrNotThere), errors.Is(err, context.DeadlineExceeded):
		return exit(exitTemporary, err)
	}
	return exit(exitFailed, err)
}
