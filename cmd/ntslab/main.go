// Ntslab is a pool member on one machine's loopback: a real ACME server with
// its DNS (pebble, in this process), an unmodified NTP daemon, and the real
// `ntsagent run` between them. It tells each step as it happens, checks the
// result like a stranger would, and then stays up to be queried. It needs no
// root, and nothing but the loopback device is touched.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
)

func main() {
	// Children die with the thread that started them (see child.go); the main
	// thread lives as long as the process.
	runtime.LockOSThread()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run returns the exit code: 0 good, 1 the lab failed, 2 wrong usage.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if own, err := runOwn(ctx, args); err != nil {
		fmt.Fprintf(stderr, "ntslab: %v\n", err)
		return 1
	} else if own {
		return 0
	}
	o, err := parseOptions(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintf(stderr, "ntslab: %v\n", err)
		return 2
	}
	if err := runLab(ctx, o, newStory(stdout)); err != nil {
		if ctx.Err() != nil {
			err = errors.New("interrupted before the lab was ready")
		}
		fmt.Fprintf(stderr, "ntslab: %v\n", err)
		return 1
	}
	return 0
}

// runOwn is what the lab calls itself for; false = args are a reader's.
func runOwn(ctx context.Context, args []string) (own bool, err error) {
	switch {
	case len(args) > 0 && args[0] == clockVerb:
		return true, execWithTheClockHeld(args[1:])
	case len(args) > 0 && args[0] == networkVerb:
		return true, runInNetwork(ctx, args[1:])
	}
	return false, nil
}

type options struct {
	once      bool
	challenge string
	daemon    string // one of daemons
	dir       string // "" = a temporary one
	agent     string
}

func parseOptions(args []string, stderr io.Writer) (options, error) {
	var o options
	f := flag.NewFlagSet("ntslab", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.BoolVar(&o.once, "once", false, "end after a successful check: exit code 0, or 1 with the reason")
	f.StringVar(&o.challenge, "challenge", "http-01", "how the name is proven: http-01 or tls-alpn-01")
	f.StringVar(&o.daemon, "daemon", "gateway", "the NTP server beside the agent: "+strings.Join(daemons, ", "))
	f.StringVar(&o.dir, "dir", "", "keep everything in `DIR` and write DIR/lab.env when all is ready (default: a temporary folder)")
	f.StringVar(&o.agent, "agent", "", "the ntsagent `PROGRAM` (default: the one beside ntslab)")
	err := f.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(stderr, "usage: ntslab [--once] [--challenge http-01|tls-alpn-01] [--daemon "+strings.Join(daemons, "|")+"] [--dir DIR] [--agent PROGRAM]")
		f.SetOutput(stderr)
		f.PrintDefaults()
	}
	switch {
	case err != nil:
	case f.NArg() > 0:
		err = fmt.Errorf("%q is not a flag; see ntslab --help", f.Arg(0))
	case o.challenge != "http-01" && o.challenge != "tls-alpn-01":
		err = fmt.Errorf("--challenge %q: it is http-01 or tls-alpn-01", o.challenge)
	case !slices.Contains(daemons, o.daemon):
		err = fmt.Errorf("--daemon %q: it is one of %s", o.daemon, strings.Join(daemons, ", "))
	}
	return o, err
}
