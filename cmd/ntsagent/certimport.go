package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"ntsagent/agent/status"
)

// maxChain is the largest chain that is served, in octets.
const maxChain = 1 << 20

func requestCommand(g *globals) *cobra.Command {
	var name string
	cmd := patient(&cobra.Command{
		Use:   "csr",
		Short: "print a certificate request, to have a certificate made elsewhere",
		Long: `csr prints a certificate request as PEM, for a CA that does not speak ACME. Its key
is made by the agent, of acme.key_type, and stays in its state_dir as
acme/names/NAME/csr.key (0600); nothing prints it. It is no key of an ACME order,
which may go by meanwhile.

Every csr prints a request for the same key until cert import has brought a
certificate for it; after that the next one has a new key.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			certs, err := named(cmd, g, name, true)
			if err != nil {
				return err
			}
			out, err := wish(cmd, g, status.Wish{Name: certs[0].Name}, (*status.Client).Request)
			if err != nil {
				return about(certs[0].Name, err)
			}
			return show(cmd, g, out, out.Request)
		},
	}, lookPatience, "config", "socket", "json")
	cmd.Flags().StringVar(&name, "name", "", "for whom; may be left out where the agent has one `name`")
	return cmd
}

func importCommand(g *globals) *cobra.Command {
	var name, path string
	cmd := asking(&cobra.Command{
		Use:   "import",
		Short: "serve a certificate that was made elsewhere",
		Long: `import hands a certificate chain to the agent: PEM, the server's own certificate
first, then the intermediates. It must be for the request that cert csr has printed,
or for the key in use. It is looked at as one from the CA is (name, key, dates, chain),
and serves at once, without a restart. If anything is wrong with it the certificate
in use stays.

The agent's schedule goes on with it: when a third of its life is left (half of it
if it lives for less than ten days) the agent orders its successor from
acme.directory, as it does for its own. Import the next one before that, or let
certificate.source: files take certificates from whoever makes them.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if path == "" {
				return misused(cmd, "cert import needs --chain FILE")
			}
			chain, err := readChain(path, cmd.InOrStdin())
			if err != nil {
				return exit(exitFailed, err)
			}
			certs, err := named(cmd, g, name, true)
			if err != nil {
				return err
			}
			out, err := wish(cmd, g, status.Wish{Name: certs[0].Name, Chain: string(chain)}, (*status.Client).Import)
			if err != nil {
				return about(certs[0].Name, err)
			}
			if err := say(cmd, g, importedText(out.Certificate)); err != nil {
				return err
			}
			return sayJSON(cmd, g, out)
		},
	}, orderPatience) // an order that is under way comes first
	cmd.Flags().StringVar(&path, "chain", "", "the chain's `file`; - is standard input")
	cmd.Flags().StringVar(&name, "name", "", "for whom; may be left out where the agent has one `name`")
	return cmd
}

func importedText(c status.Certificate) string {
	text := "ok    " + c.Name + ": " + certificateLine(c) + ", serves"
	switch {
	case c.RenewAt.IsZero():
	case c.RenewAt.After(c.NotAfter):
		text += "\n      it is over before a successor can be ordered from the CA, at " + minute(c.RenewAt) + ": import another until then"
	default:
		text += "\n      its successor is ordered from the CA at " + minute(c.RenewAt)
	}
	return text
}

// readChain reads the file itself: the agent may not, and shall not be led to one.
func readChain(path string, stdin io.Reader) ([]byte, error) {
	in := stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("read the chain: %w; fix: name the PEM file of the certificates with --chain, or - for standard input", err)
		}
		defer f.Close()
		in = f
	} else {
		path = "standard input"
	}
	chain, err := io.ReadAll(io.LimitReader(in, maxChain+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the chain: %w", err)
	case len(chain) > maxChain:
		return nil, fmt.Errorf("%s has more than %d bytes: that is no certificate chain", path, maxChain)
	case bytes.Contains(chain, []byte("PRIVATE KEY")):
		return nil, errors.New(path + " holds a private key: give the certificates alone; the key is with the agent")
	}
	return chain, nil
}
