package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"ntsagent/agent"
	"ntsagent/agent/config"
	"ntsagent/agent/feed"
)

func feedCertificateCommand(g *globals) *cobra.Command {
	var o feed.CertificateOptions
	var export string
	cmd := patient(&cobra.Command{
		Use:   "certificate",
		Short: "install certificates and keys for other programs, and tell them",
		Long: `certificate installs what certificate.export of the configuration says: for each
entry the key, then the certificate, with their owner, group and mode, and then
tells the program: by SIGHUP, or by a restart, once a day at most, or three times
where what it serves would end. When that was is kept in the folder beside state_dir
whose name ends in -export, which is root's.

It runs as root, or as the owner of the folders. The agent, which is neither,
leaves each new certificate in the folder export of its state_dir; a systemd path
unit that watches that folder starts this. An agent that runs as root needs none
of this: it does the same itself.

It exits 0 when all is done, or is but for a restart that has to wait, 1 when something is not as it must be, 4 when it may
not, and 5 when there is no certificate yet or the program to tell is not there.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), g.Timeout)
			defer cancel()
			if export != "" {
				e, err := config.ParseExport(export)
				if err != nil {
					return exit(exitUsage, err)
				}
				o.Export, o.Stdin = e, cmd.InOrStdin()
				return feedError(feed.Certificate(ctx, o))
			}
			return feedCertificates(ctx, cmd, g)
		},
	}, feedPatience, "config", "quiet")
	f := cmd.Flags()
	f.StringVar(&export, "export", "", "one `entry` of certificate.export instead of those in the configuration")
	f.StringVar(&o.From, "from", "-", "its key and certificate, a `file`, - for the standard input")
	for _, hidden := range []string{"export", "from"} {
		f.Lookup(hidden).Hidden = true // for the process that root starts as another user
	}
	return cmd
}

// feedCertificates does what the configuration says. What fails keeps nothing
// else from being done.
func feedCertificates(ctx context.Context, cmd *cobra.Command, g *globals) error {
	c, _, err := agent.LoadConfig(g.Config)
	if err != nil {
		return configError(err)
	}
	var first error
	for _, e := range c.Certificate.Export {
		err := feed.Certificate(ctx, feed.CertificateOptions{Export: e, From: agent.ExportFile(c.StateDir, e.Name), KE: c.Daemon.KE(), Record: feed.RestartRecord(c.StateDir)})
		waiting := (*feed.Waiting)(nil)
		switch {
		case err == nil:
		case errors.As(err, &waiting):
			if !g.Quiet {
				fmt.Fprintln(cmd.OutOrStdout(), waiting)
			}
		case first == nil:
			first = err
		default:
			first = fmt.Errorf("%w; and %s: %w", first, e.Cert, err)
		}
	}
	return feedError(first)
}
