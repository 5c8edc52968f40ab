package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// The annotations of a verb: the global flags it acts on, and how long it takes
// at most where --timeout does not say.
const (
	heeded   = "heeded"
	patience = "patience"
)

// lookPatience is how long a look at the agent or at a server may take.
const lookPatience = 10 * time.Second

// verb notes which global flags cmd acts on. The others are refused: a flag
// that does nothing would be a promise nobody keeps. --no-color goes with all.
func verb(cmd *cobra.Command, flags ...string) *cobra.Command {
	if cmd.Args == nil {
		cmd.Args = noArguments
	}
	if cmd.Annotations == nil {
		cmd.Annotations = map[string]string{}
	}
	cmd.Annotations[heeded] = strings.Join(append(flags, "no-color"), " ")
	return cmd
}

// patient is verb for what ends after limit, or after --timeout.
func patient(cmd *cobra.Command, limit time.Duration, flags ...string) *cobra.Command {
	cmd.Annotations = map[string]string{patience: limit.String()}
	return verb(cmd, append(flags, "timeout")...)
}

// asking is patient for what is asked of the agent.
func asking(cmd *cobra.Command, limit time.Duration) *cobra.Command {
	return patient(cmd, limit, "config", "socket", "json", "quiet")
}

// heeds says whether cmd acts on a global flag.
func heeds(cmd *cobra.Command, flag string) bool {
	return slices.Contains(strings.Fields(cmd.Annotations[heeded]), flag)
}

// globalFlags are the names of all global flags.
var globalFlags = [...]string{"config", "socket", "json", "quiet", "verbose", "no-color", "timeout"}

// settle refuses global flags that make no sense here and completes the others.
func (g *globals) settle(cmd *cobra.Command) error {
	if cmd.Annotations[heeded] == "" {
		return nil // not one of our verbs: help, completion
	}
	for _, name := range globalFlags {
		if cmd.Flags().Changed(name) && !heeds(cmd, name) {
			return misused(cmd, fmt.Sprintf("--%s has no meaning for %s", name, words(cmd)))
		}
	}
	switch given := cmd.Flags().Changed("timeout"); {
	case given && g.Timeout <= 0:
		return misused(cmd, fmt.Sprintf("--timeout %s: must be longer than 0s", g.Timeout))
	case !given && heeds(cmd, "timeout"):
		g.Timeout, _ = time.ParseDuration(cmd.Annotations[patience])
	}
	if g.Quiet && g.Verbose {
		return misused(cmd, "--quiet and --verbose exclude each other")
	}
	return nil
}

// truthfulHelp shows the global flags that a verb acts on, and its own patience.
func truthfulHelp(help func(*cobra.Command, []string)) func(*cobra.Command, []string) {
	return func(cmd *cobra.Command, args []string) {
		flags := cmd.Root().PersistentFlags()
		for _, name := range globalFlags {
			flags.Lookup(name).Hidden = cmd.Annotations[heeded] != "" && !heeds(cmd, name)
		}
		if limit := cmd.Annotations[patience]; limit != "" {
			flags.Lookup("timeout").DefValue = limit
		}
		help(cmd, args)
	}
}

// noArguments is for verbs that flags alone go with.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return misused(cmd, fmt.Sprintf("%s takes no arguments, but was given %q", words(cmd), args[0]))
	}
	return nil
}

// oneArgument is for verbs that need one thing named.
func oneArgument(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) == 0:
			return misused(cmd, fmt.Sprintf("%s needs a %s", words(cmd), what))
		case len(args) > 1:
			return misused(cmd, fmt.Sprintf("%s takes one %s, but was given %q too", words(cmd), what, args[1]))
		}
		return nil
	}
}

// words are what is typed for cmd after the program's name.
func words(cmd *cobra.Command) string { return strings.TrimPrefix(cmd.CommandPath(), "ntsagent ") }

// misused is the error of a command line that cannot be understood.
func misused(cmd *cobra.Command, problem string) error {
	return exit(exitUsage, errors.New(problem+"; see: "+cmd.CommandPath()+" --help"))
}
