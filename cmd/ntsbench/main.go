// Ntsbench loads NTS servers and verifies every answer. `ntsbench bench`
// measures the agent beside chronyd 4.3 and beside bare floors on the loopback
// and prints one table; the other verbs load one server, which should be your
// own.
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

const usage = `usage: ntsbench VERB [flags]; ntsbench VERB --help lists them

  bench   measure the agent, chronyd 4.3 and the floors on the loopback: one table
  ke      load a server with NTS-KE sessions
  nts     load a server with NTS queries
  plain   load a server with NTP queries without NTS
  idle    hold idle connections to an NTS-KE server and see how new clients fare

Load only servers of your own.
`

// errUsage is of a command line that cannot be understood.
var errUsage = errors.New("wrong usage")

// errOutcome is of a load that was done and went badly, which is told although
// Ctrl-C has ended it.
var errOutcome = errors.New("load failed")

// run returns the exit code: 0 done, 1 something failed or could not be measured,
// 2 wrong usage.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 || args[0] == "-h" || args[0] == "-help" || args[0] == "--help" {
		io.WriteString(stdout, usage)
		return 0
	}
	verb, ok := map[string]func(ctx context.Context, args []string, stdout, stderr io.Writer) error{
		"bench": runBench, "ke": runKE, "nts": runNTS, "plain": runPlain, "idle": runIdle, "floor": runFloor,
	}[args[0]]
	if !ok {
		fmt.Fprintf(stderr, "ntsbench: %q is no verb; see ntsbench --help\n", args[0])
		return 2
	}
	err := verb(ctx, args[1:], stdout, stderr)
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errUsage):
		fmt.Fprintf(stderr, "ntsbench: %v\n", err)
		return 2
	case ctx.Err() != nil && !errors.Is(err, errOutcome):
		err = errors.New("interrupted")
	}
	fmt.Fprintf(stderr, "ntsbench: %v\n", err)
	return 1
}

// parse reads a verb's flags. Help goes to stdout.
func parse(f *flag.FlagSet, args []string, stdout io.Writer) error {
	f.SetOutput(io.Discard)
	err := f.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		f.SetOutput(stdout)
		fmt.Fprintf(stdout, "usage: ntsbench %s [flags]\n", f.Name())
		f.PrintDefaults()
		return err
	case err != nil:
		return fmt.Errorf("%w of %s: %w", errUsage, f.Name(), err)
	case f.NArg() > 0:
		return fmt.Errorf("%w of %s: %q is not a flag", errUsage, f.Name(), f.Arg(0))
	}
	return nil
}
