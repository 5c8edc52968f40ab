package main

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/spf13/cobra"

	"ntsagent/agent"
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
		verb(&cobra.Command{
			Use:   "check",
			Short: "say what is wrong with the configuration (--config - reads the standard input)",
			RunE:  func(cmd *cobra.Command, _ []string) error { return configCheck(cmd, g) },
		}, "config", "json", "quiet"),
		verb(&cobra.Command{
			Use:   "show",
			Short: "print the configuration in effect, defaults included",
			RunE: func(cmd *cobra.Command, _ []string) error {
				c, err := config.Load(g.Config)
				if err != nil {
					return configError(err)
				}
				return show(cmd, g, c, string(config.Show(c)))
			},
		}, "config", "json", "quiet"),
		verb(&cobra.Command{
			Use:   "example",
			Short: "print a commented configuration with every key",
			RunE: func(cmd *cobra.Command, _ []string) error {
				return written(cmd.OutOrStdout().Write(config.Example()))
			},
		}),
	)
	return cmd
}

// configError gives an error of config.Load or agent.LoadConfig its exit code.
func configError(err error) error {
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, agent.ErrConfigUntrusted) {
		return exit(exitNotPermitted, err)
	}
	return exit(exitUsage, err)
}

func configCheck(cmd *cobra.Command, g *globals) error {
	c, err := config.Load(g.Config)
	if err != nil {
		return configError(err)
	}
	warnings := slices.Concat([]string{}, c.Warnings(config.ThisHost()), c.FileWarnings())
	result := map[string]any{"file": g.Config, "valid": true, "names": len(c.Names), "warnings": warnings}
	text := fmt.Sprintf("ok    config %s is valid\n", g.Config)
	for _, w := range warnings {
		text += "warn  " + w + "\n"
	}
	return show(cmd, g, result, text)
}
