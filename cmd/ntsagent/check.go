package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"ntsagent/ntske/client"
)

// checkCommand is `ntsagent check`: it does what a client that knows only the
// name would do, and says how far it came.
func checkCommand(g *globals) *cobra.Command {
	var only4, only6 bool
	var count int
	var ca, resolver string
	var aeads []uint
	cmd := patient(&cobra.Command{
		Use:   "check HOST[:PORT]",
		Short: "check a server as a stranger would: key exchange and authenticated queries",
		Long: `check resolves HOST, exchanges keys at each of its addresses and queries the NTP
server with a cookie from the key exchange and with a refreshed one.

It exits 0 when every address was authenticated, 1 when the server failed at
one, and 5 when this tool could not try, for want of a route or a resolver.`,
		Args: oneArgument("HOST[:PORT]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := checkTarget(args[0])
			if err != nil {
				return exit(exitUsage, err)
			}
			if count < 2 {
				return exit(exitUsage, fmt.Errorf("--count %d: at least 2 are needed, one for each kind of cookie", count))
			}
			c.Count, c.Timeout = count, g.Timeout
			if c.AEADs, err = client.Algorithms(aeads); err != nil {
				return exit(exitUsage, fmt.Errorf("--aead %w", err))
			}
			switch {
			case only4:
				c.Family = 4
			case only6:
				c.Family = 6
			}
			if c.Resolver, err = checkResolver(resolver); err != nil {
				return exit(exitUsage, err)
			}
			if c.Roots, err = checkRoots(ca); errors.Is(err, fs.ErrPermission) {
				return exit(exitNotPermitted, err)
			} else if err != nil {
				return exit(exitUsage, err)
			}
			return showCheck(cmd, g, client.Check(cmd.Context(), c))
		},
	}, lookPatience, "json", "quiet")
	f := cmd.Flags()
	f.BoolVarP(&only4, "ipv4", "4", false, "IPv4 only")
	f.BoolVarP(&only6, "ipv6", "6", false, "IPv6 only")
	f.IntVar(&count, "count", 2, "authenticated replies wanted of each address")
	f.UintSliceVar(&aeads, "aead", nil, "algorithm `numbers`, such as 15,30: each is tried alone at each address (default: 15)")
	f.StringVar(&ca, "ca", "", "PEM `file` of the only roots to trust (default: the system's)")
	f.StringVar(&resolver, "resolver", "", "`address`[:port] of the DNS server to ask (default: the system's)")
	cmd.MarkFlagsMutuallyExclusive("ipv4", "ipv6")
	return cmd
}

// showCheck prints the report and turns it into an exit code.
func showCheck(cmd *cobra.Command, g *globals, r client.Report) error {
	var err error
	switch {
	case g.JSON:
		err = printJSON(cmd, r)
	case !g.Quiet:
		err = writeReport(cmd.OutOrStdout(), r, !g.NoColor && isTerminal(cmd.OutOrStdout()))
	}
	if err != nil {
		return exit(exitTemporary, fmt.Errorf("print the report: %w", err))
	}
	code := exitGood
	switch r.Fault() {
	case client.Server:
		code = exitFailed
	case client.Tool:
		code = exitTemporary
	}
	if code == exitGood {
		return nil
	}
	if g.Quiet && !g.JSON {
		return exit(code, errors.New(firstProblem(r)))
	}
	return exit(code, nil)
}

// checkTarget reads HOST[:PORT]: a host name, an address, or either with a
// port, an IPv6 address then in brackets.
func checkTarget(s string) (client.CheckConfig, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return client.CheckConfig{Name: a.String()}, nil
	}
	host, port, hasPort := strings.Cut(s, ":")
	if strings.HasPrefix(s, "[") {
		host, port, hasPort = strings.Cut(s[1:], "]")
		if a, err := netip.ParseAddr(host); err != nil || !a.Is6() || hasPort && port != "" && port[0] != ':' || !hasPort {
			return client.CheckConfig{}, fmt.Errorf("%q: write an IPv6 address with a port as [ADDRESS]:PORT", s)
		}
		hasPort, port = port != "", strings.TrimPrefix(port, ":")
	}
	c := client.CheckConfig{Name: strings.ToLower(host)}
	if hasPort {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return client.CheckConfig{}, fmt.Errorf("%q: %q is no port; use 1 to 65535", s, port)
		}
		c.Port = uint16(n)
	}
	foreign := func(r rune) bool { return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789-._:", r) }
	if host == "" || len(host) > 254 || strings.ContainsFunc(c.Name, foreign) {
		return client.CheckConfig{}, fmt.Errorf("%q is no host name; write one in ASCII, as xn--… where it is not", s)
	}
	return c, nil
}

// checkResolver completes ADDRESS to ADDRESS:53.
func checkResolver(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return netip.AddrPortFrom(a, 53).String(), nil
	}
	if _, err := netip.ParseAddrPort(s); err != nil {
		return "", fmt.Errorf("--resolver %q: use ADDRESS or ADDRESS:PORT", s)
	}
	return s, nil
}

// checkRoots reads the roots of --ca; nil means the system's.
func checkRoots(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("--ca: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("--ca %s: no PEM certificate in it", file)
	}
	return pool, nil
}

// isTerminal reports whether w shows colours to a person.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
