package main

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"syscall"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"

	"ntsagent/agent"
	"ntsagent/agent/config"
	"ntsagent/agent/status"
	"ntsagent/agent/task"
)

func runCommand(g *globals) *cobra.Command {
	return verb(&cobra.Command{
		Use:   "run",
		Short: "run the service in the foreground",
		RunE: func(cmd *cobra.Command, _ []string) error {
			inherited := task.Inherit()
			c, _, err := agent.LoadConfig(g.Config)
			if err != nil {
				return configError(err)
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			return runError(agent.Run(ctx, agent.Options{
				ConfigPath: g.Config,
				Log:        logger(g, c.Log, cmd.ErrOrStderr()),
				Version:    release(),
				Built:      built(),
				Inherited:  inherited,
			}))
		},
	}, "config", "quiet", "verbose")
}

// logger writes the agent's log as the configuration and the flags say. The
// journal stamps each line itself.
func logger(g *globals, l config.Log, w io.Writer) hclog.Logger {
	level := hclog.LevelFromString(l.Level)
	switch {
	case g.Verbose:
		level = min(level, hclog.Debug)
	case g.Quiet:
		level = hclog.Error
	}
	return hclog.New(&hclog.LoggerOptions{
		Level:       level,
		Output:      w,
		JSONFormat:  l.Format == "json",
		DisableTime: l.Format == "text" && os.Getenv("JOURNAL_STREAM") != "",
	})
}

// runError gives what ended the agent its exit code.
func runError(err error) error {
	var invalid *config.Error
	switch {
	case err == nil, errors.Is(err, context.Canceled):
		return nil
	case errors.As(err, &invalid), errors.Is(err, agent.ErrConfigUntrusted):
		return configError(err)
	case errors.Is(err, agent.ErrBusy), errors.Is(err, status.ErrInUse):
		return exit(exitTemporary, err)
	case errors.Is(err, fs.ErrPermission):
		return exit(exitNotPermitted, err)
	}
	return exit(exitFailed, err)
}
