package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ntsagent/agent/status"
)

// orderPatience covers a look at the DNS and one order with both challenges.
const orderPatience = 6 * time.Minute

func certCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cert",
		Short: "look at the certificates, or have something done about one",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		asking(&cobra.Command{
			Use:   "show",
			Short: "print the certificate of each name and when it is renewed",
			RunE: func(cmd *cobra.Command, _ []string) error {
				d, err := fetch(cmd, g)
				if err != nil {
					return err
				}
				return show(cmd, g, d.Certificates, status.CertificatesText(d))
			},
		}, lookPatience),
		renewCommand(g),
		revokeCommand(g),
		requestCommand(g),
		importCommand(g),
	)
	return cmd
}

func renewCommand(g *globals) *cobra.Command {
	var name string
	var force bool
	cmd := asking(&cobra.Command{
		Use:   "renew",
		Short: "have certificates ordered now if they are due, and wait for them",
		Long: `renew has the agent ask the CA whether a certificate is due, order it if so, and
waits for what comes of it. A failure that the agent would sit out is not waited
for. Without --name it goes through all names; those that are not due stay as they
are, and the exit code is 0.

--force orders although nothing is due, and past the guard that keeps a staging CA
from replacing a certificate that clients trust. Nothing goes past what the CA
allows (five certificates for the same name in a week, five failed validations in
an hour, a wait that it has asked for), nor past what the DNS says of the name.

It exits 5 when the same command may do better later, and 1 when somebody has to
mend something first. The certificate in use serves on in any case.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			certs, err := named(cmd, g, name, false)
			if err != nil {
				return err
			}
			var failed error
			outcomes := make([]status.Outcome, 0, len(certs))
			for _, c := range certs {
				out, err := wish(cmd, g, status.Wish{Name: c.Name, Force: force}, (*status.Client).Renew)
				if err != nil {
					failed = worse(failed, about(c.Name, err))
					continue
				}
				outcomes = append(outcomes, out)
				if err := say(cmd, g, renewedText(out)); err != nil {
					return err
				}
			}
			if failed != nil {
				return besides(failed, outcomes)
			}
			return sayJSON(cmd, g, outcomes)
		},
	}, orderPatience)
	cmd.Flags().StringVar(&name, "name", "", "one `name` alone (default: all of them)")
	cmd.Flags().BoolVar(&force, "force", false, "order although it is not due, and past the staging guard")
	return cmd
}

// mixed is what went wrong with some names, and what came of the others.
type mixed struct {
	error
	outcomes []status.Outcome
}

func (m mixed) Unwrap() error { return m.error }

func besides(failed error, outcomes []status.Outcome) error {
	var e *exitError
	if !errors.As(failed, &e) || e.err == nil {
		return failed
	}
	return exit(e.code, mixed{e.err, outcomes})
}

func renewedText(o status.Outcome) string {
	c := o.Certificate
	if o.NotDue {
		return "ok    " + c.Name + ": not due until " + minute(c.RenewAt) + "; " + o.Hint
	}
	return "ok    " + c.Name + ": " + certificateLine(c)
}

// certificateLine tells a certificate from others.
func certificateLine(c status.Certificate) string {
	return fmt.Sprintf("certificate %s by %s, valid from %s to %s", c.Serial, c.Issuer, minute(c.NotBefore), minute(c.NotAfter))
}

func minute(t time.Time) string { return t.UTC().Format("2006-01-02T15:04Z") }

// named gives the certificate of a name, or of all where none is given. With one, the agent must have just one name then.
func named(cmd *cobra.Command, g *globals, name string, one bool) ([]status.Certificate, error) {
	d, err := fetch(cmd, g)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, c := range d.Certificates {
		if name == c.Name {
			return []status.Certificate{c}, nil
		}
		names = append(names, c.Name)
	}
	switch {
	case name != "":
		return nil, misused(cmd, fmt.Sprintf("--name %s: the agent has %s", name, strings.Join(names, ", ")))
	case one && len(names) != 1:
		return nil, misused(cmd, "say which with --name: the agent has "+strings.Join(names, ", "))
	}
	return d.Certificates, nil
}

// wish has the agent do something about a certificate.
func wish(cmd *cobra.Command, g *globals, w status.Wish, do func(*status.Client, context.Context, status.Wish) (status.Outcome, error)) (status.Outcome, error) {
	var out status.Outcome
	err := g.ask(cmd.Context(), func(c *status.Client, ctx context.Context) (err error) {
		out, err = do(c, ctx, w)
		if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return status.Refuse(status.ErrTemporary, fmt.Sprintf("no outcome within %s; what has begun goes on: ntsagent cert show tells what comes of it", g.Timeout))
		}
		return err
	})
	return out, err
}

// about says which name an error is about.
func about(name string, err error) error {
	var e *exitError
	if errors.As(err, &e) && e.err != nil {
		return exit(e.code, fmt.Errorf("%s: %w", name, e.err))
	}
	return fmt.Errorf("%s: %w", name, err)
}

// worse joins what went wrong with several names. That somebody has to mend something says more than that time will.
func worse(a, b error) error {
	if a == nil {
		return b
	}
	var x, y *exitError
	if !errors.As(a, &x) || !errors.As(b, &y) {
		return errors.Join(a, b)
	}
	code := x.code
	if code == exitTemporary {
		code = y.code
	}
	return exit(code, errors.Join(x.err, y.err))
}

// say prints a line for people.
func say(cmd *cobra.Command, g *globals, text string) error {
	if g.JSON {
		return nil
	}
	return show(cmd, g, nil, text+"\n")
}

// sayJSON prints a value where JSON was asked for.
func sayJSON(cmd *cobra.Command, g *globals, value any) error {
	if !g.JSON {
		return nil
	}
	return show(cmd, g, value, "")
}
