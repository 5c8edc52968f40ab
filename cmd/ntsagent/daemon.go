package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ntsagent/agent/config"
	"ntsagent/agent/setup"
)

// restartPatience covers asking a daemon for its version and restarting it.
const restartPatience = time.Minute

// daemonFlags say which daemon, and where.
type daemonFlags struct {
	kind, conf, root, proc string
	allow                  []string
	yes, restart           bool
}

func daemonCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "daemon",
		Short: "find the NTP server of this host and set it up for the agent, or undo that",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var f daemonFlags
	p := cmd.PersistentFlags()
	p.StringVar(&f.root, "root", "/", "work on the system whose file system is in `folder`")
	p.StringVar(&f.proc, "proc", "", "its /proc (default: /proc for /, none for other folders)")
	cmd.AddCommand(detectCommand(g, &f), diffCommand(g, &f), applyCommand(g, &f), revertCommand(g, &f))
	return cmd
}

func detectCommand(g *globals, f *daemonFlags) *cobra.Command {
	return patient(&cobra.Command{
		Use:   "detect",
		Short: "say which NTP server there is and what keeps the agent from working with it",
		Long: `detect looks who holds the NTP port, which daemon and version that is, how the
agent would work with it and what is in the way. It changes nothing.

It exits 0 when nothing is in the way, 1 when something is or no daemon is there,
and 4 when it may not look.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := f.config(cmd, g)
			if err != nil {
				return err
			}
			d, err := setup.Detect(cmd.Context(), f.host(), portsOf(c), optionsOf(c))
			if err != nil {
				return setupError(err)
			}
			d.InWay = append(d.InWay, misfits(c, g.Config, d)...)
			if err := show(cmd, g, d, detectText(d)); err != nil {
				return err
			}
			if d.Kind == setup.None || len(d.InWay) > 0 {
				return exit(exitFailed, nil)
			}
			return nil
		},
	}, lookPatience, "config", "json", "quiet")
}

func diffCommand(g *globals, f *daemonFlags) *cobra.Command {
	cmd := patient(&cobra.Command{
		Use:   "diff",
		Short: "show what apply would change, and change nothing",
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, p, err := f.plan(cmd, g)
			if err != nil {
				return err
			}
			return show(cmd, g, planned{p, p.Diff()}, p.Diff()+planText(p))
		},
	}, lookPatience, "config", "json", "quiet")
	f.planFlags(cmd)
	return cmd
}

func applyCommand(g *globals, f *daemonFlags) *cobra.Command {
	cmd := patient(&cobra.Command{
		Use:   "apply",
		Short: "set the NTP server up for the agent, after showing what changes",
		Long: `apply writes what diff shows, after it has asked, and keeps copies of what was
there in the folder beside state_dir whose name ends in -setup, for revert. That
folder is root's alone: it is not in state_dir, which the agent's user can write to.

It writes nothing where another user could lead it elsewhere, and believes no
process of another user: the daemon of such a one is named by --daemon and
--daemon-config.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, p, err := f.plan(cmd, g)
			if err != nil {
				return err
			}
			if err := show(cmd, g, planned{p, p.Diff()}, p.Diff()+planText(p)+f.thenText(p.Restart)); err != nil || len(p.Changes) == 0 {
				return err
			}
			if err := f.agreed(cmd, g, f.what("apply this")); err != nil {
				return err
			}
			if err := setup.Apply(f.host(), p, c.StateDir, time.Now()); err != nil {
				return setupError(err)
			}
			return f.counts(cmd, g, "applied", p.Restart)
		},
	}, restartPatience, "config", "json", "quiet")
	f.planFlags(cmd)
	f.doFlags(cmd)
	return cmd
}

func revertCommand(g *globals, f *daemonFlags) *cobra.Command {
	cmd := patient(&cobra.Command{
		Use:   "revert",
		Short: "put back what was there before apply, unless it was changed since",
		Long: `revert goes by what apply kept in the folder beside state_dir whose name ends in
-setup, and shows what it does before it asks. What others than root could have
written there counts for nothing; the same goes for STATE_DIR/setup, where older
versions kept it.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := f.config(cmd, g)
			if err != nil {
				return err
			}
			u, err := setup.PlanRevert(f.host(), c.StateDir)
			if errors.Is(err, setup.ErrNotApplied) {
				return show(cmd, g, u, "ok    nothing is applied\n")
			}
			if err != nil {
				if u.Changed != "" && !g.JSON {
					_, _ = fmt.Fprint(cmd.OutOrStdout(), u.Changed) // the error tells the rest
				}
				return setupError(err)
			}
			text := u.Diff()
			for _, n := range u.Notes {
				text += "note  " + n + "\n"
			}
			if err := show(cmd, g, u, text+f.thenText(u.Restart)); err != nil {
				return err
			}
			if err := f.agreed(cmd, g, f.what("revert this")); err != nil {
				return err
			}
			if err := setup.Revert(f.host(), u, c.StateDir); err != nil {
				return setupError(err)
			}
			return f.counts(cmd, g, "reverted", u.Restart)
		},
	}, restartPatience, "config", "json", "quiet")
	f.doFlags(cmd)
	return cmd
}

func (f *daemonFlags) planFlags(cmd *cobra.Command) {
	p := cmd.Flags()
	p.StringVar(&f.kind, "daemon", "auto", "the daemon: auto, chrony, ntpsec, ntpd-rs, ntpd or openntpd")
	p.StringVar(&f.conf, "daemon-config", "", "the daemon's configuration `file` (default: the one it was started with)")
	p.StringSliceVar(&f.allow, "allow", nil, "`prefix` chronyd is to serve, besides those in its configuration")
}

func (f *daemonFlags) doFlags(cmd *cobra.Command) {
	p := cmd.Flags()
	p.BoolVar(&f.yes, "yes", false, "do not ask")
	p.BoolVar(&f.restart, "restart", false, "restart the daemon as well")
}

func (f *daemonFlags) host() setup.Host {
	h := setup.Host{Root: f.root, Proc: f.proc}
	if abs, err := filepath.Abs(f.root); err == nil { // else the working folder is gone
		h.Root = abs
	}
	if h.Proc == "" && filepath.Clean(f.root) == "/" {
		h.Proc = "/proc"
	}
	return h
}

// config is the agent's own; there need not be one yet.
func (f *daemonFlags) config(cmd *cobra.Command, g *globals) (*config.Config, error) {
	if _, err := os.Stat(g.Config); errors.Is(err, fs.ErrNotExist) && !cmd.Flags().Changed("config") {
		return config.Default(), nil
	}
	c, err := config.Load(g.Config)
	if err != nil {
		return nil, configError(err)
	}
	return c, nil
}

func portsOf(c *config.Config) setup.Ports {
	p := setup.Ports{NTP: c.Daemon.Address.Port(), KE: 4460}
	if len(c.KE.Listen) > 0 {
		p.KE = c.KE.Listen[0].Port()
	}
	return p
}

// misfits are what our configuration says against the daemon that daemon.kind: auto
// turns out to be, for which the agent would not start.
func misfits(c *config.Config, file string, d setup.Daemon) []setup.Finding {
	kind := d.AgentKind()
	if c.Daemon.Kind != config.KindAuto || kind == "" {
		return nil
	}
	_, err := c.WithKind(file, kind)
	var all config.Errors
	errors.As(err, &all)
	var out []setup.Finding
	for _, e := range all {
		out = append(out, setup.Finding{What: e.Key + ": " + e.Problem, Fix: e.Hint})
	}
	return out
}

// plan finds the daemon and what it lacks.
func (f *daemonFlags) plan(cmd *cobra.Command, g *globals) (*config.Config, setup.Plan, error) {
	allow, err := f.checked(cmd)
	if err != nil {
		return nil, setup.Plan{}, err
	}
	c, err := f.config(cmd, g)
	if err != nil {
		return nil, setup.Plan{}, err
	}
	o := optionsOf(c)
	o.Allow = allow
	if f.kind != "auto" {
		o.Kind = f.kind
	}
	h := f.host()
	d, err := setup.Detect(cmd.Context(), h, portsOf(c), o)
	if k := setup.Kind(f.kind); f.kind != "auto" && (err != nil || d.Kind != k) {
		d, err = setup.Named(h, k), nil
	}
	if err != nil {
		return nil, setup.Plan{}, setupError(err)
	}
	if f.conf != "" {
		d.Config = f.conf
	}
	p, err := setup.PlanFor(h, d, o)
	if err != nil {
		return nil, setup.Plan{}, setupError(err)
	}
	return c, p, nil
}

// optionsOf is what our configuration wants of the daemon.
func optionsOf(c *config.Config) setup.Options {
	keys := c.Daemon.NTPsec.KeysFile
	if keys == filepath.Join(c.StateDir, exportedKeys) { // a copy, which ntpd itself must not write
		keys = config.Default().Daemon.NTPsec.KeysFile
	}
	return setup.Options{
		Kind:         c.Daemon.Kind,
		Certificate:  c.Daemon.ServesKE(),
		ParkedKEPort: c.Daemon.Chrony.ParkedKEPort,
		KeysDir:      filepath.Dir(c.Daemon.Chrony.KeysFile),
		Address:      c.Daemon.Address,
		NTPsecKeys:   keys,
		NTPDRSKeys:   c.Daemon.NTPDRS.KeysFile,
	}
}

// checked refuses flags that make no sense, and reads --allow.
func (f *daemonFlags) checked(cmd *cobra.Command) (allow []netip.Prefix, err error) {
	kinds := []setup.Kind{"auto", setup.Chrony, setup.NTPsec, setup.NTPDRS, setup.NTPD, setup.OpenNTPD}
	if !slices.Contains(kinds, setup.Kind(f.kind)) {
		return nil, misused(cmd, fmt.Sprintf("--daemon %s: use one of auto, chrony, ntpsec, ntpd-rs, ntpd, openntpd", f.kind))
	}
	if f.conf != "" && !filepath.IsAbs(f.conf) {
		return nil, misused(cmd, fmt.Sprintf("--daemon-config %s: must be an absolute path", f.conf))
	}
	for _, a := range f.allow {
		p, err := netip.ParsePrefix(a)
		if err != nil {
			return nil, misused(cmd, fmt.Sprintf("--allow %s: use a prefix like 192.0.2.0/24 or ::/0", a))
		}
		allow = append(allow, p.Masked())
	}
	return allow, nil
}

// agreed asks before anything is changed.
func (f *daemonFlags) agreed(cmd *cobra.Command, g *globals, what string) error {
	return agreed(cmd, g, f.yes, what)
}

// agreed asks whether to go on, unless yes says so.
func agreed(cmd *cobra.Command, g *globals, yes bool, what string) error {
	if yes {
		return nil
	}
	if g.JSON || g.Quiet {
		return misused(cmd, "--json and --quiet cannot ask: add --yes")
	}
	if err := written(fmt.Fprintf(cmd.OutOrStdout(), "%s? [y/N] ", what)); err != nil {
		return err
	}
	answer, _ := bufio.NewReader(cmd.InOrStdin()).ReadString('\n') // no answer is no
	if a := strings.ToLower(strings.TrimSpace(answer)); a == "y" || a == "yes" {
		return nil
	}
	return exit(exitFailed, errors.New("nothing was changed: the answer was not yes"))
}

// restarts tells whether the daemon is restarted: only that of this host can be.
func (f *daemonFlags) restarts() bool { return f.restart && filepath.Clean(f.root) == "/" }

// thenText is what is run behind the changes, told before it is asked for.
func (f *daemonFlags) thenText(commands [][]string) string {
	text := ""
	for _, argv := range commands {
		if f.restarts() {
			text += "then  " + strings.Join(argv, " ") + "\n"
		}
	}
	return text
}

// what is what is asked for.
func (f *daemonFlags) what(change string) string {
	if f.restarts() {
		return change + " and restart the daemon"
	}
	return change
}

// counts restarts the daemon, or says that somebody must.
func (f *daemonFlags) counts(cmd *cobra.Command, g *globals, done string, commands [][]string) error {
	text := "ok    " + done + "\n"
	if f.restarts() && len(commands) > 0 {
		if err := setup.Restart(cmd.Context(), f.host(), commands); err != nil {
			return exit(exitFailed, err)
		}
		text = "ok    " + done + " and restarted\n"
	} else {
		for _, argv := range commands {
			text += "next  " + strings.Join(argv, " ") + "\n"
		}
	}
	if g.JSON || g.Quiet {
		return nil
	}
	return written(fmt.Fprint(cmd.OutOrStdout(), text))
}

// planned is a plan as JSON.
type planned struct {
	setup.Plan
	Diff string `json:"diff"`
}

func planText(p setup.Plan) string {
	var b strings.Builder
	for _, n := range p.Notes {
		fmt.Fprintf(&b, "note  %s\n", n)
	}
	for _, w := range p.Warnings {
		fmt.Fprintf(&b, "warn  %s\n      fix: %s\n", w.What, w.Fix)
	}
	return b.String()
}

func detectText(d setup.Daemon) string {
	var b strings.Builder
	row := func(name, value string) { fmt.Fprintf(&b, "%-14s %s\n", name, value) }
	if d.Kind == setup.None {
		row("daemon", "none: no NTP server runs here, and none that we know is installed")
		row("", "fix: install chrony, or name the daemon's own: --daemon")
		for _, f := range d.InWay {
			row("in the way", f.What)
			row("", "fix: "+f.Fix)
		}
		return b.String()
	}
	row("daemon", strings.TrimSpace(fmt.Sprintf("%s %s", d.Program, d.Version))+kindNote(d))
	switch {
	case d.PID == 0:
		row("pid", "does not run")
	case d.Unit != "":
		row("pid", fmt.Sprintf("%d, %s", d.PID, d.Unit))
	default:
		row("pid", fmt.Sprint(d.PID))
	}
	if d.Config == "" {
		row("configuration", "none found")
	} else {
		row("configuration", d.Config)
	}
	row("mode", fmt.Sprintf("%s: %s", d.Mode, d.Why))
	if len(d.InWay) == 0 {
		row("in the way", "nothing")
	}
	for _, f := range d.InWay {
		row("in the way", f.What)
		row("", "fix: "+f.Fix)
	}
	return b.String()
}

// kindNote tells the daemons called ntpd apart.
func kindNote(d setup.Daemon) string {
	switch d.Kind {
	case setup.NTPsec:
		return " of NTPsec"
	case setup.OpenNTPD:
		return " of OpenNTPD"
	case setup.NTPD:
		return " of ntp.org"
	case setup.NTPDRS:
		return " of ntpd-rs"
	}
	return ""
}

// setupError gives an error of setup its exit code.
func setupError(err error) error {
	switch {
	case errors.Is(err, setup.ErrNotPermitted):
		return exit(exitNotPermitted, err)
	case errors.Is(err, setup.ErrLocked):
		return exit(exitTemporary, fmt.Errorf("another ntsagent sets up a daemon: %w; fix: try again", err))
	}
	return exit(exitFailed, err)
}
