package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"ntsagent/agent/config"
)

func configCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "check, show or write a configuration",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		&cobra.Command{
			Use:   "check",
			Short: "say what is wrong with the configuration (--config - reads the standard input)",
			Args:  cobra.NoArgs,
			RunE:  func(cmd *cobra.Command, _ []string) error { return configCheck(cmd, g) },
		},
		&cobra.Command{
			Use:   "show",
			Short: "print the configuration in effect, defaults included",
			Args:  cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				c, err := config.Load(g.Config)
				if err != nil {
					return exit(exitUsage, err)
				}
				if g.JSON {
					return printJSON(cmd, c)
				}
				_, err = cmd.OutOrStdout().Write(config.Show(c))
				return err
			},
		},
		&cobra.Command{
			Use:   "example",
			Short: "print a commented configuration with every key",
			Args:  cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				_, err := cmd.OutOrStdout().Write(config.Example())
				return err
			},
		},
	)
	return cmd
}

func configCheck(cmd *cobra.Command, g *globals) error {
	c, err := config.Load(g.Config)
	if err != nil {
		return exit(exitUsage, err)
	}
	if g.Quiet {
		return nil
	}
	if g.JSON {
		return printJSON(cmd, map[string]any{"file": g.Config, "valid": true, "names": len(c.Names)})
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "ok    config %s is valid\n", g.Config)
	return err
}
