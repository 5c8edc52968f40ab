package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"

	"ntsagent/agent/config"
	"ntsagent/agent/status"
)

// The exit codes of every verb.
const (
	exitGood         = 0
	exitFailed       = 1 // a check failed, or the agent is unhealthy
	exitUsage        = 2 // usage, or an invalid configuration
	exitNotRunning   = 3
	exitNotPermitted = 4
	exitTemporary    = 5 // trying again later helps
)

// exitError carries an exit code up to main beside the line to print; a nil err
// prints nothing.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// exit makes err end the program with code; a nil err ends it without a word.
func exit(code int, err error) error { return &exitError{code, err} }

// globals are the flags that may stand anywhere on the command line.
type globals struct {
	Config, Socket                string
	JSON, Quiet, Verbose, NoColor bool
	Timeout                       time.Duration // settle sets it where it is not given
}

// ask has do talk to the agent behind the control socket: that of --socket, else
// of the configuration. Where no file stands at the usual place, or one that tells
// nothing, the agent may still be at the default socket; who names another file
// means the agent of that file, and no other one is asked.
func (g *globals) ask(ctx context.Context, do func(*status.Client, context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, g.Timeout)
	defer cancel()
	socket, unread := g.Socket, error(nil)
	if socket == "" {
		c := config.Default()
		if g.Config != "-" {
			var read *config.Config
			if read, unread = config.Load(g.Config); unread == nil {
				c = read
			}
		}
		socket = c.Observe.Socket
	}
	if unread != nil && g.Config != config.DefaultPath {
		return configError(fmt.Errorf("%w\n%s: no agent asked; fix: correct the file, or name the socket with --socket", unread, g.Config))
	}
	return asked(do(status.NewClient(socket), ctx), unread, g.Config, socket)
}

// asked is what to tell of err, which asking at a socket has ended with. unread is
// why the configuration does not tell the socket, so that it is the default one.
func asked(err, unread error, path, socket string) error {
	if errors.Is(err, status.ErrNotRunning) && unread != nil && !errors.Is(unread, fs.ErrNotExist) {
		return configError(fmt.Errorf("%w\n%s: asked at the default socket %s, where no agent answers; name another with --socket", unread, path, socket))
	}
	return agentError(err)
}

// rootCommand is the whole command line.
func rootCommand(g *globals) *cobra.Command {
	root := &cobra.Command{
		Use:                "ntsagent",
		Short:              "NTS key exchange with its own certificate, beside an unmodified NTP daemon",
		SilenceErrors:      true,
		DisableSuggestions: true, // they would make an error three lines long
		SilenceUsage:       true,
		Args:               cobra.NoArgs,
		RunE:               func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE:  func(cmd *cobra.Command, _ []string) error { return g.settle(cmd) },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return misused(cmd, err.Error()) })
	f := root.PersistentFlags()
	f.StringVar(&g.Config, "config", config.DefaultPath, "configuration `file`")
	f.StringVar(&g.Socket, "socket", "", "the agent's control socket `file` (default: the one in the configuration)")
	f.BoolVar(&g.JSON, "json", false, "print JSON")
	f.BoolVar(&g.Quiet, "quiet", false, "print errors only")
	f.BoolVar(&g.Verbose, "verbose", false, "print more")
	f.BoolVar(&g.NoColor, "no-color", os.Getenv("NO_COLOR") != "", "print no colour; so does a set NO_COLOR")
	f.DurationVar(&g.Timeout, "timeout", 0, "give up after this `duration`")
	root.SetHelpFunc(truthfulHelp(root.HelpFunc()))
	root.AddCommand(
		runCommand(g),
		statusCommand(g),
		checkCommand(g),
		configCommand(g),
		certCommand(g),
		accountCommand(g),
		keysCommand(g),
		reloadCommand(g),
		renewCommand(g),
		daemonCommand(g),
		registryCommand(g),
		versionCommand(g),
		feedCommand(g),
	)
	return root
}

// execute runs the command line and returns the exit code. Whatever goes wrong
// is one line on stderr (a configuration may have several things wrong), and an
// object on stdout where JSON was asked for.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	g := &globals{}
	root := rootCommand(g)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitGood
	}
	var e *exitError
	if !errors.As(err, &e) {
		e = &exitError{exitUsage, fmt.Errorf("%w; see: ntsagent --help", err)} // only cobra itself returns bare errors: unknown verbs, argument counts
	}
	if e.err == nil {
		return e.code
	}
	var invalid *config.Error
	if errors.As(e.err, &invalid) || errors.Is(e.err, status.ErrInvalid) {
		fmt.Fprintln(stderr, e.err) // starts with file and line, one line each
	} else {
		fmt.Fprintf(stderr, "ntsagent: %v\n", e.err)
	}
	if g.JSON && heeds(cmd, "json") {
		_ = printJSON(cmd, failureOf(e.err)) // stderr has it already
	}
	return e.code
}

// failure is what --json prints instead of an answer.
type failure struct {
	Error  string          `json:"error"`
	Errors []*config.Error `json:"errors,omitempty"` // what is wrong with a configuration, one by one

	Outcomes []status.Outcome `json:"outcomes,omitempty"` // what came of the names that did not fail
}

func failureOf(err error) failure {
	f := failure{Error: err.Error()}
	var some mixed
	if errors.As(err, &some) {
		f.Outcomes = some.outcomes
	}
	var one *config.Error
	switch {
	case errors.As(err, (*config.Errors)(&f.Errors)):
	case errors.As(err, &one):
		f.Errors = []*config.Error{one}
	}
	return f
}

func printJSON(cmd *cobra.Command, v any) error {
	enc := json.NewEncoder(cmd.OutOrStdout())
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false) // hints hold > and people read them
	return written(0, enc.Encode(v))
}
