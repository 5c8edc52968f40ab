package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"ntsagent/agent/status"
)

func statusCommand(g *globals) *cobra.Command {
	return asking(&cobra.Command{
		Use:   "status",
		Short: "print how the agent is doing; exit code 1 when it is UNHEALTHY",
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := fetch(cmd, g)
			if err != nil {
				return err
			}
			if err := show(cmd, g, d, status.Text(d)); err != nil {
				return err
			}
			if d.State == status.Unhealthy {
				return exit(exitFailed, nil)
			}
			return nil
		},
	}, lookPatience)
}

// fetch asks the agent for its status.
func fetch(cmd *cobra.Command, g *globals) (status.Document, error) {
	var d status.Document
	err := g.ask(cmd.Context(), func(c *status.Client, ctx context.Context) (err error) {
		d, err = c.Status(ctx)
		return err
	})
	return d, err
}

// show prints a value as JSON or as text, whichever was asked for.
func show(cmd *cobra.Command, g *globals, value any, text string) error {
	switch {
	case g.JSON:
		return printJSON(cmd, value)
	case g.Quiet:
		return nil
	}
	return written(fmt.Fprint(cmd.OutOrStdout(), text))
}

// written gives an output that cannot be written its exit code.
func written(_ int, err error) error {
	if err != nil {
		return exit(exitFailed, fmt.Errorf("write the output: %w", err))
	}
	return nil
}

// order has the agent do something and says that it is done.
func order(cmd *cobra.Command, g *globals, do func(*status.Client, context.Context) error, done string) error {
	if err := g.ask(cmd.Context(), do); err != nil {
		return err
	}
	return show(cmd, g, map[string]bool{"ok": true}, done+"\n")
}

// agentError gives an error from the control socket its exit code.
func agentError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, status.ErrNotRunning):
		return exit(exitNotRunning, err)
	case errors.Is(err, status.ErrNotPermitted):
		return exit(exitNotPermitted, err)
	case errors.Is(err, status.ErrInvalid):
		return exit(exitUsage, err)
	case errors.Is(err, status.ErrTemporary):
		return exit(exitTemporary, err)
	}
	return exit(exitFailed, err)
}
